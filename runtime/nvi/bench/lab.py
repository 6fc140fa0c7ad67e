"""What all benchmarks share: namespaces, switches, and processes that are measured.

Everything here lives as long as its process: a namespace is held by a process that the kernel kills with ours, and
takes its interfaces with it. So nothing is left behind, however a benchmark ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..emulation import targets
from ..emulation.targets import Target

MTU = 1500
_TICKS = os.sysconf("SC_CLK_TCK")
_OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro")
_WORDS = 8
"""Lines of the log that an error quotes."""

_PACKAGES = {
    "ethtool": "ethtool",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "sysctl": "procps",
    "unshare": "util-linux",
}
"""The programs that a lab uses, and the Debian packages that have them."""


class LabError(Exception):
    """The benchmark cannot run, here or any further. The text says why, and what to do."""


@dataclass(frozen=True)
class Namespace:
    """A network namespace, held by a process."""

    pid: int

    def command(self, *command: str) -> list[str]:
        """The command, to be run in here."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def run(self, *command: str) -> str:
        """Run it to its end, and return what it prints. Raises LabError."""
        return _run(*self.command(*command))


class Lab:
    """Namespaces and processes of one benchmark. A context manager; raises LabError where it cannot be."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        if os.geteuid() != 0:
            raise LabError("it needs root, for its network namespaces: run it with sudo")
        for program, package in _PACKAGES.items():
            need(program, f"apt-get install {package}")
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nvi-bench-")))
        self._log = self._stack.enter_context((self.directory / "log").open("w"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        words = (self.directory / "log").read_text(errors="replace").splitlines()[-_WORDS:]
        if words and isinstance(error, Exception):
            error.add_note("\n".join(("what its processes said last:", *words)))
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
        wait_for(
            lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own,
            "a network namespace (in a container, run it with --privileged)",
            process,
        )
        namespace = Namespace(process.pid)
        if Path("/proc/net/if_inet6").exists():
            namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        namespace.run("ip", "link", "set", "lo", "up")
        return namespace

    def cable(self, one: tuple[Namespace, str], other: tuple[Namespace, str]) -> None:
        """A veth pair without offloads, so that every packet is on it as it is on a wire."""
        ends = [("name", name, "netns", str(where.pid)) for where, name in (one, other)]
        _run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for where, name in (one, other):
            where.run("ethtool", "-K", name, *(word for offload in _OFFLOADS for word in (offload, "off")))
            where.run("ip", "link", "set", name, "up", "mtu", str(MTU), "txqueuelen", "1000")

    def switch(self, namespace: Namespace, device_id: int, ports: Mapping[int, str], target: Target) -> Switch:
        """A switch without a program."""
        if target not in targets.available():
            raise LabError("there is no BMv2: install simple_switch_grpc on PATH, or take the target 'embedded'")
        directory = self.directory / f"switch{device_id}"
        directory.mkdir()
        process = self.spawn(namespace, *targets.command(target, device_id, directory, ports))
        socket = directory / "p4rt.sock"
        wait_for(socket.exists, f"the switch ({target})", process)
        return Switch(f"unix:{socket}", device_id, process)


@dataclass(frozen=True)
class Switch:
    """A switch that runs."""

    address: str
    device_id: int
    process: subprocess.Popen[str]

    def cpu_seconds(self) -> float:
        """CPU time that its process has used."""
        return cpu_seconds(self.process.pid)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def need(program: str, remedy: str) -> str:
    """The path of a program. Raises LabError."""
    path = shutil.which(program)
    if path is None:
        raise LabError(f"there is no {program} on PATH: {remedy}")
    return path


def resident_bytes(line: str = "VmRSS") -> int:
    """Bytes of memory that this process holds; with `VmHWM`, that it has held at most (proc(5), status)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(each.split()[1]) for each in status.splitlines() if each.startswith(line))


def wait_for(
    condition: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None, seconds: float = 20.0
) -> None:
    """Wait until something is there. Raises LabError if its process ends instead, or after some seconds."""
    end = time.monotonic() + seconds
    while not _holds(condition):
        if time.monotonic() > end or (process is not None and process.poll() is not None):
            raise LabError(f"{what} did not come up")
        time.sleep(0.01)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except OSError:  # of a process that is gone
        return False


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
