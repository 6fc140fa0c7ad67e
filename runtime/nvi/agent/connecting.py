"""From a first packet to a connection.

    endpoint's packet -> punt -> who is that, and may it? -> offer -> the far side's entries -> ours -> the packet again

A connection that is held, but has lost its entries, is mended by the same packet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from ..directory import DirectoryError
from ..keys import Exhausted, Pair, Path
from ..model import ConnectionId, End, Endpoint, Host, Protocol, SegmentEnd, Tenant, show_address
from ..offers import VERSION, Accept, NoAnswer, Offer, Reason, Refuse
from ..packets import ECHO_PORT, MalformedPacket, Packet, parse, time_exceeded
from ..policy import judge
from ..switch import ConnectionKey, DropReason, SwitchError
from .connections import Attachment, Connection, Link
from .joining import Call, Denied, Joiner, Waiting
from .local import Local, Refused
from .refusals import Refusals
from .underlay import NoRoute

WAITING_FRAMES = 16
"""Packets that wait for one connection to come about; further ones are dropped, and their senders repeat them."""

IN_FLIGHT = 256
"""Connections that one port may have in the making, so that the others' turn comes."""

ATTEMPTS = 3
"""Offers made for one connection, if the keys proposed turn out not to be free."""

CROSSED_SECONDS = 1.0
"""How long to wait for the peer's own offer, if it goes first."""

_DROP_REASON = {
    Reason.UNKNOWN: DropReason.UNKNOWN,
    Reason.DENIED: DropReason.DENIED,
    Reason.EXHAUSTED: DropReason.EXHAUSTED,
}


class Connector:
    """Connects the endpoints of one host as they ask for it."""

    def __init__(self, local: Local, refusals: Refusals, joiner: Joiner) -> None:
        """Start with nothing in the making."""
        self._local = local
        self._refusals = refusals
        self._joiner = joiner
        self._in_flight: Counter[int] = Counter()

    def miss(self, port: int, frame: bytes) -> None:
        """An endpoint sent a packet that its switch has no entry for."""
        local = self._local
        near = local.by_port.get(port)
        if near is None:
            local.events["no endpoint at port"] += 1
            return
        try:
            packet = parse(frame)
        except MalformedPacket:
            local.events["malformed"] += 1
            return
        identity = ConnectionId.of(near.endpoint.tenant, packet.flow)
        waiting = self._joiner.waiting.get(identity)
        if waiting is not None:
            if len(waiting.frames) < WAITING_FRAMES:
                waiting.frames.append((near, frame))
            else:
                local.events["overflow waiting"] += 1
            return
        if self._in_flight[port] >= IN_FLIGHT:
            local.events["overflow in flight"] += 1
            return
        self._in_flight[port] += 1
        waiting = Waiting([(near, frame)])
        self._joiner.waiting[identity] = waiting
        local.spawn(self._connect(near, packet, identity, waiting))

    async def _connect(self, near: Attachment, packet: Packet, identity: ConnectionId, waiting: Waiting) -> None:
        local = self._local
        frame = waiting.frames[0][1]
        key = ConnectionKey(near.port, packet.source_mac, packet.flow)
        try:
            held = local.connections.get(identity)
            if held is not None and key in held.keys:
                await self._joiner.restore(held)
            else:
                await self._plug(near, packet, identity, waiting)
            for sender, waited in waiting.frames:
                if local.is_here(sender):
                    local.reinject(sender.port, waited)
        except Denied as refusal:
            await self._refusals.refuse(near, key, refusal.reason, frame, str(refusal))
        except Refused as silent:
            local.log.debug("dropped", endpoint=near.endpoint.name, why=str(silent))
        except Exhausted as error:
            await self._refusals.refuse(near, key, DropReason.EXHAUSTED, frame, str(error))
        except (NoAnswer, NoRoute) as error:
            await self._refusals.refuse(near, key, DropReason.UNREACHABLE, frame, str(error))
        except (SwitchError, DirectoryError) as error:
            local.events["failed"] += 1
            local.log.warning("connection failed", endpoint=near.endpoint.name, error=str(error))
        finally:
            del self._joiner.waiting[identity]
            self._in_flight[near.port] -= 1

    async def _plug(self, near: Attachment, packet: Packet, identity: ConnectionId, waiting: Waiting) -> None:
        local = self._local
        flow = packet.flow
        before = local.connections.get(identity)
        tenant = await local.tenant(near.endpoint.tenant)
        far = await local.directory.endpoint(tenant.name, flow.destination)
        if not local.is_here(near):
            raise Refused(f"endpoint {near.endpoint.name} is gone")
        if far is None or far.name == near.endpoint.name:
            raise Denied(DropReason.UNKNOWN, f"tenant {tenant.name} has no endpoint {show_address(flow.destination)}")
        near_opened, resumes = orient(tenant, near.endpoint, far, packet)
        if packet.ttl <= 1 and far.network != near.endpoint.network:
            gateway = tenant.networks[near.endpoint.network].gateway_for(flow.source)
            assert gateway is not None, "an endpoint has addresses only of the families that its network has"
            gateway_mac = tenant.gateway_mac(near.endpoint.network)
            local.switch.send(near.port, time_exceeded(waiting.frames[0][1], gateway, gateway_mac))
            raise Refused("its TTL ends at the router")
        self._joiner.check_room(near.endpoint)
        initiator = End(flow.source, flow.l4_source) if near_opened else End(flow.destination, flow.l4_destination)
        call = Call(identity, tenant, near, far, flow, initiator, packet.ttl, resumes)
        if far.host != local.host.name:
            await self._plug_across(call, waiting, before)
            return
        there = local.by_name.get(far.name)
        if there is None or there.endpoint != far:
            raise Denied(DropReason.UNREACHABLE, f"endpoint {far.name} should be here, but is not")
        if resumes and flow.protocol != Protocol.TCP:
            raise Refused("an answer to nothing that is remembered")
        await self._joiner.join_here(call, there)

    async def _plug_across(self, call: Call, waiting: Waiting, before: Connection | None) -> None:
        """`before`: what was held of the connection when its packet came."""
        local = self._local
        me = local.host
        host = await local.directory.host(call.far.host)
        if host is None or host.site != me.site:
            raise Denied(DropReason.UNREACHABLE, f"host {call.far.host} is not in the directory of site {me.site}")
        hop = await local.underlay.next_hop(host.addresses[0])
        path = Path(hop.source, host.addresses[0], call.flow.protocol)
        for _ in range(ATTEMPTS):
            if local.connections.get(call.identity) not in (None, before):
                # The peer's own offer has come meanwhile: another one would only undo what is agreed.
                await _settled(waiting)
                return
            mine = SegmentEnd(me.name, me.site, hop.source, hop.source, self._propose(path, call))
            stamp = local.stamp()
            offer = Offer(VERSION, stamp, call.identity, call.initiator, call.first_ttl, mine, resumes=call.resumes)
            local.events["offers sent"] += 1
            match await local.offers.request(me.name, host.name, offer):
                case Accept() as accept:
                    link = Link(host.name, mine, accept.end, Pair(path, mine.port, accept.end.port))
                    held = local.connections.get(call.identity)
                    if held is not None and held.link == link:
                        # A packet of the peer's was faster than its word, and we have asked what it is of.
                        await _settled(waiting)
                        return
                    if plausible(accept.end, host) and local.keys.take(link.pair):
                        if (accept.initiator, accept.first_ttl) != (call.initiator, call.first_ttl):
                            call = replace(call, initiator=accept.initiator, first_ttl=accept.first_ttl)
                        await self._joiner.join_across(call, link, hop)
                        return
                    # We know of a use of this pair that the peer has forgotten: it must not be taken away.
                    await self._joiner.release(call.identity, link)
                case Refuse(reason=Reason.TAKEN):
                    pass
                case Refuse(reason=Reason.CROSSED):
                    await _settled(waiting)
                    return
                case Refuse(reason=Reason.BUSY | Reason.STALE) as refuse:
                    raise Refused(refuse.text)
                case Refuse() as refuse:
                    raise Denied(_DROP_REASON.get(refuse.reason, DropReason.UNREACHABLE), refuse.text)
                case other:
                    raise NoAnswer(f"host {host.name} answers an offer with {type(other).__name__}")
        raise Denied(DropReason.EXHAUSTED, f"no free pair of keys towards {host.name} in {ATTEMPTS} attempts")

    def _propose(self, path: Path, call: Call) -> int:
        if path.protocol != Protocol.ICMP:
            return self._local.keys.pick(path, None)
        # Both directions of an echo carry the one identifier, which is the initiator's key.
        return self._local.keys.pick(path, ECHO_PORT) if call.opened_here else ECHO_PORT


async def _settled(waiting: Waiting) -> None:
    try:
        async with asyncio.timeout(CROSSED_SECONDS):
            await waiting.settled.wait()
    except TimeoutError:
        raise Refused("the peer's own offer went first, but never came") from None


def plausible(end: SegmentEnd, host: Host) -> bool:
    """Whether a segment's end can be that host's, by what the directory says of it."""
    return end.host == host.name and end.site == host.site and end.address in host.addresses


def orient(tenant: Tenant, near: Endpoint, far: Endpoint, packet: Packet) -> tuple[bool, bool]:
    """Who opened the connection of a packet that `near` sends: (`near` did, the packet only resumes it).

    Policy is always judged in the initiator's orientation, so an answer passes where its question did. What resumes
    a TCP connection needs only a policy that allows it; other protocols' answers need somebody who remembers the
    question. Raises Denied if the policy allows neither orientation.
    """
    flow = packet.flow
    forward = judge(tenant, near, far, flow.protocol, flow.l4_destination)
    if packet.opens and forward.allowed:
        return True, False
    is_tcp = packet.flow.protocol == Protocol.TCP
    backward_allowed = judge(tenant, far, near, flow.protocol, flow.l4_source).allowed
    if (packet.opens and is_tcp) or not (forward.allowed or backward_allowed):
        raise Denied(DropReason.DENIED, f"{near.name} to {far.name}: {forward.rule}")
    if is_tcp and forward.allowed:
        # Where the policy allows both, services are taken to have the lower port.
        return not backward_allowed or packet.flow.l4_source > packet.flow.l4_destination, True
    return False, True
