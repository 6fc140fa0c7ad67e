"""A small farm for tests: two tenants with the same addresses on three hosts, and scapy's packets."""

from __future__ import annotations

from scapy.layers.l2 import Ether
from scapy.packet import Packet

from nvi.model import Endpoint, Host, Network, Subnet, Tenant, derive_mac, read_address, show_mac
from nvi.simulation import Farm

GATEWAYS = {"web": "10.0.1.254", "db": "10.0.2.254", "lab": "10.0.3.254"}


def network(name: str) -> Network:
    gateway = read_address(GATEWAYS[name])
    return Network(name, (Subnet(gateway[:3] + b"\0", 24, gateway),))


ACME = Tenant("acme", {name: network(name) for name in GATEWAYS}, {"backend": ("web", "db")})
GLOBEX = Tenant("globex", {"web": network("web")})
TENANTS = {tenant.name: tenant for tenant in (ACME, GLOBEX)}
HOSTS = [Host(f"h{n}", "here", (bytes([172, 16, n, 1]),)) for n in (1, 2, 3)]

ENDPOINTS = {
    name: (Endpoint(name, tenant, net, derive_mac("endpoint", tenant, name), (read_address(address),), host), port)
    for name, tenant, net, address, host, port in (
        ("acme-web1", "acme", "web", "10.0.1.1", "h1", 16),
        ("acme-web2", "acme", "web", "10.0.1.2", "h2", 16),
        ("acme-web3", "acme", "web", "10.0.1.3", "h1", 17),
        ("acme-db1", "acme", "db", "10.0.2.1", "h3", 16),
        ("acme-lab1", "acme", "lab", "10.0.3.1", "h3", 17),
        ("globex-web1", "globex", "web", "10.0.1.1", "h1", 18),
        ("globex-web2", "globex", "web", "10.0.1.2", "h2", 17),
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
    same = one.network == other.network and one.tenant == other.tenant
    mac = other.mac if same else TENANTS[one.tenant].gateway_mac(one.network)
    return bytes(Ether(src=show_mac(one.mac), dst=show_mac(mac)) / packet)


def ip(name: str) -> str:
    """The address of an endpoint, as scapy wants it."""
    return ".".join(map(str, ENDPOINTS[name][0].address))
