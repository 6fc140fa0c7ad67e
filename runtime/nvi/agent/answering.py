"""What an agent says to the agents of other hosts. It believes nothing that it can check itself."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from ..directory import DirectoryError
from ..formulation import link_side, segment_protocol
from ..keys import Exhausted, Pair, Path
from ..model import End, Endpoint, Flow, Host, Protocol, Tenant, is_portless, show_address
from ..offers import (
    LONGEST_NAME,
    NEVER,
    VERSION,
    Accept,
    Ask,
    Garbled,
    NoAnswer,
    Offer,
    Reason,
    Refuse,
    Release,
    Released,
    Reply,
    Request,
)
from ..route import NoWay, addresses_on, is_end_of, may_offer, own_end
from ..switch import NO_MAC, PORT_EXTERNAL, PORT_UNDERLAY, ConnectionKey, DropReason, SwitchError
from .connections import Attachment, Connection, Link, Outlet, ingress_key
from .joining import Call, Denied, Joiner
from .keying import NoKey, choose
from .local import Local, Refused
from .offering import DROP_REASON, Crossed, Proposal
from .outlets import Outlets
from .relaying import Place, Relay
from .turning import Turner
from .underlay import NoRoute

_REASON = {
    **{dropped: reason for reason, dropped in DROP_REASON.items()},
    DropReason.QUOTA: Reason.EXHAUSTED,  # whose quota it is, is nobody else's business
}

_ADDRESS_SIZES = {4, 16}


class _Asked(Struct, frozen=True, gc=False):
    """An offer, with what we know ourselves about it."""

    sender: Host
    tenant: Tenant
    place: Place
    """Of ours on the route, seen from the sender."""
    near: Attachment | None
    """The endpoint that is not on the sender's side, if it is here."""


class Answerer:
    """Answers offers, questions and releases for one host."""

    def __init__(self, local: Local, joiner: Joiner, relay: Relay, outlets: Outlets, turner: Turner) -> None:
        """Start with nothing to answer."""
        self._turner = turner
        self._local = local
        self._outlets = outlets
        self._joiner = joiner
        self._relay = relay

    async def answer(self, sender: str, request: Request | Garbled) -> Reply:
        """What we say to the agent of the host `sender`, which the transport has authenticated."""
        local = self._local
        if isinstance(request, Garbled):
            text = f"host {local.host.name} does not understand the message: {request.text}; upgrade either"
            return self._refuse(Reason.VERSION, text)
        if request.version != VERSION:
            return self._refuse(Reason.VERSION, f"host {local.host.name} speaks version {VERSION} of the offers")
        if not local.ready:
            return self._refuse(Reason.BUSY, f"host {local.host.name} does not have its switch at the moment")
        try:
            match request:
                case Offer():
                    return await self._answer_offer(sender, request)
                case Ask():
                    return self._answer_ask(sender, request)
                case Release():
                    return await self._answer_release(sender, request)
        except Denied as refusal:
            return self._refuse(_REASON.get(refusal.reason, Reason.UNREACHABLE), str(refusal))
        except Exhausted as error:
            return self._refuse(Reason.EXHAUSTED, str(error))
        except NoKey as error:
            return self._refuse(Reason.DENIED, str(error))
        except (NoRoute, NoWay, NoAnswer) as error:
            return self._refuse(Reason.UNREACHABLE, str(error))
        except (Refused, SwitchError, DirectoryError) as error:
            return self._refuse(Reason.BUSY, f"host {local.host.name}: {error}")

    def _refuse(self, reason: Reason, text: str) -> Refuse:
        self._local.events[f"offers refused {reason}"] += 1
        return Refuse(reason, text)

    # ---- offers ---------------------------------------------------------------------------------------------------

    async def _answer_offer(self, sender: str, offer: Offer) -> Reply:
        local, identity = self._local, offer.connection
        asked = await self._examine(sender, offer)
        if isinstance(asked, Refuse):
            return asked
        held, origin = local.connections.get(identity), asked.place.origin.name
        if held is not None and held.said_by == sender and offer.stamp < held.stamp:
            return self._refuse(Reason.STALE, f"what was said later has the stamp {held.stamp}")
        waiting = self._joiner.waiting.get(identity)
        ours_crosses = waiting is not None and waiting.offering and offer.peer_port is None
        if ours_crosses and local.host.name < origin:
            return self._refuse(Reason.CROSSED, f"the offer of {local.host.name} goes first")
        answering = self._joiner.answering
        rival = answering.get(identity)
        if rival == origin:
            return self._refuse(Reason.BUSY, "an offer for this connection is being answered")
        if rival is not None and rival < origin:
            return self._refuse(Reason.CROSSED, f"the offer of {rival} goes first")
        answering[identity] = origin
        try:
            return await self._join(asked, offer)
        except Crossed as crossed:
            return self._refuse(Reason.CROSSED, str(crossed))
        finally:
            if answering.get(identity) == origin:
                del answering[identity]

    async def _examine(self, sender: str, offer: Offer) -> _Asked | Refuse:
        """Judge by the directory whether the sender may offer us this connection, and whether we have a part in it."""
        local, identity = self._local, offer.connection
        directory, me = local.directory, local.host
        if (nonsense := _nonsense(offer)) is not None:
            return self._refuse(Reason.FORGED, nonsense)
        tenant = await directory.tenant(identity.tenant)
        ends = identity.low, identity.high
        here = [self._end_here(tenant, end, offer.exit) for end in ends]
        relays = here == [None, None] and me.external is not None
        if tenant is None or offer.initiator not in ends or (None not in here) or (here == [None, None] and not relays):
            return self._refuse(Reason.UNKNOWN, f"host {me.name} has no end of this connection")
        host = await directory.host(sender)
        wire = PORT_UNDERLAY if host is not None and host.site == me.site else PORT_EXTERNAL
        if host is None or not is_end_of(offer.end, host, wire):
            return self._refuse(Reason.FORGED, f"{show_address(offer.end.address)} is not an address of host {sender}")
        exit = await directory.host(offer.exit) if offer.exit else None
        if offer.exit and (exit is None or exit.external is None):
            return self._refuse(Reason.FORGED, f"host {offer.exit} is no gateway")
        if relays:
            place = await self._relay.place(host, identity, offer.exit)
            if place is None:
                return self._refuse(Reason.FORGED, f"no route of host {sender} between these ends is through {me.name}")
            return _Asked(host, tenant, place, None)
        far_end = identity.high if here[0] is not None else identity.low
        near = here[0] or here[1]
        assert near is not None, "one of them is here"
        far = await local.party(identity.tenant, far_end.address, offer.exit)
        origin = host if far is None or far.host == sender else await directory.host(far.host)
        if far is None or origin is None or not may_offer(host, me, origin, me):
            return self._refuse(Reason.FORGED, f"host {sender} does not lead to {show_address(far_end.address)}")
        if not local.is_here(near):
            return self._refuse(Reason.UNKNOWN, f"endpoint {near.endpoint.name} has just gone")
        return _Asked(host, tenant, Place(far, far_end, origin, me), near)

    def _end_here(self, tenant: Tenant | None, end: End, exit: str) -> Attachment | None:
        """The endpoint that one end is, or whoever is outside, if that end is here."""
        local = self._local
        if tenant is None:
            return None
        if exit == local.host.name and not tenant.holds(end.address):
            return Attachment(Endpoint.outside(tenant.name, end.address, exit), PORT_EXTERNAL)
        return local.by_address.get((tenant.name, end.address))

    async def _join(self, asked: _Asked, offer: Offer) -> Reply:
        if asked.near is None or not asked.near.endpoint.is_outside:
            return await self._join_segment(asked, offer)
        outside = offer.connection.other(asked.place.far_end)
        held = self._local.connections.get(offer.connection)
        initiator = offer.initiator if held is None else held.initiator
        async with self._outlets.towards(offer.connection, outside, initiator == outside) as outlet:
            return await self._join_segment(replace(asked, near=outlet), offer)

    async def _join_segment(self, asked: _Asked, offer: Offer) -> Reply:
        local, identity, sender = self._local, offer.connection, asked.sender.name
        held = local.connections.get(identity)
        call = None if asked.near is None else await self._call(asked, asked.near, offer, held)
        if call is None and held is None:
            self._joiner.check_room(None)
        initiator = offer.initiator if held is None else held.initiator
        wire = PORT_UNDERLAY if asked.sender.site == local.host.site else PORT_EXTERNAL
        hop = await local.next_hop(wire, offer.end.seen_address)
        held = local.connections.get(identity)  # it may have come about meanwhile
        known = None if held is None else held.link_to(sender)
        if known is not None and known.yours == offer.end:
            pair = known.pair
        else:
            peer = offer.end.seen_address
            ours, our_port = own_end(local.host, wire, hop.source, 0).address, offer.peer_port
            lent = [ours]
            if is_portless(identity.protocol):
                lent = lent if wire == PORT_EXTERNAL else addresses_on(local.host, wire, peer)
                if offer.peer_address is not None:
                    ours, our_port = offer.peer_address, 0
                if ours not in lent:
                    text = f"{show_address(ours)} is not an address of host {local.host.name}"
                    return self._refuse(Reason.FORGED, text)
            path = Path(wire, ours, peer, segment_protocol(identity.protocol, peer))
            opened_here = initiator != asked.place.far_end
            pair = choose(local.keys, path, offer.end.port, our_port, opened_here, lent)
            if not (local.keys.take(pair) if offer.peer_port is None else local.keys.resume(pair)):
                return self._refuse(Reason.TAKEN, f"the keys {pair.local} and {pair.peer} are not free together")
        mine = own_end(local.host, wire, pair.path.local, pair.local)
        link = Link(sender, mine, offer.end, pair, passes_on=sender != asked.place.origin.name)
        if call is not None and isinstance(call.near, Outlet) and call.near.turns:
            side = link_side(link.wire, link.outgoing, hop.source_mac, hop.destination_mac, hop.mtu, call.first)
            try:
                connection = await self._turner.join(call, call.near, link, side)
            except BaseException:
                self._joiner.give_back(pair, acknowledged=offer.peer_port is None)
                raise
        elif call is not None:
            connection = await self._joiner.join_across(call, link, hop)
        else:
            first, resumes = (offer.first, offer.resumes) if held is None else (held.first, False)
            opened_here = initiator == asked.place.far_end
            proposal = Proposal(identity, initiator, first, resumes, opened_here, offer.exit)
            try:
                connection = await self._relay.pass_on(proposal, link, hop, asked.place.origin, asked.place.target)
            except BaseException:
                # Of a pair that is new nobody else knows. The peer may still send along one that it has remembered.
                self._joiner.give_back(pair, acknowledged=offer.peer_port is None)
                raise
        connection.stamp, connection.said_by = offer.stamp, sender
        local.events["offers accepted"] += 1
        return Accept(mine, connection.initiator, connection.first, local.stamp())

    async def _call(self, asked: _Asked, attachment: Attachment, offer: Offer, held: Connection | None) -> Call:
        """At an end: what the policy, our memory, and the room that there is, allow. Raises Denied."""
        identity = offer.connection
        initiator, first = (offer.initiator, offer.first) if held is None else (held.initiator, held.first)
        flow = identity.flow_from(identity.other(asked.place.far_end))
        near, far = attachment.endpoint, asked.place.far
        # Of whoever is outside it also matters what is published, and that may change.
        allowed_by = None if offer.exit else asked.tenant
        call = Call(identity, asked.tenant, attachment, far, flow, initiator, first, offer.resumes, allowed_by)
        opener, opened = (near, far) if call.opened_here else (far, near)
        responder = call.identity.other(call.initiator)
        verdict = await self._local.verdict(call.tenant, opener, opened, call.flow.protocol, responder.port)
        if not verdict.allowed:
            raise Denied(DropReason.DENIED, verdict.rule)
        if held is None:
            if call.resumes and call.flow.protocol != Protocol.TCP:
                raise Denied(DropReason.DENIED, "an answer to nothing that is remembered")
            self._joiner.check_room(None if near.is_outside else near)
        return call

    # ---- questions and releases -----------------------------------------------------------------------------------

    def _answer_ask(self, sender: str, ask: Ask) -> Reply:
        local = self._local
        wire = PORT_UNDERLAY if ask.mine.site == local.host.site else PORT_EXTERNAL
        flow = Flow(ask.mine.seen_address, ask.yours.address, ask.protocol, ask.mine.port, ask.yours.port)
        key = ConnectionKey(wire, NO_MAC, flow)
        if key in local.unknown:
            return self._refuse(Reason.BUSY, "that is what we are asking ourselves")
        held = local.connections.at(key)
        links = [] if held is None else [each for each in held.links if ingress_key(each.pair) == key]
        link = next((each for each in links if each.peer == sender), None)
        if held is None or link is None:
            return self._refuse(Reason.UNKNOWN, "no such segment")
        identity, initiator = held.id, held.initiator
        if held.turn is not None and link is held.sides[1]:
            identity, initiator = held.turn.identity, held.turn.initiator
        theirs, address = link.yours.port, link.yours.address
        return Offer(
            VERSION,
            local.stamp(),
            identity,
            initiator,
            held.first,
            link.mine,
            theirs,
            peer_address=address,
            exit=held.exit,
        )

    async def _answer_release(self, sender: str, release: Release) -> Reply:
        local = self._local
        host = await local.directory.host(sender)
        wire = PORT_UNDERLAY if release.mine.site == local.host.site else PORT_EXTERNAL
        if host is None or not is_end_of(release.mine, host, wire):
            return self._refuse(Reason.FORGED, f"the segment released is not one of host {sender}")
        peer = release.mine.seen_address
        path = Path(wire, release.yours.address, peer, segment_protocol(release.connection.protocol, peer))
        pair = Pair(path, release.yours.port, release.mine.port)
        held = local.connections.get(release.connection) or local.connections.at(ingress_key(pair))
        if held is not None and held.said_by == sender and NEVER < release.stamp < held.stamp:
            return self._refuse(Reason.STALE, f"what was said later has the stamp {held.stamp}")
        await self._joiner.released(sender, release.connection, pair)
        return Released()


def _nonsense(offer: Offer) -> str | None:
    """What in an offer no packet can carry; None if there is nothing of the kind."""
    identity, end = offer.connection, offer.end
    if max(map(len, (identity.tenant, offer.exit, end.host, end.site))) > LONGEST_NAME:
        return f"a name has at most {LONGEST_NAME} bytes"
    addresses = (identity.low.address, identity.high.address, offer.initiator.address, end.address, end.seen_address)
    if odd := set(map(len, addresses)) - _ADDRESS_SIZES:
        return f"an address has 4 bytes or 16, and not {odd.pop()}"
    if not 0 <= identity.protocol <= 0xFF:
        return f"{identity.protocol} is no protocol"
    ports = (identity.low.port, identity.high.port, end.port, offer.peer_port or 0)
    if min(ports) < 0 or max(ports) > 0xFFFF:
        return f"one of {ports} is no port"
    if not 1 <= offer.first.ttl <= 0xFF:
        return f"{offer.first.ttl} is no TTL"
    if not 0 <= offer.first.flow_label <= 0xFFFFF:
        return f"{offer.first.flow_label} is no flow label"
    return None
