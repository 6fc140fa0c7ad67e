"""From the tree of a file to a topology, one kind of thing after the other; problems are collected, not raised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network

from msgspec.structs import replace

from ..model import Endpoint, Network, Protocol, Rule, Subnet, Tenant, derive_mac
from ..suggest import suggest
from .addresses import overlay_address, overlay_network, underlay_interface, unicast_mac
from .document import Field, Mapping, Value
from .model import DEFAULT_IDLE_TIMEOUT, Topology, TopologyHost
from .problems import Report
from .record import NAME_RULE, Record, name_works
from .rules import named, ports_of, protocol_of

_LONGEST_IDLE_TIMEOUT = 86400.0


class Reader:
    """Reads one file. `lines` tells where hosts, endpoints and networks (`TENANT/NETWORK`) are declared."""

    def __init__(self, report: Report, root: Value) -> None:
        self.report = report
        self.lines: dict[str, int] = {}
        known = ("name", "idle_timeout", "sites", "hosts", "tenants", "endpoints", "policies")
        later = ("internet", "publish")
        self._top = Record(report, "topology", Field(1, root), known, later=later)
        self._host_names: list[str] = []
        self._owners: dict[str, str | None] = {}
        """The tenant of every declared endpoint, also of those with problems."""

    def read(self) -> Topology:
        """All that the file describes, as far as it is right."""
        top = self._top
        name = top.parse(top.require("name", "add 'name: my-farm' at the top"), "name", _name, NAME_RULE)
        sites = self._sites()
        hosts = self._hosts(sites)
        records = {
            tenant: Record(self.report, f"tenant {tenant!r}", field, ("networks", "groups"))
            for tenant, field in top.children("tenants")
        }
        tenants = {tenant: Tenant(tenant, self._networks(tenant, record)) for tenant, record in records.items()}
        endpoints = self._endpoints(tenants)
        tenants = {
            name: replace(tenant, groups=self._groups(tenant, records[name])) for name, tenant in tenants.items()
        }
        return Topology(
            name=name or "unnamed",
            sites=tuple(sites),
            hosts=hosts,
            tenants=self._policies(tenants),
            endpoints=endpoints,
            idle_timeout=self._idle_timeout(),
        )

    def _idle_timeout(self) -> float:
        remedy = "give it a positive number of seconds, such as 30"
        value = self._top.parse(self._top.get("idle_timeout"), "idle_timeout", _seconds, remedy)
        return DEFAULT_IDLE_TIMEOUT if value is None else value

    def _sites(self) -> list[str]:
        sites: list[str] = []
        self._top.require("sites", "add 'sites: {SITE: {}}' and put the hosts there")
        for name, field in self._top.children("sites"):
            site = Record(self.report, f"site {name!r}", field, ())
            if sites:
                site.add(field.line, "more than one site is not supported yet", f"keep only {sites[0]!r}")
            sites.append(name)
        return sites

    # A host of no known site, or an endpoint on no known host, is kept: that much has been reported, and whatever else
    # is wrong with it is found too.

    def _hosts(self, sites: list[str]) -> dict[str, TopologyHost]:
        hosts: dict[str, TopologyHost] = {}
        self._top.require("hosts", "add at least one: 'h1: {site: SITE, underlay: 172.16.1.1/24}'")
        for name, field in self._top.children("hosts"):
            self.lines[name] = field.line
            self._host_names.append(name)
            host = Record(self.report, f"host {name!r}", field, ("site", "underlay"), later=("external", "pool"))
            site = host.choose(host.require("site", f"add 'site: {sites[0] if sites else 'SITE'}'"), "site", sites)
            underlay = self._underlay(host)
            if underlay:
                hosts[name] = TopologyHost(name, site or "", tuple(underlay))
        return hosts

    def _underlay(self, host: Record) -> list[IPv4Interface]:
        example = "write ADDRESS/LENGTH, such as 172.16.1.1/24"
        field = host.require("underlay", "give it an address in the underlay, such as 'underlay: 172.16.1.1/24'")
        result: list[IPv4Interface] = []
        for item in _items(host, field):
            interface = host.parse(item, "underlay", underlay_interface, example)
            if interface is None:
                continue
            if any(interface.ip == other.ip for other in result):
                host.add(item.line, f"underlay address {interface.ip} appears twice", "remove one of them")
            elif result and interface.network != result[0].network:
                subnets = f"{result[0].network} and {interface.network}"
                host.add(item.line, f"addresses in two subnets ({subnets}) are not supported yet", "keep those of one")
            else:
                result.append(interface)
        return result

    def _networks(self, tenant: str, record: Record) -> dict[str, Network]:
        networks: dict[str, Network] = {}
        record.require("networks", "add 'networks: {NAME: {cidr: 10.0.1.0/24, gateway: 10.0.1.254}}'")
        for name, field in record.children("networks"):
            self.lines[f"{tenant}/{name}"] = field.line
            network = self._network(
                Record(self.report, f"network {tenant}/{name}", field, ("cidr", "gateway", "internet")), name
            )
            if network is not None:
                networks[name] = network
        return networks

    def _network(self, record: Record, name: str) -> Network | None:
        internet = record.get("internet")
        if record.choose(internet, "internet", ["allow", "deny"]) == "allow" and internet is not None:
            record.add(internet.line, "'internet: allow' is not supported yet", "remove it")
        field = record.require("cidr", "add 'cidr: 10.0.1.0/24'")
        cidr = record.parse(field, "cidr", overlay_network, "write ADDRESS/LENGTH, such as 10.0.1.0/24")
        gateway_field = record.require("gateway", f"add 'gateway: {cidr[-2] if cidr else 'ADDRESS'}'")
        gateway = record.parse(gateway_field, "gateway", lambda text: overlay_address(text, cidr), _addresses(cidr))
        if cidr is None:
            return None
        # Without its gateway it is kept all the same, so that its endpoints can still be checked.
        return Network(name, (Subnet(cidr[0].packed, cidr.prefixlen, (gateway or cidr[0]).packed),))

    def _endpoints(self, tenants: dict[str, Tenant]) -> dict[str, Endpoint]:
        endpoints: dict[str, Endpoint] = {}
        for name, field in self._top.children("endpoints"):
            known = ("tenant", "network", "ip", "mac", "host")
            record = Record(self.report, f"endpoint {name!r}", field, known, later=("ip6",))
            if name in self._host_names:
                record.add(
                    field.line,
                    f"a host has this name too (line {self.lines[name]})",
                    "rename one: commands take either",
                )
            else:
                self.lines[name] = field.line
            endpoint = self._endpoint(name, record, tenants)
            if endpoint is not None:
                endpoints[name] = endpoint
        return endpoints

    def _endpoint(self, name: str, record: Record, tenants: dict[str, Tenant]) -> Endpoint | None:
        host_field = record.get("host")
        if host_field is None:
            record.add(
                record.line, "is on no host", f"add 'host: {self._host_names[0] if self._host_names else 'HOST'}'"
            )
        host = record.choose(host_field, "host", self._host_names)
        owner = record.choose(record.require("tenant", "say whose it is: 'tenant: TENANT'"), "tenant", tenants)
        self._owners[name] = owner
        tenant = None if owner is None else tenants[owner]
        network_field = record.require("network", "say where it belongs: 'network: NETWORK'")
        network = None
        if tenant is not None:
            network_name = record.choose(network_field, "network", tenant.networks)
            network = None if network_name is None else tenant.networks[network_name]
        cidr = None if network is None else IPv4Network(network.subnets[0].cidr)
        ip_field = record.require("ip", "give it an address of its network: 'ip: ADDRESS'")
        address = record.parse(ip_field, "ip", lambda text: overlay_address(text, cidr), _addresses(cidr))
        mac = record.parse(record.get("mac"), "mac", unicast_mac, "write six bytes, such as 02:00:00:00:00:01")
        if tenant is None or network is None or address is None:
            return None
        mac = mac or derive_mac("endpoint", tenant.name, name)
        return Endpoint(name, tenant.name, network.name, mac, (address.packed,), host or "")

    def _groups(self, tenant: Tenant, record: Record) -> dict[str, tuple[str, ...]]:
        endpoints = [name for name, owner in self._owners.items() if owner == tenant.name]
        members = [*tenant.networks, *endpoints]
        groups: dict[str, tuple[str, ...]] = {}
        for name, field in record.children("groups"):
            if isinstance(field.value, Mapping):
                record.add(field.line, f"group {name!r} must be a list", "write [MEMBER, MEMBER]")
                continue
            chosen: list[str] = []
            for item in record.items(field):
                member = record.parse(item, name, str, "name a network or an endpoint")
                if member is None:
                    continue
                if member in tenant.networks and member in endpoints:
                    record.add(
                        item.line, f"{member!r} in group {name!r} is both a network and an endpoint", "rename one"
                    )
                elif member not in members and f"{tenant.name}/{member}" not in self.lines:
                    what = f"group {name!r} has the unknown member {member!r}"
                    record.add(item.line, what, suggest(member, members, noun="network or endpoint"))
                elif member not in chosen:
                    chosen.append(member)
            groups[name] = tuple(chosen)
        return groups

    def _policies(self, tenants: dict[str, Tenant]) -> dict[str, Tenant]:
        """The tenants with their rules, in the order of the file."""
        field = self._top.get("policies")
        for item in _items(self._top, field):
            keys = ("tenant", "from", "to", "protocol", "ports", "action")
            record = Record(self.report, "policy", item, keys)
            owner = record.choose(record.require("tenant", "say whose it is: 'tenant: TENANT'"), "tenant", tenants)
            tenant = None if owner is None else tenants[owner]
            ends = [self._rule_end(record, key, tenant) for key in ("from", "to")]
            actions = ["allow", "deny"]
            action = record.choose(record.require("action", "add 'action: allow' or 'action: deny'"), "action", actions)
            protocol_field, ports_field = record.get("protocol"), record.get("ports")
            protocol = record.choose(protocol_field, "protocol", [each.name.lower() for each in Protocol])
            texts = [record.parse(port, "ports", str, "write numbers") for port in _items(record, ports_field)]
            ports = None
            try:
                ports = ports_of([text for text in texts if text is not None], protocol)
            except ValueError as error:
                record.add(ports_field.line if ports_field else item.line, f"'ports': {error}", "such as [80, 443]")
            if tenant is not None and ends[0] and ends[1] and action and ports is not None:
                rule = Rule(ends[0], ends[1], action == "allow", protocol_of(protocol), ports)
                tenants[tenant.name] = replace(tenant, rules=(*tenant.rules, rule))
        return tenants

    def _rule_end(self, record: Record, key: str, tenant: Tenant | None) -> str | None:
        field = record.require(key, f"add '{key}: NAME' of an endpoint, a network or a group")
        if tenant is None:
            return None
        mine = [name for name, owner in self._owners.items() if owner == tenant.name]
        return record.parse(
            field, key, lambda text: named(tenant, mine, text), "name an endpoint, a network or a group"
        )


def _items(record: Record, field: Field | None) -> Iterator[Field]:
    return iter(()) if field is None else record.items(field)


def _addresses(cidr: IPv4Network | None) -> str:
    return "write an IPv4 address" if cidr is None else f"use an address from {cidr[1]} to {cidr[-2]}"


def _name(text: str) -> str:
    if not name_works(text):
        raise ValueError(f"{text!r} would not work")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(value) or not 0 < value <= _LONGEST_IDLE_TIMEOUT:
        raise ValueError(f"{text} is not between 0 and {_LONGEST_IDLE_TIMEOUT:.0f} seconds")
    return value
