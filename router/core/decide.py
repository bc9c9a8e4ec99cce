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
    EnterStep,
    FinishRollout,
    JudgeCandidate,
    LaunchCandidate,
    LaunchTrainer,
    MoveServer,
    PauseRollout,
    PrepareCandidate,
    PrepareRun,
    ProbeCandidate,
    PromoteVersion,
    PutCandidateAway,
    RecordExit,
    RecordShift,
    RolloutAction,
    ServerAction,
    SetWeight,
    ShiftTraffic,
    StopActive,
    StopServer,
    StopTrainer,
    TakeBack,
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
from router.core.verdicts import Judgement, Verdict
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


@dataclass(frozen=True)
class RolloutSeen:
    traffic: Traffic
    candidate: WorkloadState | None
    finding: Judgement | None = None  # of the watch over both servers; None: there is none
    active_in_the_way: bool = False  # it is to be replaced, and still runs


def decide_rollout(rollout: Rollout, seen: RolloutSeen, now: float) -> RolloutAction:
    phase, active = rollout.phase, seen.traffic.active
    if phase.terminal:
        return Wait()
    if phase is RolloutPhase.ABORTING:
        return PutCandidateAway()
    switched = active is not None and active.server_id == rollout.server_id
    if phase.switched or (phase is RolloutPhase.SHIFTING and switched):
        return _decide_switched_rollout(rollout, seen, now)
    if rollout.abort_requested or rollout.preempted:
        return AbortRollout(RolloutPhase.ROLLED_BACK, _aborted(rollout))
    if phase is RolloutPhase.PENDING:
        return PrepareCandidate()
    # A candidate that is being judged has proved itself, and each gate has a deadline of its own.
    late = now >= rollout.ready_deadline and phase is not RolloutPhase.GATING
    if late and rollout.weight is None:
        return AbortRollout(RolloutPhase.FAILED, _not_ready_in_time(rollout))
    if phase is RolloutPhase.LAUNCHING:
        return StopActive() if seen.active_in_the_way else LaunchCandidate()
    if seen.finding is not None and seen.finding.verdict is Verdict.FAILED:
        return AbortRollout(RolloutPhase.ROLLED_BACK, _breached(rollout, seen.finding))
    if seen.candidate is None or not seen.candidate.running:
        return AbortRollout(RolloutPhase.FAILED, _candidate_died(rollout, seen.candidate))
    if phase is RolloutPhase.PROBING:
        return ProbeCandidate()
    return JudgeCandidate() if phase is RolloutPhase.GATING else _decide_shift(rollout, seen, now)


def _decide_shift(rollout: Rollout, seen: RolloutSeen, now: float) -> RolloutAction:
    """Step by step, each once the one before has held its time and nothing speaks against it."""
    plan, finding = rollout.plan, seen.finding
    # Nobody to share the traffic with: the first server of all, or the other one had to make room.
    first = seen.traffic.active is None and rollout.weight is None  # with a share, the other is only lost
    alone = rollout.replaces is not None or (first and not plan.manual)
    if rollout.promote_requested or not plan.gradual or alone:
        return ShiftTraffic()
    if rollout.weight is None:
        return _enter_next_step(rollout)
    if not _is_applied(rollout, seen.traffic):
        return SetWeight()
    if rollout.paused is not None:
        return Wait()
    over = rollout.steps[-1].since + plan.hold_of(rollout.step)
    if now < over:
        return Wait(over)
    judged = finding is None or finding.verdict is Verdict.PASSED or rollout.weight == 0
    if not judged and rollout.accepted_step != rollout.step:
        if plan.analysis.inconclusive == "extend":
            return Wait(reason="too little traffic to judge this step by: it is extended")
        return PauseRollout(_inconclusive(finding))
    if rollout.step + 1 < len(plan.shares):
        return _enter_next_step(rollout)
    return PauseRollout("every step is done: it waits to be promoted") if plan.manual else ShiftTraffic()


def _enter_next_step(rollout: Rollout) -> EnterStep:
    """Without shares, the candidate stands beside the active server and gets what asks for it by header."""
    shares, step = rollout.plan.shares, rollout.step + 1
    return EnterStep(step, shares[step].weight) if step < len(shares) else EnterStep(rollout.step, 0)


def _is_applied(rollout: Rollout, traffic: Traffic) -> bool:
    named = traffic.candidate is not None and traffic.candidate.server_id == rollout.server_id
    return named and (traffic.weight, traffic.sticky) == (rollout.weight, rollout.plan.sticky)


def _decide_switched_rollout(rollout: Rollout, seen: RolloutSeen, now: float) -> RolloutAction:
    """Users get the candidate already, so an abort comes too late; a rollback takes over where it stands."""
    if rollout.preempted:
        return AbortRollout(RolloutPhase.ROLLED_BACK, rollout.failure or taken_back(rollout))
    if rollout.phase is RolloutPhase.SHIFTING:
        return RecordShift()
    active = seen.traffic.active
    if active is not None and not rollout.is_served_by(active):
        return AbortRollout(RolloutPhase.ROLLED_BACK, _died_in_the_bake(rollout))
    if seen.finding is not None and seen.finding.verdict is Verdict.FAILED:
        return TakeBack(_breached(rollout, seen.finding))
    if rollout.phase is RolloutPhase.PROMOTING:
        return PromoteVersion()
    if rollout.bake_until is not None and now < rollout.bake_until:
        return Wait(rollout.bake_until)
    return _decide_end_of_bake(rollout, seen.finding, now)


def _decide_end_of_bake(rollout: Rollout, finding: Judgement | None, now: float) -> RolloutAction:
    """Users have the candidate, so what ends this without a verdict says so."""
    if rollout.paused is not None:
        return Wait()
    if finding is None or finding.verdict is Verdict.PASSED:
        return FinishRollout()
    if rollout.accepted_step == rollout.step:
        return FinishRollout(f"a person has ended the bake without a verdict: {finding.reason}")
    analysis = rollout.plan.analysis
    if analysis.inconclusive == "wait":
        return PauseRollout(_inconclusive(finding))
    unproved = f"the bake has ended without a verdict: {finding.reason}"
    if finding.active.requests < analysis.min_requests:
        return FinishRollout(f"{unproved}; what served before gets none any more, so longer would not help")
    if rollout.bake_limit is not None and now < rollout.bake_limit:
        return Wait(rollout.bake_limit, "too little traffic to judge the bake by: it is extended")
    return FinishRollout(f"{unproved}; it was extended as long as what served before is kept warm")


def _inconclusive(finding: Judgement | None) -> str:
    return f"it waits for a person: {finding.reason}" if finding else "it waits for a person"


def _breached(rollout: Rollout, finding: Judgement) -> Failure:
    return Failure(
        code="analysis_failed",
        message=f"the candidate for {rollout.model_uri} does worse than what users had: {finding.reason};"
        " users got back what they had",
        hint="the figures are in the rollout's `steps`, the end of its log in `logs_tail`",
        status=503,
    )


def _died_in_the_bake(rollout: Rollout) -> Failure:
    return Failure(
        code="candidate_died",
        message=f"the server of {rollout.model_uri} ended soon after the switch;"
        " the server that users had before took over",
        hint="the end of its log is with the server",
        status=503,
    )


def taken_back(rollout: Rollout) -> Failure:
    return Failure(
        code="rolled_back",
        message=f"what the rollout of {rollout.model_uri} had switched was taken back",
        status=409,
    )


def _aborted(rollout: Rollout) -> Failure:
    why = "a rollback took its place" if rollout.preempted else "it was aborted"
    return Failure(
        code="rollout_aborted",
        message=f"the rollout of {rollout.model_uri} ended before the switch: {why};"
        " the active server was left as it was",
        status=409,
    )


def _not_ready_in_time(rollout: Rollout) -> Failure:
    begun = rollout.entered.get(str(RolloutPhase.LAUNCHING), rollout.created_at)
    waited = rollout.ready_deadline - begun
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
    if rollout.weight:
        when = f"while it had {rollout.weight:g}% of the traffic; users got back what they had"
    else:
        when = "before it got traffic; the active server was left as it was"
    return Failure(
        code="candidate_unhealthy",
        message=f"the candidate for {rollout.model_uri} {how} {when}",
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
