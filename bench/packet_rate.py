"""Packets per second of the embedded switch against BMv2: both run NVI's pipeline, on veths of the same kind.

64-byte packets of one connection between two endpoints of a host; a generator keeps a window of them under way, small
enough for BMv2's queues (64 packets), so that nothing is lost and nobody waits. The switches take turns.
"""

from __future__ import annotations

import asyncio

import uvloop

from nvi.bench.farm import Farm
from nvi.bench.lab import Lab
from nvi.bench.line import Line, generate

from .report import Result, interleave, main

PACKETS, WINDOW, ROUNDS = 40_000, 48, 5
AIM = 0.5


def benchmark(rounds: int = ROUNDS) -> list[Result]:
    """See above."""
    return [uvloop.run(_compare(rounds))]


async def _compare(rounds: int) -> Result:
    with Lab() as lab:
        ours, peer = Line(lab, 1, "embedded"), Line(lab, 1, first_device=10)

        def rate(line: Line) -> float:
            report = generate(lab, line, "flood", 0, PACKETS, WINDOW)
            if report.arrived < report.sent:
                raise RuntimeError(f"{report.sent - report.arrived} packets of {report.sent} lost")
            return report.arrived / report.seconds

        async with Farm((ours.switches[0], 2)), Farm((peer.switches[0], 2)):
            for line in (ours, peer):
                await asyncio.to_thread(generate, lab, line, "saturate", 0, 1, 1)
            mine, theirs = await asyncio.to_thread(interleave, rounds, lambda: rate(ours), lambda: rate(peer))
    return Result(
        "packets per second of the embedded switch, BMv2",
        f"{mine.median:.0f}/s",
        f"{theirs.median:.0f}/s",
        mine.median / theirs.median,
        f"aim {AIM}",
    )


if __name__ == "__main__":
    main(benchmark)
