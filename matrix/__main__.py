"""`python -m matrix [--write]`: try every cell, print the table, compare it with `docs/matrix.md`, or write that."""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from .table import WRONG, as_markdown, try_everything

DOCUMENT = Path(__file__).parents[1] / "docs" / "matrix.md"


def _only_warnings(_: object, method: str, event: Any) -> Any:
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make matrix")
    parser.add_argument("--write", action="store_true", help="keep what comes out in docs/matrix.md")
    write = parser.parse_args().write
    structlog.configure(processors=[_only_warnings, *structlog.get_config()["processors"]])
    began = time.monotonic()
    cells = try_everything()
    document = as_markdown(cells)
    print(document)
    wrong = [
        f"{families}, {way}, {kind}: {cell}" for (families, way, kind), cell in cells.items() if cell.startswith(WRONG)
    ]
    print("\n".join(wrong) or f"{len(cells)} cells tried in {time.monotonic() - began:.0f} s, none is wrong.")
    if write:
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
