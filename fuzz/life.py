"""By what an agent reaches the world, so that it can die in the middle of anything. The agent knows nothing of it.

Whatever an agent waits for, short of time itself, is an answer of its switch, of the directory or of another agent. It
asks through the lines of its life; once that is over nothing that it does has any effect, while what it has asked
before is still done: a message that has left does not come back because its sender has died.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from nvi.directory import DirectoryError, Unwatch
from nvi.directory.memory import MemoryDirectory
from nvi.embedded.memory import MemorySwitch
from nvi.offers import Handler, Offers, Reply, Request
from nvi.switch import (
    ConnectionEntry,
    ConnectionKey,
    DropReason,
    GuardEntry,
    NeighbourEntry,
    NotPrimary,
    Punt,
    ServiceEntry,
    State,
    SwitchError,
    Update,
    Usage,
)

Result = TypeVar("Result")

SWITCH_SECONDS = 0.004
"""How long a switch takes to do something, at most."""

DIRECTORY_SECONDS = 0.01
"""How long the directory takes to answer, at most; most of its answers are at hand."""

AT_HAND = 0.8


class Life:
    """One life of an agent."""

    def __init__(self) -> None:
        """It begins."""
        self.began = asyncio.get_running_loop().time()
        self.over = False
        self.ended = asyncio.Event()
        self._running: dict[asyncio.Task[Any], None] = {}
        self._unwatch: dict[int, Unwatch] = {}
        self._watches = 0
        self._calls_left = 0
        self._at_last: Callable[[], None] = lambda: None

    def doom(self, calls: int, then: Callable[[], None]) -> None:
        """Have `then` called when the agent asks something of the world for the `calls`-th time from now on."""
        self._calls_left, self._at_last = calls, then

    def call(self) -> None:
        """The agent asks something of the world. The dead get no answer."""
        if self._calls_left:
            self._calls_left -= 1
            if not self._calls_left:
                self._at_last()
        if self.over:
            raise asyncio.CancelledError

    async def ask(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Have something done, which is done to its end whatever becomes of the agent."""
        try:
            self.call()
        except asyncio.CancelledError:
            work.close()
            raise
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_hear)  # else asyncio complains of errors that nobody is left to hear
        return await asyncio.shield(task)

    async def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do something in the agent's name, which ends with it. Then it raises CancelledError."""
        task = asyncio.get_running_loop().create_task(work)
        self._running[task] = None
        task.add_done_callback(lambda done: self._running.pop(done, None))
        if self.over:
            task.cancel()
        return await task

    def watch(self, watch: Callable[..., Unwatch], *arguments: Any) -> Unwatch:
        """Watch something in the directory, as long as the agent lives."""
        *what, changed = arguments
        self._watches += 1
        number = self._watches
        self._unwatch[number] = watch(*what, lambda: None if self.over else changed())

        def unwatch() -> None:
            if (end := self._unwatch.pop(number, None)) is not None:
                end()

        return unwatch

    def end(self) -> None:
        """The agent dies, wherever it is."""
        self.over = True
        self.ended.set()
        for unwatch in self._unwatch.values():
            unwatch()
        self._unwatch.clear()
        for task in list(self._running):
            task.cancel()


def _hear(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


class Device:
    """A switch as its agents reach it: elsewhere, one call after the other, and not at all while it is down."""

    def __init__(self, switch: MemorySwitch, rng: random.Random, lost: Callable[[bytes], None]) -> None:
        """`lost` is told of packets that come while it is down."""
        self.switch = switch
        self.down = False
        self.primary: Life | None = None
        """Whose calls it listens to."""
        self._rng = rng
        self._in_order = asyncio.Lock()
        self._receive = switch.receive
        self._lost = lost
        switch.receive = self._take_in  # type: ignore[method-assign]

    def _take_in(self, port: int, packet: bytes) -> None:
        if self.down:
            self._lost(packet)
        else:
            self._receive(port, packet)

    async def do(self, life: Life, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do something for an agent. Raises SwitchError if it is down, or listens to somebody else."""
        async with self._in_order:
            await asyncio.sleep(self._rng.random() * SWITCH_SECONDS)
            if self.down:
                raise SwitchError("the switch is down")
            if self.primary is not life:
                raise NotPrimary("another agent is primary")
            return await work()


class SwitchLine:
    """A Switch, as one life of its agent reaches it."""

    def __init__(self, life: Life, device: Device) -> None:
        """From now on the switch listens to this agent only."""
        self._life = life
        self._device = device
        self._switch = device.switch
        self._is_primary = False
        device.primary = life

    @property
    def on_punt(self) -> Callable[[Punt], None]:
        """See Switch."""
        return self._switch.on_punt

    @on_punt.setter
    def on_punt(self, take: Callable[[Punt], None]) -> None:
        self._switch.on_punt = take

    @property
    def on_primary(self) -> Callable[[bool], None]:
        """See Switch."""
        return self._switch.on_primary

    @on_primary.setter
    def on_primary(self, take: Callable[[bool], None]) -> None:
        def told(primary: bool) -> None:
            if primary != self._is_primary and not (primary and self._device.down):
                self._is_primary = primary
                take(primary)

        self._switch.on_primary = told

    @property
    def state(self) -> State:
        """See Switch."""
        return self._switch.state

    def reinject(self, port: int, packet: bytes) -> None:
        """See Switch."""
        if not self._life.over:
            self._switch.reinject(port, packet)

    def send(self, port: int, packet: bytes) -> None:
        """See Switch."""
        if not self._life.over:
            self._switch.send(port, packet)

    async def write(self, updates: Sequence[Update]) -> None:
        """See Switch."""
        await self._ask(self._switch.write, updates)

    async def usage(self, keys: Sequence[ConnectionKey]) -> list[Usage | None]:
        """See Switch."""
        return await self._ask(self._switch.usage, keys)

    async def read_connections(self) -> list[ConnectionEntry]:
        """See Switch."""
        return await self._ask(self._switch.read_connections)

    async def read_guard(self) -> list[GuardEntry]:
        """See Switch."""
        return await self._ask(self._switch.read_guard)

    async def read_neighbours(self) -> list[NeighbourEntry]:
        """See Switch."""
        return await self._ask(self._switch.read_neighbours)

    async def read_services(self) -> list[ServiceEntry]:
        """See Switch."""
        return await self._ask(self._switch.read_services)

    async def read_drops(self, ports: Sequence[int]) -> dict[int, dict[DropReason, int]]:
        """See Switch."""
        return await self._ask(self._switch.read_drops, ports)

    async def set_punt_limit(self, port: int, rate: int, burst: int) -> None:
        """See Switch."""
        await self._ask(self._switch.set_punt_limit, port, rate, burst)

    async def _ask(self, call: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
        return await self._life.ask(self._device.do(self._life, partial(call, *arguments)))


class DirectoryLine:
    """A Directory, as one life of an agent reaches it: now and then slowly, or not at all."""

    def __init__(self, life: Life, directory: MemoryDirectory, rng: random.Random, is_away: Callable[[], bool]) -> None:
        """`is_away`: whether the host does not reach it at the moment."""
        self._life = life
        self._directory = directory
        self._rng = rng
        self._is_away = is_away

    def __getattr__(self, name: str) -> Any:
        """Every method of Directory. Each is asked in the same way."""
        call = getattr(self._directory, name)
        return partial(self._life.watch if name.startswith("watch_") else self._ask, call)

    @property
    def state(self) -> str:
        """See Directory."""
        return self._directory.state

    async def _ask(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        self._life.call()
        if self._rng.random() > AT_HAND:
            await asyncio.sleep(self._rng.random() * DIRECTORY_SECONDS)
        if self._is_away():
            raise DirectoryError("the directory is not reached")
        return await call(*arguments)


class OffersLine:
    """The Offers of one life of an agent."""

    def __init__(self, life: Life, offers: Offers) -> None:
        """Until the agent serves its host, it only asks."""
        self._life = life
        self._offers = offers

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        """See Offers."""
        return await self._life.ask(self._offers.request(sender, receiver, message))

    def serve(self, host: str, handler: Handler) -> None:
        """See Offers. Who dies while he answers has not answered."""
        self._offers.serve(host, lambda sender, request: self._life.do(handler(sender, request)))  # type: ignore[arg-type]

    def leave(self, host: str) -> None:
        """See Offers."""
        if not self._life.over:
            self._offers.leave(host)
