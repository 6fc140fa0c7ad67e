"""What all benchmarks share: namespaces, switches, medians, and the line that each of them prints.

Everything here lives as long as its process: a namespace is held by a process that the kernel kills with ours, and
takes its interfaces with it. So nothing is left behind, however a benchmark ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nvi.switch import PORT_CPU

MTU = 1500
_TICKS = os.sysconf("SC_CLK_TCK")
_OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro")


class Skipped(Exception):
    """The benchmark cannot run on this machine. The text says what is missing."""


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


@dataclass(frozen=True)
class Namespace:
    """A network namespace, held by a process."""

    pid: int

    def command(self, *command: str) -> list[str]:
        """The command, to be run in here."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def run(self, *command: str) -> str:
        """Run it to its end, and return what it prints."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout


class Lab:
    """Namespaces and processes of one benchmark. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        if os.geteuid() != 0:
            raise Skipped("needs root, for network namespaces")
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nvi-bench-")))
        self._log = self._stack.enter_context((self.directory / "log").open("w"))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            sys.stderr.write((self.directory / "log").read_text())
        self._stack.close()

    def spawn(
        self, namespace: Namespace | None, *command: str, stdout: IO[str] | int | None = None
    ) -> subprocess.Popen[str]:
        """Start a process, which ends with the lab at the latest."""
        inside = list(command) if namespace is None else namespace.command(*command)
        guarded = ["setpriv", "--pdeathsig", "KILL", *inside]
        process = subprocess.Popen(
            guarded, text=True, stdin=subprocess.DEVNULL, stdout=stdout or self._log, stderr=self._log
        )
        self._stack.callback(_end, process)
        return process

    def namespace(self) -> Namespace:
        """A new one, with nothing in it but `lo`."""
        process = self.spawn(None, "unshare", "--net", "sleep", "infinity")
        own = Path("/proc/self/ns/net").readlink()
        wait_for(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own, "a network namespace")
        namespace = Namespace(process.pid)
        namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        namespace.run("ip", "link", "set", "lo", "up")
        return namespace

    def cable(self, one: tuple[Namespace, str], other: tuple[Namespace, str]) -> None:
        """A veth pair without offloads, so that every packet is on it as it is on a wire."""
        ends = [("name", name, "netns", str(where.pid)) for where, name in (one, other)]
        subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]], check=True)
        for where, name in (one, other):
            where.run("ethtool", "-K", name, *(word for offload in _OFFLOADS for word in (offload, "off")))
            where.run("ip", "link", "set", name, "up", "mtu", str(MTU), "txqueuelen", "1000")

    def switch(self, namespace: Namespace, device_id: int, ports: dict[int, str], target: str = "bmv2") -> Switch:
        """A switch without a program."""
        socket = self.directory / f"switch{device_id}.sock"
        address = f"unix:{socket}"
        bmv2 = target == "bmv2"
        option = "-i" if bmv2 else "--port"
        interfaces = [word for number, name in ports.items() for word in (option, f"{number}@{name}")]
        identity = ["--device-id", str(device_id), *interfaces]
        if bmv2:
            rest = ["--", "--grpc-server-addr", address, "--cpu-port", str(PORT_CPU)]
            command = [need("simple_switch_grpc"), "--no-p4", *identity, *rest]
        else:
            command = [sys.executable, "-m", "nvi.embedded", "switch", *identity, "--p4runtime", address]
        process = self.spawn(namespace, *command)
        wait_for(socket.exists, f"the switch ({target})", process)
        return Switch(address, device_id, process)


@dataclass(frozen=True)
class Switch:
    """A switch that runs."""

    address: str
    device_id: int
    process: subprocess.Popen[str]

    def cpu_seconds(self) -> float:
        """CPU time that its process has used."""
        return cpu_seconds(self.process.pid)


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


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def need(program: str) -> str:
    """The path of a program, or a reason to skip the benchmark."""
    path = shutil.which(program)
    if path is None:
        raise Skipped(f"{program} is not on PATH")
    return path


def wait_for(
    condition: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None, seconds: float = 20.0
) -> None:
    """Wait until something is there."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end or (process is not None and process.poll() is not None):
            raise RuntimeError(f"{what} did not come up")
        time.sleep(0.01)


def main(benchmark: Callable[[], Sequence[Result]]) -> None:
    """Run one benchmark as a program."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        results = benchmark()
    except Skipped as reason:
        print(f"skipped: {reason}")
        return
    print(HEADING)
    for result in results:
        print(result)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
