"""The farms, and who talks to whom in them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

from nvi.model import (
    Address,
    Endpoint,
    External,
    Host,
    Network,
    Protocol,
    Service,
    Subnet,
    Tenant,
    derive_mac,
    read_address,
)
from nvi.packets import FRAGMENT_GROWTH
from nvi.simulation import Farm
from nvi.switch import PORT_EXTERNAL, PORT_EXTERNAL_STACK, PORT_HOST_STACK, PORT_UNDERLAY
from nvi.topology.model import DEFAULT_MTU

Family = Literal[4, 6]
OUTSIDE = "outside"
SERVICE_PORT, EXTERNAL_PORT = 80, 8080
PATIENCE = 10.0
"""Seconds until something must be there that will come."""


@dataclass(frozen=True)
class Families:
    """What is carried over what."""

    over: Family
    under: Family

    @property
    def mtu(self) -> int:
        """Such that fragments need not be cut again where they become IPv6."""
        return DEFAULT_MTU - (FRAGMENT_GROWTH if (self.over, self.under) == (4, 6) else 0)

    def __str__(self) -> str:
        return f"IPv{self.over} on an underlay of IPv{self.under}"


FAMILIES = [Families(over, under) for over, under in product((4, 6), (4, 6))]


@dataclass(frozen=True)
class Way:
    """Who opens a connection to whom."""

    name: str
    source: str
    """An endpoint, or OUTSIDE."""
    destination: str
    published_at: str | None = None
    """The gateway whose public address the source uses instead of the destination's."""

    def routers(self, receiver: str) -> int:
        """How many show to an endpoint: none in its network, and to whom a hairpin leads one on the way out and one
        back in. To its initiator arrives what its first packet carried, as on every way, less its own router.
        """
        if not self.external:
            return 0
        return 2 if OUTSIDE not in (self.source, self.destination) and receiver == self.destination else 1

    @property
    def crosses_the_underlay(self) -> bool:
        """Whether a segment of it is between hosts of one site or of several."""
        return self.name not in ("same host", "Internet, from the gateway itself")

    @property
    def external(self) -> bool:
        """Whether a part of it is an external segment, which is always of the family of what it carries."""
        return OUTSIDE in (self.source, self.destination) or self.published_at is not None


WAYS = [
    Way("same host", "north-1", "north-1b"),
    Way("same site", "north-1", "north-2"),
    Way("other site, no gateway between", "south-9", "east-9"),
    Way("other site, one gateway", "north-1", "south-9"),
    Way("other site, two gateways", "north-1", "west-1"),
    Way("Internet, from the gateway itself", "south-9", OUTSIDE),
    Way("Internet, by way of the site's gateway", "north-1", OUTSIDE),
    Way("published service, in its gateway's site", OUTSIDE, "north-2", "n9"),
    Way("published service, in another site", OUTSIDE, "west-1", "n9"),
    Way("hairpin, to a service of its own site", "north-1", "north-2", "n9"),
]

# Host, site, number of its underlay address, external address by family, public one if a 1:1 NAT lies between.
_HOSTS = (
    ("n1", "north", 1, None, None),
    ("n2", "north", 2, None, None),
    ("n9", "north", 9, {4: "198.51.100.1", 6: "2001:db8:1::1"}, None),
    ("w1", "west", 1, None, None),
    ("w9", "west", 9, {4: "10.99.0.2", 6: "2001:db8:1::2"}, {4: "198.51.100.2", 6: "2001:db8:1::2"}),
    ("s9", "south", 9, {4: "198.51.100.3", 6: "2001:db8:1::3"}, None),
    ("e9", "east", 9, {4: "198.51.100.4", 6: "2001:db8:1::4"}, None),
)
_ENDPOINTS = (
    ("north-1", 1, "n1", 16),
    ("north-1b", 2, "n1", 17),
    ("north-2", 3, "n2", 16),
    ("west-1", 4, "w1", 16),
    ("south-9", 5, "s9", 16),
    ("east-9", 6, "e9", 16),
)
_OVERLAY = {4: ("10.0.1.0", 24, "10.0.1.254", "10.0.1.{}"), 6: ("fd00:1::", 64, "fd00:1::fe", "fd00:1::{}")}
_UNDERLAY = {4: "172.16.1.{}", 6: "fd00:aa::{}"}
OUTSIDE_ADDRESS: dict[int, Address] = {4: read_address("203.0.113.7"), 6: read_address("2001:db8:f::7")}


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait for something that will be so. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def network(over: Family) -> Network:
    """The one network of the one tenant."""
    prefix, length, gateway, _ = _OVERLAY[over]
    return Network("net", (Subnet(read_address(prefix), length, read_address(gateway)),), internet=True)


def tenant(over: Family) -> Tenant:
    """Whose endpoints talk."""
    return Tenant("red", {"net": network(over)})


def endpoints(over: Family) -> dict[str, tuple[Endpoint, int]]:
    """By name, with their ports."""
    pattern = _OVERLAY[over][3]
    return {
        name: (
            Endpoint(
                name, "red", "net", derive_mac("endpoint", "red", name), (read_address(pattern.format(number)),), host
            ),
            port,
        )
        for name, number, host, port in _ENDPOINTS
    }


def hosts(under: Family, external: Family) -> dict[str, Host]:
    """By name. Sites use the same addresses."""
    result = {}
    for name, site, number, own, public in _HOSTS:
        side = None
        if own is not None:
            side = External(read_address(own[external]), read_address((public or own)[external]))
        pool = tuple(read_address(_UNDERLAY[under].format(number * 10 + i)) for i in range(2))
        result[name] = Host(name, site, (read_address(_UNDERLAY[under].format(number)),), pool, side)
    return result


def service(way: Way, families: Families, protocol: int) -> Service:
    """What is to be published, on a way that leads to it."""
    assert way.published_at is not None, "there is nothing published on this way"
    served = endpoints(families.over)[way.destination][0]
    return Service("red", served.address, SERVICE_PORT, protocol, way.published_at, EXTERNAL_PORT)


def ports() -> dict[str, list[int]]:
    """Those of each host's switch."""
    return {
        host: [
            *(PORT_UNDERLAY, PORT_HOST_STACK),
            *((PORT_EXTERNAL, PORT_EXTERNAL_STACK) if side is not None else ()),
            *(port for _, _, at, port in _ENDPOINTS if at == host),
        ]
        for host, _, _, side, _ in _HOSTS
    }


async def build(farm: Farm, way: Way, families: Families) -> None:
    """Make an empty farm that for one way."""
    external = families.over if way.external else families.under
    await farm.start([tenant(families.over)], hosts(families.under, external).values())
    for endpoint, port in endpoints(families.over).values():
        await farm.add_endpoint(endpoint, port)
    if way.published_at is not None:
        for protocol in (Protocol.TCP, Protocol.UDP):
            await farm.hosts[way.published_at].agent.publish_service(service(way, families, protocol))
        switch = farm.hosts[way.published_at].switch

        async def serves() -> bool:
            return len(await switch.read_services()) == 2

        await until(serves, PATIENCE)
    await farm.settle()
