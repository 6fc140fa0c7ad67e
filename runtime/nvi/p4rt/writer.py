"""Many callers' updates in few Write RPCs. No I/O of its own: it is given the RPC.

A Write of one update costs about as much as one of twenty, on both sides, and two at a time only make each other wait
(a switch works on one). So there is one at a time; what is written meanwhile goes together in the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence

from .codec import Change, UpdateError

BATCH = 200
"""Updates per RPC at most. The outcome of each travels in the trailing metadata: with 35 bytes and more per update,
larger batches exceed the limits of gRPC implementations (the specification's appendix, gRPC Metadata Maximum Size)."""

PAUSE = 0.003
"""Seconds at least from one RPC to the next while several callers write at a time: more are about to. Measured, 2,200
connections per second over two BMv2 on two cores: batches twice as large, and a tenth less CPU on either side."""

PACE = 3
"""And so many times as long as the RPC took: the busier switch and agent are, the larger the batches. Measured, at the
most that two agents can do over two BMv2 on two cores: a fifth more connections per second than with PAUSE alone."""

LONGEST_PAUSE = 0.02
"""But no longer pause than this: an RPC also takes long if the switch was busy with something else, such as a Read."""


class BatchFailed(Exception):
    """Some updates of a batch were not done; raised by the RPC that a Writer is given."""

    def __init__(self, outcomes: Sequence[UpdateError]) -> None:
        """`outcomes`: one for each update, in order."""
        super().__init__("some updates failed")
        self.outcomes = outcomes


class _Job:
    """One caller's updates."""

    __slots__ = ("changes", "done", "failures", "sent")

    def __init__(self, changes: Sequence[Change], done: asyncio.Future[None]) -> None:
        self.changes = changes
        self.done = done
        self.sent = 0
        self.failures: list[tuple[int, UpdateError]] = []


class Writer:
    """Gathers updates into batches."""

    def __init__(self, rpc: Callable[[Sequence[bytes]], Awaitable[None]]) -> None:
        """`rpc` writes one batch. It raises BatchFailed, or another exception if the batch as a whole failed."""
        self._rpc = rpc
        self._jobs: deque[_Job] = deque()
        self._pump: asyncio.Task[None] | None = None

    async def write(self, changes: Sequence[Change]) -> list[tuple[int, UpdateError]]:
        """Write them in order and return which of them failed, by position, and why.

        Raises what the RPC raises; then it is not known which of them were done. When this is cancelled, what has not
        been sent yet never is.
        """
        if not changes:
            return []
        job = _Job(changes, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._pump is None:
            # It starts after all who can run now have run: what a burst of packets brings about goes together.
            self._pump = asyncio.create_task(self._drain())
        await job.done
        return job.failures

    async def _drain(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while batch := self._gather():
                begin = clock()
                await self._send(batch)
                if len(batch) > 1:
                    took = clock() - begin
                    await asyncio.sleep(min(max(PAUSE, PACE * took) - took, LONGEST_PAUSE))
        finally:
            self._pump = None

    def _gather(self) -> list[tuple[_Job, int, int]]:
        """The next batch: consecutive updates of some jobs, as (job, first, end).

        A switch may execute the updates of one RPC in any order (section 12.1). Those of different keys commute, so a
        batch ends before an update whose key it already has.
        """
        batch: list[tuple[_Job, int, int]] = []
        keys: set[Hashable] = set()
        for job in self._jobs:
            if job.done.done():
                continue
            first = end = job.sent
            for change in job.changes[first : first + BATCH - len(keys)]:
                if change.key in keys:
                    break
                keys.add(change.key)
                end += 1
            if end > first:
                batch.append((job, first, end))
                job.sent = end
            if end < len(job.changes):
                break
        return batch

    async def _send(self, batch: list[tuple[_Job, int, int]]) -> None:
        outcomes: Sequence[UpdateError] = ()
        try:
            await self._rpc([change.message for job, first, end in batch for change in job.changes[first:end]])
        except BatchFailed as failed:
            outcomes = failed.outcomes
        except Exception as error:
            _fail((job for job, _, _ in batch), error)
        position = 0
        for job, first, end in batch:
            for index, outcome in enumerate(outcomes[position : position + end - first], start=first):
                if outcome.status != "OK":
                    job.failures.append((index, outcome))
            position += end - first
            if end == len(job.changes) and not job.done.done():
                job.done.set_result(None)
        while self._jobs and self._jobs[0].done.done():
            self._jobs.popleft()


def _fail(jobs: Iterable[_Job], error: Exception) -> None:
    for job in jobs:
        if not job.done.done():
            # Each caller gets an exception of its own: raising one adds to its traceback.
            job.done.set_exception(type(error)(*error.args))
