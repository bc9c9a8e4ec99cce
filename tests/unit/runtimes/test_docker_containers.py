"""What is made of the containers that a listing or an inspection shows."""

from typing import Any

from router.runtimes.docker_containers import Container, read_state


def make(name: str, state: str) -> Container:
    return Container(name, name, "srv_1", "iris-v1", state, 1.0)


def inspected(**labels: str) -> dict[str, Any]:
    return {
        "Name": "/iris-v1",
        "State": {"Status": "running", "StartedAt": "2026-01-01T00:00:00Z"},
        "Config": {"Labels": {"switchyard.owner": "srv_1", **labels}, "Env": None},
    }


def test_of_two_with_one_owner_the_one_that_is_dialled_counts_though_only_the_copy_runs() -> None:
    dialled, copy = make("iris-v1", "exited"), make("debugging", "running")
    assert min(copy, dialled, key=lambda each: each.rank) is dialled


def test_a_container_that_only_has_some_of_our_labels_is_left_alone() -> None:
    assert read_state(inspected()) is None
    assert read_state(inspected(**{"switchyard.role": "cook"})) is None
    assert read_state(inspected(**{"switchyard.role": "server"})) is None
    trainer = read_state(inspected(**{"switchyard.role": "trainer"}))
    assert trainer is not None
    assert trainer.running
