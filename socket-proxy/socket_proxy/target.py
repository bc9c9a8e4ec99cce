"""Which calls there are. What is not in RULES does not exist; every parameter has its own pattern.

Docker's router unescapes and cleans paths before it matches them. Here a path that could mean anything but
its own letters is refused first.
"""

import json
import re
from collections.abc import Collection, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from socket_proxy.refusal import Refused, show
from socket_proxy.strict_json import parse_strictly

LEAST_MINOR = 41  # older versions of the API give several fields of a container another meaning
_PLAIN = re.compile(r"/[A-Za-z0-9_.:@/-]*")
_PREFIX = re.compile(r"(?P<version>/v1\.(?P<minor>[1-9][0-9]{0,2}))?(?P<rest>/.*)")

ANY = r"(?s:.{0,4000})"  # read and rebuilt further on
BOOL = r"0|1|[Tt]rue|[Ff]alse"
NO = r"0|[Ff]alse"
TIME = r"[0-9]{1,19}(\.[0-9]{1,9})?"
CONTAINER = r"/containers/(?P<container>[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127})(?P<action>%s)"


class Kind(Enum):
    PLAIN = auto()  # forwarded as it is
    LISTING = auto()  # our label is added to its filters
    CONTAINER = auto()  # only if the container is ours
    IMAGE = auto()  # only if the image may be used
    PULL = auto()
    CREATION = auto()


class Rule(NamedTuple):
    kind: Kind
    method: str
    path: str
    parameters: Mapping[str, str] = MappingProxyType({})
    filters: Collection[str] = ()


LIST = {"all": BOOL, "limit": "-1|[0-9]{1,9}", "size": NO, "trunc_cmd": BOOL, "filters": ANY}
LOGS = dict.fromkeys(("follow", "stdout", "stderr", "timestamps"), BOOL)
SINCE = {"since": TIME, "until": TIME}
EVENT_FILTERS = {"label", "container", "event", "type"}
WAIT = {"condition": "not-running|next-exit|removed"}

RULES = (
    Rule(Kind.PLAIN, "GET", "/_ping"),
    Rule(Kind.PLAIN, "HEAD", "/_ping"),
    Rule(Kind.PLAIN, "GET", "/version"),
    Rule(Kind.LISTING, "GET", "/events", {**SINCE, "filters": ANY}, EVENT_FILTERS),
    Rule(Kind.LISTING, "GET", "/containers/json", LIST, {"label", "id", "name", "status"}),
    Rule(Kind.CREATION, "POST", "/containers/create", {"name": ANY}),
    Rule(Kind.CONTAINER, "GET", CONTAINER % "/json", {"size": NO}),
    Rule(Kind.CONTAINER, "GET", CONTAINER % "/logs", {**LOGS, **SINCE, "tail": "all|[0-9]{1,9}"}),
    Rule(Kind.CONTAINER, "GET", CONTAINER % "/stats", {"stream": BOOL, "one-shot": BOOL}),
    Rule(Kind.CONTAINER, "POST", CONTAINER % "/start"),
    Rule(Kind.CONTAINER, "POST", CONTAINER % "/stop", {"t": "[0-9]{1,9}"}),
    Rule(Kind.CONTAINER, "POST", CONTAINER % "/kill", {"signal": "(SIG)?[A-Z0-9]{1,8}"}),
    Rule(Kind.CONTAINER, "POST", CONTAINER % "/wait", WAIT),
    Rule(Kind.CONTAINER, "DELETE", CONTAINER % "", {"v": BOOL, "force": BOOL, "link": NO}),
    Rule(Kind.IMAGE, "GET", "/images/(?P<image>[^/].*)/json"),
    Rule(Kind.PULL, "POST", "/images/create", {"fromImage": ANY, "tag": ANY}),
)


class Call(NamedTuple):
    rule: Rule
    version: str  # `/v1.41`, or empty
    path: str  # behind the version
    named: Mapping[str, str]  # the container or image in the path
    query: Mapping[str, str]

    def target(self, path: str, query: Mapping[str, str]) -> str:
        return f"{self.version}{path}?{urlencode(query)}" if query else f"{self.version}{path}"


def read_target(method: str, raw_path: bytes, raw_query: bytes) -> Call:
    # Docker's SDK escapes the `@` of a digest. Nothing else is unescaped.
    path = raw_path.decode("latin-1").replace("%40", "@")
    if not _PLAIN.fullmatch(path) or {"", ".", ".."} & set(path[1:].split("/")):
        raise Refused("the path is not a plain one")
    prefix = _PREFIX.fullmatch(path)
    if prefix is None or int(prefix["minor"] or LEAST_MINOR) < LEAST_MINOR:
        raise Refused(f"the API version must be at least 1.{LEAST_MINOR}", 400)
    for rule in RULES:
        match = re.fullmatch(rule.path, prefix["rest"]) if rule.method == method else None
        if match is not None:
            query = _read_query(raw_query.decode("latin-1"), rule)
            return Call(rule, prefix["version"] or "", prefix["rest"], match.groupdict(), query)
    raise Refused("there is no such call here")


def _read_query(text: str, rule: Rule) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict")
    except ValueError as error:
        raise Refused("the query is malformed", 400) from error
    query = dict(pairs)
    if len(query) < len(pairs):
        raise Refused("a parameter stands twice", 400)
    for name, value in query.items():
        if name not in rule.parameters:
            raise Refused(f"the parameter {show(name)} may not be set")
        if not re.fullmatch(rule.parameters[name], value):
            raise Refused(f"the parameter {show(name)} may not have this value")
    return query


def narrow_filters(call: Call, label: str) -> dict[str, str]:
    """The query, with filters that let through only what carries the label."""
    filters = {}
    for name, asked in parse_strictly(call.query.get("filters", "{}").encode()).items():
        values = [key for key, on in asked.items() if on is True] if isinstance(asked, dict) else asked
        if name not in call.rule.filters:
            raise Refused(f"the filter {show(name)} may not be set")
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise Refused(f"the filter {show(name)} is not a list of texts", 400)
        filters[name] = values
    filters["label"] = [*filters.get("label", []), label]  # Docker wants all of them to hold
    if call.path == "/events":
        filters["type"] = ["container"]
    return {**call.query, "filters": json.dumps(filters)}
