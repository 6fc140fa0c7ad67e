"""The embedded switch as its agent's own object: no process, no sockets, no messages.

For tests and simulations. The packets go through the same pipeline as everywhere else; only P4Runtime is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from .. import rows
from ..rows import CONNECTIONS, CONNECTIONS6, GUARD, NEIGHBOURS, SERVICES, Value
from ..switch import (
    PORT_CPU,
    Condition,
    ConnectionEntry,
    ConnectionKey,
    DropReason,
    GuardEntry,
    NeighbourEntry,
    Operation,
    Punt,
    PuntReason,
    ServiceEntry,
    State,
    Update,
    Usage,
    WriteFailed,
)
from . import ir
from .engine import Engine
from .matching import DuplicateEntry, Key, NoSuchEntry, TableFull
from .matching import Entry as EngineEntry
from .meters import MeterConfig
from .program import load

DROPS, PUNTS = "NviIngress.drops.drops", "NviIngress.punt.punts"

_REINJECT, _SEND = 0, 1
_STATUS: dict[type[Exception], str] = {
    DuplicateEntry: "ALREADY_EXISTS",
    NoSuchEntry: "NOT_FOUND",
    TableFull: "RESOURCE_EXHAUSTED",
}


@cache
def nvi_program() -> ir.Program:
    """The committed pipeline, ready for any number of engines."""
    return load((files("nvi") / "compiled/nvi.json").read_bytes())


Row = tuple[str, str]
"""(table, action), as rows name them."""
Places = tuple[int, ...]


@cache
def _names(program: ir.Program) -> tuple[dict[str, str], dict[Row, int], dict[tuple[str, int], str]]:
    """What is called how in the program: tables by their names in rows, actions' numbers, and their names by number."""
    full = {name.rpartition(".")[2]: name for name in program.tables}
    tables = {table: full[table] for table in rows.KEYS}
    called = {action.name.rpartition(".")[2]: action.name for action in program.actions.values()}
    numbers = {
        (table, action): program.action_id(called[action], tables[table])
        for table, those in rows.ACTIONS.items()
        for action in those
    }
    return tables, numbers, {(table, number): action for (table, action), number in numbers.items()}


@cache
def _octets(program: ir.Program) -> tuple[dict[str, Places], dict[str, Places]]:
    """Places of values that rows have as bytes and the engine as numbers: by table, in keys; by action."""
    tables, numbers, _ = _names(program)
    in_keys = {table: _are_bytes(key.width for key in program.tables[name].keys) for table, name in tables.items()}
    in_actions = {
        action: _are_bytes(width for _, width in program.actions[number].params)
        for (_, action), number in numbers.items()
    }
    return in_keys, in_actions


class MemorySwitch:
    """A Switch (see nvi.switch) around an Engine."""

    def __init__(
        self,
        program: ir.Program,
        clock: Callable[[], int],
        transmit: Callable[[int, bytes], None],
    ) -> None:
        """`clock`: monotonic ns; `transmit(port, packet)`: takes what leaves the switch."""
        self._program = program
        self._tables, self._actions, self._names = _names(program)
        self._octets, self._octets_of = _octets(program)
        self._clock = clock
        self.restart()
        self.on_punt: Callable[[Punt], None] = _ignore
        self.on_primary: Callable[[bool], None] = _ignore
        self._transmit = transmit

    def restart(self) -> None:
        """Begin anew, with nothing in the tables."""
        self.engine = Engine(self._program, self._clock)

    async def start(self) -> None:
        """Whoever asks is the primary."""
        self.on_primary(True)

    @property
    def state(self) -> State:
        """See Switch."""
        return State(Condition.PRIMARY, "the switch is this process's own")

    def receive(self, port: int, packet: bytes) -> None:
        """A packet arrives at a port."""
        for egress, out in self.engine.process(port, packet):
            if egress != PORT_CPU:
                self._transmit(egress, out)
            else:
                header = int.from_bytes(out[:2], "big")
                self.on_punt(Punt(header >> 7, PuntReason(header & 0x7F), out[2:]))

    def reinject(self, port: int, packet: bytes) -> None:
        """See Switch."""
        self.receive(PORT_CPU, (port << 7 | _REINJECT).to_bytes(2, "big") + packet)

    def send(self, port: int, packet: bytes) -> None:
        """See Switch."""
        self.receive(PORT_CPU, (port << 7 | _SEND).to_bytes(2, "big") + packet)

    async def write(self, updates: Sequence[Update]) -> None:
        """See Switch. Yields once, as a switch that is elsewhere would."""
        await asyncio.sleep(0)
        failures = []
        for update in updates:
            try:
                self._do(update)
            except (DuplicateEntry, NoSuchEntry, TableFull) as error:
                failures.append((update, _STATUS[type(error)], ""))
        if failures:
            raise WriteFailed(failures)

    def _do(self, update: Update) -> None:
        entry = update.entry
        table, values, action, parameters = rows.row(entry)
        name, key = self._tables[table], self._key(table, values)
        if update.operation is Operation.DELETE:
            self.engine.remove(name, key)
            return
        timeout = tag = 0
        if type(entry) is ConnectionEntry:
            timeout, tag = int(entry.idle_timeout * 1e9), entry.tag
        change = self.engine.insert if update.operation is Operation.INSERT else self.engine.modify
        args = _numbers(parameters, self._octets_of[action])
        change(name, key, self._actions[table, action], args, timeout=timeout).extra = tag

    async def usage(self, keys: Sequence[ConnectionKey]) -> list[Usage | None]:
        """See Switch."""
        await asyncio.sleep(0)
        now = self._clock()
        found = []
        for key in keys:
            table = rows.table_of(key)
            entries = self.engine.tables[self._tables[table]].entries
            found.append(entries.get((self._key(table, rows.connection_key(key)), 0)))
        return [None if e is None else Usage(max(now - e.stamp, 0) / 1e9, e.packets, e.octets) for e in found]

    async def read_connections(self) -> list[ConnectionEntry]:
        """See Switch."""
        return [self._connection(table, entry) for table in (CONNECTIONS, CONNECTIONS6) for entry in self._all(table)]

    async def read_guard(self) -> list[GuardEntry]:
        """See Switch."""
        return [rows.guard(self._match(GUARD, entry), self._values(entry)) for entry in self._all(GUARD)]

    async def read_neighbours(self) -> list[NeighbourEntry]:
        """See Switch."""
        return [rows.neighbour(self._match(NEIGHBOURS, entry), self._values(entry)) for entry in self._all(NEIGHBOURS)]

    async def read_services(self) -> list[ServiceEntry]:
        """See Switch."""
        return [rows.service(self._match(SERVICES, entry)) for entry in self._all(SERVICES)]

    async def read_drops(self, ports: Sequence[int]) -> dict[int, dict[DropReason, int]]:
        """See Switch."""
        cells = self.engine.counters[DROPS]
        drops = {port: {reason: cells.packets[32 * port + reason] for reason in DropReason} for port in ports}
        return {port: {reason: count for reason, count in reasons.items() if count} for port, reasons in drops.items()}

    async def set_punt_limit(self, port: int, rate: int, burst: int) -> None:
        """See Switch."""
        self.engine.configure_meter(PUNTS, port, MeterConfig(rate, burst, rate, burst))

    def _connection(self, table: str, entry: EngineEntry) -> ConnectionEntry:
        action = self._names[table, entry.action]
        tag = entry.extra if isinstance(entry.extra, int) else 0
        return rows.connection(self._match(table, entry), action, self._values(entry), entry.timeout / 1e9, tag)

    def _key(self, table: str, values: Sequence[Value]) -> Key:
        return tuple(zip(_numbers(values, self._octets[table]), strict=True))  # a tuple of one for each

    def _all(self, table: str) -> Iterator[EngineEntry]:
        return self.engine.tables[self._tables[table]].all()

    def _match(self, table: str, entry: EngineEntry) -> list[Value]:
        """The key, as rows have it."""
        widths = self.engine.tables[self._tables[table]].widths
        return [_value(match[0], width) for match, width in zip(entry.key, widths, strict=True)]

    def _values(self, entry: EngineEntry) -> list[Value]:
        """The parameters, as rows have them."""
        parameters = self._program.actions[entry.action].params
        return [_value(number, width) for number, (_, width) in zip(entry.args, parameters, strict=True)]


def _ignore(_: object) -> None:
    """Until an agent has taken the switch over."""


def _are_bytes(widths: Iterable[int]) -> Places:
    return tuple([place for place, width in enumerate(widths) if rows.is_bytes(width)])


def _numbers(values: Sequence[Value], octets: Places) -> tuple[int, ...]:
    numbers: list[Any] = list(values)
    for place in octets:
        numbers[place] = int.from_bytes(numbers[place])
    return tuple(numbers)


def _value(number: int, width: int) -> Value:
    return number.to_bytes(width // 8) if rows.is_bytes(width) else number
