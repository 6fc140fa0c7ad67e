"""Which hosts the packets of a connection pass, and on which wire two of them meet. No I/O.

A route leads from the host of one endpoint to that of the other: directly within a site, else through a gateway of
each site. A host that is a gateway itself is its own, and drops out as a separate hop. Nobody knows a whole route: each
agent on it knows its neighbours, and whoever joins a connection checks that the one who asks can be its neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s

from .model import Address, ConnectionId, Host, SegmentEnd
from .switch import PORT_EXTERNAL, PORT_UNDERLAY

WIRES = (PORT_UNDERLAY, PORT_EXTERNAL)
"""The ports at which other hosts are."""


class NoWay(Exception):
    """Two hosts cannot reach each other. The text says why, and what would help."""


def gateways_needed(here: Host, target: Host) -> str | None:
    """The site one of whose gateways is the next host from `here` towards `target`; None if `target` itself is."""
    if here.site == target.site or (here.external is not None and target.external is not None):
        return None
    return here.site if here.external is None else target.site


def choose_gateway(here: Host, site: str, gateways: Iterable[Host], connection: ConnectionId) -> Host:
    """The gateway of `site` through which this connection goes, seen from `here`. Raises NoWay if there is none.

    By rendezvous hashing (Thaler and Ravishankar, 1998): whoever asks gets the same one, each gets its share, and the
    loss of one moves only its own connections.
    """
    if here.site == site:
        usable = list(gateways)
    else:
        ours = here.external.public if here.external is not None else b""
        usable = [each for each in gateways if each.external and len(each.external.public) == len(ours)]
    if not usable:
        family = "" if here.site == site else f" that host {here.name} can reach"
        raise NoWay(f"site {site} has no live gateway{family}; give one of its hosts an external address")
    low, high = connection.low, connection.high
    identity = (
        f"{connection.tenant}/{connection.protocol}/{low.address.hex()}/{low.port}/{high.address.hex()}/{high.port}"
    )
    return max(usable, key=lambda each: _weight(identity, each))


def choose_exit(gateways: Iterable[Host], tenant: str, address: Address, like: Address) -> Host | None:
    """The gateway by which an endpoint leaves for the outside, the same one whoever asks; None if there is none.

    `like`: an address of the family that it must have outside.
    """
    usable = [each for each in gateways if each.external and len(each.external.address) == len(like)]
    identity = f"{tenant}/{address.hex()}"
    return max(usable, key=lambda each: _weight(identity, each), default=None)


def _weight(identity: str, gateway: Host) -> bytes:
    return blake2s(f"{identity}/{gateway.name}".encode(), digest_size=8).digest()


def meet(here: Host, peer: Host, like: Address) -> tuple[int, Address]:
    """On which wire `here` reaches its neighbour `peer`, and by which address. Raises NoWay.

    The family is that of `like` if both have it, else one that they share.
    """
    if here.site == peer.site:
        size, families = len(like), {len(address) for address in here.addresses}
        shared = [address for address in peer.addresses if len(address) in families]
        if not shared:
            raise NoWay(f"hosts {here.name} and {peer.name} have no underlay addresses of the same family")
        return PORT_UNDERLAY, next((address for address in shared if len(address) == size), shared[0])
    if here.external is None or peer.external is None:
        raise NoWay(f"hosts {here.name} and {peer.name} are not of one site, and not both gateways")
    if len(here.external.address) != len(peer.external.public):
        raise NoWay(f"gateways {here.name} and {peer.name} have no external addresses of the same family")
    return PORT_EXTERNAL, peer.external.public


def own_end(here: Host, wire: int, address: Address, key: int) -> SegmentEnd:
    """Our end of a segment. `address`: our own that leads to the peer on the underlay; outside there is but one."""
    if wire == PORT_EXTERNAL and here.external is not None:
        return SegmentEnd(here.name, here.site, here.external.address, here.external.public, key)
    return SegmentEnd(here.name, here.site, address, address, key)


def addresses_on(host: Host, wire: int, like: Address) -> list[Address]:
    """The addresses that a host can lend to flows of protocols without ports, as its neighbours see them."""
    if wire == PORT_EXTERNAL:
        return [host.external.public] if host.external is not None else []
    return [address for address in (*host.addresses, *host.pool) if len(address) == len(like)]


def is_end_of(end: SegmentEnd, host: Host, wire: int) -> bool:
    """Whether a segment's end can be that host's, by what the directory says of it."""
    if (end.host, end.site) != (host.name, host.site):
        return False
    if wire == PORT_UNDERLAY:
        return end.address in (*host.addresses, *host.pool) and end.seen_address == end.address
    external = host.external
    return external is not None and (end.address, end.seen_address) == (external.address, external.public)


def may_offer(sender: Host, here: Host, origin: Host, target: Host) -> bool:
    """Whether `sender` can come before `here` on a route from `origin` to `target`, the hosts of two endpoints."""
    from_origin = sender.name == origin.name
    if origin.site == target.site:
        return from_origin and here.name == target.name
    if sender.site != here.site:
        # Between two gateways, each of the right site.
        if sender.external is None or here.external is None:
            return False
        return (sender.site, here.site) == (origin.site, target.site) and (from_origin or origin.external is None)
    if here.site == target.site:
        return here.name == target.name and sender.external is not None
    return here.site == origin.site and here.external is not None and from_origin
