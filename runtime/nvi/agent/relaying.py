"""A gateway on the way: it joins two segments, and passes offers on."""

from __future__ import annotations

from msgspec import Struct

from ..model import ConnectionId, End, Endpoint, Host
from ..route import may_offer
from .connections import Connection, Link
from .joining import Joiner
from .local import Local
from .offering import Crossed, Offerer, Proposal
from .underlay import NextHop


class Place(Struct, frozen=True, gc=False):
    """Where on a route a gateway is, seen from one of its neighbours there."""

    far: Endpoint
    """The endpoint on the neighbour's side."""
    far_end: End
    origin: Host
    """That endpoint's host."""
    target: Host
    """The other endpoint's."""


class Relay:
    """Passes on what is offered to one host on connections of which neither end is there."""

    def __init__(self, local: Local, joiner: Joiner, offerer: Offerer) -> None:
        """Start with none."""
        self._local = local
        self._joiner = joiner
        self._offerer = offerer

    async def place(self, neighbour: Host, identity: ConnectionId, exit: str) -> Place | None:
        """Which of the ends is on the side of a neighbour, its site tells; None if it is on no route through here."""
        local, directory, me = self._local, self._local.directory, self._local.host
        for far_end in (identity.low, identity.high):
            far = await local.party(identity.tenant, far_end.address, exit)
            near = await local.party(identity.tenant, identity.other(far_end).address, exit)
            origin = None if far is None else await directory.host(far.host)
            target = None if near is None else await directory.host(near.host)
            if far and origin and target and may_offer(neighbour, me, origin, target):
                return Place(far, far_end, origin, target)
        return None

    async def pass_on(self, proposal: Proposal, link: Link, hop: NextHop, origin: Host, target: Host) -> Connection:
        """Offer to the next host on the way to `target`; once that has accepted, join the two segments.

        `link`: the segment towards `origin`, whose pair of keys is taken; `proposal` says whether the initiator is on
        its side. Raises what offering and joining raise, and Crossed.
        """
        joiner, identity = self._joiner, proposal.identity
        agreement = await self._offerer.offer(proposal, target, lambda: joiner.answering.get(identity) != origin.name)
        if agreement is None:
            raise Crossed("an offer from the other end went first")
        links, hops = (link, agreement.link), (hop, agreement.hop)
        if not proposal.opened_here:
            links, hops = links[::-1], hops[::-1]
        return await joiner.join_relay(identity, agreement.initiator, agreement.first, links, hops, proposal.exit)
