"""Packets that no careful stack sends: each is a counted drop, or the host's own stack's to judge, and nothing more.

From an endpoint, from the underlay and from the outside. Whatever it is, nobody but its sender hears of it, and no
switch holds anything of it afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from nvi.model import (
    Endpoint,
    External,
    Host,
    Network,
    Service,
    Subnet,
    Tenant,
    derive_mac,
    interface_address,
    read_address,
    show_address,
    show_mac,
)
from nvi.simulation import Farm, VirtualClockLoop, external_mac, host_mac
from nvi.switch import PORT_EXTERNAL, PORT_UNDERLAY

WEB = Network(
    "web",
    (
        Subnet(read_address("10.0.1.0"), 24, read_address("10.0.1.254")),
        Subnet(read_address("fd01::"), 64, read_address("fd01::fe")),
    ),
    internet=True,
)
TENANTS = [Tenant(name, {"web": WEB}) for name in ("acme", "globex")]
ONE, OTHER, ONE6, OTHER6 = "10.0.1.1", "10.0.1.2", "fd01::1", "fd01::2"
H1, H2, PUBLIC, PEER = "172.16.0.1", "172.16.0.2", "198.51.100.1", "203.0.113.7"
HOSTS = [
    Host("h1", "here", (read_address(H1),), external=External(read_address(PUBLIC), read_address(PUBLIC))),
    Host("h2", "here", (read_address(H2),)),
]


def endpoint(tenant: str, number: int, host: str) -> Endpoint:
    addresses = read_address(f"10.0.1.{number}"), read_address(f"fd01::{number}")
    return Endpoint(f"{tenant}{number}", tenant, "web", derive_mac(tenant, str(number)), addresses, host)


ENDPOINTS = [(endpoint(tenant, n, host), port) for n, host in ((1, "h1"), (2, "h2"), (3, "h1"))
             for port, tenant in enumerate(("acme", "globex"), 14 + 2 * n)]  # fmt: skip
MAC, OTHER_MAC = show_mac(derive_mac("acme", "1")), show_mac(derive_mac("acme", "2"))
LINK_LOCAL = show_address(interface_address(read_address("fe80::"), derive_mac("acme", "1")))


def eth(packet: Packet, **fields: str) -> bytes:
    return bytes(Ether(**{"src": MAC, "dst": OTHER_MAC, **fields}) / packet)


def v4(payload: Packet, **fields: Any) -> bytes:
    """From `acme1` to `acme2`, who have a connection with each other: ports 1000 and 80."""
    return eth(IP(**{"src": ONE, "dst": OTHER, "flags": "DF", **fields}) / payload)


def v6(payload: Packet, **fields: Any) -> bytes:
    return eth(IPv6(**{"src": ONE6, "dst": OTHER6, **fields}) / payload)


def tcp(**fields: Any) -> Packet:
    return TCP(**{"sport": 2000, "dport": 80, "flags": "S", **fields})


def arp(**fields: Any) -> bytes:
    return eth(ARP(**{"hwsrc": MAC, "psrc": ONE, "pdst": OTHER, **fields}), dst="ff:ff:ff:ff:ff:ff")


def solicit(option: str = MAC, *, target: str = OTHER6, **fields: Any) -> bytes:
    ip = IPv6(**{"src": ONE6, "dst": "ff02::1:ff00:2", "hlim": 255, **fields})
    return eth(ip / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=option), dst="33:33:ff:00:00:02")


def spoil(frame: bytes, at: int, *values: int) -> bytes:
    return frame[:at] + bytes(values) + frame[at + len(values) :]


def quote(**fields: Any) -> Packet:
    """A TCP segment as an error quotes it."""
    return IP(**{"src": OTHER, "dst": ONE, "flags": "DF", **fields}) / TCP(sport=80, dport=2000)


FRAME, FRAME6 = v4(tcp()), v6(tcp())
UNREACHABLE = ICMP(type=3, code=1)

FROM_ENDPOINT = {
    # Ethernet
    "runt": (FRAME[:10], "malformed"),
    "802.3 length": (spoil(FRAME, 12, 0, 46), "unsupported"),
    "VLAN": (eth(Dot1Q(vlan=7) / IP(src=ONE, dst=OTHER) / tcp()), "unsupported"),
    "MAC of another": (v4(tcp())[:6] + derive_mac("acme", "3") + FRAME[12:], "spoofed"),
    "MAC of another tenant's twin": (FRAME[:6] + derive_mac("globex", "1") + FRAME[12:], "spoofed"),
    "to the broadcast MAC": (eth(IP(src=ONE, dst=OTHER) / tcp(), dst="ff:ff:ff:ff:ff:ff"), "group"),
    # IPv4 (RFC 791, RFC 1122 section 3.2.1, RFC 1812 section 5)
    "IPv4 header cut short": (FRAME[:26], "malformed"),
    "IPv4 version 5": (spoil(FRAME, 14, 0x55), "malformed"),
    "IPv6 in an IPv4 frame": (spoil(FRAME, 14, 0x65), "malformed"),
    "IHL 4": (spoil(FRAME, 14, 0x44), "malformed"),
    "IHL beyond the packet": (spoil(FRAME, 14, 0x4F), "options"),
    "total length less than the header": (v4(tcp(), len=19), "malformed"),
    "total length beyond the frame": (v4(tcp(), len=1000), "malformed"),
    "total length within the TCP header": (v4(tcp(), len=30), "agent malformed"),
    "header checksum": (v4(tcp(), chksum=1), "agent malformed"),
    "TTL 0": (v4(tcp(), ttl=0), "malformed"),
    "source route": (v4(tcp(), options=[IPOption_LSRR(routers=["10.0.1.254"])]), "options"),
    "record route": (v4(tcp(), options=[IPOption_RR(length=7, routers=["0.0.0.0"])]), "options"),
    "address of another": (v4(tcp(), src="10.0.1.3"), "spoofed"),
    "loopback source": (v4(tcp(), src="127.0.0.1"), "spoofed"),
    "multicast source": (v4(tcp(), src="224.0.0.1"), "spoofed"),
    "broadcast source": (v4(tcp(), src="255.255.255.255"), "spoofed"),
    "no source": (v4(tcp(), src="0.0.0.0"), "malformed"),
    "source of the gateway": (v4(tcp(), src="10.0.1.254"), "spoofed"),
    "source of the host": (v4(tcp(), src=H1), "spoofed"),
    "multicast": (v4(UDP(dport=53), dst="224.0.0.251"), "group"),
    "broadcast": (v4(UDP(dport=53), dst="255.255.255.255"), "group"),
    "to class E": (v4(tcp(), dst="240.0.0.1"), "group"),
    "to loopback": (v4(tcp(), dst="127.0.0.1"), "refused"),
    "to nobody": (v4(tcp(), dst="0.0.0.0"), "refused"),
    "to the host": (v4(tcp(), dst=H1), "told"),
    "to another host": (v4(tcp(), dst=H2), "told"),
    "to the gateway's own public address": (v4(tcp(dport=22), dst=PUBLIC), "told"),
    "directed broadcast": (v4(UDP(dport=53), dst="10.0.1.255"), "told"),
    "Land": (v4(tcp(sport=80), dst=ONE), "told"),
    # TCP, UDP, ICMP (RFC 9293, RFC 768, RFC 792, RFC 1122)
    "TCP header cut short": (v4(tcp(), len=30)[:44], "malformed"),
    "TCP offset 4": (v4(tcp(dataofs=4)), "agent malformed"),
    "TCP offset beyond the packet": (v4(tcp(dataofs=15)), "agent malformed"),
    "TCP without flags": (v4(tcp(flags="")), "agent malformed"),
    "TCP SYN FIN": (v4(tcp(flags="SF")), "agent malformed"),
    "TCP SYN RST": (v4(tcp(flags="SR")), "agent malformed"),
    "TCP Christmas tree": (v4(tcp(flags="FSRPAUEC")), "agent malformed"),
    "TCP source port 0": (v4(tcp(sport=0)), "agent malformed"),
    "TCP destination port 0": (v4(tcp(dport=0)), "agent malformed"),
    "UDP destination port 0": (v4(UDP(sport=2000, dport=0)), "agent malformed"),
    "UDP length less than its header": (v4(UDP(sport=2000, dport=80, len=7)), "agent malformed"),
    "UDP length beyond the packet": (v4(UDP(sport=2000, dport=80, len=100)), "agent malformed"),
    "echo with a code": (v4(ICMP(code=5)), "unsupported"),
    "echo reply that nobody asked for": (v4(ICMP(type=0, id=7)), "told"),
    "source quench": (v4(ICMP(type=4) / quote()), "unsupported"),
    "redirect": (v4(ICMP(type=5, gw="10.0.1.3") / quote()), "unsupported"),
    "router advertisement": (v4(ICMP(type=9)), "unsupported"),
    "timestamp": (v4(ICMP(type=13)), "unsupported"),
    "address mask": (v4(ICMP(type=17)), "unsupported"),
    "ICMP cut short": (v4(ICMP(), len=21)[:35], "malformed"),
    "ICMPv6 in IPv4": (v4(Raw(bytes(ICMPv6EchoRequest(id=7))), proto=58), "agent malformed"),
    # ICMP errors about what was never sent here (RFC 5927)
    "error about nothing": (v4(UNREACHABLE / quote()), "error"),
    "error about somebody else's packet": (v4(UNREACHABLE / quote(dst="10.0.1.3")), "error"),
    "error about a packet between others": (v4(UNREACHABLE / quote(src="10.0.1.3", dst=OTHER)), "error"),
    "error about an error": (v4(UNREACHABLE / IP(src=OTHER, dst=ONE) / UNREACHABLE), "error"),
    "error about a fragment": (v4(UNREACHABLE / IP(src=OTHER, dst=ONE, frag=9, proto=17) / bytes(8)), "error"),
    "error without its quotation": (v4(UNREACHABLE), "error"),
    # Fragments (RFC 1858, RFC 3128, RFC 6274)
    "fragment beyond the largest datagram": (v4(Raw(bytes(64)), proto=17, flags=0, frag=8189), "malformed"),
    "fragment of nothing": (v4(Raw(b""), proto=17, flags="MF", frag=0), "malformed"),
    "TCP flags in a later fragment": (v4(Raw(bytes(16)), proto=6, flags=0, frag=1), "malformed"),
    "TCP header cut by fragmentation": (v4(Raw(bytes(tcp())[:8]), proto=6, flags="MF"), "malformed"),
    "first fragment of an odd length": (v4(UDP(dport=80) / bytes(9), flags="MF"), "agent malformed"),
    "first fragment of an error": (v4(UNREACHABLE / quote() / bytes(4), flags="MF"), "fragment"),
    "later fragment of nothing known": (v4(Raw(bytes(64)), proto=17, flags=0, frag=9, id=4711), "reinjected"),
    # ARP (RFC 826, RFC 5227)
    "ARP reply": (arp(op=2), "unsupported"),
    "ARP with another's MAC": (arp(hwsrc=OTHER_MAC), "spoofed"),
    "ARP with another's address": (arp(psrc=OTHER), "spoofed"),
    "ARP for its own address": (arp(pdst=ONE), "neighbour_self"),
    "ARP cut short": (arp()[:30], "malformed"),
    "ARP for another network's address": (arp(pdst="10.0.9.9"), "silence"),
    "ARP for a host": (arp(pdst=H1), "silence"),
    # IPv6 (RFC 8200, RFC 5095, RFC 2675)
    "IPv6 header cut short": (FRAME6[:40], "malformed"),
    "IPv4 in an IPv6 frame": (spoil(FRAME6, 14, 0x45), "malformed"),
    "payload length beyond the frame": (v6(tcp(), plen=1000), "malformed"),
    "hop limit 0": (v6(tcp(), hlim=0), "malformed"),
    "IPv6 without a source": (v6(tcp(), src="::"), "malformed"),
    "IPv6 loopback source": (v6(tcp(), src="::1"), "spoofed"),
    "IPv6 multicast source": (v6(tcp(), src="ff02::1"), "spoofed"),
    "IPv6 address of another": (v6(tcp(), src="fd01::3"), "spoofed"),
    "IPv4 address in IPv6": (v6(tcp(), src="::ffff:10.0.1.1"), "spoofed"),
    "link-local address": (v6(tcp(), src=LINK_LOCAL), "agent link-local"),
    "to all nodes": (v6(ICMPv6EchoRequest(), dst="ff02::1"), "group"),
    "to IPv6 loopback": (v6(tcp(), dst="::1"), "refused"),
    "to an IPv4 address in IPv6": (v6(tcp(), dst="::ffff:10.0.1.2"), "told"),
    "routing header 0": (v6(IPv6ExtHdrRouting(addresses=["fd01::3"]) / tcp()), "extension"),
    "hop by hop": (v6(IPv6ExtHdrHopByHop() / tcp()), "extension"),
    "jumbogram": (v6(IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)]) / tcp(), plen=0), "extension"),
    "routing header in a fragment": (v6(IPv6ExtHdrFragment(m=1) / IPv6ExtHdrRouting() / tcp()), "extension"),
    "fragment in a fragment": (v6(IPv6ExtHdrFragment(m=1) / IPv6ExtHdrFragment() / tcp()), "extension"),
    "IPv6 fragment beyond the largest datagram": (
        v6(IPv6ExtHdrFragment(offset=8191, nh=17) / Raw(bytes(64))),
        "malformed",
    ),
    "IPv6 error about nothing": (
        v6(ICMPv6TimeExceeded() / IPv6(src=OTHER6, dst=ONE6) / TCP(sport=80, dport=2000)),
        "error",
    ),
    "ICMP in IPv6": (v6(Raw(bytes(ICMP(id=7))), nh=1), "agent malformed"),
    # Neighbour discovery (RFC 4861 sections 6.1, 7.1 and 8.1)
    "solicitation from afar": (solicit(hlim=254), "neighbour"),
    "solicitation with another's MAC": (solicit(OTHER_MAC), "spoofed"),
    "solicitation in another's name": (solicit(src="fd01::3"), "spoofed"),
    "solicitation in IPv4's name": (solicit(src="::ffff:10.0.1.1"), "spoofed"),
    "solicitation of a group": (solicit(target="ff02::1"), "neighbour"),
    "solicitation of its own address": (solicit(target=ONE6), "neighbour_self"),
    "solicitation with a wrong checksum": (spoil(solicit(), 56, 1, 1), "malformed"),
    "advertisement of another's address": (v6(ICMPv6ND_NA(tgt="fd01::3"), hlim=255), "neighbour"),
    "router advertisement of IPv6": (v6(ICMPv6ND_RA(), hlim=255, dst="ff02::1"), "neighbour"),
    "redirect of IPv6": (v6(ICMPv6ND_Redirect(tgt="fd01::3", dst=OTHER6), hlim=255), "neighbour"),
}


def inside(payload: Packet, **fields: Any) -> bytes:
    """On the underlay, from h2 to h1."""
    return bytes(Ether(dst=show_mac(host_mac("h1"))) / IP(**{"src": H2, "dst": H1, **fields}) / payload)


def outside(payload: Packet, **fields: Any) -> bytes:
    """From somebody outside to the gateway h1."""
    return bytes(Ether(dst=show_mac(external_mac("h1"))) / IP(**{"src": PEER, "dst": PUBLIC, **fields}) / payload)


KEY, SERVICE = 25000, 8080
STRAY = tcp(sport=25001, dport=KEY, flags="A")
MARTIANS = ("0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255")

FROM_UNDERLAY = {
    # What is not NVI's, or cannot be, is for the host's own stack to judge.
    "runt": (bytes(10), "stack"),
    "header cut short": (inside(STRAY)[:30], "stack"),
    "ports cut short": (inside(STRAY)[:36], "stack"),
    "source route": (inside(STRAY, options=[IPOption_LSRR(routers=[H2])]), "stack"),
    "error about nothing": (inside(UNREACHABLE / quote(src=H1, dst=H2)), "stack"),
    "error about somebody else's packet": (inside(UNREACHABLE / quote(src="9.9.9.9", dst=H2)), "stack"),
    "redirect": (inside(ICMP(type=5, gw=H2) / quote()), "stack"),
    "ARP": (bytes(Ether() / ARP(psrc=H1, pdst=H1)), "stack"),
    # In the range of keys nothing reaches the stack.
    "stray": (inside(STRAY), "agent strays"),
    "stray with a wrong checksum": (inside(STRAY, chksum=1), "agent malformed"),
    "stray in the name of the host itself": (inside(STRAY, src=H1), "agent strays"),
    **{f"stray from {source}": (inside(STRAY, src=source), "agent strays") for source in MARTIANS},
    "stray for another host": (inside(STRAY, dst=H2), "agent strays for others"),
    "stray for an endpoint": (inside(STRAY, dst=ONE), "agent strays for others"),
    "to a service, but from inside": (inside(tcp(dport=SERVICE), dst=PUBLIC), "agent service from inside"),
}

FROM_OUTSIDE = {
    "stray": (outside(STRAY), "agent strays"),
    "stray for the underlay": (outside(STRAY, dst=H1), "agent strays for others"),
    "stray for an endpoint": (outside(STRAY, dst=ONE), "agent strays for others"),
    "error about nothing": (outside(UNREACHABLE / quote(src=PUBLIC, dst=PEER)), "stack"),
    "SYN FIN": (outside(tcp(dport=SERVICE, flags="SF")), "agent malformed"),
    "port 0": (outside(tcp(sport=0, dport=SERVICE)), "agent malformed"),
    "UDP to a service of TCP": (outside(UDP(dport=SERVICE)), "stack"),
    "TTL 1": (outside(tcp(dport=SERVICE), ttl=1), "agent refused outside"),
    # Whom nobody can answer (RFC 1812 section 5.3.7), who is the gateway itself, who is inside.
    **{
        f"service called by {source}": (outside(tcp(dport=SERVICE), src=source), "agent refused outside")
        for source in (*MARTIANS, PUBLIC, ONE, OTHER)
    },
}

COUNTED = (
    "malformed",
    "strays",
    "strays for others",
    "refused outside",
    "service from inside",
    "link-local",
)
"""Events of the agent that are the end of a packet."""


class World:
    """A farm with live connections, and all that leaves its switches."""

    def __init__(self) -> None:
        self.loop = VirtualClockLoop()
        self.seen: list[tuple[str, int, bytes]] = []
        self.farm: Farm = self.loop.run_until_complete(self._start())

    async def _start(self) -> Farm:
        farm = Farm(capture=lambda *packet: self.seen.append(packet))
        await farm.start(TENANTS, HOSTS)
        for each, port in ENDPOINTS:
            await farm.add_endpoint(each, port)
        await farm.hosts["h1"].agent.publish_service(Service("acme", read_address(ONE), 80, 6, "h1", SERVICE))
        for make in (v4, v6):
            farm.emit("acme1", make(tcp(sport=1000)))
        await asyncio.sleep(0.1)
        return farm

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def held(self) -> list[object]:
        return [set(self.run(each.switch.read_connections())) for each in self.farm.hosts.values()]

    def outcome(self, port: int, frame: bytes) -> str:
        """What becomes of a packet that comes in at a port of h1; it is one thing, and no more."""
        host = self.farm.hosts["h1"]
        drops = self.run(host.switch.read_drops([port])).get(port, {})
        events, entries = host.agent._local.events.copy(), self.held()
        self.seen.clear()

        async def receive() -> None:
            host.switch.receive(port, frame)
            await asyncio.sleep(0.5)

        self.run(receive())
        assert {(where, at) for where, at, _ in self.seen} <= {("h1", port), ("h1", port + 1)}, "it went further"
        told = [packet for _, at, packet in self.seen if at == port]
        passed = [packet for _, at, packet in self.seen if at == port + 1]
        now = self.run(host.switch.read_drops([port])).get(port, {})
        dropped = [reason.name.lower() for reason in now if now[reason] != drops.get(reason, 0)]
        counted = [f"agent {kind}" for kind in COUNTED
                   if host.agent._local.events[kind] != events[kind]]  # fmt: skip
        assert host.agent._local.events["failures"] == 0
        outcomes = [*dropped, *counted]
        if passed:
            assert passed == [frame], "the stack gets what came"
            outcomes.append("stack")
        new = [entry for before, after in zip(entries, self.held(), strict=True) for entry in after - before]
        if new:
            assert all("Drop" in type(entry.action).__name__ for entry in new), "it was installed"
            outcomes.append("told" if told else "refused")
        else:
            assert not told, "an answer"
        assert len(outcomes) <= 1, outcomes
        return outcomes[0] if outcomes else "silence"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.run(made.farm.stop())
    made.loop.close()


ATTACKS = {16: FROM_ENDPOINT, PORT_UNDERLAY: FROM_UNDERLAY, PORT_EXTERNAL: FROM_OUTSIDE}


@pytest.mark.parametrize(("port", "name"), [(port, name) for port, attacks in ATTACKS.items() for name in attacks])
def test_it_ends_where_a_careful_router_would_end_it(world: World, port: int, name: str) -> None:
    frame, expected = ATTACKS[port][name]
    assert world.outcome(port, frame) == expected
