"""Of which flow is a packet, and may it be its first."""

from __future__ import annotations

from msgspec import Struct

from ..model import Flow, Mac, Protocol
from .headers import Datagram, MalformedPacket, read_datagram

ECHO_PORT = 0x0800
"""What stands for the responder's port in the flow of an ICMP or ICMPv6 echo: type and code of an IPv4 request."""

_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_ECHO_TYPES = {Protocol.ICMP: (8, 0), Protocol.ICMPV6: (128, 129)}
"""(request, reply)"""


class Packet(Struct, frozen=True, gc=False):
    """What the agent reads of an Ethernet frame with an IP packet of a flow."""

    source_mac: Mac
    destination_mac: Mac
    flow: Flow
    ttl: int
    opens: bool
    """Whether it can be the first packet of a connection: a bare SYN, an echo request, anything that is not TCP or an
    echo reply."""
    length: int
    """Bytes of the IP packet."""
    flow_label: int = 0
    dont_fragment: bool = True


def echo_port(identifier: int) -> int:
    """What stands for the responder's port in an echo with this identifier.

    Never such that a request and a reply, of whatever identifiers, have one and the same flow (`p4src/ids.p4`).
    """
    return identifier + 1 if identifier in (ECHO_PORT, ECHO_PORT + 1) else ECHO_PORT


def parse(frame: bytes) -> Packet:
    """Read a frame, of a whole datagram, of a first fragment, or of any fragment of a protocol without ports.

    Raises MalformedPacket.
    """
    datagram = read_datagram(frame)
    l4_source, l4_destination, opens = _read_transport(frame, datagram)
    flow = Flow(datagram.source, datagram.destination, datagram.protocol, l4_source, l4_destination)
    return Packet(
        frame[6:12],
        frame[0:6],
        flow,
        datagram.ttl,
        opens,
        datagram.length,
        datagram.flow_label,
        datagram.dont_fragment,
    )


def _read_transport(frame: bytes, datagram: Datagram) -> tuple[int, int, bool]:
    """(what stands for the ports of both sides, may it open a connection)."""
    protocol, at, size = datagram.protocol, datagram.payload, datagram.end - datagram.payload
    if protocol not in (Protocol.TCP, Protocol.UDP, Protocol.ICMP, Protocol.ICMPV6):
        return 0, 0, True
    if datagram.is_later_fragment:
        raise MalformedPacket("a later fragment, whose ports are in the first one")
    if protocol == Protocol.TCP:
        return _read_tcp(frame, at, size)
    if protocol == Protocol.UDP:
        return _read_udp(frame, at, size, whole=datagram.fragment is None)
    _check_family(datagram)
    return _read_echo(frame, at, size, Protocol(protocol))


def _check_family(datagram: Datagram) -> None:
    if (datagram.protocol == Protocol.ICMPV6) != (len(datagram.source) == 16):
        raise MalformedPacket("ICMP of the other family")


def _read_tcp(frame: bytes, at: int, size: int) -> tuple[int, int, bool]:
    if size < 20 or not 20 <= (frame[at + 12] >> 4) * 4 <= size:
        raise MalformedPacket("TCP header length does not fit the packet")
    flags = frame[at + 13]
    if not flags & (_SYN | _ACK | _RST | _FIN) or (flags & _SYN and flags & (_FIN | _RST)):
        raise MalformedPacket(f"TCP flags {flags:#04x} that no stack sends")
    source, destination = _ports(frame, at)
    if not source or not destination:
        raise MalformedPacket("TCP port 0")
    return source, destination, flags & (_SYN | _ACK) == _SYN


def _read_udp(frame: bytes, at: int, size: int, whole: bool) -> tuple[int, int, bool]:
    length = int.from_bytes(frame[at + 4 : at + 6])
    if size < 8 or length < 8 or (length > size if whole else length < size):
        raise MalformedPacket("UDP length does not fit the packet")
    source, destination = _ports(frame, at)
    if not destination:
        raise MalformedPacket("UDP destination port 0")
    return source, destination, True


def _read_echo(frame: bytes, at: int, size: int, protocol: Protocol) -> tuple[int, int, bool]:
    if size < 8:
        raise MalformedPacket("ICMP header is cut short")
    kind, code = frame[at], frame[at + 1]
    request, reply = _ECHO_TYPES[protocol]
    if code or kind not in (request, reply):
        raise MalformedPacket(f"{protocol.name} type {kind} code {code} is not an echo")
    identifier = int.from_bytes(frame[at + 4 : at + 6])
    if kind == request:
        return identifier, echo_port(identifier), True
    return echo_port(identifier), identifier, False


def _ports(frame: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(frame[at : at + 2]), int.from_bytes(frame[at + 2 : at + 4])


def quoted_flow(data: bytes, datagram: Datagram) -> Flow:
    """The flow of a packet of which an ICMP error quotes no more than the beginning. Raises MalformedPacket."""
    protocol, at = datagram.protocol, datagram.payload
    ends = datagram.source, datagram.destination, protocol
    if protocol not in (Protocol.TCP, Protocol.UDP, Protocol.ICMP, Protocol.ICMPV6):
        return Flow(*ends, 0, 0)
    if datagram.is_later_fragment or at + 8 > len(data):
        raise MalformedPacket("what is quoted does not say of which flow it is")
    if protocol in (Protocol.TCP, Protocol.UDP):
        return Flow(*ends, *_ports(data, at))
    _check_family(datagram)
    return Flow(*ends, *_read_echo(data, at, 8, Protocol(protocol))[:2])
