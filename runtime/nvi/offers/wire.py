"""Messages as bytes (MessagePack), in this version and in the one before: so that a farm is upgraded host by host.

An agent speaks its own version first. Who does not know it refuses; then it is said again in the version before. What
an agent hears is answered in the version in which it was asked. No I/O.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from ..model import ConnectionId, End, FirstPacket, SegmentEnd
from . import VERSION, Accept, Ask, Offer, Refuse, Release, Released, Reply, Request, Stamp

PREVIOUS = VERSION - 1
"""The oldest version that is understood."""

LARGEST = 16_384
"""Bytes of a message. None of ours has more than a few hundred."""


class NotUnderstood(ValueError):
    """A message that is of no version that is understood. The text says why."""


class Inexpressible(ValueError):
    """What the version before has no words for. The text says what."""


class Offer1(Struct, frozen=True, tag="offer"):
    """An Offer of version 1, which knew neither gateways nor other families on the way."""

    version: int
    stamp: Stamp
    connection: ConnectionId
    initiator: End
    first_ttl: int
    end: SegmentEnd
    peer_port: int | None = None
    resumes: bool = False


class Accept1(Struct, frozen=True, tag="accept"):
    """An Accept of version 1."""

    end: SegmentEnd
    initiator: End
    first_ttl: int


class _Head(Struct):
    version: int


Request1 = Offer1 | Ask | Release
Reply1 = Accept1 | Refuse | Offer1 | Released

_HEAD = msgspec.msgpack.Decoder(_Head)
_REQUEST = msgspec.msgpack.Decoder(Request)
_REQUEST1 = msgspec.msgpack.Decoder(Request1)
_REPLY = msgspec.msgpack.Decoder(Reply)
_REPLY1 = msgspec.msgpack.Decoder(Reply1)
_ENCODER = msgspec.msgpack.Encoder()


def encode_request(message: Request, version: int) -> bytes:
    """A question in one of the two versions. Raises Inexpressible."""
    if version == VERSION:
        return _ENCODER.encode(message)
    if isinstance(message, Offer):
        return _ENCODER.encode(_offer1(message))
    return _ENCODER.encode(msgspec.structs.replace(message, version=version))


def decode_request(data: bytes) -> tuple[Request, int]:
    """(a question as this version has it, the version that it was asked in). Raises NotUnderstood."""
    if len(data) > LARGEST:
        raise NotUnderstood(f"it has {len(data)} bytes, and at most {LARGEST} make sense")
    try:
        version = _HEAD.decode(data).version
        if version == VERSION:
            request: Request = _REQUEST.decode(data)
            return request, version
        if version == PREVIOUS:
            older: Request1 = _REQUEST1.decode(data)
            if isinstance(older, Offer1):
                return _offer(older), version
            return msgspec.structs.replace(older, version=VERSION), version
    except (msgspec.MsgspecError, ValueError) as error:
        raise NotUnderstood(str(error)) from None
    raise NotUnderstood(f"it is of version {version}, and {PREVIOUS} and {VERSION} are spoken here")


def encode_reply(reply: Reply, version: int) -> bytes:
    """An answer to what was asked in one of the two versions. Raises Inexpressible."""
    if version != VERSION:
        if isinstance(reply, Offer):
            return _ENCODER.encode(_offer1(reply))
        if isinstance(reply, Accept):
            return _ENCODER.encode(Accept1(reply.end, reply.initiator, reply.first.ttl))
    return _ENCODER.encode(reply)


def decode_reply(data: bytes, version: int) -> Reply:
    """The answer to what was asked in one of the two versions. Raises NotUnderstood."""
    try:
        if version == VERSION:
            reply: Reply = _REPLY.decode(data)
            return reply
        older: Reply1 = _REPLY1.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise NotUnderstood(str(error)) from None
    if isinstance(older, Offer1):
        return _offer(older)
    if isinstance(older, Accept1):
        return Accept(older.end, older.initiator, FirstPacket(older.first_ttl))
    return older


def _offer1(offer: Offer) -> Offer1:
    if offer.exit:
        raise Inexpressible(f"a connection by way of gateway {offer.exit}")
    if offer.peer_address is not None:
        raise Inexpressible("a connection that takes an address of its own")
    return Offer1(
        version=PREVIOUS,
        stamp=offer.stamp,
        connection=offer.connection,
        initiator=offer.initiator,
        first_ttl=offer.first.ttl,
        end=offer.end,
        peer_port=offer.peer_port,
        resumes=offer.resumes,
    )


def _offer(older: Offer1) -> Offer:
    return Offer(
        version=VERSION,
        stamp=older.stamp,
        connection=older.connection,
        initiator=older.initiator,
        first=FirstPacket(older.first_ttl),
        end=older.end,
        peer_port=older.peer_port,
        resumes=older.resumes,
    )
