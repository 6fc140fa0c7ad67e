"""What a farm is built of: namespaces, cables between them, and how a namespace is set up. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from msgspec import Struct

from ..topology.model import DEFAULT_MTU, IPAddress, IPNetwork
from . import Kind

# What user-space switches cannot cope with: checksums left to hardware that is not there, and frames of 64 kB. VLAN
# tags stay in the frame, where a switch expects them.
_OFFLOADS = "rx off tx off sg off tso off gso off gro off rxvlan off txvlan off"

_LINKS = IPv4Network("169.254.0.0/16")


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


class Link(Struct, frozen=True):
    """A cable between two routers, numbered from link-local addresses, which are nobody else's."""

    number: int
    """Of its own at the router that has the lower end."""
    families: frozenset[int]

    def addresses(self, upper: bool) -> list[str]:
        """Of one end, one for each family, with their prefix lengths."""
        ipv4 = f"{_LINKS[2 * self.number + upper]}/31"
        return [text for version, text in ((4, ipv4), (6, f"fe80::{1 + upper}/64")) if version in self.families]

    def via(self, upper: bool, version: int) -> str:
        """The address of one end, as the next hop of a route of one family."""
        return str(_LINKS[2 * self.number + upper]) if version == 4 else f"fe80::{1 + upper}"


def prepare(*commands: str) -> str:
    """What every namespace begins with. IPv6 is off but where `enable_ipv6` says otherwise: its discovery of
    neighbours and routers would be noise on every port of a switch. Nothing is routed unless `FORWARD` says so.
    """
    off = (
        "for i in all default; do "
        "d=/proc/sys/net/ipv6/conf/$i; "
        "if [ -e $d ]; then "
        "for f in accept_ra accept_dad router_solicitations; do echo 0 > $d/$f; done; echo 1 > $d/disable_ipv6; fi; "
        "echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done"
    )
    return "\n".join(("ip link set lo up", off, "echo 0 > /proc/sys/net/ipv4/ip_forward", *commands))


def forward(families: Iterable[int]) -> list[str]:
    """What makes a namespace a router."""
    files = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}
    return [f"echo 1 > {files[version]}" for version in sorted(families)]


def enable_ipv6(*interfaces: str) -> str:
    """Switch IPv6 on; it needs the loopback interface too."""
    names = " ".join(("lo", *interfaces))
    return f"for i in {names}; do echo 0 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done"


def plain(interfaces: Iterable[str]) -> str:
    """Switch off what user-space switches cannot cope with."""
    return f"for i in {' '.join(interfaces)}; do ethtool -K $i {_OFFLOADS} >/dev/null; done"


def ip(*commands: str, family: int | None = None) -> str:
    """One process for many `ip` commands."""
    option = "" if family is None else f" -{family}"
    return "\n".join((f"ip{option} -batch - <<'.'", *commands, "."))


def add_address(address: str, interface: str, *options: str) -> str:
    """An `ip` command. An IPv6 address is used at once, not after a second in which nobody else claims it."""
    words = ["addr add", address, "dev", interface, *options]
    return " ".join([*words, "nodad"] if ":" in address else words)


def set_mtu(interface: str, mtu: int) -> list[str]:
    """An `ip` command, if it takes one."""
    return [] if mtu == DEFAULT_MTU else [f"link set dev {interface} mtu {mtu}"]


def route(destination: IPNetwork | IPAddress | str, via: str, interface: str, *options: str) -> str:
    """An `ip` command."""
    return " ".join(("route add", str(destination), "via", via, "dev", interface, *options))


def families(subnets: Iterable[IPNetwork | IPAddress]) -> frozenset[int]:
    """The IP versions of some addresses or networks."""
    return frozenset(subnet.version for subnet in subnets)
