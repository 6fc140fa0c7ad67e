"""The little world of the tests: who is where, their packets, and the entries that join them."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from nvi.model import Flow, Mac, read_address, read_mac
from nvi.packets import echo_port
from nvi.switch import (
    NO_MAC,
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
ACME, GLOBEX = PORT_FIRST_ENDPOINT, PORT_FIRST_ENDPOINT + 1
"""Ports of two endpoints, which belong to two tenants and have the same address."""
PORTS = (WIRE, STACK, ACME, GLOBEX)
ACME_NETWORK, GLOBEX_NETWORK = 7, 0xFFFF

NEAR, FAR, STRANGER = "10.0.1.1", "10.0.1.2", "10.0.1.3"
"""Overlay addresses: of the endpoints at our ports, of the one that they talk to, and of nobody."""
ACME_MAC, GLOBEX_MAC = "02:00:00:00:01:01", "02:00:00:00:02:01"
FAR_MAC = "02:00:00:00:01:02"
OUR_HOST, FAR_HOST = "172.16.1.1", "172.16.2.1"
HOST_MAC, ROUTER_MAC = "02:aa:00:00:00:01", "02:aa:00:00:00:fe"
UNDERLAY_TTL = 64

ACME_GUARD = GuardEntry(ACME, read_mac(ACME_MAC), read_address(NEAR), ACME_NETWORK)
GLOBEX_GUARD = GuardEntry(GLOBEX, read_mac(GLOBEX_MAC), read_address(NEAR), GLOBEX_NETWORK)

Ends = tuple[int, int]
"""L4 source and destination; in an echo the identifier, twice."""


def ethernet(source: str = ACME_MAC, destination: str = FAR_MAC, **fields: object) -> Packet:
    """An Ethernet header; by default from the first endpoint to the far one."""
    return Ether(src=source, dst=destination, **fields)


def ip(source: str = NEAR, destination: str = FAR, **fields: object) -> Packet:
    """An IPv4 header with a value in every field that must arrive as it was sent."""
    return IP(**{"src": source, "dst": destination, "tos": 0xB9, "id": 0x1234, "flags": "DF", "ttl": 63, **fields})


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

    def frame(self, transport: Packet, **fields: object) -> Packet:
        """The packet that carries `transport` here."""
        header = ip(self.source, self.destination, **{"ttl": self.ttl, **fields})
        return ethernet(self.source_mac, self.destination_mac) / header / transport

    def flow(self, transport: Packet) -> Flow:
        """The 5-tuple of that packet."""
        if ICMP in transport:
            identifier = transport.id
            ends = (identifier, echo_port(identifier))
            return self._flow(1, ends if transport.type == 8 else ends[::-1])
        return self._flow(17 if UDP in transport else 6, (transport.sport, transport.dport))

    def _flow(self, protocol: int, ends: Ends) -> Flow:
        return Flow(read_address(self.source), read_address(self.destination), protocol, *ends)

    @property
    def key_mac(self) -> Mac:
        """The source MAC in the key of packets that come in here."""
        return NO_MAC if self.port == WIRE else read_mac(self.source_mac)


FROM_ACME = Segment(ACME, ACME_MAC, FAR_MAC, NEAR, FAR, 63)
FROM_GLOBEX = Segment(GLOBEX, GLOBEX_MAC, FAR_MAC, NEAR, FAR, 63)
TO_WIRE = Segment(WIRE, HOST_MAC, ROUTER_MAC, OUR_HOST, FAR_HOST)
FROM_WIRE = Segment(WIRE, ROUTER_MAC, HOST_MAC, FAR_HOST, OUR_HOST, 61)
TO_ACME = Segment(ACME, FAR_MAC, ACME_MAC, FAR, NEAR, 63)
TO_GLOBEX = Segment(GLOBEX, FAR_MAC, GLOBEX_MAC, FAR, NEAR, 63)


def key(come: Segment, transport: Packet) -> ConnectionKey:
    """The key of the packets that carry `transport` on the segment `come`."""
    return ConnectionKey(come.port, come.key_mac, come.flow(transport))


def join(
    come: Segment, transport: Packet, go: Segment, translated: Packet, idle_timeout: float = 0.0
) -> ConnectionEntry:
    """The entry that makes of a packet with `transport` on one segment one with `translated` on the next."""
    rewrite = Rewrite(read_mac(go.source_mac), read_mac(go.destination_mac), go.flow(translated), go.ttl, go.port)
    return ConnectionEntry(key(come, transport), rewrite, idle_timeout)
