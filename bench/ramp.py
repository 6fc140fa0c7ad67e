"""What becomes of connection set-up when more is offered than can be done: two hosts on BMv2, agents as they come.

First packets are offered at a rate, whatever comes of them (an open loop), step by step beyond the knee: the highest
rate of which nine tenths come about in time. Then the knee, twice and four times that take turns. Beside them runs a
stream of packets of a connection that was there before. What did not arrive is looked for in the counters: of the
switches (drops by reason), of the agents (events) and of their sessions.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import uvloop

from nvi.bench.farm import Farm
from nvi.bench.lab import Lab, resident_bytes
from nvi.bench.line import Line, generate
from nvi.bench.setup import percentile
from nvi.bench.traffic import STREAM_RATE, Report, Stream
from nvi.switch import PORT_FIRST_ENDPOINT
from nvi.topology.model import DEFAULT_IDLE_TIMEOUT, DEFAULT_PUNT_RATE

from .report import Result, main

START, GROWTH = 500.0, 1.3
IN_TIME = 0.9
MOST = 7000
"""First packets of one step, fewer than the connections that an endpoint may have."""
SECONDS, ROUNDS = 2.0, 3
DROPPED = "dropped by the switch at"
TIMES = (1, 2, 4)
"""The knee, and how far beyond it."""


@dataclass(frozen=True)
class Step:
    """What came of one rate."""

    rate: float
    """First packets per second that were offered."""
    came: float
    """Connections per second that came about while they were."""
    report: Report
    counted: Counter[str]
    """Packets that did not arrive, by where they were counted."""
    punted: int
    """Packets that the agents were handed."""
    memory: int
    """MB that the agents' process holds."""

    @property
    def uncounted(self) -> int:
        """First packets that are neither here nor there."""
        return self.report.sent - self.report.arrived - self.counted.total()

    @property
    def unpunted(self) -> int:
        """Those of them that no agent has seen: BMv2 does not count what its queues do not take."""
        dropped = sum(count for what, count in self.counted.items() if what.startswith(DROPPED))
        return self.report.sent - self.punted - dropped

    @property
    def stream(self) -> Stream:
        """The established connection's packets."""
        assert self.report.stream is not None
        return self.report.stream

    def __str__(self) -> str:
        report, stream = self.report, self.stream
        counted = ", ".join(f"{count} {what}" for what, count in sorted(self.counted.items())) or "nothing"
        return (
            f"  {self.rate:6.0f}/s offered: {self.came:5.0f}/s in time, {report.arrived} of {report.sent} in all; "
            f"counted: {counted}; uncounted: {self.uncounted} "
            f"({self.unpunted} before any agent); stream: {stream.sent - len(stream.delays)} of "
            f"{stream.sent} lost, p99 {percentile(stream.delays, 99):.1f} ms; {self.memory} MB"
        )


def benchmark() -> list[Result]:
    """See above."""
    return uvloop.run(_ramp())


async def _ramp() -> list[Result]:
    with Lab() as lab:
        line = Line(lab, 2)
        async with Farm(
            *((switch, 1) for switch in line.switches), idle_timeout=DEFAULT_IDLE_TIMEOUT, punt_rate=DEFAULT_PUNT_RATE
        ) as farm:
            saturation = Saturation(lab, line, farm)
            return await saturation.measure()


class Saturation:
    """Two hosts that are offered too much."""

    def __init__(self, lab: Lab, line: Line, farm: Farm) -> None:
        self._lab, self._line, self._farm = lab, line, farm
        self._number = 0

    async def measure(self) -> list[Result]:
        """Climb beyond the knee, then go back and forth."""
        await self._step(START)  # warm up
        knee = await self._climb()
        steps: dict[int, list[Step]] = {times: [] for times in TIMES}
        for _ in range(ROUNDS):
            for times, into in steps.items():
                into.append(await self._step(times * knee))
                print(into[-1], flush=True)
        return results(steps)

    async def _climb(self) -> float:
        knee = rate = START
        while rate < 2.2 * knee and rate * SECONDS / 2 < MOST:
            step = await self._step(rate)
            print(step, flush=True)
            if step.came >= IN_TIME * rate:
                knee = rate
            rate *= GROWTH
        return knee

    async def _step(self, rate: float) -> Step:
        await self._forget()
        before, punts = await self._counted()
        count = int(min(rate * SECONDS, MOST))
        report = await asyncio.to_thread(generate, self._lab, self._line, "offer", self._number, count, rate)
        self._number += 1 + count
        counted, punts_after = await self._counted()
        # One of the punts was the stream's first packet.
        punted = punts_after - punts - 1
        memory = resident_bytes() // 1_000_000
        return Step(rate, report.in_time / (count / rate), report, counted - before, punted, memory)

    async def _forget(self) -> None:
        """Begin without connections: those of the step before end with their endpoints, which come again."""
        for agent, endpoint in zip(self._farm.agents, self._farm.endpoints, strict=True):
            await agent.remove_endpoint(endpoint.name)
            await agent.add_endpoint(endpoint, PORT_FIRST_ENDPOINT)

    async def _counted(self) -> tuple[Counter[str], int]:
        """Packets that went no further, by where that was, and packets punted, since the beginning."""
        counted: Counter[str] = Counter()
        punts = 0
        for agent, session in zip(self._farm.agents, self._farm.sessions, strict=True):
            status = await agent.status()
            for port, drops in status["drops"].items():
                for reason, packets in drops.items():
                    counted[f"{DROPPED} {port} ({reason})"] += packets
            for event, count in status["events"].items():
                if event.startswith(("overflow", "refused", "failed")):
                    counted[event] += count
            counted["punts discarded"] += session.counts.punts_discarded
            counted["packet-outs discarded"] += session.counts.packets_out_discarded
            punts += status["events"].get("punts miss", 0)
        return counted, punts


def results(steps: Mapping[int, Sequence[Step]]) -> list[Result]:
    """Beyond the knee against the knee, by medians. `steps`: by how many times the knee's load was offered."""
    knee = steps[1]
    rows = []
    for times, beyond in steps.items():
        if times == 1:
            continue
        setups, at_knee = statistics.median(step.came for step in beyond), statistics.median(step.came for step in knee)
        here = f"at {times} times the knee's load : at the knee"
        rows += [
            Result(
                f"set-ups/s {here}",
                f"{setups:.0f}/s of {beyond[0].rate:.0f}",
                f"{at_knee:.0f}/s of {knee[0].rate:.0f}",
                setups / at_knee,
                "no collapse",
            ),
            Result(
                f"  established stream, {STREAM_RATE:.0f}/s", _stream(beyond), _stream(knee), None, "does not suffer"
            ),
            Result("  first packets refused or lost", _refused(beyond), _refused(knee), None, "counted"),
            Result(
                "  memory of the agents",
                f"{max(step.memory for step in beyond)} MB",
                f"{max(step.memory for step in knee)} MB",
                max(step.memory for step in beyond) / max(step.memory for step in knee),
                "bounded",
            ),
        ]
    return rows


def _stream(steps: Sequence[Step]) -> str:
    delays = [delay for step in steps for delay in step.stream.delays]
    sent = sum(step.stream.sent for step in steps)
    return f"{sent - len(delays)} of {sent} lost, p99 {percentile(delays, 99):.1f} ms"


def _refused(steps: Sequence[Step]) -> str:
    counted, uncounted = sum(step.counted.total() for step in steps), sum(step.uncounted for step in steps)
    return f"{counted} counted, {uncounted} not"


if __name__ == "__main__":
    main(benchmark)
