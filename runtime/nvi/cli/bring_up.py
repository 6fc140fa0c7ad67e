"""`nvi up`: in the foreground, or in the background."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from ..emulation import preflight, targets
from ..emulation.__main__ import READY
from ..emulation.farm import Farm
from ..emulation.rundir import DEFAULT, RunDirectory, RunError, State, explain, inspect
from ..emulation.supervisor import interruptible, supervise
from ..emulation.targets import Target
from ..topology import Topology, TopologyError, load
from .errors import FAILED, MISUSE, CommandError


def up(file: Path, target: Target | None, *, detach: bool, servers: int) -> int:
    """Run a farm; returns the exit status. Raises CommandError if nothing has been started. `servers`: see Farm."""
    topology = load_topology(file)
    _check_machine(topology)
    target = _choose(target)
    _say(_summary(topology, target))
    return _background(file, target, servers) if detach else _foreground(topology, file, target, servers)


def load_topology(file: Path) -> Topology:
    """Raises CommandError, which names everything that is wrong."""
    try:
        return load(file)
    except TopologyError as error:
        count = len(error.problems)
        found = f"{file} has {count} problem{'s' if count > 1 else ''}; nothing was started"
        raise CommandError(f"{found}\n{error}", MISUSE) from None
    except OSError as error:
        raise CommandError(
            f"cannot read the topology {file}: {error.strerror}; name a file such as topologies/leaf-spine.yaml", MISUSE
        ) from None


def _check_machine(topology: Topology) -> None:
    missing = preflight.check(topology)
    if missing:
        raise CommandError("this machine cannot run a farm yet\n" + "\n".join(f"  - {each}" for each in missing))
    try:
        state, _ = inspect(DEFAULT)
    except RunError as error:
        raise CommandError(str(error)) from None
    if state is not State.ABSENT:
        raise CommandError(explain(DEFAULT))


def _choose(target: Target | None) -> Target:
    available = targets.available()
    if target is None:
        return available[0]
    if target not in available:
        raise CommandError(
            "--target bmv2 needs simple_switch_grpc, which is not on PATH; install BMv2, or use --target embedded"
        )
    return target


def _summary(topology: Topology, target: Target) -> str:
    def count(number: int, noun: str) -> str:
        return f"{number} {noun}{'' if number == 1 else 's'}"

    hosts, endpoints = count(len(topology.hosts), "host"), count(len(topology.endpoints), "endpoint")
    return f"{topology.name}: {hosts}, {endpoints} of {count(len(topology.tenants), 'tenant')}, target {target}"


def _say(text: str) -> None:
    print(text, flush=True)


def _foreground(topology: Topology, file: Path, target: Target, servers: int) -> int:
    def ready(_: Farm) -> None:
        _say(f"The farm is up. Ctrl-C ends it. In another terminal:\n{_hints(topology)}")

    interruptible()
    try:
        directory = RunDirectory.create(DEFAULT)
    except RunError as error:
        raise CommandError(str(error)) from None
    return supervise(topology, file, target, directory, _say, ready, servers)


def _background(file: Path, target: Target, servers: int) -> int:
    argv = [sys.executable, "-m", "nvi.emulation", str(file), "--target", target, "--servers", str(servers)]
    process: subprocess.Popen[str] | None = None
    interrupted = False

    def interrupt(*_: object) -> None:
        """Whoever interrupts us while the farm comes up means the farm."""
        nonlocal interrupted
        interrupted = True
        if process is not None:
            process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    if interrupted:
        process.terminate()
    assert process.stdout is not None
    for line in process.stdout:
        if line.rstrip("\n") == READY and not interrupted:
            _say(f"The farm is up, in the background (pid {process.pid}):\n{_hints(load_topology(file))}")
            return 0
        _say(line.rstrip("\n"))
    status = process.wait()
    return status if status > 0 else FAILED


def _hints(topology: Topology) -> str:
    """A few commands that work on this farm."""
    lines = ["nvi status", "nvi connections", "nvi down"]
    for endpoint in topology.endpoints.values():
        for other in topology.endpoints.values():
            if (other.tenant, other.network) == (endpoint.tenant, endpoint.network) and other.host != endpoint.host:
                address = ".".join(map(str, other.address))
                lines.insert(0, f"nvi exec {endpoint.name} -- ping -c 3 {address}")
                return "\n".join(f"  {line}" for line in lines)
    return "\n".join(f"  {line}" for line in lines)
