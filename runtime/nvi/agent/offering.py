"""Offers of ours: to the next host on a connection's route, until both agree on a segment.

Whoever has a reason to offer (an endpoint's first packet, an offer that is to be passed on, a gateway that died) does
it here.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from ..formulation import segment_protocol
from ..keys import Pair, Path
from ..model import Address, ConnectionId, End, FirstPacket, Host, is_portless, show_address
from ..offers import VERSION, Accept, NoAnswer, Offer, Reason, Refuse, Stamp
from ..packets import EXTENSION_HEADERS
from ..route import addresses_on, choose_gateway, gateways_needed, is_end_of, meet, own_end
from ..switch import PORT_EXTERNAL, DropReason
from .connections import Link, ingress_key
from .joining import Denied, Joiner
from .keying import propose, propose_path
from .local import Local, Refused
from .underlay import NextHop

GATEWAYS = 3
"""Of a site, to which an offer is made at most, one after the other as they do not answer."""

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


class Proposal(Struct, frozen=True, gc=False):
    """What is offered."""

    identity: ConnectionId
    initiator: End
    first: FirstPacket
    resumes: bool
    opened_here: bool
    """Whether the initiator is on our side of the segment."""
    exit: str = ""
    """See `Offer.exit`."""


class Agreement(Struct, frozen=True, gc=False):
    """A segment that both its ends know; its pair of keys is taken. And what the other end knows of the connection."""

    link: Link
    hop: NextHop
    initiator: End
    first: FirstPacket
    stamp: Stamp
    """Of the acceptance."""


class Offerer:
    """Makes the offers of one host."""

    def __init__(self, local: Local, joiner: Joiner) -> None:
        """Start with none under way."""
        self._local = local
        self._joiner = joiner

    async def offer(self, proposal: Proposal, target: Host, unless: Callable[[], bool]) -> Agreement | None:
        """Agree with the next host on the route to `target` on a segment.

        If that is a gateway which does not answer, though its lease runs, it is the next one of its site.

        None if `unless` says, before an offer is made or after its answer, that none is needed any more. Raises Denied,
        Refused, Crossed, NoAnswer, NoRoute, NoWay, Exhausted, DirectoryError.
        """
        local, me = self._local, self._local.host
        site = gateways_needed(me, target)
        if site is None:
            return await self._offer_to(target, proposal, target, unless)
        gateways = list(await local.directory.gateways(site))
        for _ in range(GATEWAYS - 1):
            peer = choose_gateway(me, site, gateways, proposal.identity)
            try:
                return await self._offer_to(peer, proposal, target, unless)
            except NoAnswer:
                gateways.remove(peer)
                if not gateways:
                    raise
                local.events["gateways silent"] += 1
        return await self._offer_to(choose_gateway(me, site, gateways, proposal.identity), proposal, target, unless)

    async def _offer_to(
        self, peer: Host, proposal: Proposal, target: Host, unless: Callable[[], bool]
    ) -> Agreement | None:
        local = self._local
        me, identity = local.host, proposal.identity
        wire, address = meet(me, peer, identity.low.address)
        hop = await local.next_hop(wire, address)
        if identity.protocol in EXTENSION_HEADERS and len(address) < len(identity.low.address):
            raise Denied(DropReason.FAMILY, f"extension headers of IPv6 cannot be carried over {show_address(address)}")
        ours = own_end(me, wire, hop.source, 0).address
        direct = Path(wire, ours, address, segment_protocol(identity.protocol, address))
        lent, theirs = [ours], [address]
        if is_portless(identity.protocol):
            lent = lent if wire == PORT_EXTERNAL else addresses_on(me, wire, address)
            theirs = addresses_on(peer, wire, address)
        held = local.connections.get(identity)
        known = held.link_to(peer.name) if held is not None else None
        refused: list[Path] = []
        for attempt in range(ATTEMPTS):
            if unless():
                return None
            if attempt == 0 and known is not None and _leads_as(known.pair.path, direct, lent, theirs):
                path, key, peer_port = known.pair.path, known.mine.port, known.yours.port
            else:
                path = propose_path(local.keys, direct, lent, theirs, refused)
                key, peer_port = propose(local.keys, path, proposal.opened_here), None
            mine = own_end(me, wire, path.local, key)
            offer = Offer(
                VERSION,
                local.stamp(),
                identity,
                proposal.initiator,
                proposal.first,
                mine,
                peer_port,
                proposal.exit,
                proposal.resumes,
                # Without ports, who offers says both addresses: another one that is free there may not be free here.
                own_end(peer, wire, path.peer, 0).address if is_portless(path.protocol) else None,
            )
            local.events["offers sent"] += 1
            match await local.offers.request(me.name, peer.name, offer):
                case Accept(end, initiator, first, stamp):
                    path = Path(wire, path.local, end.seen_address, path.protocol)
                    link = Link(peer.name, mine, end, Pair(path, key, end.port), passes_on=peer.name != target.name)
                    if is_end_of(end, peer, wire) and _leads_as(path, direct, lent, theirs):
                        if path.peer != address:
                            hop = await local.next_hop(wire, path.peer)
                        if self._is_held(identity, link):
                            return None if unless() else Agreement(link, hop, initiator, first, stamp)
                        if local.keys.take(link.pair):
                            return Agreement(link, hop, initiator, first, stamp)
                    # We know of a use of this pair that the peer has forgotten. What has been sent along it would
                    # arrive at the end of another connection, perhaps another tenant's.
                    await self._joiner.end_forgotten(link.pair)
                    await self._joiner.release(identity, link)
                case Refuse(reason=Reason.TAKEN):
                    refused.append(path)
                case Refuse(reason=Reason.CROSSED | Reason.STALE) as refuse:
                    # Stale, if the peer has heard our answer to its own offer before this offer of ours.
                    raise Crossed(refuse.text)
                case Refuse(reason=Reason.BUSY) as refuse:
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


def _leads_as(path: Path, direct: Path, ours: list[Address], theirs: list[Address]) -> bool:
    """Whether a path is the one that the route says; for a protocol without ports, one between any of the addresses."""
    if is_portless(direct.protocol):
        return path.local in ours and path.peer in theirs and path.protocol == direct.protocol
    return path == direct
