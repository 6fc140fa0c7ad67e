"""Two neighbouring versions of the offers: a farm is upgraded host by host."""

from __future__ import annotations

import msgspec
import pytest
from nats.aio.msg import Msg

from nvi.model import FirstPacket
from nvi.offers import VERSION, Accept, Ask, NoAnswer, Offer, Reason, Refuse, Release, Released, Reply, Request, Stamp
from nvi.offers.wire import (
    PREVIOUS,
    Accept1,
    Inexpressible,
    NotUnderstood,
    Offer1,
    Request1,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

from .farm import LAYOUT, Nats
from .test_offers import ENDS, IDENTITY, MINE, OFFER, YOURS, _serving

OLD_OFFER = Offer1(PREVIOUS, Stamp(1, 2), IDENTITY, ENDS[0], 64, MINE)
REQUESTS = [
    OFFER,
    Offer(VERSION, Stamp(3, 4), IDENTITY, ENDS[1], FirstPacket(63), MINE, peer_port=20007, resumes=True),
    Ask(VERSION, 17, YOURS, MINE),
    Release(VERSION, IDENTITY, YOURS, MINE),
]
REPLIES = [Accept(YOURS, ENDS[0], FirstPacket(64)), Refuse(Reason.DENIED, "no"), Released(), OFFER]


@pytest.mark.parametrize("version", [VERSION, PREVIOUS])
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_question_means_the_same_in_both_versions(request_: Request, version: int) -> None:
    data = encode_request(request_, version)
    assert msgspec.msgpack.decode(data)["version"] == version
    assert decode_request(data) == (request_, version)


@pytest.mark.parametrize("version", [VERSION, PREVIOUS])
@pytest.mark.parametrize("reply", REPLIES)
def test_an_answer_means_the_same_in_both_versions(reply: Reply, version: int) -> None:
    assert decode_reply(encode_reply(reply, version), version) == reply


def test_what_the_version_before_has_no_words_for() -> None:
    for offer in (msgspec.structs.replace(OFFER, exit="g1"), msgspec.structs.replace(OFFER, peer_address=b"1234")):
        assert decode_request(encode_request(offer, VERSION)) == (offer, VERSION)
        with pytest.raises(Inexpressible):
            encode_request(offer, PREVIOUS)


@pytest.mark.parametrize("version", [PREVIOUS - 1, VERSION + 1])
def test_other_versions_are_not_understood(version: int) -> None:
    data = msgspec.msgpack.encode(msgspec.structs.replace(OFFER, version=version))
    with pytest.raises(NotUnderstood, match=f"of version {version}, and {PREVIOUS} and {VERSION} are spoken here"):
        decode_request(data)


class OldAgent:
    """What an agent of the version before does with a message: it understands its own version only."""

    def __init__(self) -> None:
        self.heard: list[Request1] = []
        self.puzzled = 0

    async def hear(self, message: Msg) -> None:
        try:
            request = msgspec.msgpack.decode(message.data, type=Request1)
            if request.version != PREVIOUS:
                raise ValueError("another version")
        except ValueError:
            self.puzzled += 1
            await message.respond(msgspec.msgpack.encode(Refuse(Reason.VERSION, "I speak version 1")))
            return
        self.heard.append(request)
        reply = Accept1(YOURS, ENDS[0], 64) if isinstance(request, Offer1) else Released()
        await message.respond(msgspec.msgpack.encode(reply))


async def test_a_new_agent_asks_an_old_one(nats: Nats) -> None:
    old = OldAgent()
    async with nats.offers_of("h1") as one, nats.connection("h2") as other:
        await other.ready()
        await other.subscribe(LAYOUT.offer("h2", "*"), old.hear)
        await other._client.flush()  # type: ignore[union-attr]
        assert await one.request("h1", "h2", OFFER) == Accept(YOURS, ENDS[0], FirstPacket(64))
        assert old.heard == [OLD_OFFER]
        assert await one.request("h1", "h2", Release(VERSION, IDENTITY, YOURS, MINE)) == Released()
        assert old.puzzled == 1, "that it is an old one is remembered"
        with pytest.raises(NoAnswer, match="speaks version 1, which has no words for a connection by"):
            await one.request("h1", "h2", msgspec.structs.replace(OFFER, exit="g1"))


async def test_an_old_agent_asks_a_new_one(nats: Nats) -> None:
    heard: list[Request] = []

    async def handler(_: str, request: Request) -> Reply:
        heard.append(request)
        return Released() if isinstance(request, Release) else Accept(YOURS, ENDS[0], FirstPacket(64))

    async with nats.connection("h1") as old, nats.offers_of("h2") as new:
        new.serve("h2", handler)
        await _serving(nats, "h2")
        answer = await old.request(LAYOUT.offer("h2", "h1"), msgspec.msgpack.encode(OLD_OFFER))
        assert msgspec.msgpack.decode(answer, type=Accept1) == Accept1(YOURS, ENDS[0], 64)
        assert heard[-1] == OFFER
