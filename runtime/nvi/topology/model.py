"""What a topology file describes. No I/O."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

from msgspec import Struct

from ..model import Endpoint, Host, Tenant

DEFAULT_IDLE_TIMEOUT = 30.0


class TopologyHost(Struct, frozen=True):
    """A server of the farm and its place in the underlay."""

    name: str
    site: str
    underlay: tuple[IPv4Interface, ...]
    """Its addresses, the preferred one first. All are in one subnet."""

    @property
    def subnet(self) -> IPv4Network:
        """The piece of the underlay that it is attached to."""
        return self.underlay[0].network

    @property
    def host(self) -> Host:
        """The host as other agents see it."""
        return Host(self.name, self.site, tuple(interface.ip.packed for interface in self.underlay))


class Topology(Struct, frozen=True):
    """A farm. Everything is by name, in the order of the file."""

    name: str
    sites: tuple[str, ...]
    hosts: dict[str, TopologyHost]
    tenants: dict[str, Tenant]
    endpoints: dict[str, Endpoint]
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT
    """Seconds without a packet after which a connection leaves nothing behind."""

    def endpoints_of(self, host: str) -> list[Endpoint]:
        """The endpoints that start on this host, in the order of the file."""
        return [endpoint for endpoint in self.endpoints.values() if endpoint.host == host]
