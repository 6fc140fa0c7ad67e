"""The program that the switch executes, as immutable typed structures.

`program.load` builds these from the JSON of p4c's BMv2 back end; `compiler` turns them into Python source.
Names are those of the JSON (which are those of the P4 program); every width is in bits unless said otherwise.
Meaning of each construct: behavioral-model `docs/JSON_format.md` and `docs/simple_switch.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .terms import (
    VALID as VALID,
)
from .terms import (
    Binary as Binary,
)
from .terms import (
    Bool as Bool,
)
from .terms import (
    Choice as Choice,
)
from .terms import (
    Const as Const,
)
from .terms import (
    Expr as Expr,
)
from .terms import (
    Field as Field,
)
from .terms import (
    FieldRef as FieldRef,
)
from .terms import (
    Get as Get,
)
from .terms import (
    Header as Header,
)
from .terms import (
    HeadersEqual as HeadersEqual,
)
from .terms import (
    IsValid as IsValid,
)
from .terms import (
    Lookahead as Lookahead,
)
from .terms import (
    Param as Param,
)
from .terms import (
    ProgramError as ProgramError,
)
from .terms import (
    Unary as Unary,
)
from .terms import (
    UnsupportedConstruct as UnsupportedConstruct,
)

# ------------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Assign:
    """Evaluate with unlimited precision, then truncate (or saturate) to the width of the target."""

    target: FieldRef
    value: Expr


@dataclass(frozen=True, slots=True)
class AssignVariable:
    """Copy a variable-length field, with its length."""

    target: FieldRef
    source: FieldRef


@dataclass(frozen=True, slots=True)
class CopyHeader:
    """Validity and fields of `source` to `target`; an invalid source makes the target invalid."""

    target: str
    source: str


@dataclass(frozen=True, slots=True)
class SetValidity:
    """`setValid()` (clears the fields of a header that was invalid) or `setInvalid()`."""

    header: str
    valid: bool


@dataclass(frozen=True, slots=True)
class MarkToDrop:
    """egress_spec = drop port, mcast_grp = 0."""


@dataclass(frozen=True, slots=True)
class Exit:
    """End the pipeline after the current action."""


@dataclass(frozen=True, slots=True)
class Count:
    counter: str
    index: Expr


@dataclass(frozen=True, slots=True)
class ExecuteMeter:
    meter: str
    index: Expr
    target: FieldRef


@dataclass(frozen=True, slots=True)
class RegisterRead:
    register: str
    index: Expr
    target: FieldRef


@dataclass(frozen=True, slots=True)
class RegisterWrite:
    register: str
    index: Expr
    value: Expr


@dataclass(frozen=True, slots=True)
class Hash:
    """target = base + hash(calculation) % size (size 0 counts as 1)."""

    target: FieldRef
    base: Expr
    calculation: str
    size: Expr


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform in [low, high]; nothing happens if low > high."""

    target: FieldRef
    low: Expr
    high: Expr


@dataclass(frozen=True, slots=True)
class Jump:
    """Continue at primitive number `to` of the action; `unless` given: only if it evaluates to zero."""

    to: int
    unless: Expr | None = None


Statement = (
    Assign
    | AssignVariable
    | CopyHeader
    | SetValidity
    | MarkToDrop
    | Exit
    | Count
    | ExecuteMeter
    | RegisterRead
    | RegisterWrite
    | Hash
    | Random
    | Jump
)


@dataclass(frozen=True, slots=True)
class Action:
    """An action of the program. Names need not be unique: p4c makes one copy per control flow path."""

    id: int
    name: str
    params: tuple[tuple[str, int], ...]
    """(name, width) of each parameter that a table entry provides."""
    body: tuple[Statement, ...]
    where: str


# ----------------------------------------------------------------------------------------------- parser


@dataclass(frozen=True, slots=True)
class Extract:
    """Fill a header from the packet. `variable_bits`: length of its variable field, if it has one."""

    header: str
    variable_bits: Expr | None = None


@dataclass(frozen=True, slots=True)
class Verify:
    """If the condition is false parsing ends with this error."""

    condition: Expr
    error: Expr


@dataclass(frozen=True, slots=True)
class Advance:
    """Skip so many bits."""

    bits: Expr


ParserStep = Extract | Verify | Advance | Statement


@dataclass(frozen=True, slots=True)
class Case:
    """One branch of a select: the (byte-padded, concatenated) key masked equals the value."""

    value: int
    mask: int | None
    next_state: str | None


@dataclass(frozen=True, slots=True)
class ParserState:
    name: str
    steps: tuple[ParserStep, ...]
    key: tuple[Get | Lookahead, ...]
    cases: tuple[Case, ...]
    default: str | None
    where: str


@dataclass(frozen=True, slots=True)
class Parser:
    start: str
    states: Mapping[str, ParserState]


# --------------------------------------------------------------------------------------------- pipeline


@dataclass(frozen=True, slots=True)
class Key:
    """One element of a table's key."""

    name: str
    ref: FieldRef
    match: str
    """``exact``, ``lpm``, ``ternary`` or ``range`` (p4c turns ``optional`` into ``ternary``)."""
    width: int
    mask: int | None
    """Static mask applied to the field before matching."""


@dataclass(frozen=True, slots=True)
class ActionCall:
    """An action with its arguments."""

    action: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConstEntry:
    """An entry of `const entries`. Each match is (value,), (value, prefix length), (value, mask), (low, high)."""

    matches: tuple[tuple[int, ...], ...]
    call: ActionCall
    priority: int
    """As in the JSON: the lowest number wins."""


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    match: str
    """Kind of the lookup as a whole: ``exact``, ``lpm``, ``ternary`` or ``range``."""
    keys: tuple[Key, ...]
    size: int
    """Largest number of entries; enforced."""
    actions: tuple[int, ...]
    next_by_action: Mapping[int, str | None]
    next_hit: str | None
    next_miss: str | None
    by_hit: bool
    """The next node depends on hit or miss instead of on the action."""
    default: ActionCall
    default_action_const: bool
    default_entry_const: bool
    counters: bool
    ageing: bool
    meter: str | None
    """Name of the direct meter."""
    entries: tuple[ConstEntry, ...] | None
    """Const entries; None if the control plane fills the table."""
    where: str


@dataclass(frozen=True, slots=True)
class Conditional:
    name: str
    condition: Expr
    yes: str | None
    no: str | None
    where: str


@dataclass(frozen=True, slots=True)
class ActionNode:
    """A direct call of an action without parameters from the control flow."""

    name: str
    action: int
    next: str | None


Node = Table | Conditional | ActionNode


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A control: a directed acyclic graph of tables, conditions and calls."""

    name: str
    start: str | None
    nodes: Mapping[str, Node]


# -------------------------------------------------------------------------------------------- externs


@dataclass(frozen=True, slots=True)
class Payload:
    """In a calculation: the bytes that the parser left."""


@dataclass(frozen=True, slots=True)
class Literal:
    """In a calculation: a constant of a given width."""

    value: int
    width: int


@dataclass(frozen=True, slots=True)
class WholeHeader:
    """In a calculation: a header as on the wire."""

    header: str


CalculationInput = FieldRef | Literal | WholeHeader | Payload


@dataclass(frozen=True, slots=True)
class Calculation:
    """A hash or checksum over a list of fields. Fields of invalid headers are left out."""

    name: str
    algorithm: str
    inputs: tuple[CalculationInput, ...]


@dataclass(frozen=True, slots=True)
class Checksum:
    name: str
    target: FieldRef
    calculation: str
    condition: Expr | None
    update: bool
    verify: bool


@dataclass(frozen=True, slots=True)
class CounterArray:
    name: str
    size: int
    table: str | None
    """The table of a direct counter."""


@dataclass(frozen=True, slots=True)
class MeterArray:
    name: str
    size: int
    bytes: bool
    """Counts bytes, else packets."""
    table: str | None
    """The table of a direct meter."""
    target: FieldRef | None
    """Where a direct meter writes its colour."""


@dataclass(frozen=True, slots=True)
class RegisterArray:
    name: str
    size: int
    width: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Program:
    """Everything that one JSON file says. Equal only to itself."""

    headers: Mapping[str, Header]
    errors: Mapping[str, int]
    parser: Parser
    deparser: tuple[str, ...]
    """Headers in the order in which they are written."""
    ingress: Pipeline
    egress: Pipeline
    actions: Mapping[int, Action]
    calculations: Mapping[str, Calculation]
    checksums: tuple[Checksum, ...]
    counters: Mapping[str, CounterArray]
    meters: Mapping[str, MeterArray]
    registers: Mapping[str, RegisterArray]
    tables: Mapping[str, Table]
    """Those of both pipelines."""

    def declaration(self, ref: FieldRef) -> Field:
        """The declaration of a field. Raises ProgramError if there is none."""
        if ref.field == VALID:
            return Field(VALID, 1)
        for item in self.headers[ref.header].fields:
            if item.name == ref.field:
                return item
        raise ProgramError(f"header {ref.header} has no field {ref.field}")

    def action_id(self, name: str, table: str | None = None) -> int:
        """The number of an action; a name may have several, so `table` chooses. Raises KeyError."""
        candidates = self.tables[table].actions if table is not None else tuple(self.actions)
        for number in candidates:
            if self.actions[number].name == name:
                return number
        if table is not None and self.actions[self.tables[table].default.action].name == name:
            return self.tables[table].default.action
        raise KeyError(name)
