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
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from msgspec import Struct

from ..model import Endpoint, Network, derive_mac, show_address, show_mac
from ..switch import PORT_FIRST_ENDPOINT, PORT_HOST_STACK, PORT_UNDERLAY
from ..topology import SPARE_PORTS, Topology, TopologyHost
from ..topology.underlay import HostNode, Leaf, Spine, graph, next_hops
from . import Kind

KEY_RANGE = "20000-32767"
"""The ports that agents take as keys (`KEY_FIRST` to `KEY_LAST` in `p4src/ids.p4`)."""

BMV2_THRIFT_PORT = 9090

# What user-space switches cannot cope with: checksums left to hardware that is not there, and frames of 64 kB. VLAN
# tags stay in the frame, where a switch expects them.
_OFFLOADS = "rx off tx off sg off tso off gso off gro off rxvlan off txvlan off"


class Plug(Struct, frozen=True):
    """One end of a cable."""

    node: str
    interface: str
    mac: str | None = None
    """None: as the kernel likes."""


class Cable(Struct, frozen=True):
    """A veth pair."""

    a: Plug
    b: Plug


class Node(Struct, frozen=True):
    """A network namespace."""

    name: str
    kind: Kind
    prepare: str
    """Shell commands to run before any interface is there."""
    configure: str
    """Shell commands to run once the interfaces are there."""


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


def switch_ports(ports: Iterator[int] | list[int]) -> dict[int, str]:
    """All ports of a host's switch with their interfaces, given those of its endpoints and its spare ones."""
    return {
        PORT_UNDERLAY: "underlay0",
        PORT_HOST_STACK: "nvi0p",
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
        nodes.append(_host(host, [*ports[host.name].values(), *spares[host.name]], spares[host.name]))
        mac = show_mac(derive_mac("host", host.site, host.name))
        cables.append(Cable(Plug(host.name, "nvi0p"), Plug(host.name, "nvi0", mac)))
        for endpoint in endpoints:
            network = topology.tenants[endpoint.tenant].networks[endpoint.network]
            nodes.append(endpoint_node(endpoint, network))
            port = ports[host.name][endpoint.name]
            plug = Plug(endpoint.name, "eth0", show_mac(endpoint.mac))
            cables.append(Cable(Plug(host.name, port_interface(port)), plug))
        for port in spares[host.name]:
            cables.append(Cable(Plug(host.name, port_interface(port)), Plug(host.name, spare_interface(port))))
    for site in topology.sites:
        site_nodes, site_cables = _underlay([host for host in topology.hosts.values() if host.site == site])
        nodes += site_nodes
        cables += site_cables
    return Plan(tuple(nodes), tuple(cables), ports, spares)


def _prepare(*commands: str) -> str:
    """IPv6 is off everywhere: its neighbour and router discovery would be noise on every port."""
    ipv6 = "for i in all default; do f=/proc/sys/net/ipv6/conf/$i/disable_ipv6; [ ! -e $f ] || echo 1 > $f; done"
    return "\n".join(("ip link set lo up", ipv6, *commands))


def _plain(interfaces: list[str]) -> str:
    """Switch off what user-space switches cannot cope with."""
    return f"for i in {' '.join(interfaces)}; do ethtool -K $i {_OFFLOADS} >/dev/null; done"


def _ip(*commands: str) -> str:
    """One process for many `ip` commands."""
    return "\n".join(("ip -batch - <<'.'", *commands, "."))


def _host(host: TopologyHost, ports: list[int], spares: tuple[int, ...]) -> Node:
    router = Leaf(host.site, host.subnet).address
    wires = ["underlay0", "nvi0p", *map(port_interface, ports)]
    # The kernel gets a copy of whatever arrives at a port of the switch. Only what the switch hands out at nvi0 is
    # meant for it: it answers no ARP on the ports (arp off), and accepts or routes nothing that came from them. BMv2's
    # Thrift server, where there is one, listens on all addresses and believes everybody: nobody outside gets to it.
    rules = [
        "rule add pref 10 iif lo lookup local",
        f"rule add pref 11 iif nvi0 ipproto tcp dport {BMV2_THRIFT_PORT} blackhole",
        "rule add pref 12 iif nvi0 lookup local",
        "rule add pref 13 iif lo lookup main",
        "rule add pref 14 iif nvi0 lookup main",
        "rule add pref 15 blackhole",
        "rule del pref 0",
    ]
    configure = [
        _ip(
            *rules,
            *(f"link set dev {wire} arp off up" for wire in wires),
            "link set dev nvi0 up",
            *(f"addr add {address.with_prefixlen} dev nvi0" for address in host.underlay),
            f"route add default via {router} dev nvi0",
        ),
        _plain([*wires, "nvi0", *map(spare_interface, spares)]),
    ]
    reserve = f"echo {KEY_RANGE} > /proc/sys/net/ipv4/ip_local_reserved_ports"
    return Node(host.name, "host", _prepare(reserve), "\n".join(configure))


def endpoint_node(endpoint: Endpoint, network: Network) -> Node:
    """The namespace of a workload. Its interface `eth0` must be there before `configure` runs."""
    subnet = network.subnets[0]
    commands = _ip(
        f"addr add {show_address(endpoint.address)}/{subnet.prefix_length} broadcast + dev eth0",
        "link set dev eth0 up",
        f"route add default via {show_address(subnet.gateway)} dev eth0",
    )
    return Node(endpoint.name, "endpoint", _prepare(), f"{commands}\n{_plain(['eth0'])}")


def _underlay(hosts: list[TopologyHost]) -> tuple[list[Node], list[Cable]]:
    """The routers of one site: a bridge for each subnet, and a spine if there are several."""
    underlay = graph(hosts)
    leaves = [node for node in underlay if isinstance(node, Leaf)]
    names: dict[Leaf | Spine | HostNode, str] = {leaf: f"{leaf.site}/leaf{i}" for i, leaf in enumerate(leaves, 1)}
    cables: list[Cable] = []
    addresses: dict[Leaf, tuple[IPv4Address, IPv4Address]] = {}
    """Of the link between a leaf and the spine: the leaf's end, the spine's."""
    links = IPv4Network("169.254.0.0/16")
    for i, leaf in enumerate(leaves):
        attached = [host for host in hosts if underlay.has_edge(HostNode(host.name), leaf)]
        for j, host in enumerate(attached, 1):
            cables.append(Cable(Plug(host.name, "underlay0"), Plug(names[leaf], f"port{j}")))
        addresses[leaf] = (links[2 * i], links[2 * i + 1])
    nodes = []
    for i, leaf in enumerate(leaves, 1):
        degree = underlay.degree[leaf] - 1
        commands = [
            "link add name br0 type bridge forward_delay 0 mcast_snooping 0",
            f"addr add {leaf.address}/{leaf.subnet.prefixlen} dev br0",
            *(f"link set dev port{j} master br0 up" for j in range(1, degree + 1)),
            "link set dev br0 up",
        ]
        wires = [f"port{j}" for j in range(1, degree + 1)]
        if len(leaves) > 1:
            spine = Spine(leaf.site)
            names[spine] = f"{leaf.site}/spine"
            cables.append(Cable(Plug(names[leaf], "up0"), Plug(names[spine], f"down{i}")))
            commands += [
                f"addr add {addresses[leaf][0]}/31 dev up0",
                "link set dev up0 up",
                *(f"route add {subnet} via {addresses[leaf][1]}" for subnet in next_hops(underlay, leaf)),
            ]
            wires.append("up0")
        nodes.append(_router(names[leaf], commands, wires))
    if len(leaves) > 1:
        spine = Spine(leaves[0].site)
        commands = []
        for i, leaf in enumerate(leaves, 1):
            commands += [f"addr add {addresses[leaf][1]}/31 dev down{i}", f"link set dev down{i} up"]
        for subnet, next_hop in next_hops(underlay, spine).items():
            assert isinstance(next_hop, Leaf)
            commands.append(f"route add {subnet} via {addresses[next_hop][0]}")
        nodes.append(_router(names[spine], commands, [f"down{i}" for i in range(1, len(leaves) + 1)]))
    return nodes, cables


def _router(name: str, commands: list[str], wires: list[str]) -> Node:
    forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
    return Node(name, "router", _prepare(forward), f"{_ip(*commands)}\n{_plain(wires)}")
