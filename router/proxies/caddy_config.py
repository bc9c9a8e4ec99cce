"""Caddy's whole configuration as a pure function of the endpoints, so that it has one source.

The base config in `caddy/` and the file that a driver writes both come from here. What an endpoint's routes
look at for each request (a file or a fixed text) is a `Switch`; everything else is the same for every driver.

Two rules shape the routes. A dial that fails is tried again until a deadline, since nothing has been sent;
a request that has reached a server is never sent again, since it may be the one that kills servers. Caddy and
the Go transport below it both repeat requests of their own accord, so both have to be told.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.core.traffic import DEFAULT_ENDPOINT, NAME_PATTERN, STICKY

Json = dict[str, Any]

CANDIDATE_HEADER = "X-Switchyard-Slot"
COOKIE = "switchyard"  # and the endpoint's name: the uuid by which a client keeps its side of a sticky cut
COOKIE_SECONDS = 86_400
# Below what a server must keep an idle connection for (5 s): no POST may meet a closing connection.
IDLE_UPSTREAM = "2s"
NO_MODEL = "no model is serving yet"
NO_MODEL_HINT = "Train and serve one: POST /admin/train_then_roll/TRAINER on the router's port."
# What Go says of a request's body that breaks off or is no body, seen while it is passed on (net/http, both
# its readers). Of a server it speaks with "EOF" alone, with the connection's addresses, or with "net/http:".
BODY_BROKE = (
    r"^(readfrom tcp [^ ]+: )?unexpected EOF$"
    r"|^(invalid byte in chunk length|empty hex number for chunk length|http chunk length too large"
    r"|malformed chunked encoding|chunked encoding contains too much non-data"
    r"|header line too long|malformed MIME header.*)$"
)
# A path goes into a placeholder and into a quoted string of an expression; nothing may end either.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@+,=~-]*")


@dataclass(frozen=True)
class CaddyLayout:
    """Where Caddy listens and writes. Paths are absolute and the same for Caddy and the router."""

    admin_socket: Path
    access_log: Path
    public_listen: str = ":9000"
    idle_address: str = "127.0.0.1:9001"  # Caddy's own listener that answers while no model serves
    retry_seconds: float = 10  # how long a request waits for somebody to listen
    dial_seconds: float = 1
    access_log_mib: int = 64  # then it is rotated, and three old ones are kept

    def __post_init__(self) -> None:
        require_plain_path(self.admin_socket)
        require_plain_path(self.access_log)


@dataclass(frozen=True)
class Switch:
    """What decides where a request goes: two dials of Caddy and a cut, or placeholders for them."""

    active: str
    candidate: str
    cut: str


def require_plain_path(path: Path) -> None:
    if not PLAIN_PATH.fullmatch(str(path)):
        raise ValueError(
            f"Caddy cannot be given the path {path}: it must be absolute and of plain characters"
        )


def read_switch_from(slots: Path, endpoint: str) -> Switch:
    """The endpoint's slot directory, looked at again for every request and every dial."""
    current = slots / endpoint / "current"
    require_plain_path(current)
    return Switch(*(f"{{file.{current}/{name}}}" for name in ("active", "candidate", "cut")))


def build_config(layout: CaddyLayout, switches: Mapping[str, Switch]) -> Json:
    servers = {"public": build_public_server(layout, switches), "idle": build_idle_server(layout)}
    return {
        "admin": {"listen": f"unix/{layout.admin_socket}", "config": {"persist": False}},
        "logging": {"logs": build_logs(layout)},
        "apps": {"http": {"servers": servers}},
    }


def render_config(config: Json) -> bytes:
    return json.dumps(config, indent=1).encode() + b"\n"


def build_public_server(layout: CaddyLayout, switches: Mapping[str, Switch]) -> Json:
    """Slow headers are cut off; bodies and answers may take as long as they need.

    No `read_timeout`: Go goes on counting it while the handler works, and then cancels a long prediction.
    """
    for name in switches:
        if not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"{name!r} is not an endpoint name")
    default = switches.get(DEFAULT_ENDPOINT)
    return {
        "listen": [layout.public_listen],
        "protocols": ["h1"],
        "automatic_https": {"disable": True},
        "read_header_timeout": "10s",
        "idle_timeout": "5m",
        "max_header_bytes": 65536,
        "logs": {"default_logger_name": "access"},
        "errors": {"routes": explain_errors(layout)},
        "routes": [
            strip_name(DEFAULT_ENDPOINT),
            hide_metrics("/metrics", "/endpoints/*/metrics"),
            route_by_name(layout, switches),
            {"handle": [build_endpoint(layout, DEFAULT_ENDPOINT, default)]}
            if default
            else answer(503, "no_model", NO_MODEL, NO_MODEL_HINT),
        ],
    }


def build_idle_server(layout: CaddyLayout) -> Json:
    """What `active` names before the first rollout: an upstream like any other, inside Caddy itself."""
    return {
        "listen": [layout.idle_address],
        "protocols": ["h1"],
        "automatic_https": {"disable": True},
        "routes": [answer(503, "no_model", NO_MODEL, NO_MODEL_HINT)],
    }


def route_by_name(layout: CaddyLayout, switches: Mapping[str, Switch]) -> Json:
    """`/endpoints/NAME/...`, stripped, to NAME."""
    named = [
        route_endpoint(layout, name, switch)
        for name, switch in sorted(switches.items())
        if name != DEFAULT_ENDPOINT
    ]
    unknown = answer(
        404, "unknown_endpoint", "there is no endpoint of this name", "Without one: POST /invocations."
    )
    return {"match": [{"path": ["/endpoints", "/endpoints/*"]}], "handle": [subroute(*named, unknown)]}


def route_endpoint(layout: CaddyLayout, name: str, switch: Switch) -> Json:
    stripped = strip_name(name)
    # Hidden paths are looked for again after the strip: what counts is what the server would see.
    inner = subroute(hide_metrics("/metrics"), run(build_endpoint(layout, name, switch)))
    return {**stripped, "handle": [*stripped["handle"], inner]}


def build_endpoint(layout: CaddyLayout, name: str, switch: Switch) -> Json:
    """By header, else by share, the candidate; else the active server. Addressed by id in the admin API.

    The cut is read once for a request, so that its share and its cookie are of one state. As a variable, a
    cookie that is not there is empty text; an expression would fail on it.
    """
    cookie = f"{COOKIE}-{name}"
    sticks = f"{{http.vars.cut}}.endsWith('{STICKY}')"
    recognized = "{http.vars.kept}.matches('^[0-9a-f]{8}-[0-9a-f-]{27}$')"
    number = f"({sticks} && {recognized} ? {{http.vars.kept}} : {{http.request.uuid}})"
    asked_for = {"header": {CANDIDATE_HEADER: ["candidate"]}}
    to_candidate = [asked_for, {"expression": f"{number} < {{http.vars.cut}}"}]
    path = "/" if name == DEFAULT_ENDPOINT else f"/endpoints/{name}"
    carried = f"{cookie}={{http.request.uuid}}; Path={path}; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax"
    remember = {
        "match": [{"expression": f"{sticks} && !{recognized}"}],
        "handle": [{"handler": "headers", "response": {"add": {"Set-Cookie": [carried]}, "deferred": True}}],
    }
    noted = {
        "endpoint": name,
        "upstream": "{http.reverse_proxy.upstream.hostport}",
        "latency_ms": "{http.reverse_proxy.upstream.latency_ms}",
    }
    routes = [
        run(*(note(key, value) for key, value in noted.items())),
        {"match": [asked_for], "handle": [note("by_header", "yes")]},
        run({"handler": "vars", "cut": switch.cut, "kept": f"{{http.request.cookie.{cookie}}}"}),
        remember,
        {"match": to_candidate, "handle": [subroute(*forward(layout, switch.candidate))]},
        *forward(layout, switch.active),
    ]
    return {"@id": endpoint_id(name), **subroute(*routes)}


def note(key: str, value: str) -> Json:
    """In the access log."""
    return {"handler": "log_append", "key": key, "value": value}


def endpoint_id(name: str) -> str:
    return f"endpoint-{name}"


def forward(layout: CaddyLayout, dial: str) -> list[Json]:
    """What Go's transport would send a second time goes over connections that are not used again.

    The transport repeats, on its own, a request whose reused connection breaks, if its method is safe or it
    has an idempotency key (net/http, `isReplayable`). On a connection of its own a request is sent once.
    """
    repeatable = [
        {"method": ["GET", "HEAD", "OPTIONS", "TRACE"]},
        {"header": {"Idempotency-Key": []}},
        {"header": {"X-Idempotency-Key": []}},
    ]
    once = {"match": repeatable, "handle": [proxy_to(layout, dial, {"enabled": False})]}
    pooled = {"enabled": True, "idle_timeout": IDLE_UPSTREAM, "max_idle_conns_per_host": 512}
    return [once, run(proxy_to(layout, dial, pooled))]


def proxy_to(layout: CaddyLayout, dial: str, keep_alive: Json) -> Json:
    """No flush interval: Caddy flushes answers without a length at once, and -1 would keep the server at
    work for clients that have gone."""
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": dial}],
        "load_balancing": {
            "try_duration": f"{layout.retry_seconds}s",
            "try_interval": "50ms",
            "retry_match": [{"not": [{}]}],  # never; an expression would cost 0.3 MiB and some ms each
        },
        "transport": {
            "protocol": "http",
            "versions": ["1.1"],
            "dial_timeout": f"{layout.dial_seconds}s",
            "compression": False,  # the client's business: without it bodies pass as they are
            "keep_alive": keep_alive,
        },
        "headers": {"response": {"set": {"X-Served-By": ["{http.reverse_proxy.upstream.hostport}"]}}},
    }


def explain_errors(layout: CaddyLayout) -> list[Json]:
    waited = f"{layout.retry_seconds:g} s"
    lost = "the model's server ended while it answered, answered nonsense, or did not listen for " + waited
    again = "Send the request again if it may be computed twice."
    broke = {"expression": "{http.error.message}.matches('" + BODY_BROKE + "')"}
    return [
        answer(400, "body_broke_off", "the request's body broke off or is not chunked as HTTP says",
               "Send it whole, with its length or in chunks.", [broke]),
        answer(502, "server_lost", lost, again, [{"expression": "{http.error.status_code} == 502"}]),
        answer(504, "server_timeout", "the model's server could not be reached for " + waited, again,
               [{"expression": "{http.error.status_code} == 504"}]),
        answer("{http.error.status_code}", "proxy_error", "{http.error.status_text}", "See Caddy's log."),
    ]  # fmt: skip


def answer(status: int | str, code: str, message: str, hint: str, match: list[Json] | None = None) -> Json:
    """The house's error shape, from Caddy itself."""
    body = {"detail": message, "error": {"code": code, "message": message, "hint": hint}}
    handler = {
        "handler": "static_response",
        "status_code": status,
        "headers": {"Content-Type": ["application/json"]},
        "body": json.dumps(body),
    }
    return {"match": match, **run(handler)} if match else run(handler)


def hide_metrics(*paths: str) -> Json:
    match = [{"path": [each for path in paths for each in (path, f"{path}/*")]}]
    return answer(404, "not_found", "not found", "Metrics are not public.", match)


def strip_name(name: str) -> Json:
    """By regular expression, since path matchers ignore case."""
    return {
        "match": [{"path_regexp": {"pattern": f"^/endpoints/{re.escape(name)}(/|$)"}}],
        "handle": [{"handler": "rewrite", "strip_path_prefix": f"/endpoints/{name}"}],
    }


def run(*handlers: Json) -> Json:
    return {"handle": list(handlers)}


def subroute(*routes: Json) -> Json:
    return {"handler": "subroute", "routes": list(routes)}


def build_logs(layout: CaddyLayout) -> Json:
    """The access log is what samples are made of. It keeps no headers, no query and no client's port."""
    dropped = ("request>headers", "request>tls", "request>remote_port", "resp_headers", "user_id")
    return {
        "default": {"exclude": ["http.log.access"]},
        "access": {
            "include": ["http.log.access.access"],
            "writer": {
                "output": "file",
                "filename": str(layout.access_log),
                "mode": "0640",
                "roll_size_mb": layout.access_log_mib,
                "roll_keep": 3,
                "roll_gzip": False,
            },
            "encoder": {
                "format": "filter",
                "wrap": {"format": "json"},
                "fields": {
                    **{field: {"filter": "delete"} for field in dropped},
                    "request>uri": {"filter": "regexp", "regexp": "[?].*", "value": ""},
                },
            },
        },
    }
