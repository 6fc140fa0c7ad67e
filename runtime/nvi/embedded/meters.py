"""Two-rate three-colour meters (RFC 2698 in colour-blind mode), with the arithmetic of BMv2's."""

from __future__ import annotations

from dataclasses import dataclass

GREEN, YELLOW, RED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """P4Runtime's MeterConfig: rates in packets or bytes per second, bursts in packets or bytes."""

    cir: int
    cburst: int
    pir: int
    pburst: int


class Meter:
    """One configured meter. Its two buckets start full."""

    __slots__ = ("_committed", "_last", "_peak", "config")

    def __init__(self, config: MeterConfig, now: int) -> None:
        self.config = config
        self._committed = config.cburst * 1_000_000_000
        self._peak = config.pburst * 1_000_000_000
        self._last = now

    def execute(self, units: int, now: int) -> int:
        """The colour of a packet of so many units (bytes, or 1) at this time (ns). Buckets count 1e-9 units."""
        config = self.config
        elapsed = max(now - self._last, 0)
        self._last = now
        cost = units * 1_000_000_000
        self._committed = min(self._committed + elapsed * config.cir, config.cburst * 1_000_000_000)
        self._peak = min(self._peak + elapsed * config.pir, config.pburst * 1_000_000_000)
        if self._peak < cost:
            return RED
        self._peak -= cost
        if self._committed < cost:
            return YELLOW
        self._committed -= cost
        return GREEN


class MeterCells:
    """An indirect meter: one cell per index. A cell that nobody has configured says GREEN."""

    __slots__ = ("_bytes", "_size", "cells")

    def __init__(self, size: int, by_bytes: bool) -> None:
        self.cells: dict[int, Meter] = {}
        """Those that are configured."""
        self._size = size
        self._bytes = by_bytes

    def execute(self, index: int, octets: int, now: int) -> int:
        """The colour of a packet of so many bytes."""
        meter = self.cells.get(index)
        return GREEN if meter is None else meter.execute(octets if self._bytes else 1, now)

    def configure(self, index: int, config: MeterConfig | None, now: int) -> None:
        """Set or (None) unset a cell. Raises IndexError."""
        if not 0 <= index < self._size:
            raise IndexError(index)
        if config is None:
            self.cells.pop(index, None)
        else:
            self.cells[index] = Meter(config, now)


class Cells(dict[int, int]):
    """Numbers by index, of a counter or register. One that nobody has set is 0, and takes no room.

    Most cells of most switches are never used, and a simulation has many switches. Whoever reads or writes checks the
    index; so does the generated code.
    """

    __slots__ = ()

    def __missing__(self, index: int) -> int:
        return 0


class CounterCells:
    """An indirect counter."""

    __slots__ = ("octets", "packets")

    def __init__(self) -> None:
        self.packets = Cells()
        self.octets = Cells()
