"""Headers, fields and expressions of a program, and the errors of those that it cannot be read from.

Part of `ir`, which offers all of this under its own name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ProgramError(Exception):
    """The JSON does not describe a program (malformed, dangling reference, wrong version)."""


class UnsupportedConstruct(ProgramError):
    """The program uses something that this switch does not execute. The text names what and where."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{where}: {what} is not supported")
        self.what = what
        self.where = where


# ---------------------------------------------------------------------------------------------- headers


class FieldRef(NamedTuple):
    """A field of a header or metadata instance, e.g. ("ipv4", "ttl"), or ("ipv4", "$valid$")."""

    header: str
    field: str

    def __str__(self) -> str:
        return f"{self.header}.{self.field}"


VALID = "$valid$"
"""Name of the hidden one-bit field that tells whether a header is valid."""


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a header type."""

    name: str
    width: int
    """Width in bits; 0 for a variable-length field, whose width a packet decides."""
    signed: bool = False
    saturating: bool = False
    variable: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """A header instance, or a metadata instance (which is always valid and never on the wire)."""

    name: str
    fields: tuple[Field, ...]
    metadata: bool
    max_bytes: int = 0
    """For a header with a variable-length field: its largest size in bytes, 0 if unbounded."""

    @property
    def bits(self) -> int:
        """Width of the fixed part."""
        return sum(item.width for item in self.fields)

    @property
    def variable(self) -> bool:
        return any(item.variable for item in self.fields)


# ------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True, slots=True)
class Const:
    """An integer of unlimited width."""

    value: int


@dataclass(frozen=True, slots=True)
class Bool:
    value: bool


@dataclass(frozen=True, slots=True)
class Get:
    """The value of a field."""

    ref: FieldRef


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of the enclosing action, by position."""

    index: int


@dataclass(frozen=True, slots=True)
class Lookahead:
    """Bits of the packet that the parser has not reached yet (parser only)."""

    offset: int
    width: int


@dataclass(frozen=True, slots=True)
class IsValid:
    header: str


@dataclass(frozen=True, slots=True)
class HeadersEqual:
    """Both valid and all fields equal; `negated` for `!=`."""

    left: str
    right: str
    negated: bool


@dataclass(frozen=True, slots=True)
class Unary:
    """`op` is one of ``~ not d2b b2d``."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """`op`: ``+ - * / % & | ^ << >>``, comparisons, ``==b !=b and or``, ``two_comp_mod usat_cast sat_cast``."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Choice:
    """`yes` if `condition` else `no`."""

    condition: Expr
    yes: Expr
    no: Expr


Expr = Const | Bool | Get | Param | Lookahead | IsValid | HeadersEqual | Unary | Binary | Choice
