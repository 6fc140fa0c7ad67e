"""Offers between the agents of one process."""

from __future__ import annotations

import asyncio

from . import Handler, NoAnswer, Reply, Request


class MemoryOffers:
    """The messages are immutable, so they are handed over as they are."""

    def __init__(self, timeout: float = 2.0) -> None:
        """`timeout`: seconds within which an agent must answer."""
        self._timeout = timeout
        self._handlers: dict[str, Handler] = {}
        self._answering: set[asyncio.Task[Reply]] = set()

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        """See Offers."""
        handler = self._handlers.get(receiver)
        if handler is None:
            raise NoAnswer(f"no agent answers for host {receiver}")
        # Who answers goes on with it, whatever becomes of who has asked: an agent's end must not undo half of what
        # another one is doing.
        loop = asyncio.get_running_loop()
        answering = asyncio.ensure_future(handler(sender, message))
        self._answering.add(answering)
        over = loop.create_future()  # cheaper than asyncio.wait and timeout, which matters to simulations

        def end(_: object) -> None:
            self._answering.discard(answering)
            if not over.done():
                over.set_result(None)

        answering.add_done_callback(end)
        timer = loop.call_later(self._timeout, end, None)
        try:
            await over
        finally:
            timer.cancel()
        if not answering.done():
            raise NoAnswer(f"the agent of host {receiver} did not answer within {self._timeout} s")
        return answering.result()

    def serve(self, host: str, handler: Handler) -> None:
        """See Offers."""
        self._handlers[host] = handler

    def leave(self, host: str) -> None:
        """See Offers."""
        self._handlers.pop(host, None)
