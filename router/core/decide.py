"""What to do next with a training, a rollout or a server: pure functions of the record and what is seen.

The same functions run after a crash as before it, so there is no recovery code apart from them. Each returns
one action; the engine carries it out, records the outcome, and asks again.
"""

from dataclasses import dataclass

from router.core.actions import (
    AbortRollout,
    CloseTraining,
    CollectVersion,
    ConcludeTraining,
    FinishRollout,
    JudgeCandidate,
    LaunchCandidate,
    LaunchTrainer,
    MoveServer,
    PrepareCandidate,
    PrepareRun,
    ProbeCandidate,
    PromoteVersion,
    PutCandidateAway,
    RecordExit,
    RecordShift,
    RolloutAction,
    ServerAction,
    ShiftTraffic,
    StopServer,
    StopTrainer,
    TrainingAction,
    Wait,
    WatchDrain,
)
from router.core.models import (
    Failure,
    Rollout,
    RolloutPhase,
    Server,
    ServerPhase,
    Training,
    TrainingPhase,
)
from router.core.traffic import Traffic
from router.core.workload import WorkloadState

# --- trainings -------------------------------------------------------------------------------------


def decide_training(training: Training, workload: WorkloadState | None, now: float) -> TrainingAction:
    if training.phase.terminal:
        return Wait()
    if training.outcome is not None:
        return CloseTraining()
    if training.phase in {TrainingPhase.QUEUED, TrainingPhase.STARTING}:
        if training.cancel_requested:
            return ConcludeTraining(TrainingPhase.CANCELLED, _cancelled())
        return PrepareRun() if training.phase is TrainingPhase.QUEUED else LaunchTrainer()
    if training.phase is TrainingPhase.REGISTERING:
        if training.cancel_requested:
            return ConcludeTraining(TrainingPhase.CANCELLED, _cancelled())
        return CollectVersion()
    return _decide_running_training(training, workload, now)


def _decide_running_training(
    training: Training, workload: WorkloadState | None, now: float
) -> TrainingAction:
    deadline = training.deadline
    if workload is None:
        return ConcludeTraining(TrainingPhase.FAILED, _lost(training))
    if workload.running:
        overdue = deadline is not None and now >= deadline
        return StopTrainer() if training.cancel_requested or overdue else Wait(deadline)
    if training.cancel_requested:
        return ConcludeTraining(TrainingPhase.CANCELLED, _cancelled())
    if deadline is not None and (workload.finished_at or now) >= deadline:
        return ConcludeTraining(TrainingPhase.TIMED_OUT, _timed_out(training))
    if workload.exit_code != 0:
        return ConcludeTraining(TrainingPhase.FAILED, _failed(training, workload))
    return RecordExit()


def _cancelled() -> Failure:
    return Failure(code="training_cancelled", message="the training was cancelled", status=409)


def _lost(training: Training) -> Failure:
    return Failure(
        code="trainer_lost",
        message=f"trainer {training.container} is gone and left no exit code",
        hint="it was removed by hand, or the machine was restarted; start the training again",
    )


def _timed_out(training: Training) -> Failure:
    return Failure(
        code="trainer_timed_out",
        message=f"trainer {training.container} overran its timeout of {training.timeout_seconds:g} s"
        " and was stopped",
        hint="raise `timeout` in the trainer's spec, or give it less to do",
    )


def _failed(training: Training, workload: WorkloadState) -> Failure:
    if workload.out_of_memory:
        return Failure(
            code="trainer_out_of_memory",
            message=f"trainer {training.container} ran out of memory and was killed",
            hint="raise `resources.memory` in the trainer's spec",
        )
    if workload.exit_code is None:
        return _lost(training)
    return Failure(
        code="trainer_failed",
        message=f"trainer failed (exit={workload.exit_code})",
        hint="the end of its log is in `logs_tail`",
    )


# --- rollouts --------------------------------------------------------------------------------------


def decide_rollout(
    rollout: Rollout, traffic: Traffic, candidate: WorkloadState | None, now: float
) -> RolloutAction:
    phase = rollout.phase
    if phase.terminal:
        return Wait()
    if phase is RolloutPhase.ABORTING:
        return PutCandidateAway()
    switched = traffic.active is not None and traffic.active.server_id == rollout.server_id
    if phase.switched or (phase is RolloutPhase.SHIFTING and switched):
        return _decide_switched_rollout(rollout)
    if rollout.abort_requested or rollout.preempted:
        return AbortRollout(RolloutPhase.ROLLED_BACK, _aborted(rollout))
    if phase is RolloutPhase.PENDING:
        return PrepareCandidate()
    if now >= rollout.ready_deadline:
        return AbortRollout(RolloutPhase.FAILED, _not_ready_in_time(rollout))
    if phase is RolloutPhase.LAUNCHING:
        return LaunchCandidate()
    if candidate is None or not candidate.running:
        return AbortRollout(RolloutPhase.FAILED, _candidate_died(rollout, candidate))
    if phase is RolloutPhase.PROBING:
        return ProbeCandidate()
    return JudgeCandidate() if phase is RolloutPhase.GATING else ShiftTraffic()


def _decide_switched_rollout(rollout: Rollout) -> RolloutAction:
    """Users get the candidate already, so an abort comes too late; a rollback takes over where it stands."""
    if rollout.preempted:
        return AbortRollout(RolloutPhase.ROLLED_BACK, None)
    if rollout.phase is RolloutPhase.SHIFTING:
        return RecordShift()
    return PromoteVersion() if rollout.phase is RolloutPhase.PROMOTING else FinishRollout()


def _aborted(rollout: Rollout) -> Failure:
    why = "a rollback took its place" if rollout.preempted else "it was aborted"
    return Failure(
        code="rollout_aborted",
        message=f"the rollout of {rollout.model_uri} ended before the switch: {why};"
        " the active server was left as it was",
        status=409,
    )


def _not_ready_in_time(rollout: Rollout) -> Failure:
    waited = rollout.ready_deadline - rollout.created_at
    return Failure(
        code="candidate_unhealthy",
        message=f"the candidate for {rollout.model_uri} was not ready within {waited:g} s;"
        " it got no traffic and the active server was left as it was",
        hint="the end of its log is in `logs_tail`; raise `wait_ready_seconds` if it only starts slowly",
        status=503,
    )


def _candidate_died(rollout: Rollout, candidate: WorkloadState | None) -> Failure:
    if candidate is None:
        how = "was removed"
    elif candidate.out_of_memory:
        how = "ran out of memory"
    else:
        how = f"exited with {candidate.exit_code}"
    return Failure(
        code="candidate_unhealthy",
        message=f"the candidate for {rollout.model_uri} {how} before it got traffic;"
        " the active server was left as it was",
        hint="the end of its log is in `logs_tail`",
        status=503,
    )


# --- servers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServerSeen:
    workload: WorkloadState | None
    in_flight: int | None  # requests inside it now; None: the proxy cannot say
    wanted: bool  # whoever launched it (a rollout, or the supervisor for a dead server) still needs it


def decide_server(server: Server, traffic: Traffic, seen: ServerSeen, now: float) -> ServerAction:
    """For every server that is not stopped. What traffic names is repaired elsewhere, never stopped here."""
    phase = server.phase
    if traffic.names(server.id):
        return Wait() if phase is ServerPhase.READY else MoveServer(ServerPhase.READY, "it has the traffic")
    if phase is ServerPhase.STARTING:
        return _decide_starting_server(server, seen)
    if seen.workload is None or not seen.workload.running:
        return MoveServer(ServerPhase.STOPPED, "it has ended")
    idle = seen.in_flight == 0 or (server.drain_deadline is not None and now >= server.drain_deadline)
    if phase is ServerPhase.READY:
        return MoveServer(ServerPhase.RETIRING, "another server has the traffic")
    if phase is ServerPhase.RETIRING:
        return MoveServer(ServerPhase.WARM, "kept for a rollback") if idle else WatchDrain()
    if phase is ServerPhase.WARM:
        if server.warm_until is not None and now >= server.warm_until:
            return MoveServer(ServerPhase.DRAINING, "its warm window is over")
        return Wait(server.warm_until)
    return StopServer() if idle else WatchDrain()


def _decide_starting_server(server: Server, seen: ServerSeen) -> ServerAction:
    if seen.wanted:
        return Wait()
    if ServerPhase.READY in server.entered:  # a warm server that a rollback had taken up again
        return MoveServer(ServerPhase.RETIRING, "the rollback that wanted it has ended")
    return MoveServer(ServerPhase.DRAINING, "it never got traffic and is not needed any more")
