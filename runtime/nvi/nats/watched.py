"""What an agent has asked its buckets for, kept as it is there, for as long as it is of use.

Each key that is looked up is watched from then on, so a second look-up costs nothing and is right. What nobody has
asked for in a while, and what is too much, is forgotten. While NATS is away, what was known last is what is answered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog
from nats.aio.msg import Msg

from .connection import Away, Connection, Stored, Subscription, stored
from .layout import Bucket

_log = structlog.get_logger()

LIMIT = 4096
"""Keys that are kept though no connection needs them."""

IDLE = 60.0
"""Seconds after which such a key is forgotten."""

REFRESH = 60.0
"""Seconds after which what is kept is read again, in case that a message was lost between servers."""

LEADER_SECONDS = 0.5
"""For which the server that leads a bucket is waited for. Where several hold it, to choose another takes them many
seconds; each of them can be read meanwhile, though it may lag behind."""

AT_A_TIME = 16
"""Keys that are read again at a time after NATS was away."""


class Kept:
    """A key (or, with wildcards, several) of a bucket, and what is there."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        """Nothing is known yet."""
        self.bucket = bucket
        self.key = key
        self.known = False
        """Whether it has been read at all."""
        self.current = False
        """Whether what is held is what is there, as far as NATS has told."""
        self.watchers: list[Callable[[], None]] = []
        self.used = 0.0
        self.read = 0.0
        """When it was read last, and when somebody wanted it last: seconds on the loop's clock."""
        self.held: dict[str, Stored] = {}
        """By subject, also what has been taken back since the last reading."""
        self.touched: set[str] = set()
        """Subjects heard of since the reading that is under way began."""
        self.lock = asyncio.Lock()
        self.subscription: Subscription | None = None
        self.heard = 0.0
        """When a value was heard of last."""
        self._values: list[Stored] | None = []

    @property
    def values(self) -> list[Stored]:
        """What is there, the first one stored first."""
        if self._values is None:
            there = (each for each in self.held.values() if each.value is not None)
            self._values = sorted(there, key=lambda each: each.sequence)
        return self._values

    @property
    def wild(self) -> bool:
        """Whether it stands for several keys."""
        return "*" in self.key

    def put(self, found: Stored) -> None:
        """Something was read or heard of: it counts unless something later is known."""
        before = self.held.get(found.subject)
        if before is None or before.sequence <= found.sequence:
            self.held[found.subject] = found
            self._values = None

    def drop(self, subject: str) -> None:
        """Something is not there any more."""
        del self.held[subject]
        self._values = None


class Watched:
    """The keys that one agent keeps."""

    def __init__(self, connection: Connection, expires: Callable[[Bucket], float | None]) -> None:
        """`expires`: seconds after which a value of a bucket that is not stored again is gone; None for never."""
        self._connection = connection
        self._expires = expires
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        """The one used last comes last."""
        self._tasks: set[asyncio.Task[None]] = set()
        connection.on_connect.append(self._reconnected)
        connection.on_loss.append(self._doubt_all)

    def __len__(self) -> int:
        """How many keys are kept."""
        return len(self._kept)

    def start(self) -> None:
        """Look after what is kept."""
        self.spawn(self._look_after())

    async def stop(self) -> None:
        """Forget everything."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._kept:
            self._forget(next(iter(self._kept.values())))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background, until `stop`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def get(self, bucket: Bucket, key: str, *, again: bool = False) -> list[Stored]:
        """What is there, the first one stored first. Raises Away if NATS does not say and nothing was known.

        `again`: ask NATS, whatever is known.
        """
        kept = self._keep(bucket, key)
        if again or not kept.known:
            await self._read(kept, must=again)
        elif not kept.current:
            # What was known last is most likely right, and whoever acts on it is told by those whom it concerns if not.
            self._read_soon(kept)
        return kept.values

    def known(self, bucket: Bucket, key: str) -> list[Stored]:
        """What is known to be there, without asking."""
        kept = self._kept.get((bucket.name, key))
        return kept.values if kept is not None else []

    def watch(self, bucket: Bucket, key: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called when what is there may have changed. Returns what ends it."""
        kept = self._keep(bucket, key)
        kept.watchers.append(changed)
        if not kept.current:
            self._read_soon(kept)

        def unwatch() -> None:
            if changed in kept.watchers:
                kept.watchers.remove(changed)

        return unwatch

    def _keep(self, bucket: Bucket, key: str) -> Kept:
        kept = self._kept.get((bucket.name, key))
        if kept is None:
            kept = self._kept[bucket.name, key] = Kept(bucket, key)
            self._make_room()
        self._kept.move_to_end((bucket.name, key))
        kept.used = _now()
        return kept

    def _make_room(self) -> None:
        spare = len(self._kept) - LIMIT
        if spare > 0:
            unused = [each for each in self._kept.values() if not each.watchers and not each.lock.locked()]
            for kept in unused[: max(0, spare)]:
                self._forget(kept)

    def _forget(self, kept: Kept) -> None:
        self._kept.pop((kept.bucket.name, kept.key), None)
        if kept.subscription is not None:
            kept.subscription.end_soon()
            kept.subscription = None

    def _read_soon(self, kept: Kept) -> None:
        if self._connection.connected and not kept.lock.locked():
            self.spawn(self._try_to_read(kept))

    async def _read(self, kept: Kept, *, must: bool) -> None:
        """Make what is held current. Raises Away if it cannot, and nothing was known or it `must`.

        `must`: whoever asks wants what is there at this moment, and not from a server that may lag behind.
        """
        async with kept.lock:
            if kept.current and not must:
                return
            before = _shown(kept)
            try:
                if kept.subscription is None:
                    subject = kept.bucket.watch_subject(kept.key)
                    kept.subscription = await self._connection.subscribe(subject, partial(self._hear, kept))
                kept.touched.clear()
                found, certain = await self._fetch(kept, must)
            except Away:
                if must or not kept.known:
                    raise
                return
            there = {each.subject for each in found}
            for subject in [each for each in kept.held if each not in there and each not in kept.touched]:
                kept.drop(subject)
            for each in found:
                kept.put(each)
            news = kept.known and _shown(kept) != before
            kept.known, kept.current = True, certain
            kept.read = kept.heard = _now()
        if news:
            self._tell(kept)

    async def _fetch(self, kept: Kept, must: bool) -> tuple[list[Stored], bool]:
        """(what is there, whether the bucket's leader says so). A bucket without a leader is asked all the same."""
        if must:
            return await self._fetch_from(kept, leader=True), True
        try:
            async with asyncio.timeout(LEADER_SECONDS):
                return await self._fetch_from(kept, leader=True), True
        except TimeoutError:
            found = await self._fetch_from(kept, leader=False)
        if not any(each.value is not None for each in found):
            # One that lags behind may not know of it yet: that is no answer.
            raise Away(f"the bucket {kept.bucket.name} has no leader at the moment ({self._connection.state})")
        return found, False

    async def _fetch_from(self, kept: Kept, *, leader: bool) -> list[Stored]:
        stream, subject = kept.bucket.stream, kept.bucket.subject(kept.key)
        if not kept.wild:
            one = await self._connection.read(stream, subject, leader=leader)
            return [] if one is None else [one]
        found: list[Stored] = []
        while one := await self._connection.read(stream, subject, found[-1].sequence if found else 0, leader=leader):
            found.append(one)
        return found

    async def _try_to_read(self, kept: Kept) -> None:
        try:
            await self._read(kept, must=False)
        except Away as away:
            # It is read again as soon as there is a connection, or somebody asks.
            _log.debug("not read", bucket=kept.bucket.name, key=kept.key, reason=str(away))

    async def _hear(self, kept: Kept, message: Msg) -> None:
        """The bucket has stored something."""
        before = _shown(kept)
        found = stored(message)
        kept.put(found)
        kept.touched.add(found.subject)
        kept.heard = _now()
        if kept.known and _shown(kept) != before:
            self._tell(kept)

    def _tell(self, kept: Kept) -> None:
        for changed in list(kept.watchers):
            changed()

    def _reconnected(self) -> None:
        """What was stored while NATS was away has not been heard of."""
        now = _now()
        for kept in self._kept.values():
            # Values that expire may have done so only because nobody could store them again: they get the time to.
            kept.heard = now
            kept.current = self._expires(kept.bucket) is not None and bool(kept.values)
        self.spawn(self._read_all())

    def _doubt_all(self) -> None:
        for kept in self._kept.values():
            kept.current = False
        self.spawn(self._read_all())

    async def _read_all(self) -> None:
        """Read again what somebody watches; the rest when somebody asks."""
        turn = asyncio.Semaphore(AT_A_TIME)

        async def read(kept: Kept) -> None:
            async with turn:
                await self._try_to_read(kept)

        await asyncio.gather(*(read(each) for each in list(self._kept.values()) if each.watchers and not each.current))

    async def _look_after(self) -> None:
        """Forget what is not used, doubt what is old, and see what has expired."""
        while True:
            await asyncio.sleep(1.0)
            now = _now()
            for kept in list(self._kept.values()):
                if kept.lock.locked():
                    continue
                if not self._connection.connected:
                    continue  # then what is known is all that there is
                if not kept.watchers and now - kept.used > IDLE:
                    self._forget(kept)
                    continue
                if not kept.known:
                    continue
                expires = self._expires(kept.bucket)
                if expires is not None and kept.values and now - kept.heard > expires:
                    kept.current = False
                    self.spawn(self._try_to_read(kept))
                elif now - max(kept.read, kept.heard) > REFRESH:
                    kept.current = False
                    if kept.watchers:
                        self.spawn(self._try_to_read(kept))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("unexpected failure", error=repr(error), exc_info=error)


def _shown(kept: Kept) -> list[tuple[str, bytes | None]]:
    """What a change of is news: to store the same again is none."""
    return [(each.subject, each.value) for each in kept.values]


def _now() -> float:
    return asyncio.get_running_loop().time()
