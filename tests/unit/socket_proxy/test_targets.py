"""Paths and queries: what is a call, what it means, and that nothing else is one."""

import json
import re
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_proxy.refusal import Refused
from socket_proxy.target import RULES, narrow_filters, read_target

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (b"/images/team/puppet:1/json", "team/puppet:1"),
        (b"/images/host:5000/team/puppet/json", "host:5000/team/puppet"),
        (f"/images/puppet@{DIGEST}/json".encode(), f"puppet@{DIGEST}"),
        (f"/images/puppet%40{DIGEST}/json".encode(), f"puppet@{DIGEST}"),
        (b"/v1.47/images/json/json/json", "json/json"),
    ],
)
def test_the_name_of_an_image_may_have_slashes_a_tag_or_a_digest(target: bytes, named: str) -> None:
    assert read_target("GET", target, b"").named == {"image": named}


@pytest.mark.parametrize("name", ["c", "containers", "stop", "json", "v1.41", "a.b_c-d"])
def test_a_container_may_be_called_like_a_part_of_the_path(name: str) -> None:
    call = read_target("POST", f"/containers/{name}/stop".encode(), b"")
    assert call.named == {"container": name, "action": "/stop"}


@pytest.mark.parametrize("version", ["", "/v1.41", "/v1.44", "/v1.100"])
def test_the_version_is_kept(version: str) -> None:
    call = read_target("POST", f"{version}/containers/x/stop".encode(), b"t=3")
    assert call.target(call.path, call.query) == f"{version}/containers/x/stop?t=3"


@given(st.sampled_from(["GET", "HEAD", "POST", "DELETE", "PUT"]), st.binary(), st.binary())
def test_whatever_is_asked_is_one_of_the_calls_or_refused(method: str, path: bytes, query: bytes) -> None:
    try:
        call = read_target(method, b"/" + path, query)
    except Refused:
        return
    assert call.rule in RULES
    assert re.fullmatch(r"[A-Za-z0-9_.:@/-]+", call.path)


@given(
    st.lists(st.sampled_from(["containers", "v1.41", "x", "stop", "..", ".", "", "%2e", "json"]), max_size=7)
)
def test_a_path_is_read_by_its_letters_alone(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    try:
        call = read_target("POST", path.encode(), b"")
    except Refused:
        return
    assert call.version + call.path == path
    assert not {"", ".", "..", "%2e"} & set(segments)


@given(st.text(max_size=200))
def test_a_listing_always_asks_for_our_label(filters: str) -> None:
    try:
        call = read_target("GET", b"/containers/json", urlencode({"filters": filters}).encode())
        narrowed = json.loads(narrow_filters(call, "ours=1")["filters"])
    except (Refused, UnicodeEncodeError):
        return
    assert "ours=1" in narrowed["label"]


def test_filters_that_are_asked_for_only_narrow_further() -> None:
    asked = b"filters=%7B%22label%22%3A%7B%22a%22%3Atrue%7D%2C%22status%22%3A%5B%22exited%22%5D%7D&all=1"
    query = narrow_filters(read_target("GET", b"/containers/json", asked), "ours=1")
    assert query["all"] == "1"
    assert json.loads(query["filters"]) == {"label": ["a", "ours=1"], "status": ["exited"]}


def test_events_are_those_of_containers() -> None:
    query = narrow_filters(
        read_target("GET", b"/events", b"filters=%7B%22type%22%3A%5B%22image%22%5D%7D"), "x"
    )
    assert json.loads(query["filters"]) == {"type": ["container"], "label": ["x"]}
