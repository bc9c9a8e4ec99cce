"""Which images may be used: references, compared with the configured patterns."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from socket_proxy.refusal import Refused, show

_ID = re.compile(r"sha256:[0-9a-f]{64}")
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._-]*(?::[0-9]{1,5}(?=/))?(?:/[a-z0-9][a-z0-9._-]*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class Reference(NamedTuple):
    name: str
    version: str  # a tag or a digest, never neither: Docker may take a bare name for the start of an image id

    def __str__(self) -> str:
        return f"{self.name}{'@' if is_image_id(self.version) else ':'}{self.version}"


def is_image_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def read_reference(text: str) -> Reference:
    match = _REFERENCE.fullmatch(text)
    if match is None or match["name"] == "sha256":  # `sha256:ab` is the start of an id
        raise Refused(f"{show(text)} is not an image reference")
    return Reference(match["name"], match["digest"] or match["tag"] or "latest")


def is_allowed(text: str, patterns: Iterable[str]) -> bool:
    """A pattern that names a tag allows no digest, since any digest can be had under that name."""
    try:
        reference = read_reference(text)
    except Refused:
        return False
    tags = _tags_for(reference, patterns)
    return any(tag is None or _matches(reference.version, tag) for tag in tags)


def may_be_allowed(text: str, patterns: Iterable[str]) -> bool:
    """Whether it is a digest in a repository of which a tag is allowed: the image's own tags then decide."""
    try:
        reference = read_reference(text)
    except Refused:
        return False
    return is_image_id(reference.version) and any(True for _ in _tags_for(reference, patterns))


def _tags_for(reference: Reference, patterns: Iterable[str]) -> Iterator[str | None]:
    """Of the patterns that name its repository; None: of one that allows all its versions."""
    for pattern in patterns:
        # Its last colon is a tag's, unless a slash follows: then it is a port's.
        name, tag = re.fullmatch(r"(.*?)(?::([^/:]*))?", pattern).groups()  # type: ignore[union-attr]
        if _matches(reference.name, name):
            yield tag


def _matches(text: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^/:]*"), text) is not None
