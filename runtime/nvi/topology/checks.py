"""What must hold between the things of a topology, once each of them has been read."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv4Network

from ..model import show_address, show_mac
from ..switch import PORT_CPU, PORT_FIRST_ENDPOINT
from .model import Topology
from .problems import Report
from .underlay import isolated, router_address

SPARE_PORTS = 8
"""Ports that every host keeps for endpoints that are added while the farm runs."""
MAX_ENDPOINTS = PORT_CPU - PORT_FIRST_ENDPOINT - SPARE_PORTS


def check(topology: Topology, lines: dict[str, int], report: Report) -> None:
    """Report what contradicts something else. `lines` as in `Reader`."""
    _check_underlay(topology, lines, report)
    _check_networks(topology, lines, report)
    _check_endpoints(topology, lines, report)


def _check_underlay(topology: Topology, lines: dict[str, int], report: Report) -> None:
    owners: dict[tuple[str, IPv4Address], str] = {}
    subnets: dict[tuple[str, IPv4Network], str] = {}
    for host in topology.hosts.values():
        line = lines[host.name]
        for interface in host.underlay:
            owner = owners.setdefault((host.site, interface.ip), host.name)
            if owner != host.name:
                what = f"host {host.name!r}: {interface.ip} is the address of host {owner!r} (line {lines[owner]})"
                report.add(line, what, "give each host of a site addresses of its own")
        first = subnets.setdefault((host.site, host.subnet), host.name)
        if first != host.name:
            continue  # what is wrong with this subnet has been said
        for (site, subnet), other in subnets.items():
            if site == host.site and subnet != host.subnet and subnet.overlaps(host.subnet):
                what = f"host {host.name!r}: underlay subnet {host.subnet} overlaps with {subnet} of host {other!r}"
                report.add(line, f"{what} (line {lines[other]})", "give hosts of one subnet the same prefix length")
    for name in isolated(host for host in topology.hosts.values() if host.site):
        host = topology.hosts[name]
        router = router_address(host.subnet)
        if router is None:
            why = f"its subnet {host.subnet} has no room for a router"
            remedy = "use a shorter prefix, such as /24"
        else:
            why = f"it has the address of its subnet's router ({router}, the last host address of {host.subnet})"
            remedy = "give it another address of the subnet"
        report.add(lines[name], f"host {name!r} cannot reach its site {host.site!r}: {why}", remedy)


def _check_networks(topology: Topology, lines: dict[str, int], report: Report) -> None:
    for tenant in topology.tenants.values():
        seen: dict[str, IPv4Network] = {}
        for network in tenant.networks.values():
            cidr = IPv4Network(network.subnets[0].cidr)
            for other, other_cidr in seen.items():
                if cidr.overlaps(other_cidr):
                    report.add(
                        lines[f"{tenant.name}/{network.name}"],
                        f"network {tenant.name}/{network.name}: {cidr} overlaps with {other_cidr} of "
                        f"{tenant.name}/{other} (line {lines[f'{tenant.name}/{other}']})",
                        "give each network of a tenant addresses of its own (other tenants may use the same)",
                    )
            seen[network.name] = cidr


def _check_endpoints(topology: Topology, lines: dict[str, int], report: Report) -> None:
    addresses: dict[tuple[str, bytes], str] = {}
    macs: dict[tuple[str, str, bytes], str] = {}
    for endpoint in topology.endpoints.values():
        line = lines[endpoint.name]
        what = f"endpoint {endpoint.name!r}"
        tenant = topology.tenants[endpoint.tenant]
        address = show_address(endpoint.address)
        if endpoint.address == tenant.networks[endpoint.network].gateway_for(endpoint.address):
            report.add(
                line, f"{what}: {address} is the gateway of {endpoint.tenant}/{endpoint.network}", "use another address"
            )
        owner = addresses.setdefault((endpoint.tenant, endpoint.address), endpoint.name)
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
