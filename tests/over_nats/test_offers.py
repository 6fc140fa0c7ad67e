"""Offers over NATS: who asks, who answers, and what happens if nobody does."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from nvi.model import ConnectionId, End, FirstPacket, SegmentEnd, read_address
from nvi.offers import (
    VERSION,
    Accept,
    Garbled,
    NoAnswer,
    Offer,
    Reason,
    Refuse,
    Release,
    Released,
    Reply,
    Request,
    Stamp,
)
from nvi.offers.wire import LARGEST

from .farm import LAYOUT, Nats, until

ENDS = (End(read_address("10.0.0.1"), 40000), End(read_address("10.0.0.2"), 80))
IDENTITY = ConnectionId("acme", 6, *ENDS)
MINE = SegmentEnd("h1", "here", bytes([172, 16, 0, 1]), bytes([172, 16, 0, 1]), 20001)
YOURS = SegmentEnd("h2", "here", bytes([172, 16, 0, 2]), bytes([172, 16, 0, 2]), 20002)
OFFER = Offer(VERSION, Stamp(1, 2), IDENTITY, ENDS[0], FirstPacket(64), MINE)


async def _serving(nats: Nats, name: str) -> None:
    """Wait until the server knows that this host answers (a subscription is made in the background)."""
    async with nats.offers_of("h3") as probe:

        async def answers() -> bool:
            try:
                await probe.request("h3", name, Release(VERSION, IDENTITY, YOURS, MINE))
            except NoAnswer:
                return False
            return True

        await until(answers, f"{name} answers")


async def test_an_offer_arrives_with_the_name_of_its_sender(nats: Nats) -> None:
    heard: list[tuple[str, Request]] = []

    async def handler(sender: str, request: Request) -> Reply:
        heard.append((sender, request))
        return Released() if isinstance(request, Release) else Accept(YOURS, ENDS[0], FirstPacket(64))

    async with nats.offers_of("h1") as one, nats.offers_of("h2") as other:
        with pytest.raises(NoAnswer, match="no agent answers for host h2"):
            await one.request("h1", "h2", OFFER)
        other.serve("h2", handler)
        await _serving(nats, "h2")
        assert await one.request("h1", "h2", OFFER) == Accept(YOURS, ENDS[0], FirstPacket(64))
        assert heard[-1] == ("h1", OFFER)
        other.leave("h2")

        async def gone() -> bool:
            try:
                await one.request("h1", "h2", OFFER)
            except NoAnswer:
                return True
            return False

        await until(gone, "h2 has left")


async def test_requests_do_not_wait_for_each_other(nats: Nats) -> None:
    together = asyncio.Barrier(3)

    async def handler(_: str, request: Request) -> Reply:
        if not isinstance(request, Release):
            await together.wait()
        return Released()

    async with nats.offers_of("h1") as one, nats.offers_of("h2") as other:
        other.serve("h2", handler)
        await _serving(nats, "h2")
        replies = await asyncio.gather(*(one.request("h1", "h2", OFFER) for _ in range(3)))
        assert replies == [Released()] * 3


async def test_an_agent_that_hangs_is_not_waited_for(nats: Nats) -> None:
    async def handler(_: str, request: Request) -> Reply:
        if not isinstance(request, Release):
            await asyncio.sleep(3600)
        return Released()

    async with nats.offers_of("h1") as one, nats.offers_of("h2") as other:
        other._timeout = one._timeout = 0.3
        other.serve("h2", handler)
        await _serving(nats, "h2")
        with pytest.raises(NoAnswer, match=r"host h2 is not reached: no answer at nvi\.test\.offer\.h2\.h1 within"):
            await one.request("h1", "h2", OFFER)


@pytest.mark.parametrize("what", [b"", b"\xff" * 50, b"x" * 100_000, msgspec.msgpack.encode({"type": "offer"})])
async def test_what_is_not_understood_is_told_to_who_answers_and_refused(nats: Nats, what: bytes) -> None:
    """An agent counts it: `test_what_is_not_understood_is_counted` of tests/agent/test_lies.py."""

    async def handler(_: str, request: Request | Garbled) -> Reply:
        return Refuse(Reason.VERSION, request.text) if isinstance(request, Garbled) else Released()

    async with nats.connection("h1") as raw, nats.offers_of("h2") as other:
        other.serve("h2", handler)
        await _serving(nats, "h2")
        reply = msgspec.msgpack.decode(await raw.request(LAYOUT.offer("h2", "h1"), what), type=Reply)
        assert isinstance(reply, Refuse)
        assert (reply.reason, bool(reply.text)) == (Reason.VERSION, True)
        assert len(what) < LARGEST or f"it has {len(what)} bytes" in reply.text


async def test_fields_of_a_later_version_are_passed_over(nats: Nats) -> None:
    """A later version may add to a message; what it must not be understood without has another version."""
    later = msgspec.msgpack.decode(msgspec.msgpack.encode(OFFER))
    later["colour"] = "green"
    heard: list[Request] = []

    async def handler(_: str, request: Request) -> Reply:
        heard.append(request)
        return Released()

    async with nats.connection("h1") as raw, nats.offers_of("h2") as other:
        other.serve("h2", handler)
        await _serving(nats, "h2")
        await raw.request(LAYOUT.offer("h2", "h1"), msgspec.msgpack.encode(later))
        assert heard[-1] == OFFER
