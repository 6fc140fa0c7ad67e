"""A small farm of three sites for tests: equal underlay addresses, gateways (one behind 1:1 NAT), scapy's packets."""

from __future__ import annotations

from scapy.layers.l2 import Ether
from scapy.packet import Packet

from nvi.model import Endpoint, External, Host, Network, Subnet, Tenant, derive_mac, read_address, show_mac
from nvi.simulation import Farm

WEB = Network("web", (Subnet(read_address("10.0.1.0"), 24, read_address("10.0.1.254")),))
DB = Network("db", (Subnet(read_address("10.0.2.0"), 24, read_address("10.0.2.254")),))
TENANTS = {
    "acme": Tenant("acme", {"web": WEB, "db": DB}, {"all": ("web", "db")}),
    "globex": Tenant("globex", {"web": WEB}),
}


def outside(address: str, public: str | None = None) -> External:
    return External(read_address(address), read_address(public or address))


def host(name: str, site: str, address: str, external: External | None = None) -> Host:
    return Host(name, site, (read_address(address),), external=external)


HOSTS = [
    host("e1", "east", "172.16.1.1"),
    host("e2", "east", "172.16.2.1"),
    host("e8", "east", "172.16.1.8", outside("198.51.100.8")),
    host("e9", "east", "172.16.1.9", outside("198.51.100.9")),
    host("w1", "west", "172.16.1.1"),
    host("w2", "west", "172.16.2.1"),
    host("w9", "west", "172.16.1.9", outside("10.99.0.2", "198.51.100.2")),
    host("s9", "south", "172.16.1.9", outside("198.51.100.3")),
]

ENDPOINTS = {
    name: (Endpoint(name, tenant, net, derive_mac("endpoint", tenant, name), (read_address(address),), where), port)
    for name, tenant, net, address, where, port in (
        ("acme-east", "acme", "web", "10.0.1.1", "e1", 16),
        ("acme-west", "acme", "web", "10.0.1.2", "w1", 16),
        ("acme-south", "acme", "web", "10.0.1.3", "s9", 16),
        ("acme-gate", "acme", "web", "10.0.1.4", "e9", 16),
        ("acme-db", "acme", "db", "10.0.2.1", "w2", 16),
        ("globex-east", "globex", "web", "10.0.1.1", "e1", 17),
        ("globex-west", "globex", "web", "10.0.1.2", "w1", 17),
    )
}


async def start(**options: object) -> Farm:
    """The farm, ready."""
    farm = Farm(**options)  # type: ignore[arg-type]
    await farm.start(TENANTS.values(), HOSTS)
    for endpoint, port in ENDPOINTS.values():
        await farm.add_endpoint(endpoint, port)
    return farm


def frame(sender: str, receiver: str, packet: Packet) -> bytes:
    """The Ethernet frame in which `sender` sends an IP packet to `receiver`: directly, or by way of its gateway."""
    one, other = ENDPOINTS[sender][0], ENDPOINTS[receiver][0]
    mac = other.mac if one.network == other.network else TENANTS[one.tenant].gateway_mac(one.network)
    return bytes(Ether(src=show_mac(one.mac), dst=show_mac(mac)) / packet)


def ip(name: str) -> str:
    """The address of an endpoint, as scapy wants it."""
    return ".".join(map(str, ENDPOINTS[name][0].address))
