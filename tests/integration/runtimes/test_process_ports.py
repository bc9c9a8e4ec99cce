"""An address names one server for as long as anything can name it."""

import socket
from pathlib import Path

import pytest

from router.core.errors import LaunchFailed
from router.runtimes.process_ports import Ports
from tests.services.ports import find_free_port, is_free

NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def block() -> range:
    """Ports that nothing listens on as the test begins."""
    while True:
        first = find_free_port()
        block = range(first, first + 6)
        if block[-1] < 65_536 and all(is_free(port) for port in block):
            return block


def test_a_port_comes_back_only_after_all_others(block: range, tmp_path: Path) -> None:
    ports = Ports(block, tmp_path / "next")

    given = [ports.reserve(NOTHING) for _ in range(12)]

    assert set(given[:6]) == {f"127.0.0.1:{port}" for port in block}
    assert given[6:] == given[:6]


def test_the_rotation_goes_on_after_a_restart(block: range, tmp_path: Path) -> None:
    given = [Ports(block, tmp_path / "next").reserve(NOTHING) for _ in range(6)]

    assert len(set(given)) == 6


def test_rotations_of_two_routers_begin_at_different_places(tmp_path: Path) -> None:
    block = range(20_000, 30_000)

    begun = {Ports(block, tmp_path / f"next-{number}").reserve(NOTHING) for number in range(5)}

    assert len(begun) > 1


def test_a_port_that_somebody_listens_on_is_passed_over(block: range, tmp_path: Path) -> None:
    ports = Ports(block, tmp_path / "next")
    with socket.create_server(("127.0.0.1", block[2])), socket.create_server(("0.0.0.0", block[4])):  # noqa: S104
        given = {ports.reserve(NOTHING) for _ in range(6)}

    assert given == {f"127.0.0.1:{block[index]}" for index in (0, 1, 3, 5)}


def test_addresses_that_are_still_named_are_passed_over(block: range, tmp_path: Path) -> None:
    named = frozenset(f"127.0.0.1:{port}" for port in block[:5])

    assert Ports(block, tmp_path / "next").reserve(named) == f"127.0.0.1:{block[5]}"


def test_without_a_port_left_nothing_is_launched(block: range, tmp_path: Path) -> None:
    named = frozenset(f"127.0.0.1:{port}" for port in block)

    with pytest.raises(LaunchFailed, match="6 ports") as caught:
        Ports(block, tmp_path / "next").reserve(named)
    assert "PROCESS_PORTS" in (caught.value.hint or "")


def test_a_counter_that_a_crash_has_emptied_begins_anew(block: range, tmp_path: Path) -> None:
    (tmp_path / "next").write_text("")

    assert Ports(block, tmp_path / "next").reserve(NOTHING).startswith("127.0.0.1:")
