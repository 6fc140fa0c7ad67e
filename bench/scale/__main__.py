"""`make scale`: farms of up to 100,000 hosts, each measured in a process of its own.

python -m bench.scale [HOSTS ...]     of so many hosts; prints the table of docs/scale.md
python -m bench.scale --write         the same, and keeps the numbers and the picture in docs/
python -m bench.scale --redraw        the table and the picture of the numbers that are kept
python -m bench.scale --one WAY HOSTS SIMULATED     one farm, as JSON
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import structlog

from . import EXACT, FLAT, OURS, farms, spread
from .measuring import Measured, run
from .picture import draw
from .traffic import PEERS, SMALLEST

DOCS = Path(__file__).parents[2] / "docs"
NUMBERS, PICTURE = DOCS / "scale.json", DOCS / "scale.svg"

LARGEST = 100_000
MEMORY, SECONDS = 16 << 30, 20 * 60
"""What the largest farm may take in all."""

COLUMNS: tuple[tuple[str, Callable[[Measured], str]], ...] = (
    ("hosts", lambda each: f"{each.hosts:,}"),
    ("first packet, virtual ms", lambda each: f"{each.setup_ms:.1f}"),
    ("messages", lambda each: f"{each.messages:,.0f}"),
    ("directory requests", lambda each: f"{each.requests:.0f}"),
    ("function calls", lambda each: f"{each.calls:.0f}"),
    ("switch entries", lambda each: f"{each.entries:.0f}"),
    ("hosts it names", lambda each: f"{each.named:,.0f}"),
    ("stored, KB", lambda each: f"{each.stored / 1e3:,.1f}"),
    ("left after, KB", lambda each: "" if each.left is None else f"{each.left / 1e3:,.1f}"),
    ("process, KB", lambda each: f"{each.rss / 1e3:,.0f}"),
    ("CPU ms: start, traffic", lambda each: f"{each.start_cpu_ms:.2f}, {each.traffic_cpu_ms:.1f}"),
    ("whole run: s, GiB", lambda each: f"{each.seconds:.0f}, {each.peak_rss / (1 << 30):.2f}"),
)
"""Of the table: heading, cell."""


def table(measured: Sequence[Measured]) -> str:
    """In Markdown."""
    lines = [["| " + " | ".join(name for name, _ in COLUMNS) + " |"], ["|" + " --- |" * len(COLUMNS)]]
    for way, title in (("ours", "NVI"), ("pushing", "told of everything")):
        lines.append([f"| **{title}** |" + " |" * (len(COLUMNS) - 1)])
        lines.append(
            ["| " + " | ".join(cell(each) for _, cell in COLUMNS) + " |" for each in measured if each.way == way]
        )
    return "\n".join(line for block in lines for line in block)


def problems(measured: Sequence[Measured]) -> list[str]:
    """What is not as it must be."""
    ours = [each for each in measured if each.way == "ours"]
    found = [
        f"{what}: {ratio:.2f} from the smallest to the largest, and must be at most {FLAT}"
        for what in EXACT
        if (ratio := spread(getattr(each, what) for each in ours)) > FLAT
    ]
    for each in ours:
        if each.peak_rss > MEMORY:
            found.append(f"{each.hosts:,} hosts took {each.peak_rss / (1 << 30):.1f} GiB")
        if each.seconds > SECONDS:
            found.append(f"{each.hosts:,} hosts took {each.seconds / 60:.0f} minutes")
    return found


def _main(arguments: Sequence[str]) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Farms of many hosts, simulated.")
    parser.add_argument("hosts", nargs="*", type=int, default=[*OURS, LARGEST], help="sizes of the farms")
    parser.add_argument("--write", action="store_true", help="keep numbers and picture in docs/")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument(
        "--one", nargs=3, metavar=("WAY", "HOSTS", "SIMULATED"), help="ours or pushing: one farm, as JSON"
    )
    options = parser.parse_args(arguments)
    if (fewest := min(options.hosts)) < SMALLEST:
        parser.error(f"{fewest} hosts are too few for {PEERS} peers each: at least {SMALLEST}")
    if (options.write or options.redraw) and find_spec("matplotlib") is None:
        parser.error("the picture needs matplotlib: .venv/bin/pip install --editable '.[picture]'")
    if options.one:
        way, hosts, simulated = options.one
        print(json.dumps(asdict(run(way, int(hosts), int(simulated)))))
        return 0
    if options.redraw:
        measured = [Measured(**each) for each in json.loads(NUMBERS.read_text())]
    else:
        measured = farms(options.hosts)
    print(table(measured))
    if options.write:
        NUMBERS.write_text(json.dumps([asdict(each) for each in measured], indent=1) + "\n")
    if options.write or options.redraw:
        draw(measured, PICTURE)
    for problem in (found := problems(measured)):
        print(f"scale: {problem}", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
