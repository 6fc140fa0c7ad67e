"""Run every benchmark and print one table: `make bench`, or `python -m bench [NAME ...]`."""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence

from nvi.bench.lab import LabError

from . import adoption, connections, first_packet, openflow, packet_rate, ramp, scale, throughput
from .report import HEADING, Result

BENCHMARKS: dict[str, Callable[[], Sequence[Result]]] = {
    module.__name__.rpartition(".")[2]: module.benchmark
    for module in (throughput, packet_rate, first_packet, connections, openflow, ramp, scale, adoption)
}


def _main(names: Sequence[str]) -> int:
    if unknown := set(names) - set(BENCHMARKS):
        print(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}. Rates and times are medians.\n")
    print(HEADING, flush=True)
    for name in names or BENCHMARKS:
        try:
            for result in BENCHMARKS[name]():
                print(result, flush=True)
        except LabError as reason:
            print(f"{name}: skipped: {reason}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(_main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
