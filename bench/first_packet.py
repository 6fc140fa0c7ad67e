"""The round trip of a first packet, at 200 new connections per second on BMv2, against a bare punt, write, packet-out.

NVI: two hosts, two agents; the packet is punted, the far agent takes part and writes, the near one writes, the packet
goes through both switches, is sent back, and returns through the new entries. The peer: one BMv2 with the same program
and a controller that does nothing but answer each packet in with one write of two prebuilt entries and a packet out;
that packet, too, is sent back and returns through an entry. The two take turns, second by second.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from nvi.bench.farm import Farm
from nvi.bench.lab import Lab, wait_for
from nvi.bench.line import Line, generate

from .report import Result, Samples, interleave, main

RATE, ROUNDS = 200, 8
REQUIRED = 2.5


def benchmark(rounds: int = ROUNDS) -> list[Result]:
    """See above."""
    return [uvloop.run(_compare(rounds))]


async def _compare(rounds: int) -> Result:
    with Lab() as lab:
        ours, peer = _Contender(lab, Line(lab, 2)), _Contender(lab, Line(lab, 1, first_device=10))
        (bmv2,) = peer.line.switches
        program = (sys.executable, "-m", "bench.bare", bmv2.address, str(bmv2.device_id), str(rounds * RATE))
        ready = lab.directory / "ready"
        bare = lab.spawn(None, *program, stdout=ready.open("w"))
        wait_for(lambda: bool(ready.read_text()), "the bare controller", bare)
        async with Farm(*((switch, 1) for switch in ours.line.switches)):
            mine, theirs = await asyncio.to_thread(interleave, rounds, ours.round_trip, peer.round_trip)
    return Result(
        f"first packet's round trip, {RATE} new connections/s",
        f"{mine.median:.2f} ms, {ours.lost} lost",
        f"{theirs.median:.2f} ms, {peer.lost} lost",
        mine.median / theirs.median,
        f"at most {REQUIRED}, none lost",
    )


class _Contender:
    """One of the two, and what it has lost."""

    def __init__(self, lab: Lab, line: Line) -> None:
        self.line = line
        self.lost = 0
        self._lab = lab
        self._connections = 0

    def round_trip(self) -> float:
        """The median of one second's connections, in milliseconds."""
        report = generate(self._lab, self.line, "pace", self._connections, RATE, RATE)
        self._connections += RATE
        self.lost += report.sent - report.arrived
        return Samples(report.round_trips).median


if __name__ == "__main__":
    main(benchmark)
