"""Offers that are lost, late, duplicated or overtaken; neither who asks nor who answers knows."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from nvi.offers import Handler, NoAnswer, Offers, Reply, Request

TIMEOUT = 2.0
"""Seconds for which an answer is waited for."""

LATE_SECONDS = 6.0
"""How late a message is at most: three times as long as anybody waits for it."""


@dataclass(frozen=True)
class Weather:
    """What may become of a message: probabilities, and seconds."""

    lost: float = 0.0
    """That a question is lost; an answer likewise."""
    late: float = 0.0
    """That a question is late, by up to LATE_SECONDS; an answer likewise."""
    twice: float = 0.0
    """That a question comes a second time, by up to LATE_SECONDS later."""
    latency: float = 0.005
    """What every message takes, at most. So they overtake each other."""


class FaultyOffers:
    """Offers around others, through which everything passes."""

    def __init__(self, offers: Offers, rng: random.Random, parted: Callable[[str, str], bool]) -> None:
        """`parted`: whether two hosts do not reach each other at the moment."""
        self.weather = Weather()
        self.happened: Counter[str] = Counter()
        """What became of messages, by kind."""
        self.on_fate: Callable[[str, str, Request, str], None] = lambda *_: None
        """Called with (sender, receiver, question, what becomes of it)."""
        self.on_arrival: Callable[[str, float], None] = lambda *_: None
        """Called with (receiver, when it was asked) of a question that arrives."""
        self._offers = offers
        self._rng = rng
        self._parted = parted
        self._under_way: set[asyncio.Task[None]] = set()

    def serve(self, host: str, handler: Handler) -> None:
        """See Offers."""
        self._offers.serve(host, handler)

    def leave(self, host: str) -> None:
        """See Offers."""
        self._offers.leave(host)

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        """See Offers."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._carry(sender, receiver, message, answer, "question", self._delay())
        if self._happens(self.weather.twice):
            self.happened["twice"] += 1
            self._carry(sender, receiver, message, None, "again", self._rng.random() * LATE_SECONDS)
        try:
            async with asyncio.timeout(TIMEOUT):
                return await answer
        except TimeoutError:
            raise NoAnswer(f"the agent of host {receiver} did not answer within {TIMEOUT} s") from None

    def _carry(
        self,
        sender: str,
        receiver: str,
        message: Request,
        answer: asyncio.Future[Reply] | None,
        what: str,
        delay: float | None,
    ) -> None:
        self.on_fate(sender, receiver, message, f"{what} {delay}")
        if delay is not None:
            task = asyncio.get_running_loop().create_task(self._deliver(sender, receiver, message, answer, delay))
            self._under_way.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "an answer failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _deliver(
        self, sender: str, receiver: str, message: Request, answer: asyncio.Future[Reply] | None, delay: float
    ) -> None:
        """Carry a question there, and its answer back to who still waits for it."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await asyncio.sleep(delay)
        if self._parted(sender, receiver):
            self.happened["parted"] += 1
            return
        self.on_arrival(receiver, asked)
        try:
            reply: Reply | NoAnswer = await self._offers.request(sender, receiver, message)
        except NoAnswer as nobody:
            reply = nobody
        back = self._delay()
        if answer is None or back is None:
            return
        await asyncio.sleep(back)
        if self._parted(sender, receiver):
            self.happened["parted"] += 1
        elif answer.done():
            self.happened["in vain"] += 1
        elif isinstance(reply, NoAnswer):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    def _delay(self) -> float | None:
        """How long a message takes; None if it never arrives."""
        if self._happens(self.weather.lost):
            self.happened["lost"] += 1
            return None
        if self._happens(self.weather.late):
            self.happened["late"] += 1
            return self._rng.random() * LATE_SECONDS
        return self._rng.random() * self.weather.latency

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability
