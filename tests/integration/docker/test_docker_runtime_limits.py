"""What a trainer cannot do to its host: take all memory, all processes, the disk, or the router's memory."""

import tracemalloc
from collections.abc import AsyncIterator

import pytest

from router.core.specs import Resources
from tests.integration.docker.runtime_house import House, open_house
from tests.services.docker_puppets import Puppets

pytestmark = pytest.mark.anyio

EAT = "bytearray(256 << 20)"
FORK = """
import os, signal, time
children = []
try:
    while True:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except BlockingIOError:
    print('stopped after', len(children), flush=True)
for child in children:
    os.kill(child, signal.SIGKILL)
"""
LOG_MEGABYTES = 100
SHOUT = f"""
line = 'x' * 1023
for _ in range({LOG_MEGABYTES}):
    print((line + chr(10)) * 1024, end='')
print('the end', flush=True)
sys.exit(0)
"""


@pytest.fixture
async def house(puppets: Puppets) -> AsyncIterator[House]:
    async with open_house(puppets, log_max_size="1m", log_max_files=2) as house:
        yield house


async def test_a_trainer_over_its_memory_limit_is_reported_as_out_of_memory(house: House) -> None:
    await house.launch("trn_1", does=EAT, resources=Resources(memory=64 << 20))
    await house.launch("trn_2", does="sys.exit(137)")

    await house.listener.wait_for("trn_1")
    await house.listener.wait_for("trn_2")

    eater, other = await house.state_of("trn_1"), await house.state_of("trn_2")
    assert (eater.exit_code, eater.out_of_memory) == (137, True)
    assert (other.exit_code, other.out_of_memory) == (137, False)


async def test_a_fork_bomb_is_stopped_by_the_limit_of_processes(house: House) -> None:
    await house.launch("trn_1", does=FORK, resources=Resources(pids=20))
    await house.make_ready("trn_1")

    said = await house.runtime.logs("trn_1", 1000)

    assert 0 < int(said.rpartition("stopped after ")[2]) < 20


async def test_cpus_and_memory_are_limited_without_swap_beside_them(house: House) -> None:
    await house.launch("trn_1", resources=Resources(cpus=0.5, memory=64 << 20, pids=50))
    host = (await house.inspect("trn_1"))["HostConfig"]
    assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 50)
    assert host["Memory"] == 64 << 20


async def test_a_long_log_is_rotated_and_its_end_is_read_in_little_memory(house: House) -> None:
    await house.launch("trn_1", does=SHOUT)
    await house.listener.wait_for("trn_1")

    tracemalloc.start()
    end = await house.runtime.logs("trn_1", 100_000)
    whole = await house.runtime.logs("trn_1", 1 << 30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert end.endswith("the end\n")
    assert len(end) == 100_000
    assert len(whole) < 2 << 20  # what rotation has left of it
    assert peak < 16 << 20


async def test_short_lines_are_asked_for_until_there_are_enough_bytes(house: House) -> None:
    await house.launch("trn_1", does="print(chr(10) * 20_000 + 'end'); sys.exit(0)")
    await house.listener.wait_for("trn_1")

    assert await house.runtime.logs("trn_1", 5000) == "\n" * 4996 + "end\n"
