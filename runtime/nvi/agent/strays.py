"""Packets from the underlay that the switch has no entry for, though their port says that they are NVI's.

Either our entries have vanished, or we have forgotten; the host that sent them still knows.
"""

from __future__ import annotations

from collections import Counter

from ..directory import DirectoryError
from ..model import Flow, Protocol, SegmentEnd
from ..offers import VERSION, Accept, Ask, NoAnswer, Offer
from ..packets import MalformedPacket, parse
from ..switch import PORT_HOST_STACK, PORT_UNDERLAY, SwitchError
from .answering import Answerer
from .connecting import WAITING_FRAMES
from .joining import Joiner, ingress_key
from .local import Local

OPEN_QUESTIONS = 64
"""Questions about stray packets that may be open at a time towards one peer."""


class Strays:
    """Finds out what stray packets are of."""

    def __init__(self, local: Local, joiner: Joiner, answerer: Answerer) -> None:
        """Start with none."""
        self._local = local
        self._joiner = joiner
        self._answerer = answerer
        self._frames: dict[Flow, list[bytes]] = {}
        self._open: Counter[str] = Counter()

    def stray(self, frame: bytes) -> None:
        """A packet came from the underlay, in NVI's key range, and the switch has no entry for it."""
        local = self._local
        try:
            flow = parse(frame).flow
        except MalformedPacket:
            local.events["malformed"] += 1
            return
        if flow.destination not in local.host.addresses:
            return
        frames = self._frames.get(flow)
        if frames is None:
            self._frames[flow] = [frame]
            local.spawn(self._claim(flow))
        elif len(frames) < WAITING_FRAMES:
            frames.append(frame)

    async def _claim(self, flow: Flow) -> None:
        local = self._local
        try:
            held = local.connections.at(ingress_key(flow))
            if held is not None:
                await self._joiner.restore(held)
            elif not await self._ask(flow):
                local.events["strays"] += 1
                if flow.protocol == Protocol.ICMP:
                    # Echo identifiers cannot be reserved as ports are: this is the host's own ping.
                    for frame in self._frames[flow]:
                        local.switch.send(PORT_HOST_STACK, frame)
                return
            for frame in self._frames[flow]:
                local.reinject(PORT_UNDERLAY, frame)
        except (SwitchError, DirectoryError, NoAnswer) as error:
            local.log.debug("stray not claimed", error=str(error))
        finally:
            del self._frames[flow]

    async def _ask(self, flow: Flow) -> bool:
        """Ask the host that a packet came from what it is of. True if the connection is in our switch again."""
        local = self._local
        me = local.host
        host = await local.directory.host_at(me.site, flow.source)
        if host is None or self._open[host.name] >= OPEN_QUESTIONS:
            return False
        yours = SegmentEnd(host.name, host.site, flow.source, flow.source, flow.l4_source)
        mine = SegmentEnd(me.name, me.site, flow.destination, flow.destination, flow.l4_destination)
        self._open[host.name] += 1
        local.events["asks"] += 1
        try:
            reply = await local.offers.request(me.name, host.name, Ask(VERSION, flow.protocol, yours, mine))
            if not isinstance(reply, Offer) or (reply.end.port, reply.peer_port) != (yours.port, mine.port):
                return False
            return isinstance(await self._answerer.answer(host.name, reply), Accept)
        finally:
            self._open[host.name] -= 1
            if not self._open[host.name]:
                del self._open[host.name]
