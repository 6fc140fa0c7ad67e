"""Two ends say what a kind of traffic says; what arrives, and what was on the wires between, is compared with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from structlog.testing import capture_logs

from nvi.model import Endpoint, derive_mac, show_address, show_mac
from nvi.simulation import ROUTER_MAC, Farm, external_mac
from nvi.switch import PORT_EXTERNAL, PORT_EXTERNAL_STACK, PORT_UNDERLAY
from nvi.topology.model import DEFAULT_MTU

from .kinds import TTL, Kind, Peer, cut
from .ways import (
    EXTERNAL_PORT,
    OUTSIDE,
    OUTSIDE_ADDRESS,
    PATIENCE,
    SERVICE_PORT,
    Families,
    Way,
    endpoints,
    ports,
    service,
)

QUIET = 0.02
"""Seconds after the last packet that is expected, in which another one would come."""


class Wrong(Exception):
    """Something arrived, or was on a wire, that should not be."""


class Refused(Exception):
    """Nothing arrived, and the code says why."""


@dataclass(frozen=True)
class View:
    """A packet's ends as one side sees them."""

    source: str
    destination: str
    source_port: int | None
    destination_port: int | None

    def reversed(self) -> View:
        """Of an answer."""
        return View(self.destination, self.source, self.destination_port, self.source_port)


class Wires:
    """What has left the switches since the last look."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bytes]] = []

    def __call__(self, host: str, port: int, frame: bytes) -> None:
        if port in (PORT_UNDERLAY, PORT_EXTERNAL):
            self.seen.append((host, port, frame))

    def take(self) -> list[tuple[str, int, bytes]]:
        """All of it, once."""
        taken, self.seen = self.seen, []
        return taken


class Conversation:
    """One kind of traffic on one way."""

    def __init__(self, farm: Farm, wires: Wires, way: Way, families: Families) -> None:
        self._farm = farm
        self._wires = wires
        self._way = way
        self._families = families
        self._endpoints = endpoints(families.over)
        self._ports = ports()

    async def hold(self, kind: Kind) -> None:
        """All turns. Raises Refused or Wrong."""
        way, over = self._way, self._families.over
        published = way.published_at is not None
        at = self._public(way.published_at) if way.published_at else self._address(way.destination)
        peer = Peer(self._address(way.source), at, EXTERNAL_PORT if published else SERVICE_PORT)
        seen: View | None = None
        for say, reply in kind.turns(over, peer):
            said = view(say)
            got = await self._send(way.source, way.destination, say, kind)
            if seen is None:
                seen = view(got)
                self._check_first(said, seen)
            compare(got, self._excepted(expected(say, seen, got), got), self._ttl(way.destination), "at the responder")
            answer = reply(got)
            back = await self._send(way.destination, way.source, answer, kind)
            quoted = say if quote(answer) is not None else None
            want = self._excepted(expected(answer, said.reversed(), back, quoted, across=self._across), back)
            compare(back, want, self._ttl(way.source), "at the initiator")

    @property
    def _across(self) -> bool:
        """Whether what is carried changes its family on the way."""
        return self._families.over != self._families.under and self._way.crosses_the_underlay

    def _excepted(self, want: Packet, got: Packet) -> Packet:
        """Without what the other family has no room for: see `docs/matrix.md`."""
        if self._across and IP in want:
            _copy(got, want, "id")
        return want

    def _check_first(self, said: View, seen: View) -> None:
        """What the responder has to see of the initiator, and of itself."""
        way = self._way
        translated = way.destination == OUTSIDE or (way.published_at is not None and way.source != OUTSIDE)
        source = self._public(self._gateway_of(way.source)) if translated else said.source
        want = replace(
            said,
            source=source,
            destination=self._address(way.destination),
            source_port=seen.source_port if translated else said.source_port,
            destination_port=said.destination_port if way.published_at is None else SERVICE_PORT,
        )
        if said.destination_port is None or seen.destination_port is None:
            want = replace(want, destination_port=seen.destination_port)
        if want != seen:
            raise Wrong(f"the responder sees {seen} instead of {want}")

    async def _send(self, sender: str, receiver: str, packet: Packet, kind: Kind) -> Packet:
        """What arrives of a packet, IP and above. Raises Refused or Wrong."""
        pieces = cut(packet, self._families.mtu) if kind.datagram else [packet]
        drops = await self._drops()
        self._wires.take()
        self._forget_delivered(receiver)
        with capture_logs() as logs:
            for piece in pieces:
                self._emit(sender, receiver, piece)
            arrived = await self._arrivals(receiver, len(pieces), logs)
        if not arrived and self._at_the_stack():
            raise Refused(f"it is for the gateway's own stack: {await self._why_unpublished(packet)}")
        if not arrived:
            raise Refused(self._why(logs, drops, await self._drops()))
        self._check_frames(receiver, sender, arrived)
        self._check_wires([bytes(piece) for piece in pieces])
        got = [network_layer(frame) for frame in arrived]
        if len(got) != len(pieces):
            raise Wrong(f"{len(got)} packets arrived of {len(pieces)}")
        if not kind.datagram:
            return got[0]
        shapes = [(shape(one), shape(other)) for one, other in zip(pieces, got, strict=True)]
        if any(one != other for one, other in shapes):
            raise Wrong(f"fragments came as {[other for _, other in shapes]} of {[one for one, _ in shapes]}")
        return whole(got)

    async def _arrivals(self, receiver: str, number: int, logs: Sequence[Any]) -> list[bytes]:
        """What arrives; so many packets are expected, unless something says that none will."""
        arrived: list[bytes] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while len(arrived) < number and not self._at_the_stack() and not _refusals(logs):
                    await asyncio.sleep(0.002)
                    arrived += self._delivered(receiver)
        await asyncio.sleep(QUIET)
        return arrived + self._delivered(receiver)

    def _forget_delivered(self, receiver: str) -> None:
        self._delivered(receiver)
        if (gateway := self._way.published_at) is not None:
            self._farm.hosts[gateway].delivered.pop(PORT_EXTERNAL_STACK, None)

    def _at_the_stack(self) -> bool:
        """Whether the publishing gateway's own stack has got something."""
        gateway = self._way.published_at
        return gateway is not None and PORT_EXTERNAL_STACK in self._farm.hosts[gateway].delivered

    async def _why_unpublished(self, packet: Packet) -> str:
        """What the gateway says to whoever wants to publish the protocol of a packet."""
        way = self._way
        assert way.published_at is not None, "only there does anything reach a stack"
        protocol = packet.proto if IP in packet else packet.nh
        try:
            await self._farm.hosts[way.published_at].agent.publish_service(service(way, self._families, protocol))
        except ValueError as refusal:
            return str(refusal)
        raise Wrong(f"protocol {protocol} can be published, but does not arrive")

    def _why(self, logs: Sequence[Any], before: dict[str, int], after: dict[str, int]) -> str:
        if refusals := _refusals(logs):
            return f"refused: {refusals[0]}"
        dropped = [reason for reason, count in after.items() if count > before.get(reason, 0)]
        if dropped:
            return f"dropped: {dropped[0]}"
        raise Wrong("it does not arrive, and nothing says why")

    async def _drops(self) -> dict[str, int]:
        """Packets dropped so far in all switches, by reason."""
        total: dict[str, int] = {}
        for host in self._farm.hosts.values():
            for reasons in (await host.switch.read_drops(self._ports[host.host.name])).values():
                for reason, count in reasons.items():
                    total[reason.name.lower()] = total.get(reason.name.lower(), 0) + count
        return total

    # ---- the two ends -----------------------------------------------------------------------------------------------

    def _emit(self, sender: str, receiver: str, packet: Packet) -> None:
        if sender == OUTSIDE:
            self._farm.emit_outside(bytes(Ether(src=show_mac(ROUTER_MAC), dst="02:00:00:00:00:09") / packet))
            return
        own = self._endpoints[sender][0]
        mac = self._neighbour_mac(own, packet.dst, receiver)
        self._farm.emit(sender, bytes(Ether(src=show_mac(own.mac), dst=show_mac(mac)) / packet))

    def _delivered(self, receiver: str) -> list[bytes]:
        if receiver == OUTSIDE:
            return self._farm.outside.pop(OUTSIDE_ADDRESS[self._families.over], [])
        return self._farm.delivered(receiver)

    def _check_frames(self, receiver: str, sender: str, frames: list[bytes]) -> None:
        if receiver == OUTSIDE:
            gateway = self._way.published_at or self._gateway_of(sender)
            want = ROUTER_MAC + external_mac(gateway)
        else:
            own = self._endpoints[receiver][0]
            want = own.mac + self._neighbour_mac(own, network_layer(frames[0]).src, sender)
        for frame in frames:
            if frame[:12] != want:
                raise Wrong(f"the frame is from {frame[6:12].hex(':')} to {frame[:6].hex(':')}")

    def _neighbour_mac(self, own: Endpoint, address: str, peer: str) -> bytes:
        """Within a network the peers see each other's MACs; whatever else is behind the network's router."""
        if peer != OUTSIDE and address == self._address(peer):
            return self._endpoints[peer][0].mac
        return derive_mac("gateway", own.tenant, own.network)

    def _ttl(self, receiver: str) -> int | None:
        """With what it arrives at an endpoint: a router shows where there is one. None: nothing is promised outside."""
        if receiver == OUTSIDE:
            return None
        return TTL - self._way.routers(receiver)

    def _address(self, name: str) -> str:
        if name == OUTSIDE:
            return show_address(OUTSIDE_ADDRESS[self._families.over])
        return show_address(self._endpoints[name][0].address)

    def _gateway_of(self, name: str) -> str:
        """Of an endpoint's site: each has one."""
        site = self._farm.hosts[self._endpoints[name][0].host].host.site
        return next(
            host.host.name for host in self._farm.hosts.values() if host.host.site == site and host.host.external
        )

    def _public(self, gateway: str) -> str:
        external = self._farm.hosts[gateway].host.external
        assert external is not None
        return show_address(external.public)

    # ---- the wires between ------------------------------------------------------------------------------------------

    def _check_wires(self, sent: list[bytes]) -> None:
        """Invariant 2: nothing but the segment's own addresses, the length of the overlay packet, right checksums."""
        for host, port, frame in self._wires.take():
            here = self._farm.hosts[host].host
            packet = network_layer(frame)
            hosts = [each.host for each in self._farm.hosts.values()]
            if port == PORT_UNDERLAY:
                allowed = {a for each in hosts if each.site == here.site for a in (*each.addresses, *each.pool)}
            else:
                sides = [each.external for each in hosts if each.external is not None]
                allowed = {address for side in sides for address in (side.address, side.public)}
                allowed.add(OUTSIDE_ADDRESS[self._families.over])
            names = set(map(show_address, allowed))
            quoted = quote(packet)
            for each in (packet, *([quoted] if quoted is not None else [])):
                if not {each.src, each.dst} <= names:
                    raise Wrong(f"a packet from {each.src} to {each.dst} at port {port} of {host}")
            length = len(bytes(packet))
            family = 4 if IP in packet else 6
            if family == self._families.over and length not in map(len, sent):
                raise Wrong(f"{length} bytes on the wire of {host}, of {sorted(set(map(len, sent)))}")
            if not is_fragment(packet) and bytes(packet) != bytes(rebuilt(packet)):
                raise Wrong(f"a wrong checksum on the wire of {host}")


def _refusals(logs: Iterable[Any]) -> list[str]:
    return [entry["why"] for entry in logs if entry["event"] == "refused"]


# ---- packets -------------------------------------------------------------------------------------------------------


def network_layer(frame: bytes) -> Packet:
    """The IP packet of a frame, without padding."""
    packet = Ether(frame).payload
    length = packet.len if IP in packet else packet.plen + 40
    return type(packet)(frame[14 : 14 + (length or len(frame))])


def view(packet: Packet) -> View:
    """Its ends. The port of an echo request is its identifier."""
    ports: tuple[int | None, int | None] = (None, None)
    for layer in (TCP, UDP):
        if packet[0].haslayer(layer) and quote(packet) is None:
            ports = packet[layer].sport, packet[layer].dport
    if packet.haslayer(ICMP) and packet[ICMP].type == 8:
        ports = packet[ICMP].id, None
    if packet.haslayer(ICMPv6EchoRequest):
        ports = packet[ICMPv6EchoRequest].id, None
    return View(packet.src, packet.dst, *ports)


def expected(
    sent: Packet, ends: View, arrived: Packet, quoted: Packet | None = None, *, across: bool = False
) -> Packet:
    """What must arrive of what was sent. An error must quote what its receiver has sent, with a TTL of the way."""
    packet = whole(cut(sent, DEFAULT_MTU)) if is_cuttable(sent) else sent.copy()
    packet.src, packet.dst = ends.source, ends.destination
    if quoted is not None:
        within = quote(arrived)
        if within is None:
            raise Wrong("what arrived is no error")
        original = quoted.copy()
        _set_ttl(original, _ttl_of(within))
        if across and IP in original:
            _copy(within, original, "id")
        layer = ICMP if IP in packet else ICMPv6DestUnreach
        packet[layer].remove_payload()
        return packet / Raw(bytes(rebuilt(original))[:576])
    for layer in (TCP, UDP):
        if layer in packet:
            packet[layer].sport, packet[layer].dport = ends.source_port, ends.destination_port
    for layer in (ICMP, ICMPv6EchoRequest, ICMPv6EchoReply):
        if layer in packet:
            packet[layer].id = ends.source_port or ends.destination_port
    return packet


def compare(got: Packet, packet: Packet, ttl: int | None, where: str) -> None:
    """Every bit, but TTL where nothing is promised, and the identification of what may be cut. Raises Wrong."""
    _set_ttl(packet, _ttl_of(got) if ttl is None else ttl)
    if IP in packet and not packet.flags.DF:
        packet.id = got.id
    want = bytes(rebuilt(packet))
    if bytes(got) != want:
        differ = [
            f"{name}: {getattr(got, name)!r} instead of {getattr(network, name)!r}"
            for network in (type(got)(want),)
            for name in network.fields
            if getattr(got, name) != getattr(network, name)
        ]
        at = next((i for i, (one, other) in enumerate(zip(bytes(got), want, strict=False)) if one != other), len(want))
        raise Wrong(f"{where}: {'; '.join(differ) or f'byte {at} of {len(bytes(got))} and {len(want)} differs'}")


def rebuilt(packet: Packet) -> Packet:
    """With lengths and checksums as they should be, from the IP header to that of the transport."""
    copy = type(packet)(bytes(packet))
    layer: Packet = copy
    while isinstance(layer, _WITH_CHECKSUM):
        for name in ("chksum", "cksum", "len", "plen"):
            if name in layer.fields and not (isinstance(layer, UDP) and name == "chksum" and layer.chksum == 0):
                layer.delfieldval(name)
        if not isinstance(layer, (IP, IPv6)):
            break
        layer = layer.payload
    return copy


_WITH_CHECKSUM = (IP, IPv6, TCP, UDP, ICMP, ICMPv6EchoRequest, ICMPv6EchoReply, ICMPv6DestUnreach)


def quote(packet: Packet) -> Packet | None:
    """The packet that an ICMP error quotes."""
    if packet.haslayer(ICMP) and packet[ICMP].type in (3, 11, 12):
        return IP(bytes(packet[ICMP].payload))
    if packet.haslayer(ICMPv6DestUnreach):
        return IPv6(bytes(packet[ICMPv6DestUnreach].payload))
    return None


def is_cuttable(packet: Packet) -> bool:
    """Whether it is meant to be cut into fragments."""
    return IPv6ExtHdrFragment in packet or (IP in packet and not packet.flags.DF)


def is_fragment(packet: Packet) -> bool:
    """Whether it is a piece of a datagram."""
    return IPv6ExtHdrFragment in packet or (IP in packet and bool(packet.frag or packet.flags.MF))


def shape(piece: Packet) -> tuple[int, bool, int]:
    """Offset, whether more follow, length of the IP packet."""
    if IP in piece:
        return piece.frag, bool(piece.flags.MF), len(bytes(piece))
    header = piece[IPv6ExtHdrFragment]
    return header.offset, bool(header.m), len(bytes(piece))


def whole(pieces: list[Packet]) -> Packet:
    """The datagram of these fragments. Raises Wrong if they are of several."""
    if IP in pieces[0]:
        identities = {piece.id for piece in pieces}
        header = bytes(pieces[0])[:20]
        load = b"".join(bytes(piece)[20:] for piece in pieces)
        packet = IP(header[:2] + (20 + len(load)).to_bytes(2) + header[4:6] + bytes(2) + header[8:] + load)
    else:
        identities = {piece[IPv6ExtHdrFragment].id for piece in pieces}
        header = bytes(pieces[0])
        load = b"".join(bytes(piece)[48:] for piece in pieces)
        packet = IPv6(header[:4] + len(load).to_bytes(2) + header[40:41] + header[7:40] + load)
    if len(identities) != 1:
        raise Wrong(f"fragments of one datagram have the identifications {identities}")
    return rebuilt_header(packet)


def rebuilt_header(packet: Packet) -> Packet:
    """With a right checksum of its IP header, and all else as it is."""
    if IP in packet:
        del packet.chksum
        return IP(bytes(packet))
    return packet


def _copy(one: Packet, other: Packet, *names: str) -> None:
    for name in names:
        setattr(other, name, getattr(one, name))


def _ttl_of(packet: Packet) -> int:
    return int(packet.ttl if IP in packet else packet.hlim)


def _set_ttl(packet: Packet, ttl: int) -> None:
    if IP in packet:
        packet.ttl = ttl
    else:
        packet.hlim = ttl
