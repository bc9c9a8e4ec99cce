"""The decisions, without anything that carries them out: what is done next, and what is never done."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import actions, decide
from router.core.models import (
    Rollout,
    RolloutPhase,
    ServerPhase,
    Training,
    TrainingPhase,
)
from router.core.traffic import Traffic, Upstream
from router.core.workload import Role, WorkloadState, WorkloadStatus
from tests.records import make_rollout, make_server, make_training

NOW = 1_000.0
RUNNING = WorkloadState("trn_1", "trainer", Role.TRAINER, WorkloadStatus.RUNNING, started_at=900.0)
ACTIVE = Upstream(
    address="127.0.0.1:1",
    server_id="srv_active",
    model_name="Iris",
    model_version=1,
    serve_image="i",
    serve_digest="d",
)


def exited(code: int | None, **fields: object) -> WorkloadState:
    return replace(RUNNING, status=WorkloadStatus.EXITED, exit_code=code, **fields)  # type: ignore[arg-type]


def running_training(**fields: object) -> Training:
    values = {"phase": TrainingPhase.RUNNING, "deadline": 2_000.0} | fields
    return make_training("trn_1", **values)


def rollout_of_candidate(**fields: object) -> Rollout:
    return make_rollout("rol_1", server_id="srv_candidate", ready_deadline=2_000.0, **fields)


workloads = st.one_of(
    st.none(),
    st.just(RUNNING),
    st.builds(
        exited,
        st.one_of(st.none(), st.integers(0, 255)),
        out_of_memory=st.one_of(st.none(), st.booleans()),
        finished_at=st.one_of(st.none(), st.floats(0, 5_000)),
    ),
)


@pytest.mark.parametrize(
    ("workload", "outcome", "code"),
    [
        (None, TrainingPhase.FAILED, "trainer_lost"),
        (exited(None), TrainingPhase.FAILED, "trainer_lost"),
        (exited(1), TrainingPhase.FAILED, "trainer_failed"),
        (exited(137, out_of_memory=True), TrainingPhase.FAILED, "trainer_out_of_memory"),
        (exited(0, finished_at=3_000.0), TrainingPhase.TIMED_OUT, "trainer_timed_out"),
    ],
)
def test_how_a_trainer_ended_is_told_by_its_exit(
    workload: WorkloadState | None, outcome: TrainingPhase, code: str
) -> None:
    action = decide.decide_training(running_training(), workload, NOW)
    assert isinstance(action, actions.ConcludeTraining)
    assert action.outcome is outcome
    assert action.failure is not None
    assert action.failure.code == code


def test_a_trainer_that_exits_with_0_in_time_is_asked_for_its_version() -> None:
    assert (
        decide.decide_training(running_training(), exited(0, finished_at=950.0), NOW) == actions.RecordExit()
    )


def test_a_running_trainer_is_left_alone_until_its_deadline() -> None:
    assert decide.decide_training(running_training(), RUNNING, NOW) == actions.Wait(2_000.0)
    assert decide.decide_training(running_training(), RUNNING, 2_000.0) == actions.StopTrainer()


@given(st.sampled_from(TrainingPhase), workloads, st.booleans(), st.floats(0, 5_000))
def test_only_an_exit_with_0_leads_to_a_version(
    phase: TrainingPhase, workload: WorkloadState | None, cancelled: bool, now: float
) -> None:
    training = running_training(phase=phase, cancel_requested=cancelled)
    action = decide.decide_training(training, workload, now)
    if isinstance(action, actions.RecordExit):
        assert workload is not None
        assert workload.exit_code == 0
        assert not cancelled
    if isinstance(action, actions.StopTrainer):
        assert workload is RUNNING


@given(
    st.sampled_from(RolloutPhase),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    workloads,
    st.floats(0, 5_000),
)
def test_traffic_moves_only_to_a_candidate_that_runs_and_is_wanted(
    phase: RolloutPhase,
    aborted: bool,
    preempted: bool,
    switched: bool,
    candidate: WorkloadState | None,
    now: float,
) -> None:
    rollout = rollout_of_candidate(phase=phase, abort_requested=aborted, preempted=preempted)
    active = ACTIVE.model_copy(update={"server_id": "srv_candidate"}) if switched else ACTIVE
    action = decide.decide_rollout(rollout, decide.RolloutSeen(Traffic(active=active), candidate), now)
    if isinstance(action, actions.ShiftTraffic):
        assert phase is RolloutPhase.SHIFTING
        assert candidate is RUNNING
        assert (aborted, preempted, switched) == (False, False, False)
        assert now < rollout.ready_deadline
    if isinstance(action, actions.AbortRollout) and switched and phase is RolloutPhase.SHIFTING:
        assert preempted


@given(
    st.sampled_from([phase for phase in ServerPhase if phase is not ServerPhase.STOPPED]),
    st.booleans(),
    workloads,
    st.one_of(st.none(), st.integers(0, 3)),
    st.booleans(),
    st.one_of(st.none(), st.floats(0, 5_000)),
    st.one_of(st.none(), st.floats(0, 5_000)),
)
def test_a_server_is_stopped_only_when_nothing_names_it_and_nothing_is_inside_it(
    phase: ServerPhase,
    named: bool,
    workload: WorkloadState | None,
    in_flight: int | None,
    wanted: bool,
    drain_deadline: float | None,
    warm_until: float | None,
) -> None:
    server = make_server("srv_1", phase=phase, drain_deadline=drain_deadline, warm_until=warm_until)
    traffic = Traffic(active=ACTIVE.model_copy(update={"server_id": "srv_1"}) if named else ACTIVE)
    seen = decide.ServerSeen(workload, in_flight, wanted)
    action = decide.decide_server(server, traffic, seen, NOW)
    overdue = drain_deadline is not None and drain_deadline <= NOW
    if isinstance(action, actions.StopServer):
        assert not named
        assert phase is ServerPhase.DRAINING
        assert in_flight == 0 or overdue
    if named:
        assert action in (actions.Wait(), actions.MoveServer(ServerPhase.READY, "it has the traffic"))
    if (
        isinstance(action, actions.MoveServer)
        and phase is ServerPhase.WARM
        and workload is RUNNING
        and not named
    ):
        assert warm_until is not None
        assert warm_until <= NOW
