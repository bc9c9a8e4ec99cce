"""What can be done next with a training, a rollout or a server: named by `decide`, done by the engine."""

from dataclasses import dataclass

from router.core.models import Failure, RolloutPhase, ServerPhase, TrainingPhase


@dataclass(frozen=True)
class Wait:
    """Nothing to do before an event, or before this time (epoch seconds)."""

    until: float | None = None
    reason: str | None = None  # what a person should know of it


@dataclass(frozen=True)
class PrepareRun:
    """Create the run in the registry and pin the image to its digest."""


@dataclass(frozen=True)
class LaunchTrainer:
    pass


@dataclass(frozen=True)
class StopTrainer:
    pass


@dataclass(frozen=True)
class RecordExit:
    """The trainer has exited with 0: keep its log and go on to what it registered."""


@dataclass(frozen=True)
class CollectVersion:
    """Find, or register, the version that the trainer made."""


@dataclass(frozen=True)
class ConcludeTraining:
    """Record how it ended, before the run is closed in the registry."""

    outcome: TrainingPhase
    failure: Failure | None


@dataclass(frozen=True)
class CloseTraining:
    """Close the run, put the workload away, enter the terminal phase, start the promised rollout."""


TrainingAction = (
    Wait
    | PrepareRun
    | LaunchTrainer
    | StopTrainer
    | RecordExit
    | CollectVersion
    | ConcludeTraining
    | CloseTraining
)


@dataclass(frozen=True)
class PrepareCandidate:
    """Choose the slot, pin the image, record the server that will be launched or is still warm."""


@dataclass(frozen=True)
class StopActive:
    """Two servers do not fit: the active one makes room."""


@dataclass(frozen=True)
class LaunchCandidate:
    pass


@dataclass(frozen=True)
class ProbeCandidate:
    pass


@dataclass(frozen=True)
class JudgeCandidate:
    """Run the gates."""


@dataclass(frozen=True)
class ShiftTraffic:
    pass


@dataclass(frozen=True)
class EnterStep:
    """Write down the next share, and what was found at the one before. The traffic follows."""

    step: int
    weight: float


@dataclass(frozen=True)
class SetWeight:
    """Make traffic what the record says."""


@dataclass(frozen=True)
class PauseRollout:
    reason: str


@dataclass(frozen=True)
class RecordShift:
    """Traffic already names the candidate: write down what follows from that."""


@dataclass(frozen=True)
class PromoteVersion:
    """Move the registry's alias to what is being served."""


@dataclass(frozen=True)
class FinishRollout:
    warning: str | None = None


@dataclass(frozen=True)
class TakeBack:
    """The watch after the switch has found a breach: users go back to what they had."""

    failure: Failure


@dataclass(frozen=True)
class AbortRollout:
    """Record how it ends, before the candidate is put away."""

    outcome: RolloutPhase
    failure: Failure


@dataclass(frozen=True)
class PutCandidateAway:
    pass


RolloutAction = (
    Wait
    | PrepareCandidate
    | StopActive
    | LaunchCandidate
    | ProbeCandidate
    | JudgeCandidate
    | EnterStep
    | SetWeight
    | PauseRollout
    | ShiftTraffic
    | RecordShift
    | PromoteVersion
    | TakeBack
    | FinishRollout
    | AbortRollout
    | PutCandidateAway
)


@dataclass(frozen=True)
class MoveServer:
    phase: ServerPhase
    reason: str


@dataclass(frozen=True)
class StopServer:
    pass


@dataclass(frozen=True)
class WatchDrain:
    """It still answers requests, and no event tells when the last one is done: look again soon."""


ServerAction = Wait | MoveServer | StopServer | WatchDrain
