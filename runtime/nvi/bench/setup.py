"""How fast connections between two hosts are set up, and how long each takes.

Rate: a window of first packets is under way, and the next one leaves when one has come out at the far endpoint. So
connections are offered as fast as they come about, and no faster.
Latency: at a rate far below that, from the first packet until its answer is back.
CPU time: while connections are set up as fast as they come about; of the control plane and of the switches.
"""

from __future__ import annotations

import asyncio
import math
import signal
import statistics
from collections.abc import Callable, Sequence
from typing import Literal

import uvloop
from msgspec import Struct

from ..emulation.targets import Target
from .farm import Farm
from .lab import Lab, LabError
from .line import Line, Wires, generate
from .traffic import Report

Offers = Literal["memory", "nats"]

ROUNDS = 4
MOST = 5000
"""Connections that can be asked for: with those of the warm-up and of the latency, less than an endpoint may have."""


class Load(Struct, frozen=True):
    """What is offered."""

    connections: int = 4000
    """As fast as they come about. For the latency, a quarter of that follows."""
    window: int = 40
    """First packets under way. BMv2 queues 64 for a port, and drops the rest."""
    rate: float = 200.0
    """Connections per second for the latency."""


class Measured(Struct, frozen=True):
    """What came out."""

    rate: float
    """Connections per second: the median of the rounds."""
    connections: int
    lost: int
    """First packets that never arrived."""
    round_trips: int
    """First packets that were answered, at the rate of the load."""
    unanswered: int
    p50: float
    """Milliseconds of a first packet's round trip."""
    p99: float
    control_cpu: float
    """CPU seconds of the control plane per 1,000 connections."""
    switch_cpu: float


class Contender:
    """Two switches and their control plane, which is offered connections in rounds."""

    def __init__(
        self, lab: Lab, line: Wires, load: Load, control: Callable[[], float], switches: Callable[[], float]
    ) -> None:
        """`control`, `switches`: the CPU seconds that these have used up to now."""
        self._load = load
        self._lab = lab
        self._line = line
        self._accounts = control, switches
        self._next = 0
        self._rates: list[float] = []
        self._costs: tuple[list[float], list[float]] = [], []
        self._round_trips: list[float] = []
        self._sent = self._lost = self._paced = 0

    def warm_up(self) -> None:
        """The first connections are not counted."""
        report = self._offer("saturate", self._load.connections // 8, self._load.window)
        if report.arrived == 0:
            raise LabError(f"none of {report.sent} first packets arrived")

    def saturate(self) -> None:
        """One round of connections, as fast as they come about."""
        before = [account() for account in self._accounts]
        report = self._offer("saturate", self._load.connections // ROUNDS, self._load.window)
        for cost, account, then in zip(self._costs, self._accounts, before, strict=True):
            cost.append(1e3 * (account() - then) / report.sent)
        self._rates.append(report.arrived / report.seconds if report.arrived else 0.0)
        self._sent += report.sent
        self._lost += report.sent - report.arrived

    def pace(self) -> None:
        """One round of connections at the load's rate."""
        report = self._offer("pace", self._load.connections // (4 * ROUNDS), self._load.rate)
        self._round_trips += report.round_trips
        self._paced += report.sent

    def measured(self) -> Measured:
        """What the rounds so far have given."""
        control, switches = (statistics.median(cost) for cost in self._costs)
        return Measured(
            rate=statistics.median(self._rates),
            connections=self._sent,
            lost=self._lost,
            round_trips=len(self._round_trips),
            unanswered=self._paced - len(self._round_trips),
            p50=percentile(self._round_trips, 50),
            p99=percentile(self._round_trips, 99),
            control_cpu=control,
            switch_cpu=switches,
        )

    def _offer(self, mode: str, count: int, argument: float) -> Report:
        first, count = self._next, max(count, 1)
        self._next += count
        return generate(self._lab, self._line, mode, first, count, argument)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that is not exceeded by so many percent of them (nearest rank). NaN if there are none."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(percent / 100 * len(values)), 1) - 1]


def in_turns(*contenders: Contender) -> None:
    """Offer its load to each of them, round by round, so that whatever else the machine does meets them alike."""
    for contender in contenders:
        contender.warm_up()
    for _ in range(ROUNDS):
        for contender in contenders:
            contender.saturate()
        for contender in contenders:
            contender.pace()


def measure(target: Target, offers: Offers, load: Load) -> Measured:
    """Bring up two hosts, measure, and leave nothing behind, also if a signal ends it: then it is a KeyboardInterrupt.

    Raises LabError.
    """
    try:
        return uvloop.run(_measure(target, offers, load))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _measure(target: Target, offers: Offers, load: Load) -> Measured:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with Lab() as lab:
        line = Line(lab, 2, target)
        nats = lab.directory if offers == "nats" else None
        async with Farm(*((switch, 1) for switch in line.switches), nats=nats) as farm:
            contender = Contender(lab, line, load, farm.control_seconds, line.cpu_seconds)
            await asyncio.to_thread(in_turns, contender)
            return contender.measured()
