"""The wiring as a graph: hosts, the router of each wire, what joins a site's routers, and the world outside. No I/O.

                         internet
                        /        \\
                 uplink           uplink        where gateways are attached, perhaps behind a 1:1 NAT
                   |
      (a host that is a gateway)
                   |     spine                  one per site with more than one leaf
                   |   /   |   \\
                  leaf   leaf   leaf            the router of a wire, at the last host address of its subnets
                   |      |      |
                 hosts  hosts  hosts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import networkx as nx
from msgspec import Struct

from .addresses import last_address
from .model import IPAddress, IPNetwork, TopologyHost


class HostNode(Struct, frozen=True):
    """A host in the graph."""

    name: str


class Leaf(Struct, frozen=True):
    """The router of the hosts that share a wire: those with a subnet in common, of whatever family."""

    site: str
    subnets: tuple[IPNetwork, ...]


class Spine(Struct, frozen=True):
    """What joins the routers of a site. It stands for the site as a whole."""

    site: str


class UplinkNode(Struct, frozen=True):
    """The router of a subnet on the external side of gateways."""

    subnet: IPNetwork
    translated_in: str | None
    """The site whose gateways are behind its 1:1 NAT; None if their addresses are those that the outside sees."""


class Internet(Struct, frozen=True):
    """What joins the uplinks."""


Node = HostNode | Leaf | Spine | UplinkNode | Internet
INTERNET = Internet()


def router_address(subnet: IPNetwork) -> IPAddress | None:
    """The last host address of a subnet, which is its router's; None if there is no room for both router and hosts."""
    return None if subnet.prefixlen == subnet.max_prefixlen else last_address(subnet)


def uplink_node(host: TopologyHost) -> UplinkNode | None:
    """Where a host is attached to the outside world, if it is."""
    if host.external is None:
        return None
    return UplinkNode(host.external.interface.network, host.site if host.external.translated else None)


def graph(hosts: Iterable[TopologyHost]) -> nx.Graph[Node]:
    """Who is wired to whom. A host without a usable router stays alone on that side."""
    hosts = list(hosts)
    result: nx.Graph[Node] = nx.Graph()
    result.add_node(INTERNET)
    leaves = _leaves(hosts)
    for host in hosts:
        node = HostNode(host.name)
        result.add_nodes_from((node, Spine(host.site)))
        if not cut_off(host.subnets, [interface.ip for interface in host.underlay]):
            leaf = leaves[host.site, host.subnets[0]]
            result.add_edge(node, leaf)
            result.add_edge(leaf, Spine(host.site))
        uplink = uplink_node(host)
        if uplink is not None and host.external is not None:
            result.add_edge(uplink, INTERNET)
            if not cut_off((uplink.subnet,), [host.external.interface.ip]):
                result.add_edge(node, uplink)
    return result


def cut_off(subnets: Iterable[IPNetwork], own: list[IPAddress]) -> IPNetwork | None:
    """The first of these subnets whose router somebody with these addresses cannot use; None if all is well."""
    return next((subnet for subnet in subnets if router_address(subnet) in (None, *own)), None)


def isolated(hosts: Iterable[TopologyHost]) -> Iterator[str]:
    """The names of the hosts that cannot reach their site."""
    hosts = list(hosts)
    wiring = graph(hosts)
    inside = wiring.subgraph(node for node in wiring if not isinstance(node, UplinkNode | Internet))
    for host in hosts:
        if not nx.has_path(inside, HostNode(host.name), Spine(host.site)):
            yield host.name


def unreachable_gateways(hosts: Iterable[TopologyHost]) -> Iterator[str]:
    """The names of the gateways that cannot reach the outside world by themselves."""
    hosts = list(hosts)
    wiring = graph(hosts)
    for host in hosts:
        uplink = uplink_node(host)
        if uplink is not None and not wiring.has_edge(HostNode(host.name), uplink):
            yield host.name


def next_hops(wiring: nx.Graph[Node], router: Leaf | Spine) -> dict[IPNetwork, Node]:
    """To which neighbouring router a router sends what is for each of its site's other subnets (shortest paths)."""
    routers = wiring.subgraph(node for node in wiring if isinstance(node, (Leaf, Spine)) and node.site == router.site)
    paths = nx.single_source_shortest_path(routers, router)
    return {
        subnet: path[1]
        for node, path in paths.items()
        if isinstance(node, Leaf) and node != router
        for subnet in node.subnets
    }


def _leaves(hosts: list[TopologyHost]) -> dict[tuple[str, IPNetwork], Leaf]:
    """By site and subnet: the wire that it is on."""
    shared: nx.Graph[tuple[str, IPNetwork]] = nx.Graph()
    for host in hosts:
        subnets = [(host.site, subnet) for subnet in host.subnets]
        shared.add_nodes_from(subnets)
        nx.add_path(shared, subnets)
    leaves = {}
    for component in nx.connected_components(shared):
        ((site, _), *_) = component
        together = tuple(sorted((subnet for _, subnet in component), key=lambda each: (each.version, each)))
        leaves.update({member: Leaf(site, together) for member in component})
    return leaves
