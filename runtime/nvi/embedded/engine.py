"""The running program: tables, counters, meters, registers, and packets going through.

Everything is plain integers here; `service` speaks P4Runtime. One thread may run packets while others read and
change tables: an entry appears and disappears as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from . import ir
from .compiler import Objects, Process, compile_program
from .matching import Entry, Key, RuntimeTable
from .meters import Cells, CounterCells, Meter, MeterCells, MeterConfig

Clock = Callable[[], int]
"""Monotonic time in ns."""


class _Made(dict[str, RuntimeTable]):
    """Tables, each made when it is first used: p4c makes one of every statement, and most are never needed."""

    def __init__(self, make: Callable[[str], RuntimeTable]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> RuntimeTable:
        return self.setdefault(name, self._make(name))  # one and the same to all threads


class Engine:
    """A program and its state."""

    def __init__(self, program: ir.Program, clock: Clock = time.monotonic_ns) -> None:
        """Raises UnsupportedConstruct if the program cannot be compiled."""
        self.program = program
        self.clock = clock
        self.compiled = compile_program(program)
        self.tables = _Made(lambda name: RuntimeTable(program.tables[name]))
        self.counters = {n: CounterCells() for n, c in program.counters.items() if c.table is None}
        self.meters = {n: MeterCells(m.size, m.bytes) for n, m in program.meters.items() if m.table is None}
        self.registers = {name: Cells() for name in program.registers}
        objects: Objects = {
            "table": self.tables,
            "counter": self.counters,
            "meter": self.meters,
            "register": self.registers,
        }
        self.process: Process = self.compiled.bind(objects, clock, clock())
        """`process(port, packet) -> [(egress port, packet)]`: one packet, now. The CPU is a port like any other."""

    @classmethod
    def load(cls, text: str | bytes, clock: Clock = time.monotonic_ns) -> Engine:
        """An engine for p4c's JSON. Raises ProgramError."""
        from .program import load

        return cls(load(text), clock)

    # --------------------------------------------------------------------------------------------- tables

    def insert(
        self,
        table: str,
        key: Key,
        action: int,
        args: tuple[int, ...],
        priority: int = 0,
        timeout: int = 0,
        extra: object = None,
    ) -> Entry:
        """Add an entry. `timeout` in ns; `extra`: whatever is to be kept with it. Raises DuplicateEntry, TableFull."""
        entry = Entry(key, action, args, priority, timeout)
        entry.stamp, entry.extra = self.clock(), extra
        self.tables[table].insert(entry)
        return entry

    def modify(
        self,
        table: str,
        key: Key,
        action: int,
        args: tuple[int, ...],
        priority: int = 0,
        timeout: int = 0,
        extra: object = None,
    ) -> Entry:
        """Change an entry's action; its counter goes on, its timeout starts anew. Raises NoSuchEntry."""
        entry = self.tables[table].lookup(key, priority)
        # A new object, so that no packet sees the old action with the new arguments.
        changed = Entry(key, action, args, priority, timeout)
        changed.packets, changed.octets, changed.meter = entry.packets, entry.octets, entry.meter
        changed.stamp, changed.extra = self.clock(), extra
        self.tables[table].replace(changed)
        return changed

    def remove(self, table: str, key: Key, priority: int = 0) -> Entry:
        """Remove an entry. Raises NoSuchEntry."""
        return self.tables[table].remove(key, priority)

    def set_default(self, table: str, action: int, args: tuple[int, ...], extra: object = None) -> None:
        """Change the default entry."""
        entry = Entry((), action, args)
        entry.extra = extra
        self.tables[table].default = entry

    def set_direct_meter(self, entry: Entry, config: MeterConfig | None) -> None:
        """Set or unset the meter of an entry."""
        entry.meter = None if config is None else Meter(config, self.clock())

    def configure_meter(self, meter: str, index: int, config: MeterConfig | None) -> None:
        """Set or unset a cell of an indirect meter. Raises IndexError."""
        self.meters[meter].configure(index, config, self.clock())

    def expired(self, now: int) -> list[tuple[str, Entry]]:
        """(table, entry) of all that have not been hit for longer than their idle timeout."""
        return [
            (name, entry)
            for name, table in list(self.tables.items())
            if table.table.ageing
            for entry in table.all()
            if entry.timeout and now - entry.stamp >= entry.timeout
        ]
