"""What must hold between the things of a topology, once each of them has been read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_network

from ..model import Protocol, show_address, show_mac
from ..switch import PORT_CPU, PORT_FIRST_ENDPOINT
from .model import IPAddress, IPNetwork, Topology
from .problems import Report
from .underlay import UplinkNode, cut_off, isolated, router_address, unreachable_gateways, uplink_node

SPARE_PORTS = 8
"""Ports that every host keeps for endpoints that are added while the farm runs."""
MAX_ENDPOINTS = PORT_CPU - PORT_FIRST_ENDPOINT - SPARE_PORTS


def check(topology: Topology, lines: dict[str, int], report: Report) -> None:
    """Report what contradicts something else. `lines` as in `Reader`."""
    _check_underlay(topology, lines, report)
    _check_outside(topology, lines, report)
    _check_networks(topology, lines, report)
    _check_endpoints(topology, lines, report)
    _check_services(topology, lines, report)


def _check_underlay(topology: Topology, lines: dict[str, int], report: Report) -> None:
    owners: dict[tuple[str, IPAddress], str] = {}
    subnets: dict[tuple[str, IPNetwork], str] = {}
    for host in topology.hosts.values():
        line = lines[host.name]
        own = [interface.ip for interface in host.underlay]
        for address in own:
            owner = owners.setdefault((host.site, address), host.name)
            if owner != host.name:
                what = f"host {host.name!r}: {address} is the address of host {owner!r} (line {lines[owner]})"
                report.add(line, what, "give each host of a site addresses of its own")
        for subnet in host.subnets:
            if subnets.setdefault((host.site, subnet), host.name) != host.name:
                continue  # what is wrong with this subnet has been said
            for (site, other_subnet), other in subnets.items():
                if site == host.site and subnet != other_subnet and _overlap(subnet, other_subnet):
                    what = (
                        f"host {host.name!r}: underlay subnet {subnet} overlaps with {other_subnet} of host {other!r}"
                    )
                    report.add(line, f"{what} (line {lines[other]})", "give hosts of one subnet the same prefix length")
    for host in topology.hosts.values():
        routers = {router_address(subnet) for subnet in host.subnets}
        own = [interface.ip for interface in host.underlay]
        for address in host.pool_addresses:
            owner = owners.setdefault((host.site, address), host.name)
            if owner != host.name or address in routers or address in own:
                whose = "its subnet's router" if address in routers else f"host {owner!r} (line {lines[owner]})"
                what = f"host {host.name!r}: {address} of its pool is the address of {whose}"
                report.add(lines[host.name], what, "give the pool addresses that nobody else has")
                break
    for name in isolated(host for host in topology.hosts.values() if host.site):
        host = topology.hosts[name]
        what = f"host {name!r} cannot reach its site {host.site!r}"
        _cannot_reach(report, lines[name], what, host.subnets, [interface.ip for interface in host.underlay])


def _cannot_reach(report: Report, line: int, what: str, subnets: tuple[IPNetwork, ...], own: list[IPAddress]) -> None:
    """Say why somebody has no router, and what to do."""
    subnet = cut_off(subnets, own)
    assert subnet is not None, "whoever has all its routers reaches them"
    router = router_address(subnet)
    if router is None:
        report.add(line, f"{what}: its subnet {subnet} has no room for a router", "use a shorter prefix, such as /24")
        return
    why = f"it has the address of its subnet's router ({router}, the last host address of {subnet})"
    report.add(line, f"{what}: {why}", "give it another address of the subnet")


def _check_outside(topology: Topology, lines: dict[str, int], report: Report) -> None:
    """Addresses that the outside sees are there once; those behind a 1:1 NAT are there once in their site."""
    owners: dict[IPAddress, str] = {}
    behind: dict[tuple[str, IPAddress], str] = {}
    uplinks: dict[UplinkNode, str] = {}
    for host in topology.hosts.values():
        uplink = uplink_node(host)
        if host.external is None or uplink is None:
            continue
        line, what = lines[host.name], f"host {host.name!r}"
        owner = owners.setdefault(host.external.public, host.name)
        if owner != host.name:
            used = f"{host.external.public} is the external address of host {owner!r} (line {lines[owner]}) too"
            report.add(line, f"{what}: {used}", "give each gateway a public address of its own")
        owner = behind.setdefault((uplink.translated_in or "", host.external.interface.ip), host.name)
        if owner != host.name and uplink.translated_in:
            used = f"{host.external.interface.ip} is the external address of host {owner!r} (line {lines[owner]})"
            report.add(line, f"{what}: {used}", "give each gateway of a site an address of its own")
        for other, name in uplinks.items():
            beside = other != uplink and other.translated_in == uplink.translated_in
            if beside and _overlap(uplink.subnet, other.subnet):
                used = f"external subnet {uplink.subnet} overlaps with {other.subnet} of host {name!r}"
                report.add(line, f"{what}: {used} (line {lines[name]})", "give both the same prefix length")
        uplinks.setdefault(uplink, host.name)
        for inside in _subnets(topology, host.site):
            if _overlap(uplink.subnet, inside):
                used = f"external subnet {uplink.subnet} overlaps with the underlay of its site ({inside})"
                report.add(line, f"{what}: {used}", "give the external side addresses of its own")
    for name in unreachable_gateways(topology.hosts.values()):
        external = topology.hosts[name].external
        assert external is not None, "only gateways are asked for"
        what = f"gateway {name!r} cannot reach the outside world"
        _cannot_reach(report, lines[name], what, (external.interface.network,), [external.interface.ip])
    for name, addresses in topology.outside.items():
        for address in addresses:
            owner = owners.setdefault(address, name)
            if owner != name:
                used = f"{address} is the external address of {owner!r} (line {lines[owner]}) too"
                report.add(lines[name], f"outside host {name!r}: {used}", "use another address")
    _check_public(topology, owners, [uplink for uplink in uplinks if uplink.translated_in is None], lines, report)


def _check_public(
    topology: Topology,
    owners: dict[IPAddress, str],
    uplinks: list[UplinkNode],
    lines: dict[str, int],
    report: Report,
) -> None:
    """`owners`: by address that the outside sees; `uplinks`: those that it sees as they are."""
    routers = {router_address(uplink.subnet): uplink.subnet for uplink in uplinks}
    sites = dict.fromkeys(host.site for host in topology.hosts.values() if host.external is not None)
    for address, owner in owners.items():
        host = topology.hosts.get(owner)
        problems = []
        if address in routers and (host is None or host.external is None or host.external.translated):
            problems.append(f"is the address of the router of {routers[address]}")
        for site in sites:
            inside = next((subnet for subnet in _subnets(topology, site) if address in subnet), None)
            if inside is not None:
                problems.append(f"lies in the underlay of site {site!r} ({inside}), whose gateway looks for it there")
        for problem in problems:
            report.add(lines[owner], f"{owner!r}: {address}, as the outside sees it, {problem}", "use another address")


def _subnets(topology: Topology, site: str) -> Iterator[IPNetwork]:
    """The underlay subnets of a site, each once."""
    yield from dict.fromkeys(subnet for host in topology.hosts.values() if host.site == site for subnet in host.subnets)


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _check_networks(topology: Topology, lines: dict[str, int], report: Report) -> None:
    for tenant in topology.tenants.values():
        seen: list[tuple[str, IPNetwork]] = []
        for network in tenant.networks.values():
            mine = [ip_network(subnet.cidr) for subnet in network.subnets]
            for cidr in mine:
                for other, other_cidr in seen:
                    if _overlap(cidr, other_cidr):
                        report.add(
                            lines[f"{tenant.name}/{network.name}"],
                            f"network {tenant.name}/{network.name}: {cidr} overlaps with {other_cidr} of "
                            f"{tenant.name}/{other} (line {lines[f'{tenant.name}/{other}']})",
                            "give each network of a tenant addresses of its own (other tenants may use the same)",
                        )
            seen += [(network.name, cidr) for cidr in mine]


def _check_endpoints(topology: Topology, lines: dict[str, int], report: Report) -> None:
    addresses: dict[tuple[str, bytes], str] = {}
    macs: dict[tuple[str, str, bytes], str] = {}
    for endpoint in topology.endpoints.values():
        line = lines[endpoint.name]
        what = f"endpoint {endpoint.name!r}"
        tenant = topology.tenants[endpoint.tenant]
        for packed in endpoint.addresses:
            address = show_address(packed)
            if packed == tenant.networks[endpoint.network].gateway_for(packed):
                used = f"{address} is the gateway of {endpoint.tenant}/{endpoint.network}"
                report.add(line, f"{what}: {used}", "use another address")
            owner = addresses.setdefault((endpoint.tenant, packed), endpoint.name)
            if owner != endpoint.name:
                used = f"{address} is the address of endpoint {owner!r} (line {lines[owner]}), of the same tenant"
                report.add(line, f"{what}: {used}", "use another address")
        if endpoint.mac == tenant.gateway_mac(endpoint.network):
            report.add(line, f"{what}: {show_mac(endpoint.mac)} is the MAC of its gateway", "use another MAC, or none")
        owner = macs.setdefault((endpoint.tenant, endpoint.network, endpoint.mac), endpoint.name)
        if owner != endpoint.name:
            used = (
                f"{show_mac(endpoint.mac)} is the MAC of endpoint {owner!r} (line {lines[owner]}), of the same network"
            )
            report.add(line, f"{what}: {used}", "use another MAC, or none")
    for host, count in Counter(endpoint.host for endpoint in topology.endpoints.values()).items():
        if host and count > MAX_ENDPOINTS:
            remedy = f"move some to other hosts: a switch has ports for {MAX_ENDPOINTS}"
            report.add(lines[host], f"host {host!r} has {count} endpoints", remedy)


def _check_services(topology: Topology, lines: dict[str, int], report: Report) -> None:
    first: dict[tuple[str, int, int], int] = {}
    for number, service in enumerate(topology.services):
        line = lines[f"publish/{number}"]
        used = first.setdefault((service.via, service.protocol, service.external_port), line)
        if used != line:
            port = f"{Protocol(service.protocol).name.lower()} port {service.external_port} of {service.via!r}"
            report.add(line, f"published service: {port} is taken (line {used})", "use another external port")
