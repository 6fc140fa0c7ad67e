"""The routers of one site: a bridge for each wire, and a spine if there are several. No I/O."""

from __future__ import annotations

import networkx as nx

from ..topology.model import IPAddress, IPNetwork, Site, TopologyHost
from ..topology.underlay import HostNode, Leaf, Spine, graph, next_hops, router_address
from ..topology.underlay import Node as Wired
from .parts import (
    Cable,
    Link,
    Node,
    Plug,
    add_address,
    enable_ipv6,
    families,
    forward,
    ip,
    plain,
    prepare,
    route,
    set_mtu,
)


def routers(site: Site, hosts: list[TopologyHost]) -> tuple[list[Node], list[Cable]]:
    """The routers of a site with these hosts, and the cables from each host's `underlay0`."""
    wiring = graph(hosts)
    leaves = [node for node in wiring if isinstance(node, Leaf)]
    names = {leaf: f"{site.name}/leaf{number}" for number, leaf in enumerate(leaves, 1)}
    links = {leaf: Link(number, _families(leaves)) for number, leaf in enumerate(leaves)} if len(leaves) > 1 else {}
    nodes: list[Node] = []
    cables: list[Cable] = []
    for leaf in leaves:
        attached = [host for host in hosts if wiring.has_edge(HostNode(host.name), leaf)]
        for number, host in enumerate(attached, 1):
            cables.append(Cable(Plug(host.name, "underlay0"), Plug(names[leaf], f"port{number}")))
        nodes.append(_leaf(names[leaf], leaf, len(attached), wiring, links.get(leaf), site.mtu))
    if links:
        spine = f"{site.name}/spine"
        for leaf, link in links.items():
            cables.append(Cable(Plug(names[leaf], "up0"), Plug(spine, f"down{link.number}")))
        nodes.append(_spine(spine, Spine(site.name), wiring, links, site.mtu))
    return nodes, cables


def leaf_router(host: TopologyHost, version: int) -> IPAddress | None:
    """Where a host sends packets of one family that are for another wire; None if it does not have that family."""
    subnet = next((subnet for subnet in host.subnets if subnet.version == version), None)
    return None if subnet is None else router_address(subnet)


def _families(leaves: list[Leaf]) -> frozenset[int]:
    return families(subnet for leaf in leaves for subnet in leaf.subnets)


def bridge(name: str, subnets: tuple[IPNetwork, ...], ports: list[str]) -> list[str]:
    """`ip` commands that make a router's bridge, at the last host address of each subnet."""
    return [
        *(f"link set dev {port} master {name} up" for port in ports),
        *(add_address(f"{router_address(subnet)}/{subnet.prefixlen}", name) for subnet in subnets),
        f"link set dev {name} up",
    ]


def make_bridge(name: str) -> str:
    """An `ip` command. Frames pass from the first moment on."""
    return f"link add name {name} type bridge forward_delay 0 mcast_snooping 0"


def _leaf(name: str, leaf: Leaf, hosts: int, wiring: nx.Graph[Wired], link: Link | None, mtu: int) -> Node:
    ports = [f"port{number}" for number in range(1, hosts + 1)]
    wires = list(ports)
    up: list[str] = []
    if link is not None:
        wires.append("up0")
        up = [
            *(add_address(address, "up0") for address in link.addresses(False)),
            *set_mtu("up0", mtu),
            "link set dev up0 up",
            *(route(subnet, link.via(True, subnet.version), "up0") for subnet in next_hops(wiring, leaf)),
        ]
    versions = families(leaf.subnets) | (link.families if link is not None else frozenset())
    configure = [
        ip(make_bridge("br0")),
        *([enable_ipv6("br0", *wires[len(ports) :])] if 6 in versions else []),
        ip(*bridge("br0", leaf.subnets, ports), *up),
        plain(wires),
    ]
    return Node(name, "router", prepare(*forward(versions)), "\n".join(configure))


def _spine(name: str, spine: Spine, wiring: nx.Graph[Wired], links: dict[Leaf, Link], mtu: int) -> Node:
    wires = [f"down{link.number}" for link in links.values()]
    commands: list[str] = []
    for link in links.values():
        wire = f"down{link.number}"
        commands += [add_address(address, wire) for address in link.addresses(True)]
        commands += [*set_mtu(wire, mtu), f"link set dev {wire} up"]
    for subnet, leaf in next_hops(wiring, spine).items():
        assert isinstance(leaf, Leaf), "only leaves are around a spine"
        link = links[leaf]
        commands.append(route(subnet, link.via(False, subnet.version), f"down{link.number}"))
    versions = _families(list(links))
    configure = [*([enable_ipv6(*wires)] if 6 in versions else []), ip(*commands), plain(wires)]
    return Node(name, "router", prepare(*forward(versions)), "\n".join(configure))
