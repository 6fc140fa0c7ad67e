"""`python -m nvi.emulation FILE --target T`: the supervisor in the background, as `nvi up --detach` starts it.

It tells its parent on standard output what goes on, until the farm is up; from then on it writes to `farm.log`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..topology import load
from .farm import Farm
from .rundir import DEFAULT, RunDirectory, RunError
from .supervisor import interruptible, supervise
from .targets import TARGETS

READY = "\x06"
"""The last line that the parent gets (ASCII ACK)."""


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nvi.emulation")
    parser.add_argument("file", type=Path)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--servers", type=int, default=0)
    options = parser.parse_args()
    interruptible()
    try:
        directory = RunDirectory.create(DEFAULT)
    except RunError as error:
        print(f"nvi: {error}", flush=True)
        return 1

    def say(text: str) -> None:
        print(text, flush=True)

    def leave_parent(_: Farm) -> None:
        say(READY)
        log = os.open(directory.path / "farm.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)

    return supervise(load(options.file), options.file, options.target, directory, say, leave_parent, options.servers)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
