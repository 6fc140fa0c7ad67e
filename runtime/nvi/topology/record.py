"""Reading a mapping with known keys, so that everything wrong with it is reported with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..suggest import suggest
from .document import Field, Mapping, Scalar, Sequence, Value, describe
from .problems import Report

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
NAME_RULE = "use at most 63 letters, digits, '-' and '_', with a letter or digit at both ends"


def name_works(name: str) -> bool:
    """Whether a name works as part of a path or a URL, and as an argument of a command."""
    return _NAME.fullmatch(name) is not None


class Record:
    """A mapping that is read key by key. Whatever is wrong goes to the report."""

    def __init__(self, report: Report, what: str, field: Field, known: tuple[str, ...]) -> None:
        """`what` names the thing in messages; `known` are its keys."""
        self.report = report
        self.what = what
        self.line = field.line
        value = field.value
        self._fields = value.fields if isinstance(value, Mapping) else {}
        if not isinstance(value, Mapping) and not _is_empty(value):
            self.add(field.line, f"must be a group of keys, not {describe(value)}", f"give it keys: {', '.join(known)}")
        for key, child in self._fields.items():
            if key not in known:
                self.add(child.line, f"unknown key {key!r}", suggest(key, known, noun="key"))

    def add(self, line: int, what: str, remedy: str) -> None:
        """Report a problem of this thing."""
        self.report.add(line, f"{self.what}: {what}", remedy)

    def get(self, key: str) -> Field | None:
        """A field, if it is there and says something."""
        field = self._fields.get(key)
        return None if field is None or _is_empty(field.value) else field

    def require(self, key: str, remedy: str) -> Field | None:
        """A field that must be there; None (reported) if it is not."""
        field = self.get(key)
        if field is None:
            line = self._fields[key].line if key in self._fields else self.line
            self.add(line, f"has no {key!r}", remedy)
        return field

    def parse(self, field: Field | None, key: str, read: Callable[[str], T], remedy: str) -> T | None:
        """What a function that raises ValueError makes of a field's text; None (reported) if it cannot."""
        if field is None:
            return None
        if not isinstance(field.value, Scalar):
            self.add(field.line, f"{key!r} must be a single value, not {describe(field.value)}", remedy)
            return None
        try:
            return read(field.value.text)
        except ValueError as error:
            self.add(field.line, f"{key!r}: {error}", remedy)
            return None

    def choose(self, field: Field | None, key: str, choices: Iterable[str]) -> str | None:
        """A field that names one of several things; None (reported) if there is no such thing."""
        known = list(choices)
        name = self.parse(field, key, str, "write one name")
        if field is None or name is None or name in known:
            return name
        self.add(field.line, f"unknown {key} {name!r}", suggest(name, known, noun=key))
        return None

    def children(self, key: str) -> Iterator[tuple[str, Field]]:
        """The named things under a key. Names that would not work are reported and left out."""
        field = self.get(key)
        if field is None:
            return
        if not isinstance(field.value, Mapping):
            self.add(
                field.line, f"{key!r} must be a group of names, not {describe(field.value)}", "write 'NAME: ...' below"
            )
            return
        for name, child in field.value.fields.items():
            if name_works(name):
                yield name, child
            else:
                self.add(child.line, f"the name {name!r} would not work", NAME_RULE)

    def items(self, field: Field) -> Iterator[Field]:
        """The values of a list, or a single value, each with its own line."""
        values = field.value.items if isinstance(field.value, Sequence) else (field.value,)
        return (Field(value.line, value) for value in values)


def _is_empty(value: Value) -> bool:
    """Whether a value says nothing: null, {} or []."""
    if isinstance(value, Mapping):
        return not value.fields
    return not value.items if isinstance(value, Sequence) else value.kind == "null"
