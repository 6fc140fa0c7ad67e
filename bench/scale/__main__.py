"""`make scale`: farms of up to 100,000 hosts, each measured in a process of its own.

python -m bench.scale [HOSTS ...]     of so many hosts; prints the table of docs/scale.md, and keeps it in build/
python -m bench.scale --one WAY HOSTS SIMULATED     one farm, as JSON
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict

import structlog

from .measuring import run


def _main(arguments: Sequence[str]) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    _, way, hosts, simulated = arguments
    print(json.dumps(asdict(run(way, int(hosts), int(simulated)))))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
