"""What becomes of connection set-up when more is offered than can be done: two hosts on BMv2, agents as they come.

First packets are offered at a rate, whatever comes of them (an open loop), step by step beyond the knee: the highest
rate of which nine tenths come about in time. Then knee and twice the knee take turns. Beside them runs a stream of
packets of a connection that was there before. What did not arrive is looked for in the counters: of the switches (drops
by reason), of the agents (events) and of their sessions.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from nvi.bench.farm import Farm
from nvi.bench.lab import Lab
from nvi.bench.line import Line, generate
from nvi.bench.setup import percentile
from nvi.bench.traffic import STREAM_RATE, Report
from nvi.switch import PORT_FIRST_ENDPOINT
from nvi.topology.model import DEFAULT_PUNT_RATE

from .report import Result, main

START, GROWTH = 500.0, 1.3
IN_TIME = 0.9
MOST = 7000
"""First packets of one step, fewer than the connections that an endpoint may have."""
SECONDS, ROUNDS = 2.0, 3


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
    memory: int
    """MB that the agents' process holds."""

    @property
    def uncounted(self) -> int:
        """First packets that are neither here nor there: BMv2 does not count what its queues do not take."""
        return self.report.sent - self.report.arrived - self.counted.total()

    @property
    def stream_lost(self) -> float:
        """Share of the established connection's packets that were lost, in percent."""
        stream = self.report.stream
        return 100 * (1 - len(stream.delays) / stream.sent)

    def __str__(self) -> str:
        report, stream = self.report, self.report.stream
        counted = ", ".join(f"{count} {what}" for what, count in sorted(self.counted.items())) or "nothing"
        return (
            f"  {self.rate:6.0f}/s offered: {self.came:5.0f}/s in time, {report.arrived} of {report.sent} in all; "
            f"counted: {counted}; uncounted: {self.uncounted}; stream: {stream.sent - len(stream.delays)} of "
            f"{stream.sent} lost, p99 {percentile(stream.delays, 99):.1f} ms; {self.memory} MB"
        )


def benchmark() -> list[Result]:
    """See above."""
    return uvloop.run(_ramp())


async def _ramp() -> list[Result]:
    with Lab() as lab:
        line = Line(lab, 2)
        async with Farm(*((switch, 1) for switch in line.switches), punt_rate=DEFAULT_PUNT_RATE) as farm:
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
        at_knee, beyond = [], []
        for _ in range(ROUNDS):
            at_knee.append(await self._step(knee))
            beyond.append(await self._step(2 * knee))
        for each in (*at_knee, *beyond):
            print(each, flush=True)
        return results(at_knee, beyond)

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
        before = await self._counted()
        count = int(min(rate * SECONDS, MOST))
        report = await asyncio.to_thread(generate, self._lab, self._line, "offer", self._number, count, rate)
        self._number += 1 + count
        counted = await self._counted() - before
        return Step(rate, report.in_time / (count / rate), report, counted, _memory())

    async def _forget(self) -> None:
        """Begin without connections: those of the step before end with their endpoints, which come again."""
        for agent, endpoint in zip(self._farm.agents, self._farm.endpoints, strict=True):
            await agent.remove_endpoint(endpoint.name)
            await agent.add_endpoint(endpoint, PORT_FIRST_ENDPOINT)

    async def _counted(self) -> Counter[str]:
        """Packets that went no further, by where that was, since the beginning."""
        counted: Counter[str] = Counter()
        for agent, session in zip(self._farm.agents, self._farm.sessions, strict=True):
            status = await agent.status()
            for port, drops in status["drops"].items():
                for reason, packets in drops.items():
                    counted[f"dropped at {port} ({reason})"] += packets
            for event, count in status["events"].items():
                if event.startswith(("overflow", "refused", "failed")):
                    counted[event] += count
            counted["punts discarded"] += session.counts.punts_discarded
            counted["packet-outs discarded"] += session.counts.packets_out_discarded
        return counted


def results(at_knee: Sequence[Step], beyond: Sequence[Step]) -> list[Result]:
    """Medians of the steps at the knee, and of those at twice its load."""

    def middle(steps: Sequence[Step], of: str) -> float:
        return statistics.median(getattr(step, of) for step in steps)

    knee, twice = middle(at_knee, "came"), middle(beyond, "came")
    lost = sum(step.report.sent - step.report.arrived for step in beyond)
    counted = sum(step.counted.total() for step in beyond)
    stream = {
        name: [d for each in steps for d in each.report.stream.delays]
        for name, steps in (("knee", at_knee), ("beyond", beyond))
    }
    return [
        Result(
            "set-ups/s at twice the knee's load : at the knee",
            f"{twice:.0f}/s of {beyond[0].rate:.0f}",
            f"{knee:.0f}/s of {at_knee[0].rate:.0f}",
            twice / knee,
            "no collapse",
        ),
        Result(
            f"established stream ({STREAM_RATE:.0f}/s) beyond : at the knee",
            f"{middle(beyond, 'stream_lost'):.2f} % lost",
            f"{middle(at_knee, 'stream_lost'):.2f} % lost",
            None,
            f"p99 {percentile(stream['beyond'], 99):.1f} : {percentile(stream['knee'], 99):.1f} ms",
        ),
        Result(
            "first packets that did not arrive beyond the knee",
            f"{lost}",
            f"{counted} counted",
            counted / lost if lost else None,
        ),
        Result(
            "memory of the agents, MB: last : first step",
            f"{beyond[-1].memory}",
            f"{at_knee[0].memory}",
            beyond[-1].memory / at_knee[0].memory,
        ),
    ]


def _memory() -> int:
    """MB that this process, which the agents are in, holds."""
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) // 1000


if __name__ == "__main__":
    main(benchmark)
