"""Read the expressions of the JSON into `ir.Expr`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import ir
from .ir import FieldRef, ProgramError, UnsupportedConstruct

Json = Mapping[str, Any]

_ARITHMETIC = frozenset({"+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"})
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "==b", "!=b"})
_CASTS = frozenset({"two_comp_mod", "usat_cast", "sat_cast"})
_BINARY = _ARITHMETIC | _COMPARISONS | _CASTS | {"and", "or"}
_UNARY = frozenset({"~", "not", "d2b", "b2d"})


def hex_to_int(text: str) -> int:
    """The JSON's "hexstr": big endian, perhaps with 0x and a sign. Raises ValueError."""
    return int(text, 16)


class ExpressionReader:
    """Reads "type value objects"; knows the headers, to refuse dangling references."""

    def __init__(self, headers: Mapping[str, ir.Header]) -> None:
        self._fields = {FieldRef(header.name, item.name): item for header in headers.values() for item in header.fields}
        self._headers = headers

    def declaration(self, ref: FieldRef) -> ir.Field:
        """What the program says of this field. Raises ProgramError if there is none."""
        if ref.field == ir.VALID and ref.header in self._headers:
            return ir.Field(ir.VALID, 1)
        try:
            return self._fields[ref]
        except KeyError:
            raise ProgramError(f"there is no field {ref}") from None

    def read(self, item: Json, place: str) -> ir.Expr:
        """The expression; `place` is for the message of UnsupportedConstruct."""
        value = item.get("value")
        match item.get("type"):
            case "expression":
                # Arguments of actions wrap the expression once more.
                assert isinstance(value, Mapping)
                return self._operation(value, place) if "op" in value else self.read(value, place)
            case "field":
                assert value is not None
                ref = FieldRef(value[0], value[1])
                if self.declaration(ref).variable:
                    raise UnsupportedConstruct(f"arithmetic on the variable-length field {ref}", place)
                return ir.IsValid(ref.header) if ref.field == ir.VALID else ir.Get(ref)
            case "hexstr":
                return ir.Const(hex_to_int(str(value)))
            case "bool":
                return ir.Bool(bool(value))
            case "runtime_data" | "local":
                return ir.Param(int(str(value)))
            case "lookahead":
                assert value is not None
                return ir.Lookahead(int(value[0]), int(value[1]))
            case other:
                raise UnsupportedConstruct(f"an expression of type {other!r}", place)

    def _operation(self, item: Json, place: str) -> ir.Expr:
        op, left, right = item["op"], item.get("left"), item.get("right")
        if op == "?":
            return ir.Choice(
                self.read(item["cond"], place), self.read(item["left"], place), self.read(item["right"], place)
            )
        if op == "valid":
            assert right is not None
            if right.get("type") != "header":
                raise UnsupportedConstruct(f"validity of a {right.get('type')}", place)
            return ir.IsValid(right["value"])
        if op in ("==", "!=") and left is not None and left.get("type") == "header":
            assert right is not None
            return ir.HeadersEqual(left["value"], right["value"], op == "!=")
        if op in _UNARY:
            return ir.Unary(op, self.read(_operand(right, place), place))
        if op in ("+", "-") and left is None:
            return ir.Binary(op, ir.Const(0), self.read(_operand(right, place), place))
        if op in _BINARY:
            return ir.Binary(op, self.read(_operand(left, place), place), self.read(_operand(right, place), place))
        raise UnsupportedConstruct(f"operator {op!r}", place)


def _operand(item: Json | None, place: str) -> Json:
    if item is None:
        raise ProgramError(f"{place}: an operand is missing")
    return item
