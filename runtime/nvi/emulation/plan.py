"""What has to be built for a topology: namespaces, cables between them, and what to run inside each. No I/O.

```
  endpoint             host                                              router of the subnet
 ┌────────┐   ┌──────────────────────────────────────────┐              ┌──────────────┐
 │  eth0 ─┼───┼─ ep16 ─┐                       ┌─ nvi0p ─── nvi0        │              │
 └────────┘   │        ├──────── switch ───────┤        (its addresses) │              │
 ┌────────┐   │        │                       └─ underlay0 ────────────┼─ port1 ─ br0 │── spine
 │  eth0 ─┼───┼─ ep17 ─┘                                 │              │ (its address)│
 └────────┘   └──────────────────────────────────────────┘              └──────────────┘
```

A gateway's switch has two more ports: `external0`, the wire to the outside world, and `nvi1p`, the peer of `nvi1`,
which carries its external address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from ..keys import KEY_FIRST, KEY_LAST
from ..model import Endpoint, derive_mac, show_address, show_mac
from ..switch import PORT_EXTERNAL, PORT_EXTERNAL_STACK, PORT_FIRST_ENDPOINT, PORT_HOST_STACK, PORT_UNDERLAY
from ..topology import SPARE_PORTS, Topology, TopologyHost
from ..topology.model import IPNetwork
from ..topology.underlay import router_address
from .outside import outside
from .parts import Cable, Node, Plug, add_address, enable_ipv6, families, ip, plain, prepare, route, set_mtu
from .routers import leaf_router, routers

BMV2_THRIFT_PORT = 9090


class Plan(Struct, frozen=True):
    """All of a farm."""

    nodes: tuple[Node, ...]
    cables: tuple[Cable, ...]
    ports: dict[str, dict[str, int]]
    """By host: the switch port of each endpoint."""
    spares: dict[str, tuple[int, ...]]
    """By host: the ports that wait for endpoints to come."""


def port_interface(port: int) -> str:
    """The interface that is an endpoint's switch port."""
    return f"ep{port}"


def spare_interface(port: int) -> str:
    """What the other end of that cable is called while no endpoint has it."""
    return f"spare{port}"


def switch_ports(host: TopologyHost, ports: Iterable[int]) -> dict[int, str]:
    """All ports of a host's switch with their interfaces, given those of its endpoints and its spare ones."""
    external = {PORT_EXTERNAL: "external0", PORT_EXTERNAL_STACK: "nvi1p"} if host.external else {}
    return {
        PORT_UNDERLAY: "underlay0",
        PORT_HOST_STACK: "nvi0p",
        **external,
        **{port: port_interface(port) for port in sorted(ports)},
    }


def make_plan(topology: Topology) -> Plan:
    """Lay out a topology on one machine."""
    nodes: list[Node] = []
    cables: list[Cable] = []
    ports: dict[str, dict[str, int]] = {}
    spares: dict[str, tuple[int, ...]] = {}
    for host in topology.hosts.values():
        endpoints = topology.endpoints_of(host.name)
        first_spare = PORT_FIRST_ENDPOINT + len(endpoints)
        ports[host.name] = {endpoint.name: PORT_FIRST_ENDPOINT + i for i, endpoint in enumerate(endpoints)}
        spares[host.name] = tuple(range(first_spare, first_spare + SPARE_PORTS))
        site_subnets = [
            subnet for other in topology.hosts.values() if other.site == host.site for subnet in other.subnets
        ]
        wires = switch_ports(host, [*ports[host.name].values(), *spares[host.name]])
        nodes.append(_host(host, site_subnets, list(wires.values()), spares[host.name]))
        for number, stack in enumerate(_stacks(host)):
            mac = show_mac(derive_mac("host", host.site, host.name, str(number)))
            cables.append(Cable(Plug(host.name, f"{stack}p"), Plug(host.name, stack, mac)))
        for endpoint in endpoints:
            nodes.append(endpoint_node(endpoint, topology))
            port = ports[host.name][endpoint.name]
            plug = Plug(endpoint.name, "eth0", show_mac(endpoint.mac))
            cables.append(Cable(Plug(host.name, port_interface(port)), plug))
        for port in spares[host.name]:
            cables.append(Cable(Plug(host.name, port_interface(port)), Plug(host.name, spare_interface(port))))
    for site in topology.sites.values():
        site_nodes, site_cables = routers(site, [host for host in topology.hosts.values() if host.site == site.name])
        nodes += site_nodes
        cables += site_cables
    outside_nodes, outside_cables = outside(topology)
    return Plan((*nodes, *outside_nodes), (*cables, *outside_cables), ports, spares)


def _stacks(host: TopologyHost) -> list[str]:
    """The interfaces that carry a host's addresses."""
    return ["nvi0", "nvi1"] if host.external else ["nvi0"]


def _host(host: TopologyHost, site_subnets: list[IPNetwork], wires: list[str], spares: tuple[int, ...]) -> Node:
    """`wires`: the interfaces that its switch has for ports."""
    stacks = _stacks(host)
    own = list(host.subnets)
    addresses = [add_address(each.with_prefixlen, "nvi0") for each in host.underlay]
    # Those of the pool are the host's, too, but its own stack never chooses one of them.
    addresses += [
        add_address(f"{each}/{each.max_prefixlen}", "nvi0", "noprefixroute preferred_lft 0")
        for each in host.pool_addresses
    ]
    if host.external is not None:
        own.append(host.external.interface.network)
        addresses.append(add_address(host.external.interface.with_prefixlen, "nvi1"))
    versions = families(own)
    configure = [
        *([enable_ipv6(*stacks)] if 6 in versions else []),
        *(ip(*_rules(stacks), family=version) for version in sorted(versions)),
        ip(
            *(f"link set dev {wire} arp off up" for wire in wires),
            *(f"link set dev {stack} up" for stack in stacks),
            *addresses,
            *_routes(host, site_subnets),
        ),
        plain([*wires, *stacks, *map(spare_interface, spares)]),
    ]
    # Of both families: IPv6 has no setting of its own.
    reserve = f"echo {KEY_FIRST}-{KEY_LAST} > /proc/sys/net/ipv4/ip_local_reserved_ports"
    return Node(host.name, "host", prepare(reserve), "\n".join(configure))


def _rules(stacks: list[str]) -> list[str]:
    """`ip rule` commands: what the host's own stack takes for its own.

    The kernel gets a copy of whatever arrives at a port of the switch. Only what the switch hands out at nvi0 and nvi1
    is meant for it: it answers no ARP on the ports (arp off), has no IPv6 there, and accepts or routes nothing that
    came from them. BMv2's Thrift server, where there is one, listens on all addresses and believes everybody: nobody
    outside gets to it.
    """
    return [
        "rule add pref 10 iif lo lookup local",
        *(f"rule add pref 11 iif {stack} ipproto tcp dport {BMV2_THRIFT_PORT} blackhole" for stack in stacks),
        *(f"rule add pref 12 iif {stack} lookup local" for stack in stacks),
        "rule add pref 13 iif lo lookup main",
        *(f"rule add pref 14 iif {stack} lookup main" for stack in stacks),
        "rule add pref 15 blackhole",
        "rule del pref 0",
    ]


def _routes(host: TopologyHost, site_subnets: list[IPNetwork]) -> Iterator[str]:
    """`ip` commands: a gateway finds its site through the underlay and all else outside; any other host has one way."""
    outward = None if host.external is None else host.external.interface.network
    if outward is not None:
        yield route("default", str(router_address(outward)), "nvi1")
    for version in sorted(families(host.subnets)):
        router = str(leaf_router(host, version))
        if outward is None or outward.version != version:
            yield route("default", router, "nvi0")
            continue
        for subnet in dict.fromkeys(site_subnets):
            if subnet.version == version and subnet not in host.subnets:
                yield route(subnet, router, "nvi0")


def endpoint_node(endpoint: Endpoint, topology: Topology) -> Node:
    """The namespace of a workload. `configure` runs each time that its interface `eth0` has come."""
    network = topology.tenants[endpoint.tenant].networks[endpoint.network]
    commands = [*set_mtu("eth0", topology.mtu_of(endpoint.tenant, endpoint.network))]
    routes = []
    for address in endpoint.addresses:
        subnet = network.subnet_of(address)
        assert subnet is not None, "an endpoint's addresses are in its network"
        options = ["broadcast +"] if len(address) == 4 else []
        commands.append(add_address(f"{show_address(address)}/{subnet.prefix_length}", "eth0", *options))
        routes.append(route("default", show_address(subnet.gateway), "eth0"))
    configure = [
        *([enable_ipv6("eth0")] if any(len(address) == 16 for address in endpoint.addresses) else []),
        ip(*commands, "link set dev eth0 up", *routes),
        plain(["eth0"]),
    ]
    return Node(endpoint.name, "endpoint", prepare(), "\n".join(configure))
