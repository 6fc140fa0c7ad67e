"""From the tree of a file to a topology, one kind of thing after the other; problems are collected, not raised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Literal

from msgspec.structs import replace

from ..model import Endpoint, Network, Protocol, Rule, Service, Subnet, Tenant, derive_mac
from ..policy import INTERNET
from ..suggest import suggest
from .addresses import (
    attached_interface,
    first_address,
    last_address,
    outside_address,
    overlay_address,
    overlay_network,
    pool_network,
    unicast_mac,
)
from .document import Field, Mapping, Value
from .model import (
    DEFAULT_IDLE_TIMEOUT,
    DEFAULT_MTU,
    DEFAULT_PUNT_RATE,
    IPAddress,
    IPInterface,
    IPNetwork,
    Site,
    Topology,
    TopologyHost,
    Uplink,
)
from .problems import Report
from .record import NAME_RULE, Record, name_works
from .rules import external_port, named, ports_of, protocol_of, service_port

_LONGEST_IDLE_TIMEOUT = 86400.0
_HIGHEST_PUNT_RATE = 1_000_000
_CIDR = {4: "cidr", 6: "cidr6"}
_SMALLEST_MTU = 1280  # that of IPv6 (RFC 8200 section 5)


class Reader:
    """Reads one file.

    `lines` tells where hosts, endpoints, hosts of the outside world, networks (`TENANT/NETWORK`) and services
    (`publish/NUMBER`) are declared.
    """

    def __init__(self, report: Report, root: Value) -> None:
        self.report = report
        self.lines: dict[str, int] = {}
        known = (
            "name", "idle_timeout", "punt_rate", "sites", "hosts", "internet", "tenants", "endpoints", "policies",
            "publish",
        )  # fmt: skip
        self._top = Record(report, "topology", Field(1, root), known)
        self._host_names: list[str] = []
        self._owners: dict[str, str | None] = {}
        """The tenant of every declared endpoint, also of those with problems."""

    def read(self) -> Topology:
        """All that the file describes, as far as it is right."""
        top = self._top
        name = top.parse(top.require("name", "add 'name: my-farm' at the top"), "name", _name, NAME_RULE)
        sites = self._sites()
        hosts = self._hosts(sites)
        outside = self._outside()
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
            sites=sites,
            hosts=hosts,
            tenants=self._policies(tenants),
            endpoints=endpoints,
            outside=outside,
            services=self._services(hosts, endpoints),
            idle_timeout=self._idle_timeout(),
            punt_rate=self._punt_rate(),
        )

    def _idle_timeout(self) -> float:
        remedy = "give it a positive number of seconds, such as 30"
        value = self._top.parse(self._top.get("idle_timeout"), "idle_timeout", _seconds, remedy)
        return DEFAULT_IDLE_TIMEOUT if value is None else value

    def _punt_rate(self) -> int:
        remedy = f"give it packets per second, such as {DEFAULT_PUNT_RATE}"
        value = self._top.parse(self._top.get("punt_rate"), "punt_rate", _rate, remedy)
        return DEFAULT_PUNT_RATE if value is None else value

    def _sites(self) -> dict[str, Site]:
        sites: dict[str, Site] = {}
        self._top.require("sites", "add 'sites: {SITE: {}}' and put the hosts there")
        for name, field in self._top.children("sites"):
            site = Record(self.report, f"site {name!r}", field, ("mtu",))
            mtu = site.parse(site.get("mtu"), "mtu", _mtu, f"write bytes, such as {DEFAULT_MTU}")
            sites[name] = Site(name, mtu or DEFAULT_MTU)
        return sites

    # A host of no known site, or an endpoint on no known host, is kept: that much has been reported, and whatever else
    # is wrong with it is found too.

    def _hosts(self, sites: dict[str, Site]) -> dict[str, TopologyHost]:
        hosts: dict[str, TopologyHost] = {}
        self._top.require("hosts", "add at least one: 'h1: {site: SITE, underlay: 172.16.1.1/24}'")
        for name, field in self._top.children("hosts"):
            self.lines[name] = field.line
            self._host_names.append(name)
            host = Record(self.report, f"host {name!r}", field, ("site", "underlay", "pool", "external"))
            example = next(iter(sites), "SITE")
            site = host.choose(host.require("site", f"add 'site: {example}'"), "site", sites)
            underlay = self._underlay(host)
            external = self._external(host)
            if underlay:
                subnets = tuple(interface.network for interface in underlay)
                hosts[name] = TopologyHost(
                    name, site or "", tuple(underlay), tuple(self._pool(host, subnets)), external
                )
        return hosts

    def _underlay(self, host: Record) -> list[IPInterface]:
        example = "write ADDRESS/LENGTH, such as 172.16.1.1/24"
        field = host.require("underlay", "give it an address in the underlay, such as 'underlay: 172.16.1.1/24'")
        result: list[IPInterface] = []
        for item in _items(host, field):
            interface = host.parse(item, "underlay", attached_interface, example)
            if interface is None:
                continue
            first = next((other for other in result if other.version == interface.version), interface)
            if any(interface.ip == other.ip for other in result):
                host.add(item.line, f"underlay address {interface.ip} appears twice", "remove one of them")
            elif interface.network != first.network:
                subnets = f"{first.network} and {interface.network}"
                host.add(item.line, f"addresses in two subnets of one family ({subnets})", "keep those of one")
            else:
                result.append(interface)
        return result

    def _pool(self, host: Record, subnets: tuple[IPNetwork, ...]) -> Iterator[IPNetwork]:
        for item in _items(host, host.get("pool")):
            remedy = "write ADDRESS/LENGTH of a few free addresses of its subnet, such as 172.16.1.64/29"
            network = host.parse(item, "pool", lambda text: pool_network(text, subnets), remedy)
            if network is not None:
                yield network

    def _external(self, host: Record) -> Uplink | None:
        field = host.get("external")
        if field is None:
            return None
        record = Record(self.report, f"{host.what}: external", field, ("address", "public"))
        example = "write ADDRESS/LENGTH, such as 198.51.100.1/24"
        remedy = "say how it is attached to the outside: 'address: 198.51.100.1/24'"
        interface = record.parse(record.require("address", remedy), "address", attached_interface, example)
        public_field = record.get("public")
        public = record.parse(public_field, "public", outside_address, "write its address as the outside sees it")
        if interface is None:
            return None
        if public is not None and public_field is not None and public.version != interface.version:
            record.add(
                public_field.line, f"{interface.ip} cannot become {public}", "give it a public address of its family"
            )
        return Uplink(interface, public or interface.ip)

    def _outside(self) -> dict[str, tuple[IPAddress, ...]]:
        outside: dict[str, tuple[IPAddress, ...]] = {}
        for name, field in self._top.children(INTERNET):
            if isinstance(field.value, Mapping):
                self._top.add(field.line, f"outside host {name!r} must be an address", "write 'NAME: 203.0.113.7'")
                continue
            if name in self.lines:
                self._top.add(field.line, f"a host has the name {name!r} too (line {self.lines[name]})", "rename one")
            self.lines.setdefault(name, field.line)
            remedy = "write an address, such as 203.0.113.7"
            items = [self._top.parse(item, name, outside_address, remedy) for item in self._top.items(field)]
            outside[name] = tuple(dict.fromkeys(item for item in items if item is not None))
        return outside

    def _networks(self, tenant: str, record: Record) -> dict[str, Network]:
        networks: dict[str, Network] = {}
        record.require("networks", "add 'networks: {NAME: {cidr: 10.0.1.0/24, gateway: 10.0.1.254}}'")
        for name, field in record.children("networks"):
            self.lines[f"{tenant}/{name}"] = field.line
            known = ("cidr", "gateway", "cidr6", "gateway6", "internet", "dns")
            network = self._network(Record(self.report, f"network {tenant}/{name}", field, known), name)
            if network is not None:
                networks[name] = network
        return networks

    def _network(self, record: Record, name: str) -> Network | None:
        internet = record.choose(record.get("internet"), "internet", ["allow", "deny"]) == "allow"
        if record.get("cidr6") is None and record.get("gateway6") is None:
            record.require("cidr", "add 'cidr: 10.0.1.0/24', or 'cidr6: fd00:1::/64'")
        subnets = [subnet for version in (4, 6) if (subnet := self._subnet(record, version)) is not None]
        remedy = "write the address of a resolver, such as 10.0.1.253"
        resolvers = [record.parse(item, "dns", outside_address, remedy) for item in _items(record, record.get("dns"))]
        if not subnets:
            return None
        return Network(name, tuple(subnets), internet, tuple(each.packed for each in resolvers if each is not None))

    def _subnet(self, record: Record, version: Literal[4, 6]) -> Subnet | None:
        cidr_key = _CIDR[version]
        gateway_key, example = ("gateway", "10.0.1.0/24") if version == 4 else ("gateway6", "fd00:1::/64")
        gateway_field = record.get(gateway_key)
        field = record.get(cidr_key)
        if field is None:
            if gateway_field is not None:
                record.add(
                    gateway_field.line, f"has {gateway_key!r} and no {cidr_key!r}", f"add '{cidr_key}: {example}'"
                )
            return None
        remedy = f"write ADDRESS/LENGTH, such as {example}"
        cidr = record.parse(field, cidr_key, lambda text: overlay_network(text, version), remedy)
        remedy = f"add '{gateway_key}: {last_address(cidr) if cidr else 'ADDRESS'}'"
        gateway_field = record.require(gateway_key, remedy)
        if cidr is None:
            return None
        subnet = Subnet(cidr[0].packed, cidr.prefixlen, cidr[0].packed)
        gateway = record.parse(
            gateway_field, gateway_key, lambda text: overlay_address(text, (subnet,)), _addresses((cidr,))
        )
        # Without its gateway it is kept all the same, so that its endpoints can still be checked.
        return subnet if gateway is None else replace(subnet, gateway=gateway.packed)

    def _endpoints(self, tenants: dict[str, Tenant]) -> dict[str, Endpoint]:
        endpoints: dict[str, Endpoint] = {}
        for name, field in self._top.children("endpoints"):
            known = ("tenant", "network", "ip", "ip6", "mac", "host")
            record = Record(self.report, f"endpoint {name!r}", field, known)
            if name in self.lines:
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
        subnets = None if network is None else network.subnets
        if record.get("ip6") is None:
            record.require("ip", "give it an address of its network: 'ip: ADDRESS', or 'ip6: ADDRESS'")
        addresses = [
            address for version in (4, 6) if (address := self._endpoint_address(record, version, subnets)) is not None
        ]
        mac = record.parse(record.get("mac"), "mac", unicast_mac, "write six bytes, such as 02:00:00:00:00:01")
        if tenant is None or network is None or not addresses:
            return None
        mac = mac or derive_mac("endpoint", tenant.name, name)
        return Endpoint(name, tenant.name, network.name, mac, tuple(each.packed for each in addresses), host or "")

    def _endpoint_address(
        self, record: Record, version: Literal[4, 6], subnets: tuple[Subnet, ...] | None
    ) -> IPAddress | None:
        """`subnets`: of its network, if that is known."""
        key = "ip" if version == 4 else "ip6"
        field = record.get(key)
        if field is None:
            return None
        if subnets is None:
            return record.parse(field, key, outside_address, f"write an IPv{version} address")
        mine = tuple(subnet for subnet in subnets if len(subnet.prefix) == (4 if version == 4 else 16))
        if not mine:
            record.add(
                field.line,
                f"{key!r}: its network has no IPv{version}",
                f"remove it, or give the network {_CIDR[version]!r}",
            )
            return None
        cidrs = tuple(ip_network(subnet.cidr) for subnet in mine)
        return record.parse(field, key, lambda text: overlay_address(text, mine), _addresses(cidrs))

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
            if ends == [INTERNET, INTERNET]:
                record.add(item.line, "has the Internet at both ends", "name an endpoint, a network or a group at one")
            elif tenant is not None and ends[0] and ends[1] and action and ports is not None:
                rule = Rule(ends[0], ends[1], action == "allow", protocol_of(protocol), ports)
                tenants[tenant.name] = replace(tenant, rules=(*tenant.rules, rule))
        return tenants

    def _rule_end(self, record: Record, key: str, tenant: Tenant | None) -> str | None:
        field = record.require(key, f"add '{key}: NAME' of an endpoint, a network or a group, or '{key}: internet'")
        if tenant is None:
            return None
        mine = [name for name, owner in self._owners.items() if owner == tenant.name]
        return record.parse(
            field, key, lambda text: named(tenant, mine, text), "name an endpoint, a network or a group"
        )

    def _services(self, hosts: dict[str, TopologyHost], endpoints: dict[str, Endpoint]) -> tuple[Service, ...]:
        """What is published, in the order of the file."""
        services: list[Service] = []
        for item in _items(self._top, self._top.get("publish")):
            keys = ("endpoint", "port", "protocol", "via", "external_port")
            record = Record(self.report, "published service", item, keys)
            name_field = record.require("endpoint", "say who serves: 'endpoint: ENDPOINT'")
            name = record.choose(name_field, "endpoint", self._owners)
            gateways = [host.name for host in hosts.values() if host.external is not None]
            via_field = record.require("via", "say where it is reached: 'via: GATEWAY', a host with 'external'")
            via = record.choose(via_field, "gateway", gateways)
            protocol = record.choose(record.get("protocol"), "protocol", ["tcp", "udp"]) or "tcp"
            remedy = "write a number from 1 to 65535"
            port_field = record.require("port", "say at which port it serves: 'port: 80'")
            port = record.parse(port_field, "port", service_port, remedy)
            external_field = record.get("external_port") or port_field
            external = record.parse(external_field, "external_port", external_port, remedy)
            endpoint, gateway = endpoints.get(name or ""), hosts.get(via or "")
            if endpoint is None or gateway is None or gateway.external is None or port is None or external is None:
                continue
            address = endpoint.address_like(gateway.external.public.packed) or endpoint.address
            number = int(Protocol[protocol.upper()])
            self.lines[f"publish/{len(services)}"] = item.line
            services.append(Service(endpoint.tenant, address, port, number, gateway.name, external))
        return tuple(services)


def _items(record: Record, field: Field | None) -> Iterator[Field]:
    return iter(()) if field is None else record.items(field)


def _addresses(cidrs: tuple[IPNetwork, ...]) -> str:
    return "use an address from " + ", or ".join(f"{first_address(each)} to {last_address(each)}" for each in cidrs)


def _name(text: str) -> str:
    if not name_works(text):
        raise ValueError(f"{text!r} would not work")
    return text


def _mtu(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not _SMALLEST_MTU <= int(text) <= DEFAULT_MTU:
        raise ValueError(f"{text!r} is not between {_SMALLEST_MTU} and {DEFAULT_MTU} bytes")
    return int(text)


def _rate(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _HIGHEST_PUNT_RATE:
        raise ValueError(f"{text!r} is not a whole number from 1 to {_HIGHEST_PUNT_RATE}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(value) or not 0 < value <= _LONGEST_IDLE_TIMEOUT:
        raise ValueError(f"{text} is not between 0 and {_LONGEST_IDLE_TIMEOUT:.0f} seconds")
    return value
