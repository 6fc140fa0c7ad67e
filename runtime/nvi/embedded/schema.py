"""What P4Info says, joined with the program: ids to names, widths, and positions in the engine's keys and arguments."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from finsy.proto import p4i

from . import ir
from .status import Code, StatusError


class MatchKind(Enum):
    """Kinds of match as P4Info knows them."""

    EXACT = "exact"
    LPM = "lpm"
    TERNARY = "ternary"
    RANGE = "range"
    OPTIONAL = "optional"


_KINDS = {
    p4i.MatchField.EXACT: MatchKind.EXACT,
    p4i.MatchField.LPM: MatchKind.LPM,
    p4i.MatchField.TERNARY: MatchKind.TERNARY,
    p4i.MatchField.RANGE: MatchKind.RANGE,
    p4i.MatchField.OPTIONAL: MatchKind.OPTIONAL,
}


@dataclass(frozen=True, slots=True)
class MatchField:
    id: int
    name: str
    width: int
    kind: MatchKind


@dataclass(frozen=True, slots=True)
class ActionSchema:
    id: int
    name: str
    params: tuple[tuple[int, str, int], ...]
    """(id, name, width) in the order of the engine's arguments."""


@dataclass(frozen=True, slots=True)
class ActionRef:
    """An action in a table."""

    schema: ActionSchema
    number: int
    """The engine's number of the action in this table."""
    in_entries: bool
    as_default: bool


@dataclass(frozen=True, slots=True)
class TableSchema:
    id: int
    name: str
    fields: tuple[MatchField, ...]
    """In the order of the engine's key."""
    actions: dict[int, ActionRef]
    by_number: dict[int, ActionRef]
    size: int
    is_const: bool
    const_default: bool
    ageing: bool
    needs_priority: bool
    counter: bool
    """Has a direct counter."""
    meter: bool
    """Has a direct meter."""


@dataclass(frozen=True, slots=True)
class ArraySchema:
    """An indirect counter or meter."""

    id: int
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class PacketHeader:
    """A controller header: (id, width) of its fields, in the order of the wire."""

    fields: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return (sum(width for _, width in self.fields) + 7) // 8


class Schema:
    """A P4Info and a program that were compiled together. Raises StatusError if they do not fit."""

    def __init__(self, info: p4i.P4Info, program: ir.Program) -> None:
        self.program = program
        self.actions = {item.preamble.id: item for item in info.actions}
        self.direct_counters = {item.preamble.id: item.direct_table_id for item in info.direct_counters}
        self.direct_meters = {item.preamble.id: item.direct_table_id for item in info.direct_meters}
        self.counters = {i.preamble.id: ArraySchema(i.preamble.id, i.preamble.name, i.size) for i in info.counters}
        self.meters = {i.preamble.id: ArraySchema(i.preamble.id, i.preamble.name, i.size) for i in info.meters}
        self.registers = {i.preamble.id for i in info.registers}
        self.tables = {item.preamble.id: self._table(item) for item in info.tables}
        for kind, schemas, found in (
            ("counter", self.counters, program.counters),
            ("meter", self.meters, program.meters),
        ):
            for array in schemas.values():
                if array.name not in found or found[array.name].size != array.size:
                    raise _mismatch(kind, array.name)
        headers = {item.preamble.name: item for item in info.controller_packet_metadata}
        self.packet_in = _packet_header(headers.get("packet_in"))
        self.packet_out = _packet_header(headers.get("packet_out"))

    def table(self, number: int) -> TableSchema:
        """By id. Raises StatusError INVALID_ARGUMENT."""
        try:
            return self.tables[number]
        except KeyError:
            raise StatusError(Code.INVALID_ARGUMENT, f"there is no table with id {number}") from None

    def _table(self, item: p4i.Table) -> TableSchema:
        name = item.preamble.name
        table = self.program.tables.get(name)
        if table is None:
            raise _mismatch("table", name)
        by_name = {field.name: field for field in item.match_fields}
        fields = []
        for key in table.keys:
            field = by_name.get(key.name)
            if field is None or field.bitwidth != key.width or field.match_type not in _KINDS:
                raise _mismatch("match field", f"{name}.{key.name}")
            fields.append(MatchField(field.id, field.name, field.bitwidth, _KINDS[field.match_type]))
        if len(fields) != len(item.match_fields):
            raise _mismatch("table", name)
        actions: dict[int, ActionRef] = {}
        for ref in item.action_refs:
            action = self.actions[ref.id]
            number = self._number(table, action.preamble.name)
            if number is None:
                raise _mismatch("action", f"{name}.{action.preamble.name}")
            schema = self._action(action, self.program.actions[number])
            actions[ref.id] = ActionRef(
                schema,
                number,
                ref.scope != p4i.ActionRef.DEFAULT_ONLY,
                ref.scope != p4i.ActionRef.TABLE_ONLY,
            )
        kinds = {field.kind for field in fields}
        return TableSchema(
            id=item.preamble.id,
            name=name,
            fields=tuple(fields),
            actions=actions,
            by_number={ref.number: ref for ref in actions.values()},
            size=item.size,
            is_const=table.entries is not None,
            const_default=table.default_entry_const,
            ageing=item.idle_timeout_behavior == p4i.Table.NOTIFY_CONTROL,
            needs_priority=bool(kinds & {MatchKind.TERNARY, MatchKind.RANGE, MatchKind.OPTIONAL}),
            counter=item.preamble.id in self.direct_counters.values(),
            meter=item.preamble.id in self.direct_meters.values(),
        )

    def _number(self, table: ir.Table, name: str) -> int | None:
        for number in (*table.actions, table.default.action):
            if self.program.actions[number].name == name:
                return number
        return None

    def _action(self, item: p4i.Action, action: ir.Action) -> ActionSchema:
        by_name = {param.name: param for param in item.params}
        params = []
        for name, width in action.params:
            param = by_name.get(name)
            if param is None or param.bitwidth != width:
                raise _mismatch("parameter", f"{action.name}.{name}")
            params.append((param.id, name, width))
        if len(params) != len(item.params):
            raise _mismatch("action", action.name)
        return ActionSchema(item.preamble.id, item.preamble.name, tuple(params))


def _packet_header(item: p4i.ControllerPacketMetadata | None) -> PacketHeader:
    if item is None:
        return PacketHeader()
    return PacketHeader(tuple((field.id, field.bitwidth) for field in item.metadata))


def _mismatch(kind: str, name: str) -> StatusError:
    text = f"P4Info and device config do not fit: {kind} {name}; were they compiled together?"
    return StatusError(Code.INVALID_ARGUMENT, text)
