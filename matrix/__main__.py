"""`python -m matrix [--target TARGET] [--write]`: try every cell, print the table, compare it with `docs/matrix.md`, or
write that. On a target's switches it needs root, for a network namespace of its own.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from nvi.emulation.targets import TARGETS, available

from .table import WRONG, as_markdown, try_in_memory, try_on

_INSIDE = "--inside"
DOCUMENT = Path(__file__).parents[1] / "docs" / "matrix.md"


def _only_warnings(_: object, method: str, event: Any) -> Any:
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make matrix")
    parser.add_argument("--write", action="store_true", help="keep what comes out in docs/matrix.md")
    parser.add_argument("--target", choices=TARGETS, help="on whose switches; default: the embedded one, in memory")
    parser.add_argument(_INSIDE, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.target is not None:
        if arguments.target not in available():
            parser.error(f"{arguments.target} is not on PATH; available: {', '.join(available())}")
        if os.geteuid() != 0:
            parser.error("network namespaces and raw sockets need root: try `sudo make matrix`")
        if not arguments.inside:
            os.execvp("unshare", ["unshare", "--net", "--", sys.executable, "-m", "matrix", _INSIDE, *sys.argv[1:]])
    structlog.configure(processors=[_only_warnings, *structlog.get_config()["processors"]])
    began = time.monotonic()
    cells = try_in_memory() if arguments.target is None else try_on(arguments.target)
    document = as_markdown(cells)
    print(document)
    wrong = [
        f"{families}, {way}, {kind}: {cell}" for (families, way, kind), cell in cells.items() if cell.startswith(WRONG)
    ]
    print("\n".join(wrong) or f"{len(cells)} cells tried in {time.monotonic() - began:.0f} s, none is wrong.")
    if arguments.write:
        DOCUMENT.write_text(document)
        print(f"written to {DOCUMENT}")
        return 1 if wrong else 0
    kept = DOCUMENT.read_text()
    if kept != document:
        print("\nmake matrix: this is not what docs/matrix.md says; 'make matrix WRITE=1' keeps it:", file=sys.stderr)
        lines = difflib.unified_diff(
            kept.splitlines(), document.splitlines(), "docs/matrix.md", "this run", lineterm="", n=0
        )
        print("\n".join(lines), file=sys.stderr)
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
