"""Streams through the socket proxy, and what becomes of calls when one of the two sides goes away."""

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from docker.models.containers import Container

from tests.integration.docker.installation import Installation
from tests.services.socket_proxy import SocketProxy, read_until, run_socket_proxy

DEADLINE = 60
MEBIBYTE = 1024**2


@pytest.fixture
def ours(installation: Installation) -> Iterator[Container]:
    container = installation.launch()
    yield container
    container.remove(force=True)


@contextmanager
def follow(proxy: SocketProxy, target: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=DEADLINE)
    # Little is read ahead: what the client does not take has to wait further up.
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.request("GET", target)
    answer = connection.getresponse()
    try:
        yield answer
    finally:
        answer.close()
        connection.close()


def test_a_line_of_the_log_comes_before_there_is_another(installation: Installation, ours: Container) -> None:
    with follow(installation.proxy, f"/containers/{ours.id}/logs?follow=1&stdout=1") as answer:
        read_until(answer, b"waiting\n")
        for _ in range(3):
            ours.kill("SIGUSR1")
            read_until(answer, b"poked\n")


def test_the_end_of_the_client_ends_the_call_to_docker(installation: Installation, ours: Container) -> None:
    with follow(installation.proxy, f"/containers/{ours.id}/logs?follow=1&stdout=1") as answer:
        read_until(answer, b"waiting\n")
        call = installation.relay.connection_of("/logs")
        assert not call.ended.is_set()

    assert call.ended.wait(DEADLINE)


def test_a_client_that_gives_up_waiting_ends_the_call_to_docker(
    installation: Installation, ours: Container
) -> None:
    with socket.create_connection(("127.0.0.1", installation.proxy.port), timeout=DEADLINE) as connection:
        connection.sendall(f"POST /containers/{ours.id}/wait HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        call = installation.relay.connection_of("/wait")

    assert call.ended.wait(DEADLINE)


def test_clients_that_read_slowly_hold_docker_back_and_not_memory(installation: Installation) -> None:
    flooding = installation.launch(MEGABYTES="16", EXIT_CODE="0")
    flooding.wait(timeout=DEADLINE)
    target = f"/containers/{flooding.id}/logs?stdout=1"
    with ExitStack() as stack:
        answers = [stack.enter_context(follow(installation.proxy, target)) for _ in range(10)]
        sizes = [len(answer.read()) for answer in answers]  # while one is read, the others stand still
        resident = psutil.Process(installation.proxy.pid).memory_info().rss

    assert set(sizes) == {16 * 1024 * (1024 + 8)}  # a header of eight bytes before each line
    assert resident < 80 * MEBIBYTE
    flooding.remove()


def test_while_docker_is_away_calls_are_answered_503_and_streams_break(
    installation: Installation, ours: Container
) -> None:
    with follow(installation.proxy, f"/containers/{ours.id}/logs?follow=1&stdout=1") as answer:
        read_until(answer, b"waiting\n")
        installation.relay.close()
        try:
            status, body = installation.proxy.ask("GET", f"/containers/{ours.id}/json")
            assert (status, json.loads(body)) == (503, {"message": "Docker does not answer on its socket"})
            with pytest.raises(http.client.IncompleteRead):
                answer.read()
        finally:
            installation.relay.open()

    assert installation.proxy.ask("GET", f"/containers/{ours.id}/json")[0] == 200


def test_a_proxy_that_is_told_to_stop_does_not_wait_for_its_streams(
    installation: Installation, ours: Container, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with (
        run_socket_proxy(installation.relay.path, log, **installation.settings()) as proxy,
        follow(proxy, f"/containers/{ours.id}/logs?follow=1&stdout=1") as answer,
    ):
        read_until(answer, b"waiting\n")
        os.kill(proxy.pid, signal.SIGTERM)
        assert proxy.wait(DEADLINE) == -signal.SIGTERM
        with pytest.raises(http.client.IncompleteRead):
            answer.read()

    assert "Traceback" not in log.read_text()


def test_no_call_has_left_a_trace_of_an_error_in_the_log(installation: Installation) -> None:
    assert "Traceback" not in installation.proxy.log.read_text()


def test_a_setting_that_cannot_be_honoured_is_named_and_nothing_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"SOCKET_PROXY_SERVER_NETWORK: .* network of its own"),
        run_socket_proxy(tmp_path / "none.sock", tmp_path / "log", server_network="host"),
    ):
        pass
