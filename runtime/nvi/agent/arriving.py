"""What comes in from the outside: to published services, and back to mappings whose connection is not held any more.

The gateway does for whoever is outside what the host of an endpoint does for that: it finds the other end, and offers.
"""

from __future__ import annotations

from ..directory import DirectoryError
from ..keys import Exhausted, Pair, Path
from ..model import ConnectionId, End, Endpoint, FirstPacket
from ..offers import NoAnswer
from ..outside import not_outside
from ..packets import MalformedPacket, Packet, parse
from ..policy import judge
from ..route import NoWay
from ..switch import PORT_EXTERNAL, SwitchError
from .connecting import WAITING_FRAMES, Connector
from .connections import Attachment, ingress_key
from .joining import Call, Joiner, Waiting
from .local import Local, Refused
from .outlets import Outlets
from .underlay import NoRoute

IN_FLIGHT = 1024
"""Connections from outside that may be in the making; further packets are dropped, and their senders repeat them."""


class Arrivals:
    """Connects whoever is outside of one gateway."""

    def __init__(self, local: Local, joiner: Joiner, connector: Connector, outlets: Outlets) -> None:
        """Start with nothing in the making."""
        self._local = local
        self._joiner = joiner
        self._connector = connector
        self._outlets = outlets
        self._in_flight = 0

    def of_service(self, wire: int, frame: bytes) -> None:
        """A packet came to a published service, of a connection that the switch does not hold."""
        local = self._local
        if wire != PORT_EXTERNAL:  # services are reached as from the outside, and only from there
            local.events["service from inside"] += 1
            return
        try:
            packet = parse(frame)
        except MalformedPacket:
            local.events["malformed"] += 1
            return
        flow = packet.flow
        pair = Pair(
            Path(PORT_EXTERNAL, flow.destination, flow.source, flow.protocol), flow.l4_destination, flow.l4_source
        )
        found = self._outlets.serve(pair)
        if found is None:
            local.events["service unknown"] += 1
            return
        self._arrive(pair, frame, packet, *found, opened_outside=True)

    def of_mapping(self, pair: Pair, frame: bytes, packet: Packet) -> bool:
        """A packet came in the range of keys that the switch does not know. Whether a mapping lets it in."""
        found = self._outlets.admit(pair)
        if found is None:
            return False
        self._arrive(pair, frame, packet, *found, opened_outside=False)
        return True

    def _arrive(
        self, pair: Pair, frame: bytes, packet: Packet, identity: ConnectionId, outside: End, opened_outside: bool
    ) -> None:
        local = self._local
        sender = Attachment(Endpoint.outside(identity.tenant, outside.address, local.host.name), PORT_EXTERNAL)
        waiting = self._joiner.waiting.get(identity)
        if waiting is not None:
            if len(waiting.frames) < WAITING_FRAMES:
                waiting.frames.append((sender, frame))
            else:
                local.events["overflow waiting"] += 1
            return
        if self._in_flight >= IN_FLIGHT:
            local.events["overflow in flight"] += 1
            return
        self._in_flight += 1
        self._joiner.waiting[identity] = waiting = Waiting(
            [(sender, frame)], offering=local.connections.get(identity) is None
        )
        local.spawn(self._connect(pair, packet, identity, outside, opened_outside, waiting))

    async def _connect(
        self,
        pair: Pair,
        packet: Packet,
        identity: ConnectionId,
        outside: End,
        opened_outside: bool,
        waiting: Waiting,
    ) -> None:
        local = self._local
        try:
            held = local.connections.get(identity)
            if held is not None and ingress_key(pair) in held.keys:
                await self._joiner.restore(held)
            else:
                await self._plug(packet, identity, outside, opened_outside, waiting)
            self._connector.reinject(waiting)
        except (Refused, Exhausted, NoAnswer, NoRoute, NoWay) as refusal:
            # Nobody outside is told: the answer would go to whoever's address the packet carries.
            local.events["refused outside"] += 1
            local.log.debug("refused outside", connection=identity.short(), why=str(refusal))
        except (SwitchError, DirectoryError) as error:
            local.events["failed"] += 1
            local.log.warning("connection from outside failed", connection=identity.short(), error=str(error))
        finally:
            del self._joiner.waiting[identity]
            self._in_flight -= 1

    async def _plug(
        self, packet: Packet, identity: ConnectionId, outside: End, opened_outside: bool, waiting: Waiting
    ) -> None:
        local, inside = self._local, identity.other(outside)
        before = local.connections.get(identity)
        tenant = await local.tenant(identity.tenant)
        if tenant.holds(outside.address):
            raise Refused("it comes from an address of the tenant's own networks")
        if (reason := not_outside(outside.address)) is not None:
            raise Refused(f"nobody outside can be its sender: {reason}")  # RFC 1812 section 5.3.7
        if packet.ttl <= 1:
            raise Refused("its TTL ends here")
        far = await local.directory.endpoint(tenant.name, inside.address)
        if far is None:
            raise Refused("its endpoint is nowhere")
        initiator = outside if opened_outside else inside
        near = Endpoint.outside(tenant.name, outside.address, local.host.name)
        opener, opened = (near, far) if opened_outside else (far, near)
        port = identity.other(initiator).port
        verdict = judge(tenant, opener, opened, identity.protocol, port, published=opened_outside)
        if not verdict.allowed:
            raise Refused(verdict.rule)
        self._joiner.check_room(None)
        async with self._outlets.towards(identity, outside, opened_outside) as outlet:
            first = FirstPacket(packet.ttl, packet.flow_label, packet.dont_fragment)
            resumes = opened_outside and not packet.opens
            if before is not None:
                initiator, first, resumes = before.initiator, before.first, False
            call = Call(identity, tenant, outlet, far, identity.flow_from(outside), initiator, first, resumes)
            await self._connector.plug(call, waiting, before)
