"""Farms of 100 to 100,000 hosts, simulated: what one host takes must not depend on how many others there are.

Real agents, the real pipeline, a virtual clock; the directory answers after 0.5 ms, other agents are 0.5 ms away. Each
host has ten peers anywhere in the farm, five connections to them and five from them. What this is measured against is a
farm in which every agent is told of everything (`pushing`), up to 3,000 hosts; 100 of them are simulated, since all
store the same.

The table shows one number for each of our farms, in the order of their sizes, and for the peer's smallest and largest.
The ratio is that of the largest to the smallest number among our farms. Counts are exact; CPU times and the memory of
the process are what the machine makes of it. See docs/scale.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence

from ..report import Result
from .measuring import Measured

OURS = (100, 1_000, 10_000)
PUSHING = (100, 300, 1_000, 3_000)
PUSHED = 100
"""Hosts that are simulated where everything is pushed."""
FLAT = 1.2
"""What is required of the largest to the smallest."""


def farms(sizes: Iterable[int] = OURS) -> list[Measured]:
    """Measure them all, each in a process of its own."""
    wanted = [("pushing", size, PUSHED) for size in PUSHING] + [("ours", size, size) for size in sizes]
    return [_measure(*each) for each in wanted]


def _measure(way: str, hosts: int, simulated: int) -> Measured:
    print(f"scale: a farm of {hosts:,} hosts ({way})", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "bench.scale", "--one", way, str(hosts), str(simulated)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a farm of {hosts} hosts ({way}) was not measured: see above")
    return Measured(**json.loads(done.stdout))


def benchmark() -> list[Result]:
    """See above."""
    return results(farms())


LINES = (
    ("first packet, virtual", "ms", 1.0, "setup_ms"),
    ("messages", "", 1.0, "messages"),
    ("directory requests", "", 1.0, "requests"),
    ("function calls", "", 1.0, "calls"),
    ("stored", "KB", 1e-3, "stored"),
    ("process", "KB", 1e-3, "rss"),
    ("CPU of its traffic", "ms", 1.0, "traffic_cpu_ms"),
)
"""What of it, unit, factor, attribute."""


def results(measured: Sequence[Measured]) -> list[Result]:
    """One line for each quantity."""
    lines = []
    for what, unit, factor, attribute in LINES:
        ours, theirs = (
            {each.hosts: factor * getattr(each, attribute) for each in measured if each.way == way}
            for way in ("ours", "pushing")
        )
        first, last = min(theirs), max(theirs)
        lines.append(
            Result(
                f"scale, of one host in {len(ours)} farms: {what}",
                " ".join(f"{value:.4g}" for _, value in sorted(ours.items())) + f" {unit}",
                f"of {first:,} to {last:,}: {theirs[first]:.4g} to {theirs[last]:.4g} {unit}",
                spread(ours.values()),
                f"at most {FLAT}" if attribute in EXACT else "",
            )
        )
    return lines


EXACT = ("setup_ms", "messages", "requests", "calls", "stored")
"""What does not depend on the machine."""


def spread(values: Iterable[float]) -> float:
    """The largest to the smallest."""
    found = list(values)
    return max(found) / min(found)
