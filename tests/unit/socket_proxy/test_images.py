"""Which image references match which patterns."""

import pytest

from socket_proxy.images import is_allowed, is_image_id, may_be_allowed, read_reference
from socket_proxy.refusal import Refused

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("pattern", "reference"),
    [
        ("puppet", "puppet"),
        ("puppet", "puppet:2"),
        ("puppet", f"puppet@{DIGEST}"),
        ("puppet", f"puppet:2@{DIGEST}"),
        ("team/*", "team/puppet:2"),
        ("server-*", "server-sklearn-model-1"),
        ("puppet:latest", "puppet"),
        ("puppet:1.*", "puppet:1.2"),
        ("host:5000/puppet", "host:5000/puppet:2"),
        ("host:5000/*:2", "host:5000/puppet:2"),
    ],
)
def test_matches(pattern: str, reference: str) -> None:
    assert is_allowed(reference, [pattern])


@pytest.mark.parametrize(
    ("pattern", "reference"),
    [
        ("puppet", "puppet2"),
        ("puppet", "evil/puppet"),
        ("puppet", "puppet/evil"),
        ("team/*", "team/puppet/evil"),
        ("team/*", "evil/team/puppet"),
        ("server-*", "server-evil/puppet"),
        ("*", "evil/puppet"),
        ("puppet:1", "puppet"),
        ("puppet:1", "puppet:2"),
        ("puppet:1", f"puppet@{DIGEST}"),
        ("puppet:1", f"puppet:1@{DIGEST}"),
        ("puppet:*", f"puppet@{DIGEST}"),
        ("host:5000/puppet", "host:5001/puppet"),
        ("pup.et", "puppet"),
    ],
)
def test_does_not_match(pattern: str, reference: str) -> None:
    assert not is_allowed(reference, [pattern])


@pytest.mark.parametrize(
    ("pattern", "reference", "may"),
    [
        ("puppet:1", f"puppet@{DIGEST}", True),
        ("puppet:1", f"puppet:2@{DIGEST}", True),  # Docker, too, looks at the digest only
        ("team/*:1", f"team/puppet@{DIGEST}", True),
        ("puppet:1", f"puppet2@{DIGEST}", False),
        ("puppet:1", f"evil/puppet@{DIGEST}", False),
        ("puppet:1", "puppet:2", False),
        ("puppet:1", f"Puppet@{DIGEST}", False),
        ("puppet:1", DIGEST, False),
    ],
)
def test_a_digest_is_looked_into_where_a_tag_of_its_repository_is_allowed(
    pattern: str, reference: str, may: bool
) -> None:
    assert may_be_allowed(reference, [pattern]) == may


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Puppet",
            "a//b",
            "/a",
            "a/",
            "a/../b",
            "a/./b",
            "a b",
            "a:b:c",
            "a\n",
            "a@b",
            "a@sha256:ab",
            "-a",
        ),
        *("sha256:ab", f"sha256:{'a' * 64}", f"a@{DIGEST}@{DIGEST}", "a:" + "b" * 129, "host:x/a", "\u0430"),
    ],
)
def test_is_no_reference(text: str) -> None:
    with pytest.raises(Refused):
        read_reference(text)
    assert not is_allowed(text, ["*"])


def test_a_reference_always_says_which_version() -> None:
    """A bare name of hexadecimal digits could be the start of an image's id."""
    assert str(read_reference("cafe")) == "cafe:latest"
    assert str(read_reference(f"cafe:1@{DIGEST}")) == f"cafe@{DIGEST}"


def test_an_id_is_a_whole_one() -> None:
    assert is_image_id(DIGEST)
    assert not is_image_id(DIGEST[:-1])
