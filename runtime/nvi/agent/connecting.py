"""From a first packet to a connection.

    endpoint's packet -> punt -> who is that, and may it? -> offer -> the far side's entries -> ours -> the packet again

A connection that is held, but has lost its entries, is mended by the same packet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from msgspec.structs import replace

from ..directory import DirectoryError
from ..formulation import endpoint_side
from ..keys import Exhausted
from ..model import ConnectionId, End, Endpoint, FirstPacket, Protocol, Tenant, show_address
from ..offers import NoAnswer
from ..outside import not_outside
from ..packets import MalformedPacket, Packet, parse
from ..policy import judge
from ..route import NoWay
from ..switch import ConnectionKey, DropReason, SwitchError
from .connections import Attachment, Connection
from .exits import Exits
from .explaining import Explainer
from .joining import Call, Denied, Joiner, Waiting
from .local import Local, Refused
from .offering import Crossed, Offerer, Proposal
from .outlets import Outlets
from .refusals import Refusals
from .turning import Turner
from .underlay import NoRoute

WAITING_FRAMES = 16
"""Packets that wait for one connection to come about; further ones are dropped, and their senders repeat them."""

IN_FLIGHT = 256
"""Connections that one port may have in the making, so that the others' turn comes."""

CROSSED_SECONDS = 1.0
"""How long to wait for the peer's own offer, if it goes first."""


class Connector:
    """Connects the endpoints of one host as they ask for it."""

    def __init__(
        self,
        local: Local,
        explainer: Explainer,
        refusals: Refusals,
        joiner: Joiner,
        offerer: Offerer,
        exits: Exits,
        outlets: Outlets,
        turner: Turner,
    ) -> None:
        """Start with nothing in the making."""
        self._exits = exits
        self._outlets = outlets
        self._turner = turner
        self._local = local
        self._explainer = explainer
        self._refusals = refusals
        self._joiner = joiner
        self._offerer = offerer
        self._in_flight: Counter[int] = Counter()

    def count(self, port: int) -> int:
        """Connections in the making of the endpoint at this port."""
        return self._in_flight[port]

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
        if packet.flow.source not in near.endpoint.addresses:
            local.events["link-local"] += 1  # admitted for neighbour discovery; nobody is reached by it
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
        waiting = Waiting([(near, frame)], offering=local.connections.get(identity) is None)
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
                waiting.offering = True
                await self._plug(near, packet, identity, waiting)
            self.reinject(waiting)
        except Denied as refusal:
            await self._refusals.refuse(near, key, refusal.reason, frame, str(refusal))
        except Refused as silent:
            local.log.debug("dropped", endpoint=near.endpoint.name, why=str(silent))
        except Exhausted as error:
            await self._refusals.refuse(near, key, DropReason.EXHAUSTED, frame, str(error))
        except (NoAnswer, NoRoute, NoWay) as error:
            await self._refusals.refuse(near, key, DropReason.UNREACHABLE, frame, str(error))
        except (SwitchError, DirectoryError) as error:
            local.events["failed"] += 1
            local.log.warning("connection failed", endpoint=near.endpoint.name, error=str(error))
        finally:
            del self._joiner.waiting[identity]
            self._in_flight[near.port] -= 1

    def reinject(self, waiting: Waiting) -> None:
        """The connection is there: the packets that waited for it go on."""
        for sender, frame in waiting.frames:
            if self._local.is_here(sender):
                self._local.reinject(sender.port, frame)

    async def _plug(self, near: Attachment, packet: Packet, identity: ConnectionId, waiting: Waiting) -> None:
        local = self._local
        flow = packet.flow
        before = local.connections.get(identity)
        tenant = await local.tenant(near.endpoint.tenant)
        opened_by: End | None = None
        if tenant.holds(flow.destination):
            far = await local.directory.endpoint(tenant.name, flow.destination)
        else:
            if (reason := not_outside(flow.destination)) is not None:
                raise Denied(DropReason.UNREACHABLE, reason)
            way = await self._exits.find(tenant.name, packet, before)
            far, opened_by = Endpoint.outside(tenant.name, flow.destination, way.exit), way.initiator
        if not local.is_here(near):
            raise Refused(f"endpoint {near.endpoint.name} is gone")
        if far is None or far.name == near.endpoint.name:
            raise Denied(DropReason.UNKNOWN, f"tenant {tenant.name} has no endpoint {show_address(flow.destination)}")
        if opened_by is None:
            near_opened, resumes = orient(tenant, near.endpoint, far, packet)
        else:
            near_opened, resumes = opened_by != End(flow.destination, flow.l4_destination), False
        if packet.ttl <= 1 and far.network != near.endpoint.network:
            self._explainer.time_exceeded(near, waiting.frames[0][1])
            raise Refused("its TTL ends at the router")
        self._joiner.check_room(near.endpoint)
        initiator = End(flow.source, flow.l4_source) if near_opened else End(flow.destination, flow.l4_destination)
        first = FirstPacket(packet.ttl, packet.flow_label, packet.dont_fragment)
        # Judged was what the packet shows; what is remembered may say otherwise.
        allowed_by = tenant if opened_by is None and near_opened and before is None else None
        if before is not None:
            initiator, first, resumes = before.initiator, before.first, False
        if resumes and far.is_outside and await _settled(waiting):
            return  # it was another gateway's, which has found out where its endpoint is now
        call = Call(identity, tenant, near, far, flow, initiator, first, resumes, allowed_by)
        await self.plug(call, waiting, before)

    async def plug(self, call: Call, waiting: Waiting, before: Connection | None) -> None:
        """Join a connection towards where its far endpoint is now. `before`: what was held of it until now.

        Raises Refused, Exhausted, NoAnswer, NoRoute, NoWay, SwitchError, DirectoryError.
        """
        local, far = self._local, call.far
        if far.host != local.host.name:
            await self._plug_across(call, waiting, before)
            return
        if far.is_outside:
            end = call.identity.other(End(call.flow.source, call.flow.l4_source))
            async with self._outlets.towards(call.identity, end, call.initiator == end) as outlet:
                if outlet.turns:
                    near = call.near
                    side = endpoint_side(call.tenant, near.endpoint, near.port, far, call.flow, call.first)
                    await self._turner.join(call, outlet, near, side)
                else:
                    await self._joiner.join_here(call, outlet)
            return
        there = local.by_name.get(far.name)
        if there is None or there.endpoint != far:
            raise Denied(DropReason.UNREACHABLE, f"endpoint {far.name} should be here, but is not")
        if call.resumes and call.flow.protocol != Protocol.TCP:
            raise Refused("an answer to nothing that is remembered")
        await self._joiner.join_here(call, there)

    async def _plug_across(self, call: Call, waiting: Waiting, before: Connection | None) -> None:
        local, identity = self._local, call.identity
        target = await local.directory.host(call.far.host)
        if target is None:
            raise Denied(DropReason.UNREACHABLE, f"host {call.far.host} is not in the directory")
        proposal = Proposal(identity, call.initiator, call.first, call.resumes, call.opened_here, call.exit)
        try:
            # What the peer's own offer has brought about meanwhile, another one would only undo.
            agreement = await self._offerer.offer(
                proposal, target, lambda: local.connections.get(identity) not in (None, before)
            )
        except Crossed:
            agreement = None
        if agreement is None:
            if not await _settled(waiting):
                raise Refused("the peer's own offer went first, but never came")
            return
        if (agreement.initiator, agreement.first) != (call.initiator, call.first):
            call = replace(call, initiator=agreement.initiator, first=agreement.first, allowed_by=None)
        connection = await self._joiner.join_across(call, agreement.link, agreement.hop)
        connection.stamp, connection.said_by = agreement.stamp, agreement.link.peer


async def _settled(waiting: Waiting) -> bool:
    """Whether the connection comes about by somebody else's offer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CROSSED_SECONDS):
            await waiting.settled.wait()
    return waiting.settled.is_set()


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
