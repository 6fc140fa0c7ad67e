"""Processes that are known by more than their id, and processes that are started again when they die."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

RUN_VARIABLE = "NVI_RUN"
"""The environment variable that marks every process of a farm with the farm's run id."""

_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0
_STABLE_AFTER = 10.0
"""Seconds: who lived that long is started again without waiting."""
_GRACE = 5.0
"""Seconds between asking a process to end and ending it."""


class ProcessId(Struct, frozen=True):
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    started: int
    """Clock ticks after boot."""

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of a living process; None if there is none."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        # The name of the program, in parentheses, may itself hold spaces and parentheses.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether this very process still lives."""
        return ProcessId.of(self.pid) == self

    def kill(self, number: signal.Signals) -> bool:
        """Send this very process a signal; False if it is gone. The file descriptor rules out a mix-up."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def marked(run: str) -> list[ProcessId]:
    """All processes that were started by the farm with this run id, directly or not."""
    mark = f"{RUN_VARIABLE}={run}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if mark in environment.split(b"\0") and (process := ProcessId.of(int(entry.name))):
            found.append(process)
    return found


def end(processes: Iterable[ProcessId], grace: float = _GRACE) -> int:
    """Ask processes to end, and end those that do not. Returns how many there were."""
    waiting = [process for process in processes if process.kill(signal.SIGTERM)]
    count = len(waiting)
    deadline = time.monotonic() + grace
    while waiting and time.monotonic() < deadline:
        time.sleep(0.02)
        waiting = [process for process in waiting if process.alive()]
    for process in waiting:
        process.kill(signal.SIGKILL)
    return count


def rotate(log: Path, limit: int) -> None:
    """Keep a log that a program has open for appending below a size, in bytes.

    What it holds becomes `NAME.1`, in place of what that held. Lines that are written at that moment may be lost.
    """
    if log.stat().st_size > limit:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


class Service:
    """A program that has to run as long as the farm does."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        say: Callable[[str], None],
        *,
        before: Callable[[], None] = lambda: None,
        after: Callable[[ProcessId], None] = lambda _: None,
    ) -> None:
        """`before` and `after` are called around each start. `say` is told of each end that was not asked for."""
        self.name = name
        self.deaths = 0
        self._argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        self._log = log
        self._say = say
        self._before = before
        self._after = after
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running program; None between its death and the next start."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the program, and start it again whenever it ends."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.name}")

    async def stop(self) -> None:
        """End the program, for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()

    def reload(self) -> None:
        """Have it read its configuration again, which programs do on SIGHUP. One that is not running will anyway."""
        if self.pid is not None:
            assert self._process is not None
            self._process.send_signal(signal.SIGHUP)

    def last_words(self, lines: int = 8) -> str:
        """The end of its log."""
        try:
            text = self._log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    async def _spawn(self) -> None:
        self._before()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that Ctrl-C reaches us alone, and we end things in order
            )
        identity = ProcessId.of(self._process.pid)
        if identity is not None:
            self._after(identity)

    async def _keep(self) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            assert self._process is not None
            began = time.monotonic()
            pid, status = self._process.pid, await self._process.wait()
            self.deaths += 1
            if time.monotonic() - began > _STABLE_AFTER:
                backoff = _FIRST_BACKOFF
            self._say(f"{self.name} (pid {pid}) {_describe(status)}; starting it again, its log is {self._log}")
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _LONGEST_BACKOFF)
            await self._spawn()


def _describe(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
