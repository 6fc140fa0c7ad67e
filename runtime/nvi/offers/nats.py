"""Offers between the agents of a farm, as requests over NATS.

Who asks is a token of the subject, under which the server lets nobody else publish; whose answer it is follows from
who may subscribe (`nvi.nats.layout`). Nothing in a message names its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import structlog
from nats.aio.msg import Msg

from ..nats.connection import PATIENCE, Away, Connection, NobodyThere, Subscription
from ..nats.layout import Layout
from . import Handler, NoAnswer, Reason, Refuse, Reply, Request

AT_A_TIME = 1024
"""Requests that are answered at a time; further ones are told to come back."""

LARGEST = 16_384
"""Bytes of a message. None of ours has more than a few hundred."""

_log = structlog.get_logger()

_REQUEST = msgspec.msgpack.Decoder(Request)
_REPLY = msgspec.msgpack.Decoder(Reply)
_ENCODER = msgspec.msgpack.Encoder()


class NatsOffers:
    """The Offers of one agent."""

    def __init__(self, connection: Connection, layout: Layout, timeout: float = PATIENCE) -> None:
        """`timeout`: seconds within which an agent must answer."""
        self._connection = connection
        self._layout = layout
        self._timeout = timeout
        self._subscriptions: dict[str, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained: set[str] = set()

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        """See Offers."""
        subject = self._layout.offer(receiver, sender)
        try:
            answer = await self._connection.request(subject, _ENCODER.encode(message), self._timeout)
        except NobodyThere:
            raise NoAnswer(f"no agent answers for host {receiver}") from None
        except Away as away:
            raise NoAnswer(f"the agent of host {receiver} is not reached: {away}") from None
        try:
            reply: Reply = _REPLY.decode(answer)
        except ValueError as error:  # msgspec's errors are ValueErrors, too
            raise NoAnswer(
                f"the agent of host {receiver} answers something that is not understood: {error}; upgrade either"
            ) from None
        return reply

    def serve(self, host: str, handler: Handler) -> None:
        """See Offers."""

        async def hear(message: Msg) -> None:
            # Not awaited here: requests do not wait for each other.
            if len(self._tasks) < AT_A_TIME:
                self._spawn(self._answer(host, handler, message))
            else:
                busy = Refuse(Reason.BUSY, f"host {host} answers {AT_A_TIME} requests already")
                await self._connection.answer(message, _ENCODER.encode(busy))

        async def subscribe() -> None:
            self._subscriptions[host] = await self._connection.subscribe(self._layout.offer(host, "*"), hear)

        self._spawn(subscribe())

    def leave(self, host: str) -> None:
        """See Offers."""
        if (subscription := self._subscriptions.pop(host, None)) is not None:
            subscription.end_soon()

    async def stop(self) -> None:
        """Answer what is being answered, and nothing more."""
        for host in list(self._subscriptions):
            self.leave(host)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout)

    async def _answer(self, host: str, handler: Handler, message: Msg) -> None:
        sender = message.subject.rpartition(".")[2]
        try:
            if len(message.data) > LARGEST:
                raise ValueError(f"it has {len(message.data)} bytes, and at most {LARGEST} make sense")
            request = _REQUEST.decode(message.data)
        except ValueError as error:
            if sender not in self._complained:
                self._complained.add(sender)
                _log.error("a message is not understood", host=host, sender=sender, reason=str(error))
            refuse = Refuse(Reason.VERSION, f"host {host} does not understand the message: {error}; upgrade either")
            await self._connection.answer(message, _ENCODER.encode(refuse))
            return
        await self._connection.answer(message, _ENCODER.encode(await handler(sender, request)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("unexpected failure", error=repr(error), exc_info=error)
