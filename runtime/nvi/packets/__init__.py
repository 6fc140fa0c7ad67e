"""Parse and build the few headers that the agent needs. No I/O.

The switch has already sorted out most of what cannot be (p4src/edge.p4); what is checked here is what the pipeline
cannot see cheaply. Nothing that fails a check is ever installed.
"""

from .errors import (
    ErrorMessage,
    Unreachable,
    build_error,
    destination_unreachable,
    may_be_answered,
    parse_error,
    time_exceeded,
    too_big,
)
from .flows import ECHO_PORT, Packet, echo_port, parse
from .headers import (
    ETHERNET_LENGTH,
    EXTENSION_HEADERS,
    IPV4_LENGTH,
    IPV6_LENGTH,
    Datagram,
    Fragment,
    MalformedPacket,
    ethernet,
    ip_packet,
    read_datagram,
)
from .neighbours import (
    ArpRequest,
    NeighbourSolicitation,
    RouterSolicitation,
    neighbour_advertisement,
    parse_arp_request,
    parse_neighbour_solicitation,
    parse_router_solicitation,
    router_advertisement,
)

__all__ = [
    "ECHO_PORT",
    "ETHERNET_LENGTH",
    "EXTENSION_HEADERS",
    "IPV4_LENGTH",
    "IPV6_LENGTH",
    "ArpRequest",
    "Datagram",
    "ErrorMessage",
    "Fragment",
    "MalformedPacket",
    "NeighbourSolicitation",
    "Packet",
    "RouterSolicitation",
    "Unreachable",
    "build_error",
    "destination_unreachable",
    "echo_port",
    "ethernet",
    "ip_packet",
    "may_be_answered",
    "neighbour_advertisement",
    "parse",
    "parse_arp_request",
    "parse_error",
    "parse_neighbour_solicitation",
    "parse_router_solicitation",
    "read_datagram",
    "router_advertisement",
    "time_exceeded",
    "too_big",
]
