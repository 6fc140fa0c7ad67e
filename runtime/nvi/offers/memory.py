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

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        """See Offers."""
        handler = self._handlers.get(receiver)
        if handler is None:
            raise NoAnswer(f"no agent answers for host {receiver}")
        try:
            async with asyncio.timeout(self._timeout):
                return await handler(sender, message)
        except TimeoutError:
            raise NoAnswer(f"the agent of host {receiver} did not answer within {self._timeout} s") from None

    def serve(self, host: str, handler: Handler) -> None:
        """See Offers."""
        self._handlers[host] = handler

    def leave(self, host: str) -> None:
        """See Offers."""
        self._handlers.pop(host, None)
