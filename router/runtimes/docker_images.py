"""From an image's name to what pins its content, and back: what a tag names tomorrow is another matter.

An image that came from a registry is pinned by its digest there, by which it can be pulled again; one that
was built on this host by its id.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import structlog

from router.core.errors import ImageNotFound, StorageFull
from router.runtimes.base import Image, Tell
from router.runtimes.docker_client import ANSWER_SECONDS, Call, DockerClient, Refused
from router.runtimes.docker_progress import Progress

FULL = "no space left on device"
NOT_THERE = frozenset({400, 403, 404})  # 400: not a name; 403: the socket proxy allows it to nobody
_PART = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)

log = structlog.get_logger()


@dataclass(frozen=True)
class Reference:
    name: str
    version: str  # a tag or a digest

    @classmethod
    def read(cls, text: str) -> "Reference":
        """Raises ImageNotFound."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise ImageNotFound(f"{text!r} is not the name of an image")
        return cls(match["name"], match["digest"] or match["tag"] or "latest")

    def names(self, repository: str) -> bool:
        """`python` and `docker.io/library/python` are one."""
        return _shorten(self.name) == _shorten(repository)


class Images:
    def __init__(self, client: DockerClient, pull_seconds: float) -> None:
        self._client = client
        self._pull_seconds = pull_seconds

    async def resolve(self, reference: str, tell: Tell | None = None) -> Image:
        with suppress(ImageNotFound):
            return await self.find(reference)
        await self._pull(reference, Reference.read(reference), tell)
        return await self.find(reference)

    async def find(self, reference: str) -> Image:
        """On this host. Raises ImageNotFound."""
        named = Reference.read(reference)
        found = await self._look(reference)
        if found is None:
            raise ImageNotFound(f"the image {reference} is not on this host")
        return Image(reference, choose_digest(named, found))

    async def find_pinned(self, image: Image, tell: Tell | None = None) -> str:
        """What to call it in a creation, so that it is this image and no other. Pulled again if need be."""
        name = Reference.read(image.reference).name
        by_digest = f"{name}@{image.digest}"
        for text in (by_digest, image.digest):
            if await self._look(text) is not None:
                return text
        await self._pull(by_digest, Reference(name, image.digest), tell)
        return by_digest

    async def _look(self, text: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._client.call("GET", f"/images/{text}/json")
        except Refused as refused:
            if refused.answer in NOT_THERE:
                return None
            raise
        return found

    async def _pull(self, text: str, reference: Reference, tell: Tell | None) -> None:
        progress = Progress(text, tell)
        call = Call(
            "POST",
            "/images/create",
            {"fromImage": reference.name, "tag": reference.version},
            headers=await self._client.find_login(reference.name),
            seconds=self._pull_seconds + ANSWER_SECONDS,  # the deadline below comes first
        )
        try:
            with anyio.fail_after(self._pull_seconds):
                lines = await self._client.open(call)
                try:
                    await lines.read(progress.hear)
                finally:
                    lines.close()
        except TimeoutError as error:
            raise ImageNotFound(
                f"the image {text} is not on this host and was not pulled within {self._pull_seconds:g} s",
                hint="pull it by hand, or set DOCKER_PULL_SEC",
            ) from error
        except Refused as refused:
            raise _not_there(text, refused.reason) from refused
        if progress.problem is not None:
            raise _not_there(text, progress.problem)
        log.info("pulled an image", image=text)


def choose_digest(reference: Reference, inspected: dict[str, Any]) -> str:
    for pinned in inspected.get("RepoDigests") or ():
        repository, _, digest = pinned.partition("@")
        if reference.names(repository):
            return str(digest)
    return str(inspected["Id"])


def _not_there(text: str, reason: str) -> ImageNotFound | StorageFull:
    if FULL in reason:
        return StorageFull(f"The disk is full. The image {text} was not pulled.")
    return ImageNotFound(
        f"the image {text} is not on this host and cannot be pulled: {reason}",
        hint="build it on this host, or see that its name is right and its registry lets this host in",
    )


def _shorten(repository: str) -> str:
    return repository.removeprefix("docker.io/").removeprefix("library/")
