"""Offers between the agents of a farm, as requests over NATS; while NATS is away, directly (`nvi.offers.direct`).

Who asks is a token of the subject, under which the server lets nobody else publish; whose answer it is follows from
who may subscribe (`nvi.nats.layout`). Nothing in a message names its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog
from nats.aio.msg import Msg

from ..nats.connection import PATIENCE, Away, Connection, NobodyThere, Subscription
from ..nats.layout import Layout
from . import VERSION, Garbled, Handler, NoAnswer, Reason, Refuse, Reply, Request
from .direct import Direct, Unreached
from .wire import PREVIOUS, Inexpressible, NotUnderstood, decode_reply, decode_request, encode_reply, encode_request

AT_A_TIME = 1024
"""Requests that are answered at a time; further ones are told to come back."""

OLDER_SECONDS, OLDER_LIMIT = 60.0, 4096
"""For how long, and of how many agents, it is remembered that they speak the version before."""

_log = structlog.get_logger()


class NatsOffers:
    """The Offers of one agent."""

    def __init__(
        self, connection: Connection, layout: Layout, direct: Direct | None = None, timeout: float = PATIENCE
    ) -> None:
        """`direct`: the way beside NATS, if there is one; `timeout`: seconds within which an agent must answer."""
        self._direct = direct
        self._connection = connection
        self._layout = layout
        self._timeout = timeout
        self._subscriptions: dict[str, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained: set[str] = set()
        self._older: dict[str, float] = {}
        """Agents that speak the version before, until when that is believed: seconds on the loop's clock."""

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        """See Offers."""
        older = self._older.get(receiver, 0.0) > _now()
        reply = await self._ask(sender, receiver, message, PREVIOUS if older else VERSION)
        if not older and isinstance(reply, Refuse) and reply.reason is Reason.VERSION:
            reply = await self._ask(sender, receiver, message, PREVIOUS)
            if not (isinstance(reply, Refuse) and reply.reason is Reason.VERSION):
                self._remember_older(receiver)
        return reply

    async def _ask(self, sender: str, receiver: str, message: Request, version: int) -> Reply:
        try:
            data = encode_request(message, version)
            return decode_reply(await self._carry(sender, receiver, data), version)
        except Inexpressible as what:
            raise NoAnswer(f"host {receiver} speaks version {version}, which has no words for {what}") from None
        except NotUnderstood as error:
            raise NoAnswer(
                f"the agent of host {receiver} answers something that is not understood: {error}; upgrade either"
            ) from None

    async def _carry(self, sender: str, receiver: str, data: bytes) -> bytes:
        """Raises NoAnswer."""
        why = self._connection.state
        if self._direct is None or self._connection.connected:
            try:
                return await self._connection.request(self._layout.offer(receiver, sender), data, self._timeout)
            except NobodyThere:
                raise NoAnswer(f"no agent answers for host {receiver}") from None
            except Away as away:
                why = str(away)  # of a server that hangs nobody knows yet that it is away
        if self._direct is not None:
            try:
                return await self._direct.request(receiver, data, self._timeout)
            except Unreached as unreached:
                why = f"{why}; nor directly: {unreached}"
        raise NoAnswer(f"the agent of host {receiver} is not reached: {why}")

    def _remember_older(self, receiver: str) -> None:
        if len(self._older) >= OLDER_LIMIT:
            self._older.clear()
        self._older[receiver] = _now() + OLDER_SECONDS

    def serve(self, host: str, handler: Handler) -> None:
        """See Offers."""

        async def hear(message: Msg) -> None:
            # Not awaited here: requests do not wait for each other.
            if len(self._tasks) < AT_A_TIME:
                self._spawn(self._answer(host, handler, message))
            else:
                busy = Refuse(Reason.BUSY, f"host {host} answers {AT_A_TIME} requests already")
                await self._connection.answer(message, encode_reply(busy, VERSION))

        async def subscribe() -> None:
            self._subscriptions[host] = await self._connection.subscribe(self._layout.offer(host, "*"), hear)

        self._spawn(subscribe())
        if self._direct is not None:
            self._direct.serve(partial(self._reply, host, handler))

    def leave(self, host: str) -> None:
        """See Offers."""
        if self._direct is not None:
            self._direct.leave()
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
        await self._connection.answer(message, await self._reply(host, handler, sender, message.data))

    async def _reply(self, host: str, handler: Handler, sender: str, data: bytes) -> bytes:
        try:
            request, version = decode_request(data)
        except NotUnderstood as error:
            if sender not in self._complained:
                self._complained.add(sender)
                _log.error("a message is not understood", host=host, sender=sender, reason=str(error))
            return encode_reply(await handler(sender, Garbled(str(error))), VERSION)
        reply = await handler(sender, request)
        try:
            return encode_reply(reply, version)
        except Inexpressible as what:
            return encode_reply(Refuse(Reason.VERSION, f"version {version} has no words for {what}"), version)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("unexpected failure", error=repr(error), exc_info=error)


def _now() -> float:
    return asyncio.get_running_loop().time()
