"""The little world of the tests: who is where, their packets, and the entries that join them."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from nvi.model import Flow, Mac, read_address, read_mac
from nvi.packets import echo_port
from nvi.switch import (
    NO_MAC,
    PORT_EXTERNAL,
    PORT_EXTERNAL_STACK,
    PORT_FIRST_ENDPOINT,
    PORT_HOST_STACK,
    PORT_UNDERLAY,
    ConnectionEntry,
    ConnectionKey,
    GuardEntry,
    NeighbourEntry,
    Rewrite,
)

WIRE, STACK = PORT_UNDERLAY, PORT_HOST_STACK
OUTSIDE, OUTSIDE_STACK = PORT_EXTERNAL, PORT_EXTERNAL_STACK
ACME, GLOBEX = PORT_FIRST_ENDPOINT, PORT_FIRST_ENDPOINT + 1
"""Ports of two endpoints, which belong to two tenants and have the same address."""
PORTS = (WIRE, STACK, OUTSIDE, OUTSIDE_STACK, ACME, GLOBEX)
ACME_NETWORK, GLOBEX_NETWORK = 7, 0xFFFF

NEAR, FAR, STRANGER = "10.0.1.1", "10.0.1.2", "10.0.1.3"
"""Overlay addresses: of the endpoints at our ports, of the one that they talk to, and of nobody."""
ACME_MAC, GLOBEX_MAC = "02:00:00:00:01:01", "02:00:00:00:02:01"
FAR_MAC = "02:00:00:00:01:02"
OUR_HOST, FAR_HOST = "172.16.1.1", "172.16.2.1"
HOST_MAC, ROUTER_MAC = "02:aa:00:00:00:01", "02:aa:00:00:00:fe"
UNDERLAY_TTL = 64

NEAR6, FAR6, STRANGER6 = "fd00:1::1", "fd00:1::2", "fd00:1::3"
OUR_HOST6, FAR_HOST6 = "fd00:e1::1", "fd00:e2::1"

ACME_GUARD = GuardEntry(ACME, read_mac(ACME_MAC), read_address(NEAR), ACME_NETWORK)
ACME_GUARD6 = GuardEntry(ACME, read_mac(ACME_MAC), read_address(NEAR6), ACME_NETWORK)
GLOBEX_GUARD = GuardEntry(GLOBEX, read_mac(GLOBEX_MAC), read_address(NEAR), GLOBEX_NETWORK)

Ends = tuple[int, int]
"""L4 source and destination; in an echo the identifier, twice."""


def ethernet(source: str = ACME_MAC, destination: str = FAR_MAC, **fields: object) -> Packet:
    """An Ethernet header; by default from the first endpoint to the far one."""
    return Ether(src=source, dst=destination, **fields)


def ip(source: str = NEAR, destination: str = FAR, **fields: object) -> Packet:
    """An IPv4 header with a value in every field that must arrive as it was sent."""
    return IP(**{"src": source, "dst": destination, "tos": 0xB9, "id": 0x1234, "flags": "DF", "ttl": 63, **fields})


def ip6(source: str = NEAR6, destination: str = FAR6, **fields: object) -> Packet:
    """An IPv6 header with a value in every field that must arrive as it was sent."""
    return IPv6(**{"src": source, "dst": destination, "tc": 0xB9, "fl": 0x54321, "hlim": 63, **fields})


def tcp(ends: Ends = (40000, 80), data: bytes = b"GET / HTTP/1.0\r\n\r\n") -> Packet:
    """A TCP segment with options, every fixed field in use."""
    options = [("MSS", 1460), ("Timestamp", (1, 2)), ("EOL", None)]
    header = TCP(
        sport=ends[0], dport=ends[1], seq=0x11223344, ack=0x55667788, flags="PAUEC", window=501, urgptr=3, reserved=5
    )
    header.options = options
    return header / Raw(data)


def udp(ends: Ends = (40000, 53), data: bytes = b"question", **fields: object) -> Packet:
    """A UDP datagram."""
    return UDP(sport=ends[0], dport=ends[1], **fields) / Raw(data)


def echo(identifier: int, request: bool | int = True, data: bytes = b"abcdefgh") -> Packet:
    """An ICMP echo request or reply."""
    return ICMP(type=8 if request else 0, id=identifier, seq=0x0102) / Raw(data)


def echo6(identifier: int, request: bool | int = True, data: bytes = b"abcdefgh") -> Packet:
    """An ICMPv6 echo request or reply."""
    make = ICMPv6EchoRequest if request else ICMPv6EchoReply
    return make(id=identifier, seq=0x0102, data=data)


def arp_request(
    target: str, sender: str = NEAR, mac: str = ACME_MAC, source: str | None = None, **fields: object
) -> Packet:
    """An ARP request as an endpoint broadcasts it, padded to Ethernet's minimum as network cards do."""
    request = ARP(op=1, hwsrc=mac, psrc=sender, hwdst="00:00:00:00:00:00", pdst=target)
    for field, value in fields.items():
        setattr(request, field, value)
    return ethernet(source or mac, "ff:ff:ff:ff:ff:ff", type=0x0806) / request / Raw(bytes(18))


def arp_answer(mac: str, address: str, asker_mac: str = ACME_MAC, asker: str = NEAR) -> Packet:
    """What the switch answers `arp_request`."""
    reply = ARP(op=2, hwsrc=mac, psrc=address, hwdst=asker_mac, pdst=asker)
    return ethernet(mac, asker_mac, type=0x0806) / reply / Raw(bytes(18))


def neighbour(address: str, mac: str, network: int = ACME_NETWORK) -> NeighbourEntry:
    """An entry of `neighbours`."""
    return NeighbourEntry(network, read_address(address), read_mac(mac))


class Segment:
    """One side of a switch: the addresses, MACs and TTL that packets of a connection carry there."""

    def __init__(
        self, port: int, source_mac: str, destination_mac: str, source: str, destination: str, ttl: int = UNDERLAY_TTL
    ) -> None:
        self.port = port
        self.source_mac, self.destination_mac = source_mac, destination_mac
        self.source, self.destination = source, destination
        self.ttl = ttl

    @property
    def is_ipv6(self) -> bool:
        """The family of its addresses."""
        return ":" in self.source

    def header(self, **fields: object) -> Packet:
        """The IP header of its packets; `fields` by scapy's names, but for `ttl`."""
        if not self.is_ipv6:
            return ip(self.source, self.destination, **{"ttl": self.ttl, **fields})
        fields = {"ttl": self.ttl, **fields}
        return ip6(self.source, self.destination, hlim=fields.pop("ttl"), **fields)

    def frame(self, transport: Packet, **fields: object) -> Packet:
        """The packet that carries `transport` here."""
        return ethernet(self.source_mac, self.destination_mac) / self.header(**fields) / transport

    def flow(self, transport: Packet) -> Flow:
        """The 5-tuple of that packet."""
        first = transport.firstlayer()
        match first:
            case ICMP():
                return self._flow(1, _echo_ends(first.id, first.type == 8))
            case ICMPv6EchoRequest() | ICMPv6EchoReply():
                return self._flow(58, _echo_ends(first.id, first.type == 128))
            case UDP() | TCP():
                return self._flow(17 if isinstance(first, UDP) else 6, (first.sport, first.dport))
        raise ValueError(f"{transport.summary()} has no ports: say portless(protocol)")

    def portless(self, protocol: int) -> Flow:
        """The flow of a protocol without ports."""
        return self._flow(protocol, (0, 0))

    def _flow(self, protocol: int, ends: Ends) -> Flow:
        return Flow(read_address(self.source), read_address(self.destination), protocol, *ends)

    @property
    def key_mac(self) -> Mac:
        """The source MAC in the key of packets that come in here."""
        return NO_MAC if self.port in (WIRE, OUTSIDE) else read_mac(self.source_mac)


def _echo_ends(identifier: int, request: bool) -> Ends:
    ends = (identifier, echo_port(identifier))
    return ends if request else ends[::-1]


FROM_ACME = Segment(ACME, ACME_MAC, FAR_MAC, NEAR, FAR, 63)
FROM_GLOBEX = Segment(GLOBEX, GLOBEX_MAC, FAR_MAC, NEAR, FAR, 63)
TO_WIRE = Segment(WIRE, HOST_MAC, ROUTER_MAC, OUR_HOST, FAR_HOST)
FROM_WIRE = Segment(WIRE, ROUTER_MAC, HOST_MAC, FAR_HOST, OUR_HOST, 61)
TO_ACME = Segment(ACME, FAR_MAC, ACME_MAC, FAR, NEAR, 63)
TO_GLOBEX = Segment(GLOBEX, FAR_MAC, GLOBEX_MAC, FAR, NEAR, 63)

FROM_ACME6 = Segment(ACME, ACME_MAC, FAR_MAC, NEAR6, FAR6, 63)
TO_WIRE6 = Segment(WIRE, HOST_MAC, ROUTER_MAC, OUR_HOST6, FAR_HOST6)
FROM_WIRE6 = Segment(WIRE, ROUTER_MAC, HOST_MAC, FAR_HOST6, OUR_HOST6, 61)
TO_ACME6 = Segment(ACME, FAR_MAC, ACME_MAC, FAR6, NEAR6, 63)
FROM_OUTSIDE = Segment(OUTSIDE, ROUTER_MAC, HOST_MAC, "203.0.113.7", "198.51.100.1", 50)
TO_OUTSIDE = Segment(OUTSIDE, HOST_MAC, ROUTER_MAC, "198.51.100.1", "203.0.113.7")


def key(come: Segment, transport: Packet) -> ConnectionKey:
    """The key of the packets that carry `transport` on the segment `come`."""
    return ConnectionKey(come.port, come.key_mac, come.flow(transport))


def entry(come: Segment, old: Flow, go: Segment, new: Flow, idle_timeout: float = 0.0, **more: Any) -> ConnectionEntry:
    """The entry that makes packets of the flow `old` on one segment ones of `new` on the next.

    `more`: fields of Rewrite.
    """
    macs = read_mac(go.source_mac), read_mac(go.destination_mac)
    return ConnectionEntry(
        ConnectionKey(come.port, come.key_mac, old), Rewrite(*macs, new, go.ttl, go.port, **more), idle_timeout
    )


def join(
    come: Segment, transport: Packet, go: Segment, translated: Packet, idle_timeout: float = 0.0, **more: Any
) -> ConnectionEntry:
    """The entry that makes of a packet with `transport` on one segment one with `translated` on the next."""
    return entry(come, come.flow(transport), go, go.flow(translated), idle_timeout, **more)


DATA = bytes(n % 251 for n in range(3000))


def cut(segment: Segment, transport: Packet, identification: int, size: int = 1200, **fields: object) -> list[bytes]:
    """The fragments of the packet that carries `transport` on the segment."""
    if segment.is_ipv6:
        whole = segment.header() / IPv6ExtHdrFragment(id=identification) / transport
        parts = fragment6(whole, size)
    else:
        parts = fragment(segment.header(id=identification, flags=0, **fields) / transport, size)
    macs = bytes(ethernet(segment.source_mac, segment.destination_mac, type=0x86DD if segment.is_ipv6 else 0x0800))
    return [macs + bytes(part) for part in parts]
