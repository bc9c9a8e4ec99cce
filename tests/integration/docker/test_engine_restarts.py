"""Docker's daemon goes away and comes back in the middle of a training and of a rollout.

The router speaks to it directly, or through a socket proxy, which ends itself when the socket is dead and is
started again as Docker would.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio import to_thread

from router.core.errors import RuntimeUnavailable
from router.core.models import Rollout, Training
from router.engine.commands import Caller, TrainingRequest
from tests.integration.docker.engine_house import (
    LIMIT_SECONDS,
    LOOK_SECONDS,
    EngineHouse,
    open_engine_house,
)
from tests.services.docker_puppets import Puppets, open_puppets
from tests.services.engine import BASE_IMAGE, run_docker
from tests.services.engine_line import EngineLine
from tests.services.restartable_engine import PrivateEngine, run_restartable_engine
from tests.services.socket_proxy import SocketProxy

pytestmark = pytest.mark.anyio
Restartable = PrivateEngine | EngineLine


@pytest.fixture(scope="module")
def restartable(docker_host: str, request: pytest.FixtureRequest) -> Iterator[Restartable]:
    with run_restartable_engine(docker_host, *request.param) as engine:
        yield engine


@pytest.fixture(scope="module")
def puppets(restartable: Restartable, docker_host: str) -> Iterator[Puppets]:
    restartable.take_image(BASE_IMAGE, docker_host)
    with open_puppets(restartable.address) as puppets:
        yield puppets


@pytest.fixture(params=["direct", "through-socket-proxy"])
def proxy(request: pytest.FixtureRequest, puppets: Puppets, tmp_path: Path) -> Iterator[SocketProxy | None]:
    if request.param == "direct":
        yield None
        return
    with puppets.run_socket_proxy(tmp_path / "socket-proxy.log", give_up_seconds="0") as proxy:
        yield proxy


def start_again(engine: Restartable, proxy: SocketProxy | None) -> None:
    if proxy is not None:
        ask_until_it_ends(proxy)
    engine.start()
    if proxy is not None:
        proxy.start(proxy.answers)


def ask_until_it_ends(proxy: SocketProxy) -> None:
    """What it asks on a connection from before tells it nothing: only a new one finds the socket dead."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while proxy.running:
        assert time.monotonic() < deadline, proxy.log_tail()
        proxy.answers()
        time.sleep(LOOK_SECONDS)


@pytest.mark.xdist_group("live-restore")  # one engine for both ways to it
@pytest.mark.parametrize(
    "restartable", [["--live-restore"]], indirect=True, ids=["live-restore"], scope="module"
)
async def test_containers_that_outlive_the_daemon_are_followed_again(
    restartable: Restartable, puppets: Puppets, proxy: SocketProxy | None, tmp_path: Path
) -> None:
    async with open_engine_house(puppets, tmp_path, proxy.url if proxy else None) as house:
        first = await house.active()
        training, rollout = await house.train(), await house.roll(house.add_version())
        await to_thread.run_sync(restartable.kill)
        with pytest.raises(RuntimeUnavailable, match="nothing was started"):
            await house.engine.commands.start_training(TrainingRequest("iris"), Caller())
        await to_thread.run_sync(start_again, restartable, proxy)
        house.registry.log_model(str(training.run_id))
        await to_thread.run_sync(puppets.order, training.container, "exit 0")
        await house.let_serve(rollout.server_id)
        done = await house.wait_for(Training, training.id, lambda training: training.phase.terminal)
        rolled = await house.wait_for(Rollout, rollout.id, lambda rollout: rollout.phase.terminal)
        assert (done.phase, done.exit_code, rolled.phase) == ("succeeded", 0, "succeeded")
        assert await house.active() == rollout.server_id
        await check_owners(house, {first, str(rollout.server_id)})
        assert len(await house.engine.store.find(Training)) == 1


@pytest.mark.xdist_group("plain-restart")
@pytest.mark.parametrize("restartable", [[]], indirect=True, ids=["plain"], scope="module")
async def test_containers_that_end_with_the_daemon_are_told_as_ended_and_users_get_a_server_again(
    restartable: Restartable,
    puppets: Puppets,
    proxy: SocketProxy | None,
    docker_host: str,
    tmp_path: Path,
) -> None:
    async with open_engine_house(puppets, tmp_path, proxy.url if proxy else None) as house:
        first = await house.active()
        training, rollout = await house.train(), await house.roll(house.add_version())
        await to_thread.run_sync(stop_with_its_containers, restartable, house, docker_host)
        await to_thread.run_sync(start_again, restartable, proxy)
        done = await house.wait_for(Training, training.id, lambda training: training.phase.terminal)
        rolled = await house.wait_for(Rollout, rollout.id, lambda rollout: rollout.phase.terminal)
        assert (done.phase, rolled.phase) == ("failed", "failed")
        assert done.exit_code not in (None, 0)
        heir = await house.wait_for_server(besides={first, str(rollout.server_id)})
        await house.let_serve(heir)

        async def has_traffic() -> bool:
            return await house.active() == heir

        await house.wait_until(has_traffic)
        await check_owners(house, {heir})


def stop_with_its_containers(engine: Restartable, house: EngineHouse, docker_host: str) -> None:
    engine.stop()
    if isinstance(engine, EngineLine):  # the machine's engine goes on, and its containers with it
        ours = ("--filter", f"label=switchyard.instance={house.instance}")
        run_docker(docker_host, "kill", *run_docker(docker_host, "ps", "--quiet", *ours).split())


async def check_owners(house: EngineHouse, expected: set[str]) -> None:
    """One container each, and no other is left."""

    async def agree() -> bool:
        return await house.owners() == sorted(expected)

    await house.wait_until(agree)
