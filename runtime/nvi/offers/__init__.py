"""Offers: how two agents agree to join a connection.

Every message is typed, versioned and idempotent: said twice, it changes nothing the second time. One small interface
carries them; `memory` implements it for the agents of one process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from ..model import Address, ConnectionId, End, FirstPacket, SegmentEnd

VERSION = 2
"""Version of the messages. An agent refuses what it does not speak."""


class Stamp(Struct, frozen=True, gc=False, order=True):
    """When an agent said something, by its own count: later is greater, also across restarts."""

    epoch: int
    """Persisted, and one more at each start of the agent."""
    counter: int


NEVER = Stamp(0, 0)
"""Earlier than every stamp."""


class Offer(Struct, frozen=True, gc=False, tag="offer"):
    """Join this connection: here is my end of the segment between us."""

    version: int
    stamp: Stamp
    connection: ConnectionId
    initiator: End
    """Which end opened the connection, as far as the sender knows."""
    first: FirstPacket
    end: SegmentEnd
    peer_port: int | None = None
    """The receiver's own port of a segment that it has forgotten, if the sender still uses it."""
    exit: str = ""
    """The gateway at whose external side one end is; empty if both are endpoints."""
    resumes: bool = False
    """The packet at hand could not have opened the connection, and nobody up to here remembers who did."""
    peer_address: Address | None = None
    """The receiver's own address of the segment, of which it has several for protocols without ports."""


class Accept(Struct, frozen=True, gc=False, tag="accept"):
    """Entries are written here and beyond; here is my end of the segment, and what is known of the connection."""

    end: SegmentEnd
    initiator: End
    first: FirstPacket
    stamp: Stamp = NEVER
    """NEVER, if it is not said."""


class Reason(StrEnum):
    """Why an agent refuses."""

    VERSION = "version"
    STALE = "stale"
    """An older offer or release than what its sender has said of the connection since."""
    CROSSED = "crossed"
    """An offer from the other end of the same connection goes first."""
    UNKNOWN = "unknown"
    """No such endpoint here."""
    FORGED = "forged"
    """The sender does not have the endpoint that it speaks for, nor is it a gateway on the way from it."""
    DENIED = "denied"
    EXHAUSTED = "exhausted"
    TAKEN = "taken"
    """The pair of keys is not free here: offer another one."""
    UNREACHABLE = "unreachable"
    """No way to the sender's address, or on to the far endpoint."""
    BUSY = "busy"
    """Not ready, or the switch does not do as it is told: try again later."""


class Refuse(Struct, frozen=True, gc=False, tag="refuse"):
    """I do not join, and why."""

    reason: Reason
    text: str


class Ask(Struct, frozen=True, gc=False, tag="ask"):
    """A packet came along a segment that I do not know; what connection is it of?"""

    version: int
    protocol: int
    yours: SegmentEnd
    """The receiver's end: the packet's source."""
    mine: SegmentEnd
    """The sender's end: the packet's destination."""


class Release(Struct, frozen=True, gc=False, tag="release"):
    """I do not use this segment any more, and have no entries for it."""

    version: int
    connection: ConnectionId
    yours: SegmentEnd
    mine: SegmentEnd
    stamp: Stamp = NEVER
    """NEVER, if it is not said."""


class Released(Struct, frozen=True, tag="released"):
    """Neither do I, any more."""


class Garbled(Struct, frozen=True):
    """What has come in place of a question: too long, of no version that is spoken, or no message at all."""

    text: str
    """What is wrong with it."""


Request = Offer | Ask | Release
Reply = Accept | Refuse | Offer | Released
"""To an Offer: Accept or Refuse. To an Ask: the Offer as if it were made now, or Refuse. To a Release: Released, or
Refuse."""

Handler = Callable[[str, Request | Garbled], Awaitable[Reply]]
"""(name of the host that asks, as the transport has authenticated it; what it asks) -> what we answer."""

LONGEST_NAME = 255
"""Bytes of a tenant's, a host's or a site's name in a message."""


class NoAnswer(Exception):
    """The other agent did not answer in time, or there is none. The text names it."""


class Offers(Protocol):
    """The way to other agents."""

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        """Ask the agent of another host. Raises NoAnswer."""

    def serve(self, host: str, handler: Handler) -> None:
        """Answer for a host from now on."""

    def leave(self, host: str) -> None:
        """Answer no more."""
