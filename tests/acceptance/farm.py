"""A running farm, as a user has it: by the `nvi` command, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .reader import connections

WORKLOAD = str(Path(__file__).with_name("workload.py"))
TARGETS = [*(["bmv2"] if shutil.which("simple_switch_grpc") else []), "embedded"]


class Farm:
    """Commands of a farm that is up."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.idle_timeout = 10.0

    def nvi(self, *arguments: str, timeout: float = 120) -> str:
        """Run the command; returns what it printed. Fails if it fails."""
        command = [sys.executable, "-m", "nvi.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"nvi {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        """The `--json` of a listing command."""
        listing: dict[str, Any] = json.loads(self.nvi(*arguments, "--json"))
        assert listing["schema"] == 1
        return listing

    def exec(self, where: str, *command: str, timeout: float = 120) -> str:
        """Run a program to its end inside an endpoint or host."""
        return self.nvi("exec", where, "--", *command, timeout=timeout)

    def workload(self, where: str, *arguments: str, timeout: float = 120) -> str:
        """Run one of our own programs to its end."""
        return self.exec(where, sys.executable, WORKLOAD, *arguments, timeout=timeout)

    @contextlib.contextmanager
    def running(self, where: str, *command: str) -> Iterator[subprocess.Popen[str]]:
        """A program that runs meanwhile."""
        process = subprocess.Popen(
            [sys.executable, "-m", "nvi.cli", "exec", where, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    @contextlib.contextmanager
    def serving(self, where: str, what: str, port: int, *more: str) -> Iterator[None]:
        """One of our own servers, which runs meanwhile and can be reached now."""
        with self.running(where, sys.executable, WORKLOAD, what, str(port), *more) as process:
            kind = "-lnu" if what == "serve_udp" else "-lnt"
            self.wait_for(lambda: f":{port} " in self.exec(where, "ss", kind), f"{what} on {where}")
            assert process.poll() is None, process.communicate()[0]
            yield

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 15) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            time.sleep(0.2)

    def held(self) -> dict[str, int]:
        """Entries of `connections` in each switch, read by a P4Runtime client that is not the agent."""
        return {host: len(connections(host, self.device_id(host))) for host in self.json("status")["hosts"]}

    def device_id(self, host: str) -> int:
        """P4Runtime's number of a host's switch: hosts are numbered in the order of the topology."""
        return 1 + list(self.json("status")["hosts"]).index(host)

    def agent_pids(self) -> set[int]:
        """Processes in which agents run."""
        return {host["agent"]["pid"] for host in self.json("status")["hosts"].values()}

    def drops(self, host: str, endpoint: str) -> dict[str, int]:
        """Drop counters of an endpoint's port."""
        drops: dict[str, int] = self.json("status")["hosts"][host]["drops"].get(endpoint, {})
        return drops


def mac_of(farm: Farm, endpoint: str) -> str:
    """The MAC of an endpoint."""
    (mac,) = [each["mac"] for each in farm.json("endpoints")["endpoints"] if each["name"] == endpoint]
    return str(mac)


def free_of_leftovers() -> dict[str, set[str]]:
    """What a farm could leave behind."""
    root = Path("/sys/class/net")
    return {
        "interfaces": {path.name for path in root.iterdir()},
        "namespaces": set(subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split()),
        "run": {str(path) for path in Path("/run").glob("nvi*")},
        "tmp": {str(path) for path in Path("/tmp").glob("nvi*")} | {str(path) for path in Path("/tmp").glob("vconn*")},
    }
