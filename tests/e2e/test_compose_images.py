"""The images as they are built and as the stack runs them: small, not root, nothing to write to."""

import json
import tomllib
from typing import Any

import pytest

from scripts.demo_run import TRAINER
from scripts.service_commands import ROOT
from tests.e2e.compose_stack import BUILT, ComposeStack
from tests.services.engine import BASE_IMAGE

pytestmark = pytest.mark.xdist_group("compose")

# Above the base image, in bytes.
MOST = {"router": 320e6, "socket-proxy": 60e6, f"server-{TRAINER}": 500e6, f"trainer-{TRAINER}": 500e6}
# Prints what a finished image should not have. As root, to see everything.
LEFT_OVER = """
import shutil, sys
from pathlib import Path
if sys.prefix == sys.base_prefix:
    print("no virtual environment")
for tool in ("cc", "gcc", "g++", "clang", "make", "ld", "git"):
    if shutil.which(tool):
        print(tool)
for folder in ("/root/.cache", "/tmp", "/var/tmp", *Path("/home").glob("*/.cache")):
    for path in Path(folder).glob("*"):
        print(path)
for package in Path(sys.prefix).glob("lib/python*/site-packages/pip"):
    print(package)
"""


def inspect_image(stack: ComposeStack, image: str) -> dict[str, Any]:
    (found,) = json.loads(stack.docker("image", "inspect", image))
    details: dict[str, Any] = found
    return details


@pytest.fixture(params=BUILT)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(stack: ComposeStack, name: str) -> str:
    return f"{stack.project}/{name}"


def test_an_image_is_small_and_not_root_and_says_what_it_is(
    stack: ComposeStack, name: str, image: str
) -> None:
    found = inspect_image(stack, image)
    config = found["Config"]
    assert int(config["User"].partition(":")[0]) > 0
    labels = {
        label.removeprefix("org.opencontainers.image."): value for label, value in config["Labels"].items()
    }
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    expected = {"version": version, "licenses": "Apache-2.0", "revision": "unknown", "source": ""}
    assert labels.items() >= expected.items()
    assert name in labels["title"]
    assert labels["description"]
    if not name.startswith("trainer"):  # which does one thing, and ends
        assert config["Healthcheck"]["Test"][:2] in (["CMD", "python"], ["CMD", "python3"])
    above = found["Size"] - inspect_image(stack, BASE_IMAGE)["Size"]
    assert above < MOST.get(name, above + 1)


def test_nothing_is_left_over_in_an_image(stack: ComposeStack, image: str) -> None:
    confined = ("--read-only", "--network=none", "--user=0", "--cap-drop=ALL", "--entrypoint=python3")
    assert stack.docker("run", "--rm", *confined, image, "-c", LEFT_OVER) == ""


def test_nobody_writes_to_a_root_filesystem_while_the_stack_serves(stack: ComposeStack, server: str) -> None:
    """Trainers and servers of these images can do without, too: here they must, see ComposeStack."""
    for container in (server, *map(stack.container, ("router", "mlflow", "socket-proxy", "caddy"))):
        with pytest.raises(RuntimeError, match="Read-only file system"):
            stack.docker("exec", "--user=0", container, "sh", "-c", "echo > /written")
