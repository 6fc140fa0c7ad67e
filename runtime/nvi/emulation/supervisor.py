"""The process that owns a farm: it brings everything up, keeps it up, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from ..topology import Topology
from .control import Control
from .farm import Farm, FarmError
from .nodes import SetupError
from .rundir import RunDirectory
from .targets import Target

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interruptible() -> None:
    """Let what ends us be a KeyboardInterrupt, from before the run directory is made until `supervise` listens."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)


def supervise(
    topology: Topology,
    file: Path,
    target: Target,
    directory: RunDirectory,
    say: Callable[[str], None],
    ready: Callable[[Farm], None],
    servers: int = 0,
) -> int:
    """Run a farm until SIGINT or SIGTERM. Returns the exit status: 0 if it was up, 1 if it could not be brought up.

    `say` is told what goes on, and what fails; `ready` is called once the farm is up.
    `servers`: see Farm.
    """
    try:
        return asyncio.run(_supervise(topology, file, target, directory, say, ready, servers))
    finally:
        directory.remove()


async def _supervise(
    topology: Topology,
    file: Path,
    target: Target,
    directory: RunDirectory,
    say: Callable[[str], None],
    ready: Callable[[Farm], None],
    servers: int = 0,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    farm = Farm(topology, file, target, directory, say, servers)
    control = Control(farm, directory.path / "farm.sock")
    coming_up = asyncio.create_task(_bring_up(farm, control))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([coming_up, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not coming_up.done():
            say("stopping half-way")
            return 1
        coming_up.result()
        ready(farm)
        await stopped
        say("stopping")
        return 0
    except (FarmError, SetupError) as error:
        say(f"error: {error}")
        return 1
    finally:
        coming_up.cancel()
        await asyncio.wait([coming_up])
        await control.stop()
        await farm.down()
        say("everything is down; nothing is left")


async def _bring_up(farm: Farm, control: Control) -> None:
    await farm.up()
    await control.start()
