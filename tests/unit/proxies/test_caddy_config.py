"""What Caddy is told, as far as it can be judged without one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.proxies.caddy_config import (
    CaddyLayout,
    Switch,
    build_config,
    endpoint_id,
    read_switch_from,
    render_config,
)
from scripts.service_commands import ROOT

HOME = Path("/var/lib/switchyard")
LAYOUT = CaddyLayout(admin_socket=Path("/run/switchyard/caddy-admin.sock"), access_log=HOME / "access.log")


def read_from_slots(*names: str) -> dict[str, Any]:
    return build_config(LAYOUT, {name: read_switch_from(HOME / "slots", name) for name in names})


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from objects_in(child)


def proxies_in(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in objects_in(config) if each.get("handler") == "reverse_proxy"]


def test_the_base_config_is_what_the_router_would_write() -> None:
    """To make it again: write what is expected here to the file."""
    assert (ROOT / "caddy" / "caddy.json").read_bytes() == render_config(read_from_slots("default"))


def test_every_route_tries_dials_again_and_nothing_else() -> None:
    proxies = proxies_in(read_from_slots("default", "iris"))
    assert len(proxies) == 8  # two endpoints, active and candidate, connections used once and again
    for proxy in proxies:
        assert proxy["load_balancing"] == {
            "try_duration": "10s",
            "try_interval": "50ms",
            "retry_match": [{"not": [{}]}],
        }
        assert "response_header_timeout" not in proxy["transport"]
        assert "read_timeout" not in proxy["transport"]


def test_idle_connections_end_before_a_server_would_end_them() -> None:
    kept = [proxy["transport"]["keep_alive"] for proxy in proxies_in(read_from_slots("default"))]
    assert {each.get("idle_timeout") for each in kept if each["enabled"]} == {"2s"}


def test_no_server_limits_how_long_an_answer_takes() -> None:
    for server in read_from_slots("default")["apps"]["http"]["servers"].values():
        assert "write_timeout" not in server
        assert "read_timeout" not in server


def test_endpoints_do_not_depend_on_the_order_they_are_named_in() -> None:
    assert read_from_slots("a", "default", "b") == read_from_slots("b", "a", "default")


def test_ids_are_unique() -> None:
    names = ("default", "a", "b.c", "b-c")
    ids = [each["@id"] for each in objects_in(read_from_slots(*names)) if "@id" in each]
    assert sorted(ids) == sorted(endpoint_id(name) for name in names)


def test_dials_and_share_can_stand_in_the_config_itself() -> None:
    config = build_config(LAYOUT, {"default": Switch("a:1", "b:2", "8000")})
    dials = [proxy["upstreams"][0]["dial"] for proxy in proxies_in(config)]
    assert sorted(dials) == ["a:1", "a:1", "b:2", "b:2"]
    assert [each["cut"] for each in objects_in(config) if each.get("handler") == "vars"] == ["8000"]


def test_error_bodies_are_json_in_the_houses_shape() -> None:
    answers = [
        each for each in objects_in(read_from_slots("default")) if each.get("handler") == "static_response"
    ]
    assert len(answers) >= 5
    for answer in answers:
        body = json.loads(answer["body"])
        assert body["detail"] == body["error"]["message"]
        assert set(body["error"]) == {"code", "message", "hint"}


@pytest.mark.parametrize("path", ["slots", "/a b", "/a'b", "/a}b", "/a\\b", "/a\nb"])
def test_a_path_that_caddy_would_misread_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="absolute and of plain characters"):
        read_switch_from(Path(path), "default")
    with pytest.raises(ValueError, match="absolute and of plain characters"):
        CaddyLayout(admin_socket=Path("/s"), access_log=Path(path))


@pytest.mark.parametrize("name", ["../a", "a/b", "a b", "a\n"])
def test_a_name_that_caddy_would_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        build_config(LAYOUT, {name: Switch("a:1", "a:1", "0000")})
