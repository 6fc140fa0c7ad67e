"""How benchmarks compare: in turns, by medians, one line each."""

from __future__ import annotations

import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nvi.bench.lab import LabError


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    what: str
    ours: str
    peer: str
    ratio: float | None
    """Ours to the peer's, medians of one run."""
    bound: str = ""
    """What is required, and aimed at."""

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return _LINE.format(self.what, self.ours, self.peer, ratio, self.bound)


_LINE = "{:<56} {:>16} {:>42} {:>6}  {}"
HEADING = _LINE.format("measured", "NVI", "peer", "ratio", "required, aim")


@dataclass
class Samples:
    """Values of one quantity in one run."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Their median."""
        return statistics.median(self.values)


def interleave(rounds: int, *measures: Callable[[], float]) -> list[Samples]:
    """Measure in turns, so that whatever else the machine does meets all of them alike."""
    samples = [Samples() for _ in measures]
    for _ in range(rounds):
        for measure, into in zip(measures, samples, strict=True):
            into.values.append(measure())
    return samples


def main(benchmark: Callable[[], Sequence[Result]]) -> None:
    """Run one benchmark as a program."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        results = benchmark()
    except LabError as reason:
        print(f"skipped: {reason}")
        return
    print(HEADING)
    for result in results:
        print(result)
