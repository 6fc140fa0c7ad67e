"""The run directory: which farm runs on this machine, and all that is needed to end it, whatever happened.

The directory itself is the lock (flock): the kernel drops it with the process that holds it, so a farm that crashed
cannot be mistaken for one that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct

from . import Kind
from .processes import ProcessId, end, marked

DEFAULT = Path(os.environ.get("NVI_RUN_DIR", "/run/nvi"))
"""The variable is for tests, so that they do not get in the way of a farm that somebody uses."""


class FarmNode(Struct, frozen=True):
    """A namespace, for those who want to run something in it."""

    kind: Kind
    pid: int


class FarmRecord(Struct, frozen=True):
    """`farm.json`: what other processes may know of the farm."""

    farm: str
    file: str
    """The topology, as it was given."""
    target: str
    run: str
    """Marks the processes of this run of the farm (`processes.RUN_VARIABLE`)."""
    supervisor: ProcessId
    nodes: dict[str, FarmNode] = {}


class State(Enum):
    """What a run directory tells."""

    ABSENT = "no farm runs"
    RUNNING = "a farm runs"
    STALE = "a farm ran, and its supervisor died"


class RunError(Exception):
    """A farm cannot be started or ended. The text says why, and what to do."""


class RunDirectory:
    """The run directory as its owner, the supervisor, uses it."""

    def __init__(self, path: Path, lock: int) -> None:
        """Not to be called: see `create`."""
        self.path = path
        self._lock = lock
        self._processes: list[ProcessId] = []

    @classmethod
    def create(cls, path: Path = DEFAULT) -> RunDirectory:
        """Make the directory and take its lock. Raises RunError if there is a farm already, or the remains of one."""
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            raise RunError(explain(path)) from None
        except OSError as error:
            raise RunError(f"cannot make the run directory {path}: {error.strerror}; run it as root") from None
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody looks whether this farm is stale
            fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(path, lock)

    def of_host(self, host: str) -> Path:
        """The directory of what belongs to one host."""
        directory = self.path / host
        directory.mkdir(exist_ok=True)
        return directory

    def publish(self, record: FarmRecord) -> None:
        """Tell other processes about the farm."""
        _write(self.path / "farm.json", record)

    def remember(self, process: ProcessId) -> None:
        """Record a process that must not outlive the farm."""
        self._processes = [known for known in self._processes if known.alive()] + [process]
        _write(self.path / "processes.json", self._processes)

    def remove(self) -> None:
        """Remove the directory and give the lock back."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def inspect(path: Path = DEFAULT) -> tuple[State, FarmRecord | None]:
    """Whether a farm runs, and what is known about it. Raises RunError if that is not ours to know."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return State.ABSENT, None
    except OSError as error:
        raise RunError(f"cannot look into the run directory {path}: {error.strerror}; run it as root") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return State.RUNNING, _record(path)
    finally:
        os.close(lock)
    return State.STALE, _record(path)


def explain(path: Path = DEFAULT) -> str:
    """Why no farm can be started, and what to do."""
    state, record = inspect(path)
    what = f"the farm {record.farm!r} ({record.file}, pid {record.supervisor.pid})" if record else "a farm"
    if state is State.STALE:
        return f"{what} crashed and left things behind in {path}: run 'nvi down' to clean up, then try again"
    return f"{what} runs already, and there can be one at a time: use it, or end it with 'nvi down'"


def take_down(path: Path, say: Callable[[str], None], patience: float = 30.0) -> None:
    """End the farm that runs, or what is left of one. Raises RunError if that does not work."""
    state, record = inspect(path)
    if state is State.ABSENT:
        say("no farm is running: nothing to do")
        return
    name = repr(record.farm) if record else "(of unknown name)"
    if state is State.RUNNING:
        if record is None or not record.supervisor.alive():
            raise RunError(f"{path} is in use, but not by a farm that is up: wait until it is, then try again")
        say(f"stopping the farm {name} (pid {record.supervisor.pid})")
        end([record.supervisor], patience)
        _wait_for_end(path)
        if inspect(path)[0] is State.ABSENT:
            say("the farm is down")
            return
    say(f"the farm {name} crashed: cleaning up what it left in {path}")
    _mend(path, record)
    say("the farm is down")


def _mend(path: Path, record: FarmRecord | None) -> None:
    """End exactly the processes that belong to a farm without a supervisor, and remove its directory."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise RunError(f"{path} is being cleaned up by somebody else: wait a moment, then try again") from None
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        recorded = msgspec.json.decode((path / "processes.json").read_bytes(), type=list[ProcessId])
        end(process for process in recorded if process.alive())
    if record is not None:
        end(marked(record.run))
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _wait_for_end(path: Path, patience: float = 5.0) -> None:
    """Wait until a supervisor that has been asked to end has let go of the directory."""
    deadline = time.monotonic() + patience
    while inspect(path)[0] is State.RUNNING and time.monotonic() < deadline:
        time.sleep(0.02)


def _record(path: Path) -> FarmRecord | None:
    try:
        return msgspec.json.decode((path / "farm.json").read_bytes(), type=FarmRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(path: Path, value: object) -> None:
    """Replace a file as a whole, so that nobody reads half of it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(msgspec.json.encode(value))
    temporary.replace(path)
