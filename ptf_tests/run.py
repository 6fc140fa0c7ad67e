"""`python -m ptf_tests.run --target bmv2|embedded [TEST...]`: start a switch, and PTF's own runner against it.

All of it happens in a network namespace of its own, which has no name: it vanishes, with the links in it, when its last
process ends, however that happens; and the processes end with this one.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nvi.emulation.targets import TARGETS, Target, available, command

from .packets import PORTS

ROOT = Path(__file__).parent.parent
CASES = Path(__file__).parent / "cases"
DEVICE_ID = 1
START_PATIENCE = 20.0
"""Seconds within which a switch must listen."""
CASE_TIMEOUT = 60
"""Seconds that one test may take."""
_INSIDE = "--inside"
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


class Failure(Exception):
    """The tests could not be run. The text says why."""


def main() -> int:
    """Exit status: 0 if tests ran and all passed."""
    parser = argparse.ArgumentParser(prog="python -m ptf_tests.run", description="Run the PTF tests against a switch.")
    parser.add_argument("--target", choices=TARGETS, default=available()[0], help="default: the best on this machine")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="module or module.Class; default: all")
    parser.add_argument(_INSIDE, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.target not in available():
        parser.error(f"{arguments.target} is not on PATH; available: {', '.join(available())}")
    if os.geteuid() != 0:
        parser.error("network namespaces and raw sockets need root: try `sudo make ptf`")
    if not arguments.inside:
        again = [sys.executable, "-m", "ptf_tests.run", _INSIDE, *sys.argv[1:]]
        os.chdir(ROOT)
        os.execvp("unshare", ["unshare", "--net", "--", *again])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(arguments.target, arguments.tests)
    except Failure as failure:
        print(f"ptf on {arguments.target}: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(target: Target, tests: list[str]) -> int:
    """Start the target, run the tests, and say what came of it."""
    with TemporaryDirectory(prefix="nvi-ptf-") as name:
        directory = Path(name)
        wire({f"sw{port}": f"ptf{port}" for port in PORTS})
        with switch(target, directory, DEVICE_ID, {port: f"sw{port}" for port in PORTS}) as address:
            status, count, skipped = run_ptf(address, directory, tests)
    if not status and not count:
        raise Failure("no test ran")
    verdict = "FAILED" if status else "passed" if not skipped else f"passed, but {skipped} of them were skipped"
    print(f"ptf on {target}: {count} test{'s' * (count != 1)}, {verdict}")
    return 1 if status or skipped else 0


def wire(pairs: Mapping[str, str]) -> None:
    """A pair of interfaces for each port: the switch's by that of the tests."""
    # A kernel that talks IPv6 on them of its own accord would disturb the tests.
    no_ipv6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    if no_ipv6.exists():
        no_ipv6.write_text("1")
    links = [
        f"link add {ours} mtu 1500 up type veth peer name {theirs} mtu 1500\nlink set {theirs} up\n"
        for ours, theirs in pairs.items()
    ]
    made = subprocess.run(["ip", "-batch", "-"], input="".join(links), text=True, capture_output=True, check=False)
    if made.returncode:
        raise Failure(f"cannot make veth pairs: {made.stderr.strip()}")


@contextmanager
def switch(target: Target, directory: Path, device_id: int, ports: Mapping[int, str]) -> Iterator[str]:
    """A running switch with these interfaces; yields its P4Runtime address, which is in the directory."""
    socket, log = directory / "p4rt.sock", directory / "switch.log"
    start = command(target, device_id, directory, ports)
    with log.open("wb") as output:
        process = subprocess.Popen([*_DIE_WITH_PARENT, *start], stdout=output, stderr=output, env=environment())
    try:
        deadline = time.monotonic() + START_PATIENCE
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"the switch does not start: {' '.join(start)}\n{log.read_text(errors='replace')}")
            time.sleep(0.02)
        yield f"unix:{socket}"
        if process.poll() is not None:
            raise Failure(f"the switch has ended with status {process.returncode}:\n{log.read_text(errors='replace')}")
    finally:
        end(process)


def run_ptf(address: str, directory: Path, tests: list[str]) -> tuple[int, int, int]:
    """PTF's runner: its exit status, and how many tests it ran and skipped."""
    interfaces = [word for port in PORTS for word in ("--interface", f"{port}@ptf{port}")]
    runner = [sys.executable, str(Path(sys.executable).with_name("ptf")), "--test-dir", str(CASES), *interfaces]
    options = ["--test-params", f"p4runtime='{address}'", "--log-file", str(directory / "ptf.log")]
    options += ["--debug", "info", "--test-case-timeout", str(CASE_TIMEOUT)]
    process = subprocess.Popen(
        [*_DIE_WITH_PARENT, *runner, *options, *tests],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        cwd=directory,
    )
    assert process.stdout is not None
    count = skipped = 0
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            if ran := re.fullmatch(r"Ran (\d+) tests? in .*\n", line):
                count = int(ran[1])
            elif found := re.search(r"\bskipped=(\d+)", line):
                skipped = int(found[1])
        return process.wait(), count, skipped
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that may have ended already."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def environment() -> dict[str, str]:
    """Where Python finds the project, and no traces of its having run in the tree."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "runtime")))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


if __name__ == "__main__":
    sys.exit(main())
