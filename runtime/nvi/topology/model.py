"""What a topology file describes. No I/O."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from msgspec import Struct

from ..model import Endpoint, External, Host, Service, Tenant
from ..packets import FRAGMENT_GROWTH

DEFAULT_IDLE_TIMEOUT = 30.0
DEFAULT_PUNT_RATE = 5000
DEFAULT_MTU = 1500

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network


class Site(Struct, frozen=True):
    """Hosts that reach each other directly."""

    name: str
    mtu: int = DEFAULT_MTU
    """Of the links that join the site's routers."""


class Uplink(Struct, frozen=True):
    """Where a gateway is attached to the outside world."""

    interface: IPInterface
    public: IPAddress
    """Its address as the outside sees it."""

    @property
    def translated(self) -> bool:
        """Whether it sits behind a 1:1 NAT."""
        return self.public != self.interface.ip


class TopologyHost(Struct, frozen=True):
    """A server of the farm and its place in the underlay."""

    name: str
    site: str
    underlay: tuple[IPInterface, ...]
    """Its addresses, the preferred one of each family first. Those of one family are in one subnet."""
    pool: tuple[IPNetwork, ...] = ()
    """Further addresses of its own, inside its subnets."""
    external: Uplink | None = None

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        """The pieces of the underlay that it is attached to, at most one of each family."""
        return tuple(dict.fromkeys(interface.network for interface in self.underlay))

    @property
    def pool_addresses(self) -> tuple[IPAddress, ...]:
        """The addresses of its pool, one by one."""
        return tuple(address for network in self.pool for address in network)

    @property
    def host(self) -> Host:
        """The host as other agents see it."""
        uplink = self.external
        return Host(
            self.name,
            self.site,
            tuple(interface.ip.packed for interface in self.underlay),
            tuple(address.packed for address in self.pool_addresses),
            None if uplink is None else External(uplink.interface.ip.packed, uplink.public.packed),
        )


class Topology(Struct, frozen=True):
    """A farm. Everything is by name, in the order of the file."""

    name: str
    sites: dict[str, Site]
    hosts: dict[str, TopologyHost]
    tenants: dict[str, Tenant]
    endpoints: dict[str, Endpoint]
    outside: dict[str, tuple[IPAddress, ...]] = {}
    """Hosts of the outside world, for tests."""
    services: tuple[Service, ...] = ()
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT
    """Seconds without a packet after which a connection leaves nothing behind."""
    punt_rate: int = DEFAULT_PUNT_RATE
    """Packets per second that one port of a switch may punt."""

    def endpoints_of(self, host: str) -> list[Endpoint]:
        """The endpoints that start on this host, in the order of the file."""
        return [endpoint for endpoint in self.endpoints.values() if endpoint.host == host]

    @property
    def uses_ipv6(self) -> bool:
        """Whether anything has an IPv6 address."""
        below = [interface for host in self.hosts.values() for interface in host.underlay]
        outside = [address for addresses in self.outside.values() for address in addresses]
        uplinks = [host.external.interface for host in self.hosts.values() if host.external is not None]
        above = [address for endpoint in self.endpoints.values() for address in endpoint.addresses]
        return any(each.version == 6 for each in (*below, *outside, *uplinks)) or any(len(each) == 16 for each in above)

    def mtu_of(self, tenant: str, network: str) -> int:
        """What the endpoints of a network may send, so that all of it fits an underlay of `DEFAULT_MTU`."""
        has_ipv4 = any(len(subnet.prefix) == 4 for subnet in self.tenants[tenant].networks[network].subnets)
        only_ipv6 = any(all(interface.version == 6 for interface in host.underlay) for host in self.hosts.values())
        return DEFAULT_MTU - (FRAGMENT_GROWTH if has_ipv4 and only_ipv6 else 0)
