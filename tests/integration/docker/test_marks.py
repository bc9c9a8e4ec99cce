"""What a killed run of tests has left on the engine goes with the next one, and nothing else does."""

import io
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import APIClient

from tests.services.engine import BASE_IMAGE
from tests.services.marks import new_mark, sweep


@pytest.fixture
def docker(docker_host: str) -> Iterator[APIClient]:
    with APIClient(docker_host, version="auto") as docker:
        yield docker


@pytest.fixture
def dead_mark() -> str:
    """Of a process that there cannot be."""
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    return f"swt{most + 1}x{secrets.token_hex(4)}"


def tags_of(docker: APIClient) -> set[str]:
    return set(docker.inspect_image(BASE_IMAGE)["RepoTags"])


def test_images_of_a_dead_run_go_by_their_tags_and_those_of_a_living_one_stay(
    docker: APIClient, docker_host: str, dead_mark: str
) -> None:
    living = f"{new_mark()}/server"
    docker.tag(BASE_IMAGE, living)
    try:
        docker.tag(BASE_IMAGE, f"{dead_mark}/server")
        sweep(docker_host)
        assert f"{dead_mark}/server:latest" not in tags_of(docker)
        assert {BASE_IMAGE, f"{living}:latest"} <= tags_of(docker)
    finally:
        docker.remove_image(living)


def test_an_image_without_a_tag_goes_by_its_label(
    docker: APIClient, docker_host: str, dead_mark: str
) -> None:
    text = f"FROM {BASE_IMAGE}\nLABEL test={dead_mark}\n"
    label = {"label": f"test={dead_mark}"}
    told = docker.build(fileobj=io.BytesIO(text.encode()), rm=True, decode=True)
    assert "Successfully built" in "".join(line.get("stream", "") for line in told)
    sweep(docker_host)
    assert docker.images(filters=label) == []
