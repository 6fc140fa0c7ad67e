"""Parse and build the few headers that the agent needs. No I/O.

The switch has already sorted out most of what cannot be (p4src/edge.p4); what is checked here is what the pipeline
cannot see cheaply. Nothing that fails a check is ever installed.
"""

from .answers import echo_reply, reset
from .dhcp import DhcpMessage, DhcpOffer, answer_dhcp, parse_dhcp
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
from .fragmenting import DatagramId, cut, fragment_of
from .headers import (
    ETHERNET_LENGTH,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    EXTENSION_HEADERS,
    IPV4_LENGTH,
    IPV6_LENGTH,
    Datagram,
    Fragment,
    MalformedPacket,
    ethernet,
    ip_packet,
    is_single,
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
from .translating import FRAGMENT_GROWTH, GROWTH, translate_error

__all__ = [
    "ECHO_PORT",
    "ETHERNET_LENGTH",
    "ETHERTYPE_IPV4",
    "ETHERTYPE_IPV6",
    "EXTENSION_HEADERS",
    "FRAGMENT_GROWTH",
    "GROWTH",
    "IPV4_LENGTH",
    "IPV6_LENGTH",
    "ArpRequest",
    "Datagram",
    "DatagramId",
    "DhcpMessage",
    "DhcpOffer",
    "ErrorMessage",
    "Fragment",
    "MalformedPacket",
    "NeighbourSolicitation",
    "Packet",
    "RouterSolicitation",
    "Unreachable",
    "answer_dhcp",
    "build_error",
    "cut",
    "destination_unreachable",
    "echo_port",
    "echo_reply",
    "ethernet",
    "fragment_of",
    "ip_packet",
    "is_single",
    "may_be_answered",
    "neighbour_advertisement",
    "parse",
    "parse_arp_request",
    "parse_dhcp",
    "parse_error",
    "parse_neighbour_solicitation",
    "parse_router_solicitation",
    "read_datagram",
    "reset",
    "router_advertisement",
    "time_exceeded",
    "too_big",
    "translate_error",
]
