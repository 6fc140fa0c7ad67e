"""The underlay as a graph: hosts, the router of each subnet, and what joins a site's routers. No I/O.

                      spine                 one per site with more than one subnet
                    /   |   \\
               leaf   leaf   leaf           the router of a subnet, at its last host address
                |      |      |
              hosts  hosts  hosts           attached to their subnet's bridge
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

import networkx as nx
from msgspec import Struct

from .model import TopologyHost


class HostNode(Struct, frozen=True):
    """A host in the graph."""

    name: str


class Leaf(Struct, frozen=True):
    """A subnet's router."""

    site: str
    subnet: IPv4Network

    @property
    def address(self) -> IPv4Address:
        """Where the hosts of the subnet find it."""
        address = router_address(self.subnet)
        assert address is not None, "a subnet without room for a router has no leaf"
        return address


class Spine(Struct, frozen=True):
    """What joins the routers of a site. It stands for the site as a whole."""

    site: str


Node = HostNode | Leaf | Spine


def router_address(subnet: IPv4Network) -> IPv4Address | None:
    """The last host address of a subnet, which is its router's; None if there is no room for both router and hosts."""
    if subnet.prefixlen == 32:
        return None
    return subnet[-1] if subnet.prefixlen == 31 else subnet[-2]


def graph(hosts: Iterable[TopologyHost]) -> nx.Graph[Node]:
    """Who is wired to whom. A host without a usable router stays alone."""
    result: nx.Graph[Node] = nx.Graph()
    for host in hosts:
        result.add_node(HostNode(host.name))
        result.add_node(Spine(host.site))
        router = router_address(host.subnet)
        if router is None or any(router == interface.ip for interface in host.underlay):
            continue
        leaf = Leaf(host.site, host.subnet)
        result.add_edge(HostNode(host.name), leaf)
        result.add_edge(leaf, Spine(host.site))
    return result


def isolated(hosts: Iterable[TopologyHost]) -> Iterator[str]:
    """The names of the hosts that cannot reach their site."""
    hosts = list(hosts)
    underlay = graph(hosts)
    for host in hosts:
        if not nx.has_path(underlay, HostNode(host.name), Spine(host.site)):
            yield host.name


def next_hops(underlay: nx.Graph[Node], router: Leaf | Spine) -> dict[IPv4Network, Node]:
    """To which neighbouring router a router sends what is for each of its site's other subnets (shortest paths)."""
    paths = nx.single_source_shortest_path(underlay, router)
    return {
        node.subnet: path[1]
        for node, path in paths.items()
        if isinstance(node, Leaf) and node != router and node.site == router.site
    }
