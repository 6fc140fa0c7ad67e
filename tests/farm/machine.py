"""This machine as the commands of `nvi` use it, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TWO_HOSTS = ROOT / "topologies" / "two-hosts.yaml"
TARGETS = [*(["bmv2"] if shutil.which("simple_switch_grpc") else []), "embedded"]


class Machine:
    """This machine, as the commands use it."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.env = {**os.environ, "NVI_RUN_DIR": str(run)}

    def nvi(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. No command ever shows a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "nvi.cli", *arguments],
            env=options.pop("env", self.env),
            capture_output=True,
            text=True,
            timeout=90,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            check=False,
            **options,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command, and go on."""
        return subprocess.Popen(
            [sys.executable, "-m", "nvi.cli", *arguments],
            env=env or self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def up(self, target: str = "embedded", file: Path = TWO_HOSTS) -> dict[str, Any]:
        """Bring up a farm in the background; returns its record."""
        done = self.nvi("up", str(file), "--target", target, "--detach")
        assert done.returncode == 0, done.stdout + done.stderr
        return self.record()

    def record(self) -> dict[str, Any]:
        """What the run directory says of the farm."""
        record: dict[str, Any] = json.loads((self.run / "farm.json").read_text())
        return record

    def view(self, *arguments: str) -> dict[str, Any]:
        """The JSON of a listing command."""
        done = self.nvi(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        view: dict[str, Any] = json.loads(done.stdout)
        assert view["schema"] == 1
        return view

    def ping(self, source: str, address: str) -> bool:
        """Whether an echo is answered, of one each second for ten: the machine may be busy."""
        return self.nvi("exec", source, "--", "ping", "-c", "1", "-w", "10", address).returncode == 0


def wait_for(condition: Callable[[], Any], what: str, patience: float = 20.0) -> None:
    """Wait until something is so, or fail."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"still waiting: {what}"
        time.sleep(0.05)


def processes(mark: str) -> dict[int, str]:
    """The processes whose environment or command line holds a text, by id: their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment + command:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def links() -> set[str]:
    """The interfaces of the root namespace."""
    return {link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-json", "link"]))}
