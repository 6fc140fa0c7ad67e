"""Endpoints that are added while the farm runs: are they right, and where is room for them? No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from msgspec import Struct

from ..model import Address, Endpoint, Network, Tenant, derive_mac, show_address, show_mac
from ..suggest import suggest
from ..topology import TopologyHost
from ..topology.addresses import overlay_address, unicast_mac
from ..topology.record import NAME_RULE, name_works


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for by `nvi endpoint add`."""

    tenant: str
    network: str
    host: str
    address: str | None = None
    address6: str | None = None
    mac: str | None = None


class Destination(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for by `nvi move`."""

    host: str


class Misuse(ValueError):
    """A request that makes no sense. The text says what, where, and what to do."""


class Conflict(ValueError):
    """A request that contradicts what is there."""


def place(
    name: str, request: Request, tenants: dict[str, Tenant], hosts: Iterable[str], existing: Iterable[Endpoint]
) -> Endpoint:
    """The endpoint that a request describes. Raises Misuse or Conflict."""
    what = f"endpoint {name!r}"
    hosts = list(hosts)
    if not name_works(name):
        raise Misuse(f"the name {name!r} would not work; {NAME_RULE}")
    if request.host not in hosts:
        raise Misuse(f"{what}: unknown host {request.host!r}; {suggest(request.host, hosts, noun='host')}")
    tenant = tenants.get(request.tenant)
    if tenant is None:
        raise Misuse(f"{what}: unknown tenant {request.tenant!r}; {suggest(request.tenant, tenants, noun='tenant')}")
    network = tenant.networks.get(request.network)
    if network is None:
        remedy = suggest(request.network, tenant.networks, noun="network")
        raise Misuse(f"{what}: tenant {tenant.name!r} has no network {request.network!r}; {remedy}")
    where = f"the network {tenant.name}/{network.name} is {' and '.join(subnet.cidr for subnet in network.subnets)}"
    try:
        addresses = tuple(_addresses(request, network))
        mac = unicast_mac(request.mac) if request.mac else derive_mac("endpoint", tenant.name, name)
    except ValueError as error:
        raise Misuse(f"{what}: {error}; {where}") from None
    if not addresses:
        raise Misuse(f"{what}: it has no address; give it one with --ip or --ip6: {where}")
    for address in addresses:
        if address == network.gateway_for(address):
            of = f"{show_address(address)} is the gateway of {tenant.name}/{network.name}"
            raise Misuse(f"{what}: {of}; use another address")
    if mac == tenant.gateway_mac(network.name):
        raise Misuse(f"{what}: {show_mac(mac)} is the MAC of its gateway; use another MAC, or none")
    endpoint = Endpoint(name, tenant.name, network.name, mac, addresses, request.host)
    if name in hosts:
        raise Conflict(f"there is a host {name!r} already; use another name: commands take either")
    for other in existing:
        _check_against(endpoint, other)
    return endpoint


def _addresses(request: Request, network: Network) -> Iterator[Address]:
    """IPv4 first. Raises ValueError with a sentence."""
    for text, option, length in ((request.address, "--ip", 4), (request.address6, "--ip6", 16)):
        if text is None:
            continue
        subnets = tuple(subnet for subnet in network.subnets if len(subnet.prefix) == length)
        if not subnets:
            raise ValueError(f"{option}: the network has no IPv{4 if length == 4 else 6}")
        yield overlay_address(text, subnets).packed


def _check_against(endpoint: Endpoint, other: Endpoint) -> None:
    what = f"endpoint {endpoint.name!r}"
    if other.name == endpoint.name:
        remedy = f"use another name, or remove that one with 'nvi endpoint remove {other.name}'"
        raise Conflict(f"there is an endpoint {other.name!r} already; {remedy}")
    if other.tenant != endpoint.tenant:
        return
    for shared in set(other.addresses) & set(endpoint.addresses):
        address = show_address(shared)
        raise Conflict(f"{what}: {address} is the address of endpoint {other.name!r}; use another address")
    if other.network == endpoint.network and other.mac == endpoint.mac:
        raise Conflict(
            f"{what}: {show_mac(endpoint.mac)} is the MAC of endpoint {other.name!r}; use another MAC, or none"
        )


def refuge(
    host: str,
    hosts: Mapping[str, TopologyHost],
    spares: Mapping[str, Collection[int]],
    endpoints: Iterable[Endpoint],
) -> str | None:
    """Where an endpoint goes that has to leave its host: its site if possible, where the fewest are; None if all are
    full. `spares`: the free ports of each host."""
    load = Counter(endpoint.host for endpoint in endpoints)
    free = [other for name, other in hosts.items() if name != host and spares[name]]
    best = min(free, key=lambda other: (other.site != hosts[host].site, load[other.name]), default=None)
    return None if best is None else best.name
