"""`kill -9` of the router in its container, in a training and in a rollout: the next one goes on."""

from collections.abc import Iterator

import pytest

from router.core.models import Rollout, RolloutPhase, Server, ServerPhase, Training, TrainingPhase
from scripts.demo_run import TRAINER
from tests.e2e.aftermath import check_serves, read_active, read_records, wait_until_at_rest
from tests.e2e.compose_stack import ComposeStack
from tests.e2e.mortal_router import MortalRouter, run_mortal_router
from tests.e2e.test_compose import MODEL, put_two_in_service, served_by
from tests.integration.engine.killing import Call

pytestmark = pytest.mark.xdist_group("compose")


@pytest.fixture(scope="module")
def router(stack: ComposeStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalRouter]:
    put_two_in_service(stack)
    with run_mortal_router(stack, tmp_path_factory.mktemp("router")) as router:
        yield router


def check_goes_on_without_it(stack: ComposeStack) -> None:
    assert served_by(stack) == read_active(stack)["address"]


# Its container runs and no record says so; its container has ended.
@pytest.mark.parametrize("point", ["running:before", "registering:after"])
def test_a_training_goes_on_and_rolls_out_what_it_made(router: MortalRouter, point: str) -> None:
    stack, before = router.stack, len(read_records(router.stack, Training))
    call = Call(f"/admin/train_then_roll/{TRAINER}")
    router.die_at(f"training:{point}", call)
    check_goes_on_without_it(stack)
    router.revive()
    wait_until_at_rest(stack)
    [training] = read_records(stack, Training)[before:]
    assert training.phase is TrainingPhase.SUCCEEDED
    check_serves(stack, int(str(training.version)))
    assert call.send(stack).json()["id"] == training.id
    [rollout] = [each for each in read_records(stack, Rollout) if each.training_id == training.id]
    assert rollout.phase is RolloutPhase.SUCCEEDED
    assert len(read_records(stack, Training)) == before + 1


# The candidate runs and no record says so; users have it and no record says so.
@pytest.mark.parametrize("point", ["rollout:probing:before", "traffic"])
def test_a_rollout_goes_on_to_its_end(router: MortalRouter, point: str) -> None:
    stack, servers = router.stack, read_records(router.stack, Server)
    active = read_active(stack)
    other = next(server.version for server in reversed(servers) if server.version != active["model_version"])
    call = Call("/admin/roll", {"name": MODEL, "ref": other})
    router.die_at(point, call)
    check_goes_on_without_it(stack)
    router.revive()
    server_id = check_serves(stack, other)
    rollout = stack.call("GET", f"/admin/rollouts/{call.send(stack).json()['id']}").json()
    assert (rollout["phase"], rollout["server_id"]) == ("succeeded", server_id)
    assert rollout["previous_server_id"] == active["server_id"]
    launched = read_records(stack, Server)[len(servers) :]
    assert [(server.id, server.phase) for server in launched] == [(server_id, ServerPhase.READY)]
