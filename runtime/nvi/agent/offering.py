"""Offers of ours: to the next host on a connection's route, until both agree on a segment.

Whoever has a reason to offer (an endpoint's first packet, an offer that is to be passed on, a gateway that died) does
it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..formulation import segment_protocol
from ..keys import Pair, Path
from ..model import ConnectionId, End, FirstPacket, Host
from ..offers import VERSION, Accept, NoAnswer, Offer, Reason, Refuse
from ..route import choose_gateway, gateways_needed, is_end_of, meet, own_end
from ..switch import DropReason
from .connections import Link, ingress_key
from .joining import Denied, Joiner
from .keying import propose
from .local import Local, Refused
from .underlay import NextHop

ATTEMPTS = 3
"""Offers made for one connection, if the keys proposed turn out not to be free."""

DROP_REASON = {
    Reason.UNKNOWN: DropReason.UNKNOWN,
    Reason.DENIED: DropReason.DENIED,
    Reason.EXHAUSTED: DropReason.EXHAUSTED,
}
"""How the switch is to count the packets of what a peer has refused; as unreachable, if it is not here."""


class Crossed(Exception):
    """The offer from the connection's other end goes first."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is offered."""

    identity: ConnectionId
    initiator: End
    first: FirstPacket
    resumes: bool
    opened_here: bool
    """Whether the initiator is on our side of the segment."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A segment that both its ends know; its pair of keys is taken. And what the other end knows of the connection."""

    link: Link
    hop: NextHop
    initiator: End
    first: FirstPacket


class Offerer:
    """Makes the offers of one host."""

    def __init__(self, local: Local, joiner: Joiner) -> None:
        """Start with none under way."""
        self._local = local
        self._joiner = joiner

    async def offer(self, proposal: Proposal, target: Host, unless: Callable[[], bool]) -> Agreement | None:
        """Agree with the next host on the route to `target` on a segment.

        None if `unless` says, before an offer is made or after its answer, that none is needed any more. Raises Denied,
        Refused, Crossed, NoAnswer, NoRoute, NoWay, Exhausted, DirectoryError.
        """
        local = self._local
        me, identity = local.host, proposal.identity
        site = gateways_needed(me, target)
        peer = target if site is None else choose_gateway(me, site, await local.directory.gateways(site), identity)
        wire, address = meet(me, peer, identity.low.address)
        hop = await local.next_hop(wire, address)
        ours = own_end(me, wire, hop.source, 0).address
        path = Path(wire, ours, address, segment_protocol(identity.protocol, address))
        held = local.connections.get(identity)
        known = held.link_to(peer.name) if held is not None else None
        for attempt in range(ATTEMPTS):
            if unless():
                return None
            if attempt == 0 and known is not None and known.pair.path == path:
                key, peer_port = known.mine.port, known.yours.port
            else:
                key, peer_port = propose(local.keys, path, proposal.opened_here), None
            mine = own_end(me, wire, hop.source, key)
            offer = Offer(
                VERSION,
                local.stamp(),
                identity,
                proposal.initiator,
                proposal.first,
                mine,
                peer_port,
                proposal.resumes,
            )
            local.events["offers sent"] += 1
            match await local.offers.request(me.name, peer.name, offer):
                case Accept(end, initiator, first):
                    link = Link(peer.name, mine, end, Pair(path, key, end.port), passes_on=peer.name != target.name)
                    if is_end_of(end, peer, wire) and end.seen_address == address:
                        if self._is_held(identity, link):
                            return None if unless() else Agreement(link, hop, initiator, first)
                        if local.keys.take(link.pair):
                            return Agreement(link, hop, initiator, first)
                    # We know of a use of this pair that the peer has forgotten: it must not be taken away.
                    await self._joiner.release(identity, link)
                case Refuse(reason=Reason.TAKEN):
                    pass
                case Refuse(reason=Reason.CROSSED) as refuse:
                    raise Crossed(refuse.text)
                case Refuse(reason=Reason.BUSY | Reason.STALE) as refuse:
                    raise Refused(refuse.text)
                case Refuse(reason, text):
                    raise Denied(DROP_REASON.get(reason, DropReason.UNREACHABLE), text)
                case other:
                    raise NoAnswer(f"host {peer.name} answers an offer with {type(other).__name__}")
        raise Denied(DropReason.EXHAUSTED, f"no free pair of keys towards {peer.name} in {ATTEMPTS} attempts")

    def _is_held(self, identity: ConnectionId, link: Link) -> bool:
        """Whether the connection has this very segment already."""
        held = self._local.connections.at(ingress_key(link.pair))
        return held is not None and held.id == identity
