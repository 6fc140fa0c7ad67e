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

    __slots__ = ("_bytes", "cells")

    def __init__(self, size: int, by_bytes: bool) -> None:
        self.cells: list[Meter | None] = [None] * size
        self._bytes = by_bytes

    def execute(self, index: int, octets: int, now: int) -> int:
        """The colour of a packet of so many bytes."""
        meter = self.cells[index]
        return GREEN if meter is None else meter.execute(octets if self._bytes else 1, now)

    def configure(self, index: int, config: MeterConfig | None, now: int) -> None:
        """Set or (None) unset a cell. Raises IndexError."""
        self.cells[index] = None if config is None else Meter(config, now)


class CounterCells:
    """An indirect counter."""

    __slots__ = ("octets", "packets")

    def __init__(self, size: int) -> None:
        self.packets = [0] * size
        self.octets = [0] * size
