"""What the router of a network answers itself. No machine is that router: every agent is it, for its own endpoints."""

from __future__ import annotations

from ..model import Protocol, interface_address
from ..packets import (
    ETHERTYPE_IPV6,
    FRAGMENT_GROWTH,
    GROWTH,
    DhcpOffer,
    MalformedPacket,
    Packet,
    Unreachable,
    answer_dhcp,
    cut,
    echo_port,
    echo_reply,
    parse,
    parse_dhcp,
    parse_router_solicitation,
    read_datagram,
    router_advertisement,
    too_big,
)
from ..switch import NO_MAC, PORT_FIRST_ENDPOINT, ConnectionKey, Rewrite
from .connections import Attachment
from .explaining import Explainer
from .local import Local

DHCP_SERVER = 67
_LINK_LOCAL = b"\xfe\x80" + bytes(14)
_SMALLEST_PART = 28
"""Bytes of the smallest fragments that IPv4 knows: a header and eight bytes."""

_FITS_ANYWHERE = 1280 - FRAGMENT_GROWTH
"""Bytes of an IPv4 fragment that any link of IPv6 takes (RFC 8200 section 5). A later fragment does not tell its flow,
so nobody knows the limit."""


class Router:
    """Answers for the routers of the networks of one host's endpoints."""

    def __init__(self, local: Local, explainer: Explainer) -> None:
        """There is nothing to remember."""
        self._local = local
        self._explainer = explainer

    def is_for_us(self, near: Attachment, frame: bytes) -> bool:
        """Whether an endpoint's IP packet is sent to its router, and not to somebody beyond."""
        is_ipv6 = frame[12:14] == ETHERTYPE_IPV6
        router = self._local.router_of(near.endpoint, is_ipv6)
        if router is None:
            return False
        address, mac = router
        destination = frame[38:54] if is_ipv6 else frame[30:34]
        return destination == address or (is_ipv6 and destination == interface_address(_LINK_LOCAL, mac))

    def answer(self, near: Attachment, frame: bytes) -> None:
        """An endpoint has sent something to its router: a ping, a renewal of its lease, or what nobody answers."""
        local = self._local
        try:
            packet = parse(frame)
            protocol = packet.flow.protocol
            if protocol in (Protocol.ICMP, Protocol.ICMPV6):
                if _is_request(packet):
                    local.events["router pinged"] += 1
                    local.switch.send(near.port, echo_reply(frame))
            elif protocol == Protocol.UDP and packet.flow.l4_destination == DHCP_SERVER:
                self._answer_dhcp(near, frame)
            elif protocol == Protocol.UDP:
                self._explainer.unreachable(near, frame, Unreachable.PORT)
            elif protocol == Protocol.TCP:
                self._explainer.reset(near, frame)
        except MalformedPacket:
            local.events["malformed"] += 1

    def answer_local(self, near: Attachment, frame: bytes) -> None:
        """An endpoint asks whoever is there: for its address, or for its router."""
        try:
            if frame[12:14] == ETHERTYPE_IPV6:
                self._advertise(near, frame)
            else:
                self._answer_dhcp(near, frame)
        except MalformedPacket:
            self._local.events["malformed"] += 1

    def too_big(self, port: int, frame: bytes) -> None:
        """A packet of a connection is longer than its way allows: its sender is told, or, if it may, it is cut."""
        local = self._local
        try:
            datagram = read_datagram(frame)
            if datagram.is_later_fragment:
                self._cut(port, frame, 0 if datagram.dont_fragment else _FITS_ANYWHERE)
                return
            packet = parse(frame)
            is_endpoints = port >= PORT_FIRST_ENDPOINT
            key = ConnectionKey(port, packet.source_mac if is_endpoints else NO_MAC, packet.flow)
            held = local.connections.at(key)
            if held is None:
                local.events["too big for nothing"] += 1
                return
            action = next(entry.action for entry in held.entries if entry.key == key)
            assert isinstance(action, Rewrite)
            limit = action.max_length
            if not packet.dont_fragment:
                grows = len(action.flow.source) > len(key.flow.source)
                self._cut(port, frame, limit - (FRAGMENT_GROWTH - GROWTH) if grows else limit)
            elif not is_endpoints:
                # Its sender is the host before us: to that host we are a router of the way.
                local.switch.send(port, too_big(frame, limit, packet.flow.destination, packet.destination_mac))
            elif (near := local.by_port.get(port)) is not None:
                self._explainer.too_big(near, frame, limit)
        except MalformedPacket:
            local.events["malformed"] += 1

    def _cut(self, port: int, frame: bytes, limit: int) -> None:
        """Have the switch process a packet in parts of at most `limit` bytes, if it can be cut into such."""
        parts = cut(frame, limit) if limit >= _SMALLEST_PART else []
        if len(parts) < 2:
            self._local.events["too big to cut"] += 1
            return
        self._local.events["cut"] += 1
        for part in parts:
            self._local.switch.reinject(port, part)

    def _answer_dhcp(self, near: Attachment, frame: bytes) -> None:
        local, endpoint = self._local, near.endpoint
        message = parse_dhcp(frame)
        network, router = local.network_of(endpoint), local.router_of(endpoint, is_ipv6=False)
        address = endpoint.address_like(bytes(4))
        subnet = network.subnet_of(address) if network is not None and address is not None else None
        if network is None or router is None or address is None or subnet is None or message.mac != endpoint.mac:
            local.events["DHCP without an answer"] += 1
            return
        dns = tuple(each for each in network.dns if len(each) == 4)
        answer = answer_dhcp(message, DhcpOffer(address, subnet, router[1], dns, network.mtu))
        if answer is not None:
            local.events["DHCP answered"] += 1
            local.switch.send(near.port, answer)

    def _advertise(self, near: Attachment, frame: bytes) -> None:
        local, endpoint = self._local, near.endpoint
        question = parse_router_solicitation(frame)
        network, router = local.network_of(endpoint), local.router_of(endpoint, is_ipv6=True)
        address = endpoint.address_like(bytes(16))
        subnet = network.subnet_of(address) if network is not None and address is not None else None
        if network is None or router is None or address is None or subnet is None:
            return
        dns = tuple(each for each in network.dns if len(each) == 16)
        # It may make its address itself, if that is the one that its orchestrator has given it.
        autonomous = subnet.prefix_length == 64 and interface_address(subnet.prefix, endpoint.mac) == address
        local.events["routers advertised"] += 1
        advertisement = router_advertisement(question, router[1], subnet, dns, network.mtu, autonomous=autonomous)
        local.switch.send(near.port, advertisement)


def _is_request(packet: Packet) -> bool:
    return packet.flow.l4_destination == echo_port(packet.flow.l4_source)
