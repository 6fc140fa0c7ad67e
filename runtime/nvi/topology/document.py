"""YAML as a tree that knows its line numbers.

The file is only composed into nodes, never constructed into Python objects: so every value keeps its line, every
duplicate key is seen, and nothing in the file can make anything happen.
"""

from __future__ import annotations

import warnings

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .problems import Report

_TAG = "tag:yaml.org,2002:"


class Scalar(Struct, frozen=True):
    """A single value."""

    line: int
    text: str
    """As it is written, without quotes."""
    kind: str
    """What YAML takes it for: `str`, `int`, `float`, `bool`, `null`."""


class Sequence(Struct, frozen=True):
    """A list of values."""

    line: int
    items: tuple[Value, ...]


class Field(Struct, frozen=True):
    """One `key: value` of a mapping."""

    line: int
    """Of the key."""
    value: Value


class Mapping(Struct, frozen=True):
    """Values by key. Of a key that appears twice (a problem, already reported) the first is kept."""

    line: int
    fields: dict[str, Field]


Value = Scalar | Sequence | Mapping


def describe(value: Value) -> str:
    """What a value is, in words for people who do not know YAML's."""
    if isinstance(value, Mapping):
        return "a group of keys"
    if isinstance(value, Sequence):
        return "a list"
    return "empty" if value.kind == "null" else f"'{value.text}'"


def parse(text: str, report: Report) -> Value | None:
    """The tree of a YAML document; None if it is empty, or so wrong that nothing of it can be used (reported)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML allows it: the nearest one above counts
            node = YAML(typ="safe", pure=True).compose(text)
        return None if node is None else _Builder(report).build(node)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark and mark.line >= len(text.splitlines()) and error.context_mark:
            mark = error.context_mark  # what began there did not end before the file did
        what = " ".join(part for part in (error.context, error.problem) if part)
        report.add(mark.line + 1 if mark else 1, f"not valid YAML: {what}", "correct the notation here or just above")
    except YAMLError as error:  # such as a control character, which ruamel reports by its position only
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        report.add(line, f"not valid YAML: {str(error).splitlines()[0]}", "remove or correct it")
    except ValueError as error:  # from ruamel's scanner, for a few malformed directives and escapes
        report.add(1, f"not valid YAML: {error}", "correct the notation")
    except RecursionError:
        report.add(1, "the file is nested too deeply", "a topology has no more than five levels")
    return None


class _Builder:
    """Turns ruamel's nodes into values. An anchored node is built once, however often it is used."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._built: dict[int, Value] = {}
        self._open: set[int] = set()

    def build(self, node: Node) -> Value:
        identity = id(node)
        line = node.start_mark.line + 1
        if identity in self._built:
            return self._built[identity]
        if identity in self._open:
            self._report.add(line, "a value contains itself", "remove the alias (*) that refers to it")
            return Scalar(line, "", "null")
        self._open.add(identity)
        value = self._convert(node, line)
        self._open.discard(identity)
        self._built[identity] = value
        return value

    def _convert(self, node: Node, line: int) -> Value:
        if isinstance(node, MappingNode):
            return Mapping(line, self._fields(node))
        if isinstance(node, SequenceNode):
            return Sequence(line, tuple(self.build(item) for item in node.value))
        assert isinstance(node, ScalarNode)
        return Scalar(line, str(node.value), str(node.tag).removeprefix(_TAG))

    def _fields(self, node: MappingNode) -> dict[str, Field]:
        fields: dict[str, Field] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._report.add(line, "a key is a list or a group of keys", "use a name as the key")
                continue
            key = str(key_node.value)
            if key in fields:
                first = fields[key].line
                self._report.add(line, f"{key!r} appears twice (first on line {first})", "rename or remove one of them")
                continue
            fields[key] = Field(line, self.build(value_node))
        return fields
