"""Building blocks of the generated Python: expressions with bounds, blocks of statements, symbolic values.

The compiler is a partial evaluator: it runs the program on symbolic values and writes down only what cannot be
known before a packet arrives. A field is one of

* `Src`: Python source text with the bounds of what it evaluates to (a constant if they coincide);
* `Raw`: bits of the packet as received, loaded when somebody asks for them, and never if nobody does;
* `Span`, `Octets`: a variable-length field, as a stretch of the packet or as a Python `bytes` variable.

On every way through the code a variable is assigned at most once, so values may be copied freely between fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from .ir import FieldRef


@dataclass(frozen=True, slots=True)
class Src:
    """A Python expression for an integer (a boolean is 0 or 1). It has no side effects."""

    text: str
    low: int | None
    """Least value it can have; None if not known."""
    high: int | None
    atom: bool = True
    """A name or a literal: may be repeated without cost."""
    complement: str | None = None
    """If this is ``~x`` with x >= 0: the text of x."""

    @property
    def const(self) -> int | None:
        """Its value, if that is known."""
        return self.low if self.low == self.high else None

    def within(self, mask: int) -> bool:
        """It certainly lies in 0..mask."""
        return self.low is not None and self.low >= 0 and self.high is not None and self.high <= mask

    @property
    def natural(self) -> bool:
        """It certainly is not negative."""
        return self.low is not None and self.low >= 0


@lru_cache(4096)
def lit(value: int) -> Src:
    """A constant."""
    value = int(value)
    return Src(str(value) if value < 1 << 16 else hex(value), value, value)


def expr(text: str, low: int | None, high: int | None) -> Src:
    """A compound expression; becomes a constant if the bounds coincide."""
    if low is not None and low == high:
        return lit(low)
    return Src(text, low, high, atom=False)


@dataclass(frozen=True, slots=True)
class Raw:
    """`width` bits of the packet, `bit` bits after the byte that the variable `base` names ("" for byte 0)."""

    base: str
    bit: int
    width: int


@dataclass(frozen=True, slots=True)
class Span:
    """A variable-length field still in the packet: from `byte` after `base` up to the byte that `end` names."""

    base: str
    byte: int
    end: str


@dataclass(frozen=True, slots=True)
class Octets:
    """A variable-length field in a variable of type `bytes` (text ``b""`` for an empty one)."""

    text: str


Value = Src | Raw | Span | Octets

EMPTY = Octets('b""')


class Block:
    """A sequence of statements at one level of indentation."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[str | list[tuple[str | None, Block]]] = []

    def add(self, line: str) -> None:
        self.items.append(line)

    def branch(self, conditions: Iterable[str | None]) -> list[Block]:
        """Append an if/elif/else chain (None stands for else); returns the blocks of its arms."""
        arms = [(condition, Block()) for condition in conditions]
        self.items.append(arms)
        return [block for _, block in arms]

    @property
    def ends(self) -> bool:
        """Control certainly does not fall out of the end of this block."""
        if not self.items:
            return False
        last = self.items[-1]
        if isinstance(last, str):
            return last.startswith(("return", "continue"))
        return last[-1][0] is None and all(block.ends for _, block in last)

    def render(self, depth: int) -> list[str]:
        """Lines of source, indented."""
        pad = "    " * depth
        lines: list[str] = []
        for item in self.items:
            if isinstance(item, str):
                lines.append(pad + item)
                continue
            for position, (condition, block) in enumerate(item):
                if condition is None:
                    # After arms that all return, an else needs no indentation: deep parsers would run out of it.
                    if all(arm.ends for _, arm in item[:position]):
                        lines += block.render(depth)
                        continue
                    if not block.items:
                        continue
                    lines.append(f"{pad}else:")
                else:
                    lines.append(f"{pad}{'elif' if position else 'if'} {condition}:")
                lines += block.render(depth + 1) or [f"{pad}    pass"]
        return lines


@dataclass(slots=True)
class Flow:
    """One way through the program: where its code goes, and what is known about the state at its end."""

    block: Block
    values: dict[FieldRef, Value]
    """What each field holds; a field that is not here holds 0."""
    valid: dict[str, Src]
    """Validity of each header; one that is not here is invalid."""
    loaded: dict[Raw, str] = field(default_factory=dict)
    """Names of the variables that hold bits of the packet."""
    facts: dict[Raw, int] = field(default_factory=dict)
    """Bits of the packet whose value has been tested."""
    base: str = ""
    """The parser's position is byte `offset` after this variable."""
    offset: int = 0
    known: dict[str, int] = field(default_factory=dict)
    """So many bytes after each base are certainly there."""
    growth: Src = field(default_factory=lambda: lit(0))
    """By how many bytes headers added and removed have changed the packet's length."""
    clock_read: bool = False
    """The variable `now` holds the time."""
    names: set[str] = field(default_factory=set)
    """Variables assigned on the way so far. Other ways may have the same names: Python makes room for all variables
    of a function at each call, so there should not be thousands of them."""
    exited: bool = False
    """`exit` was called: the pipeline ends after this action."""

    def fork(self, block: Block) -> Flow:
        """A copy that continues in another block."""
        return Flow(
            block,
            dict(self.values),
            dict(self.valid),
            dict(self.loaded),
            dict(self.facts),
            self.base,
            self.offset,
            dict(self.known),
            self.growth,
            self.clock_read,
            set(self.names),
            self.exited,
        )

    def name(self, hint: str) -> str:
        """A variable that is not in use on this way; `hint` makes the generated code readable."""
        return new_name([self], hint)

    def assume(self, ref: FieldRef, value: int) -> None:
        """From here on the field is known to have this value; so have all copies of it."""
        current = self.values.get(ref)
        if isinstance(current, Raw):
            # The field stays what it is, so that the deparser can still copy it from the packet.
            self.facts[current] = value
        elif isinstance(current, Src) and current.atom:
            for other, held in self.values.items():
                if held == current:
                    self.values[other] = lit(value)


def new_name(flows: Sequence[Flow], hint: str) -> str:
    """A variable that is not in use on any of these ways."""
    clean = "".join(c if c.isalnum() else "_" for c in hint)
    number = 0
    while any(f"{clean}_{number}" in flow.names for flow in flows):
        number += 1
    name = f"{clean}_{number}"
    for flow in flows:
        flow.names.add(name)
    return name


def at(base: str, offset: int) -> str:
    """Source of a byte position."""
    if not base:
        return str(offset)
    return f"{base} + {offset}" if offset else base
