"""What a gateway address answers by itself, and how a firewall ends a TCP connection."""

from __future__ import annotations

from ..model import Protocol
from .headers import MalformedPacket, ethernet, ip_packet, read_datagram, with_checksum

_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_ECHO_REPLY = {Protocol.ICMP: 0, Protocol.ICMPV6: 129}


def echo_reply(frame: bytes) -> bytes:
    """The frame that answers an echo request, from where it was sent to (RFC 792, RFC 4443 section 4.2).

    The frame is one that `parse` has read as a request. Raises MalformedPacket if it is a fragment or its checksum is
    wrong.
    """
    datagram = read_datagram(frame)
    protocol = Protocol(datagram.protocol)
    request = frame[datagram.payload : datagram.end]
    if datagram.fragment is not None:
        raise MalformedPacket("a part of an echo request")
    if with_checksum(datagram.source, datagram.destination, protocol, request, 2) != request:
        raise MalformedPacket("wrong ICMP checksum")
    reply = with_checksum(
        datagram.destination, datagram.source, protocol, bytes([_ECHO_REPLY[protocol]]) + request[1:], 2
    )
    packet = ip_packet(datagram.destination, datagram.source, protocol, reply)
    return ethernet(frame[6:12], frame[0:6], packet)


def reset(frame: bytes) -> bytes | None:
    """The frame that ends a TCP connection in the name of the one to whom a segment of it was sent.

    Its numbers are such that the sender believes it (RFC 9293 section 3.10.7.1). None for a RST, which gets no answer.
    The frame is one that `parse` has read as TCP.
    """
    datagram = read_datagram(frame)
    at = datagram.payload
    flags = frame[at + 13]
    if flags & _RST:
        return None
    if flags & _ACK:
        numbers, answer = frame[at + 8 : at + 12] + bytes(4), _RST
    else:
        size = datagram.end - at - (frame[at + 12] >> 4) * 4 + bool(flags & _SYN) + bool(flags & _FIN)
        following = (int.from_bytes(frame[at + 4 : at + 8]) + size) & 0xFFFFFFFF
        numbers, answer = bytes(4) + following.to_bytes(4), _RST | _ACK
    segment = frame[at + 2 : at + 4] + frame[at : at + 2] + numbers + bytes([0x50, answer]) + bytes(6)
    source, destination = datagram.destination, datagram.source
    packet = ip_packet(source, destination, Protocol.TCP, with_checksum(source, destination, Protocol.TCP, segment, 16))
    return ethernet(frame[6:12], frame[0:6], packet)
