"""One StreamChannel's life: the election, the pipeline, the packets both ways."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NoReturn, Protocol

import grpc
import grpc.aio
from msgspec import Struct

from ..switch import SwitchError
from .arbitration import Arbitration, Standing
from .link import Link
from .messages import p4r
from .pipeline import Pipeline
from .writer import Writer

OUTGOING = 4096
"""Packet-outs that may wait for the switch."""
ANSWER = 3.0
"""Seconds within which a switch must say who is primary."""


class Counts(Struct):
    """What has happened in a session so far."""

    connects: int = 0
    """Streams on which a switch has answered."""
    punts: int = 0
    punts_discarded: int = 0
    """Punts that made no sense, came while this agent was not primary, or were too much for `on_punt`."""
    packets_out: int = 0
    packets_out_discarded: int = 0
    """Packet-outs for which there was no room in the queue, or no switch."""
    packets_out_refused: int = 0
    """Packet-outs that the switch could not take (section 16.6)."""
    updates: int = 0
    batches: int = 0
    """Write RPCs: as many as it took for `updates`."""


class Listener(Protocol):
    """Who is told what happens in a conversation. Nothing here may block."""

    def pushed(self) -> None:
        """The switch has been given its pipeline, and so has lost all entries."""

    def elected(self) -> None:
        """This controller is primary, and the switch has the right pipeline."""

    def deposed(self, rival: int) -> None:
        """This controller is not, or no longer, primary; the one with this election id is, or nobody if 0."""

    def punted(self, packet: p4r.PacketIn) -> None:
        """A packet has come in."""


class Conversation:
    """What is there while a switch is."""

    def __init__(
        self, link: Link, arbitration: Arbitration, pipeline: Pipeline, listener: Listener, counts: Counts
    ) -> None:
        self.link = link
        self.writer: Writer | None = None
        """Takes updates while this controller is primary."""
        self._arbitration = arbitration
        self._pipeline = pipeline
        self._listener = listener
        self._counts = counts
        self._stream = link.stream()
        self._inauguration: asyncio.Task[None] | None = None
        self._trouble: SwitchError | None = None
        self._outgoing: deque[bytes] = deque()
        self._outgoing_ready = asyncio.Event()

    async def run(self) -> NoReturn:
        """Hold the conversation. Ends only by raising SwitchError: the switch is gone, or cannot be used."""
        self._claim()
        feeder = asyncio.create_task(self._feed())
        try:
            await self._drain()
        finally:
            self.writer = None
            feeder.cancel()
            if self._inauguration is not None:
                self._inauguration.cancel()
            await self.link.close()

    def send(self, message: bytes) -> None:
        """Queue a StreamMessageRequest. It is discarded if the queue is full, or this controller is not primary."""
        if self.writer is None or len(self._outgoing) >= OUTGOING:
            self._counts.packets_out_discarded += 1
            return
        self._counts.packets_out += 1
        self._outgoing.append(message)
        self._outgoing_ready.set()

    async def _write(self, updates: Sequence[bytes]) -> None:
        self._counts.batches += 1
        self._counts.updates += len(updates)
        await self.link.write(updates)

    def _claim(self) -> None:
        self._outgoing.appendleft(self._arbitration.claim())
        self._outgoing_ready.set()

    async def _feed(self) -> None:
        try:
            while True:
                await self._outgoing_ready.wait()
                self._outgoing_ready.clear()
                while self._outgoing:
                    await self._stream.write(self._outgoing.popleft())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream is over: _drain says why

    async def _drain(self) -> NoReturn:
        """Take what comes, and never wait for anything else.

        A primary that stops reading stops its switch: BMv2 writes to the stream with the thread that transmits all
        packets, and with locks held.
        """
        answered = False
        try:
            async with asyncio.timeout(ANSWER) as limit:
                async for message in self._stream:
                    if not answered:
                        answered = True
                        limit.reschedule(None)
                        self._counts.connects += 1
                    self._receive(message)
        except TimeoutError:
            raise self.link.no_answer(ANSWER) from None
        except grpc.aio.AioRpcError as error:
            raise self.link.explain_end(error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._trouble is None or (task is not None and task.cancelling()):
                raise
            raise self._trouble from None  # _inaugurate has cancelled the stream
        raise self.link.gone()

    def _receive(self, message: p4r.StreamMessageResponse) -> None:
        kind = message.WhichOneof("update")
        if kind == "packet":
            if self.writer is None:
                self._counts.punts_discarded += 1
            else:
                self._listener.punted(message.packet)
        elif kind == "arbitration":
            self._heed(message.arbitration)
        elif kind == "error":
            self._counts.packets_out_refused += 1

    def _heed(self, update: p4r.MasterArbitrationUpdate) -> None:
        standing = self._arbitration.receive(update)
        if standing is Standing.PRIMARY:
            if self.writer is None and (self._inauguration is None or self._inauguration.done()):
                self._inauguration = asyncio.create_task(self._inaugurate())
            return
        if self._inauguration is not None:
            self._inauguration.cancel()
            self._inauguration = None
        self.writer = None  # what it still holds, the switch itself will refuse
        if standing is Standing.VACANT:
            self._claim()
        self._listener.deposed(self._arbitration.rival)

    async def _inaugurate(self) -> None:
        self.link.bear(self._arbitration.election_id)
        try:
            if await self.link.cookie() != self._pipeline.cookie:
                await self.link.push(self._pipeline.forwarding_config())
                self._listener.pushed()
        except SwitchError as error:
            self._trouble = error
            self._stream.cancel()
            return
        self.writer = Writer(self._write)
        self._listener.elected()
