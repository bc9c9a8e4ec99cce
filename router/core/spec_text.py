"""YAML and JSON text to plain values that remember their lines, so that every complaint can name one.

PyYAML's own constructor would not do: it keeps the last of two equal keys without a word, forgets where a
value stood, and reads as YAML 1.1 does, where `no` is false and `12:30` is 750. Here plain words follow the
core schema of YAML 1.2: only `true` and `false` are booleans, dates and clock times are text.

References: `${VAR}` is the variable's value, `${VAR:-default}` the default if the variable is unset or empty,
`$$` a dollar. They are expanded in values, never in keys, and the result is not expanded again. An unquoted
value that held a reference is read again afterwards, so that `timeout: ${LIMIT:-60}` is a number; in `env`
it stays text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from router.core.variables import printable

KeyPath = tuple[str | int, ...]
ENV_FIELD = "env"
MAX_DEPTH = 40
MAX_VALUES = 20_000  # aliases let a short text name very many values

_NULL, _BOOL, _INT, _FLOAT, _TEXT, _MERGE = (
    f"tag:yaml.org,2002:{word}" for word in ("null", "bool", "int", "float", "str", "merge")
)
_PLAIN_WORDS = {
    _NULL: r"~|null|Null|NULL|",
    _BOOL: r"true|True|TRUE|false|False|FALSE",
    _INT: r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    _FLOAT: r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    _MERGE: r"<<",
}
_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{))"
)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a spec file."""

    file: str
    line: int | None  # 1-based; None: the file as a whole
    key: str  # dotted path, empty for the file as a whole
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


@dataclass
class SpecText:
    """Plain values read from one file, the line of each, and what was wrong."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, path: KeyPath, message: str, line: int | None = None) -> None:
        where = line if line is not None else self.line_of(path)
        key = ".".join(printable(str(part)) for part in path)
        self.problems.append(Problem(self.file, where, key, message))

    def line_of(self, path: KeyPath) -> int | None:
        """Of the nearest thing around it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


class _Resolver(BaseResolver):
    """What an unquoted word means."""


for _tag, _pattern in _PLAIN_WORDS.items():
    _Resolver.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)


class _Loader(Reader, Scanner, Parser, Composer, _Resolver):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)


def read_text(text: str, file: str, variables: Mapping[str, str]) -> SpecText:
    """The values of the file's top level; never raises for what the text says: see `problems`."""
    result = SpecText(file)
    root = _compose(text, result)
    if root is None or root.tag == _NULL or result.problems:
        return result
    if not isinstance(root, MappingNode):
        result.complain((), "the top level must be a map of trainer names", _line(root))
        return result
    builder = _Builder(result, variables)
    try:
        result.values = builder.mapping(root, ())
    except _TooBig as error:
        result.complain((), str(error))
    return result


def _compose(text: str, result: SpecText) -> Node | None:
    if result.file.endswith(".json"):
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            result.complain((), f"not JSON: {error.msg}", error.lineno)
            return None
        except RecursionError:
            result.complain((), "nested too deeply")
            return None
        text = text.replace("\t", "  ")  # in JSON a raw tab is only ever white space; YAML takes none
    try:
        return _Loader(text).get_single_node()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        result.complain((), f"the character U+{error.character:04X} may not stand here", line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        result.complain((), f"not YAML: {said}", mark.line + 1 if mark else None)
    except RecursionError:
        result.complain((), "nested too deeply")
    return None


class _TooBig(Exception):
    pass


class _Builder:
    """Nodes to values. A wrong value is noted as a problem and becomes null, so that the rest is read too."""

    def __init__(self, result: SpecText, variables: Mapping[str, str]) -> None:
        self._result = result
        self._variables = variables
        self._left = MAX_VALUES
        self._depth = 0

    def value(self, node: Node, path: KeyPath) -> Any:
        self._left -= 1
        self._depth += 1
        if self._left < 0:
            raise _TooBig(f"more than {MAX_VALUES} values (do aliases multiply?)")
        if self._depth > MAX_DEPTH:
            raise _TooBig(f"nested deeper than {MAX_DEPTH} levels (does an alias contain itself?)")
        value = self._value(node, path)
        self._depth -= 1
        return value

    def _value(self, node: Node, path: KeyPath) -> Any:
        if isinstance(node, MappingNode):
            return self.mapping(node, path)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        return [self._element(child, (*path, index)) for index, child in enumerate(node.value)]

    def mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        """Keys are text as written. Values that come by `<<` give way to those written here."""
        values = self._merged(node, path)
        here_first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            line = _line(key_node)
            if not isinstance(key_node, ScalarNode):
                self._result.complain(path, "a key must be a word", line)
                continue
            key = str(key_node.value)
            if key in here_first:
                message = f"this key stands here twice, first on line {here_first[key]}"
                self._result.complain((*path, key), message, line)
                continue
            here_first[key] = self._result.lines[(*path, key)] = line
            values[key] = self.value(value_node, (*path, key))
        return values

    def _merged(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            sources = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            for source in reversed(sources):  # the first one wins
                if isinstance(source, MappingNode):
                    values |= self.value(source, path)
                else:
                    self._result.complain(path, "`<<` takes a map or a list of maps", _line(key_node))
        return values

    def _element(self, node: Node, path: KeyPath) -> Any:
        self._result.lines[path] = _line(node)
        return self.value(node, path)

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        text, tag = _join_surrogates(str(node.value)), node.tag
        if "$" in text:
            text = self._expand(text, path, _line(node))
            if node.style is None and not _in_env(path):
                tag = _resolve(text)
        if _in_env(path) and len(path) == 3 and tag in {_INT, _FLOAT}:
            return text  # a number in `env` is passed on just as it was written
        try:
            return _convert(text, tag)
        except ValueError as error:
            self._result.complain(path, str(error), _line(node))
            return None

    def _expand(self, text: str, path: KeyPath, line: int) -> str:
        def replace(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if match["dollar"]:
                return "$"
            if match["bad"]:
                message = "`${` begins no reference: write ${NAME} or ${NAME:-default}, or $${ for the text"
                self._result.complain(path, message, line)
                return ""
            value = self._variables.get(name, "")
            if value or (name in self._variables and default is None):
                return value
            if default is None:
                message = (
                    f"{name} is not set: set it in the router's environment, or write ${{{name}:-default}}"
                )
                self._result.complain(path, message, line)
                return ""
            return default

        return _REFERENCE.sub(replace, text)


def _in_env(path: KeyPath) -> bool:
    return path[1:2] == (ENV_FIELD,)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _join_surrogates(text: str) -> str:
    """JSON writes one character beyond U+FFFF as two escapes, which YAML takes for two characters."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _resolve(text: str) -> str:
    return next(
        (tag for tag, pattern in _PLAIN_WORDS.items() if tag != _MERGE and re.fullmatch(pattern, text)), _TEXT
    )


def _convert(text: str, tag: str) -> str | int | float | bool | None:
    if tag == _TEXT:
        return text
    if tag == _NULL:
        return None
    if tag == _BOOL and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        if tag == _INT:
            return int(text, 0 if text[:2] in {"0o", "0x"} else 10)
        if tag == _FLOAT and "n" not in text.lower():  # .inf, .nan
            return float(text)
    except ValueError as error:
        raise ValueError("is not a number") from error
    raise ValueError("must be a finite number" if tag == _FLOAT else f"the tag {tag} is not known here")
