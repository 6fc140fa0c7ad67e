"""Offers in memory behave as those between processes do."""

import asyncio

import pytest

from nvi.model import ConnectionId, End, SegmentEnd
from nvi.offers import VERSION, NoAnswer, Release, Released
from nvi.offers.memory import MemoryOffers

RELEASE = Release(
    VERSION,
    ConnectionId("acme", 6, End(b"\n\0\0\1", 1), End(b"\n\0\0\2", 2)),
    SegmentEnd("h2", "here", b"\n\0\1\2", b"\n\0\1\2", 20000),
    SegmentEnd("h1", "here", b"\n\0\1\1", b"\n\0\1\1", 20001),
)


@pytest.mark.parametrize("how", ["cancelled", "impatient"])
async def test_who_answers_goes_on_when_who_has_asked_is_gone(how):
    """Found by a random farm: the asker's agent was restarted, and the answerer's switch kept what it had released."""
    offers = MemoryOffers(timeout=0.01 if how == "impatient" else 60.0)
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(_sender: str, _request: object) -> Released:
        begun.set()
        await go_on.wait()
        done.set()
        return Released()

    offers.serve("h2", answer)
    asking = asyncio.create_task(offers.request("h1", "h2", RELEASE))
    await begun.wait()
    if how == "cancelled":
        asking.cancel()
    with pytest.raises((NoAnswer, asyncio.CancelledError)):
        await asking
    go_on.set()
    await asyncio.wait_for(done.wait(), 60.0)


async def test_an_answer_is_handed_over():
    offers = MemoryOffers()

    async def answer(_sender: str, _request: object) -> Released:
        return Released()

    offers.serve("h2", answer)
    assert await offers.request("h1", "h2", RELEASE) == Released()
    offers.leave("h2")
    with pytest.raises(NoAnswer):
        await offers.request("h1", "h2", RELEASE)
