"""Who talks to whom in all benchmarks. No I/O."""

from __future__ import annotations

from ..model import Endpoint, Host, Network, Subnet, Tenant, derive_mac, read_address

NETWORK = Network("web", (Subnet(read_address("10.0.1.0"), 24, read_address("10.0.1.254")),))
TENANT = Tenant("acme", {NETWORK.name: NETWORK})


def host(number: int) -> Host:
    """The hosts of all benchmarks."""
    return Host(f"host{number}", "here", (bytes([172, 16, number, 1]),))


def endpoint(number: int, where: Host) -> Endpoint:
    """The endpoints of all benchmarks."""
    name = f"endpoint{number}"
    return Endpoint(name, TENANT.name, NETWORK.name, derive_mac(name), (bytes([10, 0, 1, number]),), where.name)


CLIENT, SERVER = (endpoint(number, host(1)) for number in (1, 2))
