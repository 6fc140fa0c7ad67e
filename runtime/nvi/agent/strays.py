"""Packets from a wire that the switch has no entry for, though their port says that they are NVI's.

Either our entries have vanished, or we have forgotten; the host that sent them still knows.
"""

from __future__ import annotations

from collections import Counter

from ..directory import DirectoryError
from ..keys import Pair, Path
from ..model import Address, Host, Protocol
from ..offers import VERSION, Accept, Ask, NoAnswer, Offer
from ..packets import MalformedPacket, parse
from ..route import own_end
from ..switch import PORT_EXTERNAL, PORT_EXTERNAL_STACK, PORT_HOST_STACK, PORT_UNDERLAY, SwitchError
from .answering import Answerer
from .arriving import Arrivals
from .connecting import WAITING_FRAMES
from .connections import ingress_key
from .joining import Joiner
from .local import Local

MOST_STRAYS = 1024
"""Segments whose packets may wait at a time for the answer to what they are of; the others' are dropped."""

OPEN_QUESTIONS = 64
"""Questions about stray packets that may be open at a time towards one peer."""


class Strays:
    """Finds out what stray packets are of."""

    def __init__(self, local: Local, joiner: Joiner, answerer: Answerer, arrivals: Arrivals) -> None:
        """Start with none."""
        self._arrivals = arrivals
        self._local = local
        self._joiner = joiner
        self._answerer = answerer
        self._frames: dict[Pair, list[bytes]] = {}
        self._open: Counter[str] = Counter()

    def stray(self, wire: int, frame: bytes) -> None:
        """A packet came from a wire, in NVI's key range, and the switch has no entry for it."""
        local, external = self._local, self._local.host.external
        try:
            packet = parse(frame)
        except MalformedPacket:
            local.events["malformed"] += 1
            return
        flow = packet.flow
        ours = (*local.host.addresses, *local.host.pool)
        if wire == PORT_EXTERNAL:
            ours = (external.address,) if external is not None else ()
        if flow.destination not in ours:
            local.events["strays for others"] += 1
            return
        path = Path(wire, flow.destination, flow.source, flow.protocol)
        pair = Pair(path, flow.l4_destination, flow.l4_source)
        if wire == PORT_EXTERNAL and self._arrivals.of_mapping(pair, frame, packet):
            return
        frames = self._frames.get(pair)
        if frames is None and len(self._frames) >= MOST_STRAYS:
            local.events["overflow strays"] += 1
        elif frames is None:
            self._frames[pair] = [frame]
            local.spawn(self._claim(pair))
        elif len(frames) < WAITING_FRAMES:
            frames.append(frame)

    async def _claim(self, pair: Pair) -> None:
        local, wire = self._local, pair.path.wire
        try:
            held = local.connections.at(ingress_key(pair))
            if held is not None:
                await self._joiner.restore(held)
            elif not await self._ask(pair):
                local.events["strays"] += 1
                if pair.path.protocol in (Protocol.ICMP, Protocol.ICMPV6) and pair not in local.keys:
                    # Echo identifiers cannot be reserved as ports are: this is the host's own ping.
                    stack = PORT_HOST_STACK if wire == PORT_UNDERLAY else PORT_EXTERNAL_STACK
                    for frame in self._frames[pair]:
                        local.switch.send(stack, frame)
                return
            for frame in self._frames[pair]:
                local.reinject(wire, frame)
        except (SwitchError, DirectoryError, NoAnswer) as error:
            local.log.debug("stray not claimed", error=str(error))
        finally:
            del self._frames[pair]

    async def _ask(self, pair: Pair) -> bool:
        """Ask the host that a packet came from what it is of. True if the connection is in our switch again."""
        local, path = self._local, pair.path
        me = local.host
        host = await self._host_at(path.wire, path.peer)
        if host is None or self._open[host.name] >= OPEN_QUESTIONS:
            return False
        yours, mine = own_end(host, path.wire, path.peer, pair.peer), own_end(me, path.wire, path.local, pair.local)
        self._open[host.name] += 1
        local.events["asks"] += 1
        try:
            reply = await local.offers.request(me.name, host.name, Ask(VERSION, path.protocol, yours, mine))
            if not isinstance(reply, Offer) or (reply.end.port, reply.peer_port) != (yours.port, mine.port):
                return False
            return isinstance(await self._answerer.answer(host.name, reply), Accept)
        finally:
            self._open[host.name] -= 1
            if not self._open[host.name]:
                del self._open[host.name]

    async def _host_at(self, wire: int, address: Address) -> Host | None:
        local = self._local
        if wire == PORT_EXTERNAL:
            return await local.directory.gateway_at(address)
        return await local.directory.host_at(local.host.site, address)
