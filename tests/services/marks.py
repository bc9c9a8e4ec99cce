"""What tells containers, networks, volumes and images of one run of tests from all others on the same engine.

A run that is killed cannot clean up, and an engine has addresses for some thirty networks only. So a mark
names the process that made it, and the next run takes away what is marked by processes that are gone.
"""

import fcntl
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
from docker import APIClient
from docker.errors import APIError

_MARK = re.compile(r"swt(\d+)x[0-9a-f]{8}")


def new_mark() -> str:
    """Fits in a name of anything on an engine."""
    return f"swt{os.getpid()}x{secrets.token_hex(4)}"


def sweep(docker_host: str) -> None:
    """Remove what killed runs have left."""
    lock = Path(tempfile.gettempdir()) / f"switchyard-sweep-{os.getuid()}.lock"
    with lock.open("w") as file, APIClient(docker_host, version="auto") as docker:
        fcntl.flock(file, fcntl.LOCK_EX)  # one worker at a time; closing the file gives it up
        # Again until there is none: a router among them starts servers for as long as it is there itself.
        while left := list(filter(_is_left, docker.containers(all=True))):
            for container in left:
                _remove(docker.remove_container, container["Id"], force=True, v=True)
        for network in filter(_is_left, docker.networks()):
            _remove(docker.remove_network, network["Id"])
        for volume in filter(_is_left, docker.volumes()["Volumes"] or []):
            _remove(docker.remove_volume, volume["Name"])
        for image in docker.images():
            tags = [tag for tag in image["RepoTags"] or () if tag != "<none>:<none>"]
            # By the tag: an image of the same content, and so the same id, may be another run's.
            for tag in filter(_is_left, tags):
                _remove(docker.remove_image, tag, force=True)
            if not tags and _is_left(image):
                _remove(docker.remove_image, image["Id"], force=True)


def _is_left(described: object) -> bool:
    marks = _MARK.findall(json.dumps(described))
    return bool(marks) and not any(psutil.pid_exists(int(pid)) for pid in marks)


def _remove(act: Callable[..., object], name: str, **options: bool) -> None:
    try:
        act(name, **options)
    except APIError as error:
        # Went with its container, or by itself; or another's container has an image of the same content.
        if error.status_code not in (404, 409):
            raise
