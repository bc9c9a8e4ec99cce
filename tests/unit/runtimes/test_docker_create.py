"""Which containers share a folder to write to."""

from typing import Any

from router.core.workload import Role
from router.runtimes.base import Image, Workload
from router.runtimes.docker_create import CACHE_PATH, Placement, make_host

PLACEMENT = Placement(cache_prefix="yard-cache-")


def mounts(role: Role = Role.SERVER, placement: Placement = PLACEMENT, **env: str) -> list[dict[str, Any]]:
    image = Image("puppet", "sha256:0")
    found: list[dict[str, Any]] = make_host(Workload("srv_1", role, "yard-1", image, env), placement).get(
        "Mounts", []
    )
    return found


def test_servers_of_one_model_share_a_cache_and_others_have_another() -> None:
    (first,) = mounts(MODEL_NAME="iris", MODEL_VERSION="1")
    (second,) = mounts(MODEL_NAME="iris", MODEL_VERSION="2")
    (other,) = mounts(MODEL_NAME="wine", MODEL_VERSION="1")
    assert first == second
    assert (first["Type"], first["Target"], first["ReadOnly"]) == ("volume", CACHE_PATH, False)
    assert first["Source"].startswith("yard-cache-")
    assert first["Source"] != other["Source"]


def test_a_trainer_has_none_and_nobody_has_without_the_setting() -> None:
    assert mounts(Role.TRAINER, MODEL_NAME="iris") == []
    assert mounts(placement=Placement(), MODEL_NAME="iris") == []
