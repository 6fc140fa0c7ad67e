"""The outside world: the Internet's router, 1:1 NATs before gateways, and hosts out there. No I/O.

```
  gateway                                            outside host
 ── external0 ─┬─ br0 ─┐                       ┌──────── eth0
 ── external0 ─┘   (uplink)  router ───────────┘   (its addresses)
                       │
 ── external0 ─── SITE/nat0 (uplink of gateways with a `public` address)
```
"""

from __future__ import annotations

from ..topology import Topology
from ..topology.model import IPAddress, TopologyHost
from ..topology.underlay import UplinkNode, uplink_node
from .parts import Cable, Link, Node, Plug, add_address, enable_ipv6, families, forward, ip, plain, prepare, route
from .routers import bridge, make_bridge

INTERNET = "internet/router"


def outside(topology: Topology) -> tuple[list[Node], list[Cable]]:
    """All of it, with the cables from each gateway's `external0`; nothing if a farm has no outside."""
    uplinks: dict[UplinkNode, list[TopologyHost]] = {}
    for host in topology.hosts.values():
        if (uplink := uplink_node(host)) is not None:
            uplinks.setdefault(uplink, []).append(host)
    if not uplinks and not topology.outside:
        return [], []
    versions = families(
        [uplink.subnet for uplink in uplinks] + [each for addresses in topology.outside.values() for each in addresses]
    )
    world = _World(versions)
    for uplink, gateways in uplinks.items():
        if uplink.translated_in is None:
            world.attach(uplink, gateways)
        else:
            world.translate(uplink, gateways)
    for name, addresses in topology.outside.items():
        world.host(name, addresses)
    return world.nodes()


class _World:
    """The Internet's router, as it grows."""

    def __init__(self, versions: frozenset[int]) -> None:
        self._versions = versions
        self._nodes: list[Node] = []
        self._cables: list[Cable] = []
        self._bridges: list[str] = []
        self._wires: list[str] = []
        self._links: list[str] = []
        self._commands: list[str] = []
        self._elsewhere: list[IPAddress] = []
        """Addresses that this router reaches through links."""

    def attach(self, uplink: UplinkNode, gateways: list[TopologyHost]) -> None:
        """Gateways whose addresses the outside sees as they are."""
        name = f"br{len(self._bridges)}"
        ports = []
        for gateway in gateways:
            ports.append(f"port{len(self._wires)}")
            self._wires.append(ports[-1])
            self._cables.append(Cable(Plug(gateway.name, "external0"), Plug(INTERNET, ports[-1])))
        self._bridges.append(name)
        self._commands += bridge(name, (uplink.subnet,), ports)

    def translate(self, uplink: UplinkNode, gateways: list[TopologyHost]) -> None:
        """Gateways behind a 1:1 NAT: a router that has no address of theirs, but rewrites them."""
        name = f"{uplink.translated_in}/nat{len(self._links)}"
        ports = [f"port{number}" for number in range(1, len(gateways) + 1)]
        for gateway, port in zip(gateways, ports, strict=True):
            self._cables.append(Cable(Plug(gateway.name, "external0"), Plug(name, port)))
        pairs = {gateway.external.interface.ip: gateway.external.public for gateway in gateways if gateway.external}
        link = self._link(name, "up0", list(pairs.values()))
        version = uplink.subnet.version
        configure = [
            ip(make_bridge("br0")),
            *([enable_ipv6("br0", "up0")] if 6 in self._versions else []),
            ip(
                *bridge("br0", (uplink.subnet,), ports),
                *(add_address(address, "up0") for address in link.addresses(True)),
                "link set dev up0 up",
                route("default", link.via(False, version), "up0"),
            ),
            plain([*ports, "up0"]),
            _translation(version, pairs),
        ]
        # A connection that a moved endpoint brings along begins in the middle: no window of it has been seen.
        liberal = "echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"
        self._nodes.append(Node(name, "router", prepare(*forward(self._versions)), "\n".join([*configure, liberal])))

    def host(self, name: str, addresses: tuple[IPAddress, ...]) -> None:
        """A host out there, at the end of a link of its own."""
        link = self._link(name, "eth0", list(addresses))
        versions = families(addresses)
        configure = [
            *([enable_ipv6("eth0")] if 6 in self._versions else []),
            ip(
                *(add_address(address, "eth0", "scope link") for address in link.addresses(True)),
                *(add_address(f"{address}/{address.max_prefixlen}", "eth0") for address in addresses),
                "link set dev eth0 up",
                *(
                    route("default", link.via(False, address.version), "eth0", "src", str(address))
                    for address in {address.version: address for address in reversed(addresses)}.values()
                ),
            ),
            plain(["eth0"]),
        ]
        assert versions <= self._versions, "the world has every family that is in it"
        self._nodes.append(Node(name, "outside", prepare(), "\n".join(configure)))

    def nodes(self) -> tuple[list[Node], list[Cable]]:
        """Everything."""
        configure = [
            ip(*(make_bridge(name) for name in self._bridges)),
            *([enable_ipv6(*self._bridges, *self._links)] if 6 in self._versions else []),
            ip(*self._commands),
            plain([*self._wires, *self._links]),
            *(self._answer_for_others(name) for name in self._bridges),
        ]
        router = Node(INTERNET, "router", prepare(*forward(self._versions)), "\n".join(configure))
        return [router, *self._nodes], self._cables

    def _answer_for_others(self, wire: str) -> str:
        """A gateway may take for its neighbour what lies in its subnet and yet behind a link."""
        ndp = [f"neigh add proxy {address} dev {wire}" for address in self._elsewhere if address.version == 6]
        lines = [
            f"echo 1 > /proc/sys/net/ipv4/conf/{wire}/proxy_arp",
            f"echo 0 > /proc/sys/net/ipv4/neigh/{wire}/proxy_delay",
        ]
        if ndp:
            lines += [
                f"echo 1 > /proc/sys/net/ipv6/conf/{wire}/proxy_ndp",
                f"echo 0 > /proc/sys/net/ipv6/neigh/{wire}/proxy_delay",
                ip(*ndp, family=6),
            ]
        return "\n".join(lines)

    def _link(self, peer: str, interface: str, addresses: list[IPAddress]) -> Link:
        """A cable to another node, through which it has these addresses."""
        link = Link(len(self._links), self._versions)
        wire = f"link{link.number}"
        self._links.append(wire)
        self._cables.append(Cable(Plug(INTERNET, wire), Plug(peer, interface)))
        self._elsewhere += addresses
        self._commands += [
            *(add_address(address, wire) for address in link.addresses(False)),
            f"link set dev {wire} up",
            *(
                route(f"{address}/{address.max_prefixlen}", link.via(True, address.version), wire)
                for address in addresses
            ),
        ]
        return link


def _translation(version: int, pairs: dict[IPAddress, IPAddress]) -> str:
    """Each address becomes its public one on the way out, and the reverse on the way in."""
    family = "ip" if version == 4 else "ip6"
    outward = ", ".join(f"{own} : {public}" for own, public in pairs.items())
    inward = ", ".join(f"{public} : {own}" for own, public in pairs.items())
    return f"""nft -f - <<'.'
table {family} translation {{
    chain inward {{
        type nat hook prerouting priority dstnat
        iifname "up0" dnat to {family} daddr map {{ {inward} }}
    }}
    chain outward {{
        type nat hook postrouting priority srcnat
        oifname "up0" snat to {family} saddr map {{ {outward} }}
    }}
}}
."""
