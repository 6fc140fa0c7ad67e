"""What things are: endpoints, networks, hosts, flows, segments, connections. No I/O.

Addresses and MACs are `bytes` in network order (4 or 16 bytes, 6 bytes). That is how packets, P4Runtime and the
table keys hold them, so the path of a packet converts nothing. People see the usual notation: `show_address`,
`show_mac`.

The values are `msgspec.Struct`s: frozen and typed like dataclasses, quick to make and to hash (each new connection
makes dozens), and the same definitions are what travels between agents.
"""

from __future__ import annotations

import hashlib
import ipaddress
from enum import IntEnum
from functools import lru_cache
from typing import Literal

from msgspec import Struct

Address = bytes
"""An IPv4 or IPv6 address, packed."""

Mac = bytes
"""An Ethernet address, packed."""


class Protocol(IntEnum):
    """IP protocol numbers that have a key of their own (IANA protocol-numbers)."""

    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58


def is_portless(protocol: int) -> bool:
    """Whether flows of an IP protocol have nothing but their addresses to tell them apart by."""
    return protocol not in Protocol._value2member_map_


_OTHER_PROTOCOLS = {4: "ipip", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 132: "sctp"}


def show_protocol(protocol: int) -> str:
    """`tcp`; the number, if people know it by no name."""
    if protocol in Protocol._value2member_map_:
        return Protocol(protocol).name.lower()
    return _OTHER_PROTOCOLS.get(protocol, str(protocol))


def read_protocol(text: str) -> int:
    """The opposite of `show_protocol`. Raises ValueError with a sentence fit for users."""
    names = {protocol.name.lower(): int(protocol) for protocol in Protocol}
    names |= {name: number for number, name in _OTHER_PROTOCOLS.items()}
    number = names.get(text.lower(), int(text) if text.isascii() and text.isdigit() else -1)
    if not 0 <= number <= 255:
        raise ValueError(f"{text!r} is not a protocol: use a number up to 255, or one of {', '.join(names)}")
    return number


def show_address(address: Address) -> str:
    """`10.0.0.1` or `fd00::1`."""
    return str(ipaddress.ip_address(address))


def read_address(text: str) -> Address:
    """The opposite of `show_address`. Raises ValueError with a sentence fit for users."""
    return ipaddress.ip_address(text).packed


def show_mac(mac: Mac) -> str:
    """`02:00:00:00:00:01`."""
    return mac.hex(":")


def read_mac(text: str) -> Mac:
    """The opposite of `show_mac`. Raises ValueError."""
    mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if len(mac) != 6:
        raise ValueError(f"{text!r} is not a MAC address: it must have six bytes")
    return mac


@lru_cache(4096)
def derive_mac(*identity: str) -> Mac:
    """A locally administered unicast MAC that follows from a name, the same on every host and after every restart."""
    return b"\x02" + hashlib.blake2s("/".join(identity).encode(), digest_size=5).digest()


def interface_address(prefix: Address, mac: Mac) -> Address:
    """The IPv6 address that an interface makes of its MAC under a prefix of 64 bits (RFC 4291, appendix A)."""
    return prefix[:8] + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]


class Subnet(Struct, frozen=True):
    """The addresses of one family in a network."""

    prefix: Address
    """First address of its CIDR."""
    prefix_length: int
    gateway: Address
    """The router's address. No machine has it: switches answer for it."""

    def holds(self, address: Address) -> bool:
        """Whether the address lies in the CIDR."""
        if len(address) != len(self.prefix):
            return False
        shift = 8 * len(address) - self.prefix_length
        return int.from_bytes(address, "big") >> shift == int.from_bytes(self.prefix, "big") >> shift

    @property
    def cidr(self) -> str:
        """`10.0.1.0/24`."""
        return f"{show_address(self.prefix)}/{self.prefix_length}"


class Network(Struct, frozen=True):
    """An L2 segment of a tenant."""

    name: str
    subnets: tuple[Subnet, ...]
    """One for each family that it has, IPv4 first."""
    internet: bool = False
    """Whether its endpoints may open connections to the Internet."""
    dns: tuple[Address, ...] = ()
    """Resolvers that its endpoints are told of by DHCP and router advertisements."""
    mtu: int = 1500
    """Bytes of an IP packet that its endpoints may send at a time, as they are told by the same."""

    def subnet_of(self, address: Address) -> Subnet | None:
        """The subnet in whose CIDR the address lies; None if it is none of the network's."""
        for subnet in self.subnets:
            if subnet.holds(address):
                return subnet
        return None

    def gateway_for(self, address: Address) -> Address | None:
        """The router's address of the family that `address` is of; None if the network does not have that family."""
        for subnet in self.subnets:
            if len(subnet.gateway) == len(address):
                return subnet.gateway
        return None


class Rule(Struct, frozen=True):
    """A rule of a tenant's policy: whether what `initiator` means may connect to what `responder` means."""

    initiator: str
    """Name of an endpoint, a network or a group of the tenant."""
    responder: str
    allow: bool
    protocol: int | None = None
    """Any if None."""
    ports: tuple[int, ...] = ()
    """The responder's, of TCP or UDP; any if empty."""


def pair_of(one: str, other: str) -> str:
    """The name of the unordered pair of two endpoints: both of theirs, in order."""
    return " ".join(sorted((one, other)))


class Tenant(Struct, frozen=True):
    """Who owns endpoints, with its policy. Nothing of one tenant is known to another."""

    name: str
    networks: dict[str, Network] = {}
    groups: dict[str, tuple[str, ...]] = {}
    """Members (networks and endpoints, by name) of a group may talk to each other."""
    rules: tuple[Rule, ...] = ()
    """The first that matches decides."""
    pairs: dict[str, bool] = {}
    """Endpoints that are connected (True) or disconnected (False) whatever else holds, by `pair_of` their names."""

    def holds(self, address: Address) -> bool:
        """Whether the address lies in one of its networks; all others are outside."""
        return any(network.subnet_of(address) for network in self.networks.values())

    def gateway_mac(self, network: str) -> Mac:
        """The MAC by which endpoints of the network know its router, the same on every host."""
        return derive_mac("gateway", self.name, network)


class Endpoint(Struct, frozen=True, gc=False):
    """An overlay interface of a workload."""

    name: str
    tenant: str
    network: str
    mac: Mac
    addresses: tuple[Address, ...]
    """At least one, at most one of each family, IPv4 first."""
    host: str
    """Where it is now."""

    @classmethod
    def outside(cls, tenant: str, address: Address, gateway: str) -> Endpoint:
        """Somebody outside of a tenant's networks, as its connections see them: at the external side of a gateway."""
        return cls(show_address(address), tenant, "", bytes(6), (address,), gateway)

    @property
    def is_outside(self) -> bool:
        """Whether it is none of the tenant's."""
        return not self.network

    @property
    def address(self) -> Address:
        """The first of its addresses."""
        return self.addresses[0]

    def address_like(self, other: Address) -> Address | None:
        """Its address of the family that `other` is of; None if it has none."""
        return next((address for address in self.addresses if len(address) == len(other)), None)


class External(Struct, frozen=True):
    """The external side of a gateway."""

    address: Address
    """Its own, on the wire `external0`."""
    public: Address
    """The same address as the outside sees it: another one behind a 1:1 NAT."""


class Contact(Struct, frozen=True):
    """How the agent of a host is reached beside NATS."""

    port: int
    """TCP, at the addresses of the host."""
    certificate: bytes
    """That it shows (X.509, DER)."""


class Host(Struct, frozen=True):
    """A server: what other agents may know about it."""

    name: str
    site: str
    addresses: tuple[Address, ...]
    """Its underlay addresses, the preferred one of each family first."""
    pool: tuple[Address, ...] = ()
    """Further underlay addresses of its own, which stand for flows of protocols without ports."""
    external: External | None = None
    """Where it reaches other sites and the Internet; a host that has it is a gateway of its site."""
    contact: Contact | None = None
    """None if its agent is not reached but over NATS."""


class Service(Struct, frozen=True):
    """A published service: what comes to (protocol, port) of a gateway's public address goes to an endpoint's port."""

    tenant: str
    endpoint: Address
    port: int
    """The endpoint's."""
    protocol: int
    via: str
    """Name of the gateway."""
    external_port: int


class Flow(Struct, frozen=True, gc=False):
    """The 5-tuple of packets in one direction on one segment.

    The ports of an ICMP echo are stand-ins: request (identifier, 0x0800), reply the reverse (`packets.echo_port`).
    """

    source: Address
    destination: Address
    protocol: int
    l4_source: int
    l4_destination: int

    def reversed(self) -> Flow:
        """The flow of the packets in the other direction."""
        return Flow(self.destination, self.source, self.protocol, self.l4_destination, self.l4_source)


class End(Struct, frozen=True, gc=False, order=True):
    """One end of a connection in the overlay."""

    address: Address
    port: int


class ConnectionId(Struct, frozen=True, gc=False):
    """The identity of a connection: whoever opened it, and however it is routed, it is the same connection."""

    tenant: str
    protocol: int
    low: End
    high: End

    @classmethod
    def of(cls, tenant: str, flow: Flow) -> ConnectionId:
        """The connection to which packets of this overlay flow belong, in either direction."""
        source = End(flow.source, flow.l4_source)
        destination = End(flow.destination, flow.l4_destination)
        low, high = (source, destination) if source < destination else (destination, source)
        return cls(tenant, flow.protocol, low, high)

    def flow_from(self, end: End) -> Flow:
        """The flow of the packets that `end` sends."""
        other = self.other(end)
        return Flow(end.address, other.address, self.protocol, end.port, other.port)

    def other(self, end: End) -> End:
        """The end that is not `end`."""
        return self.high if end == self.low else self.low

    def short(self) -> str:
        """Twelve hexadecimal digits that name the connection to people."""
        identity = (
            f"{self.tenant}/{self.protocol}/{self.low.address!r}/{self.low.port}/{self.high.address!r}/{self.high.port}"
        )
        return hashlib.blake2s(identity.encode(), digest_size=6).hexdigest()


class FirstPacket(Struct, frozen=True, gc=False):
    """What the first packet of a connection carried, and the last segment gives back to all."""

    ttl: int
    """TTL or hop limit."""
    flow_label: int = 0
    """Of IPv6 packets that have to be made of IPv4 ones."""
    dont_fragment: bool = True
    """Of IPv4 packets that have to be made of IPv6 ones."""


class SegmentEnd(Struct, frozen=True, gc=False):
    """One end of a segment between two hosts."""

    host: str
    site: str
    address: Address
    """Its own."""
    seen_address: Address
    """Its address as the peer sees it: another one behind a 1:1 NAT."""
    port: int
    """The key."""


class Segment(Struct, frozen=True):
    """A stretch of the underlay between two hosts of a route, from the initiator's side to the responder's."""

    initiator: SegmentEnd
    responder: SegmentEnd


Role = Literal["initiator", "responder"]
