"""Both families, overlay and underlay, in all four combinations: what arrives is what was sent."""

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from nvi.model import (
    Endpoint,
    Host,
    Network,
    Subnet,
    Tenant,
    derive_mac,
    interface_address,
    read_address,
    show_address,
    show_mac,
)
from nvi.packets import cut
from nvi.simulation import Farm, addresses_of
from nvi.switch import PORT_UNDERLAY


def subnets(n: int) -> tuple[Subnet, Subnet]:
    return (
        Subnet(bytes([10, 0, n, 0]), 24, bytes([10, 0, n, 254])),
        Subnet(read_address(f"fd00:{n}::"), 64, read_address(f"fd00:{n}::ffff")),
    )


NETWORKS = {"web": Network("web", subnets(1)), "db": Network("db", subnets(2))}
TENANT = Tenant("acme", NETWORKS, {"all": ("web", "db")})


def endpoint(name: str, n: int, network: str, host: str) -> Endpoint:
    third = {"web": 1, "db": 2}[network]
    addresses = bytes([10, 0, third, n]), read_address(f"fd00:{third}::{n}")
    return Endpoint(name, "acme", network, derive_mac("endpoint", name), addresses, host)


WEB1, WEB2, WEB3 = endpoint("web1", 1, "web", "h1"), endpoint("web2", 2, "web", "h2"), endpoint("web3", 3, "web", "h2")
DB1 = endpoint("db1", 1, "db", "h2")
PORTS = {"web1": 16, "web2": 16, "web3": 17, "db1": 18}
UNDERLAYS = {
    "IPv4": {"h1": ("172.16.1.1",), "h2": ("172.16.2.1",)},
    "IPv6": {"h1": ("fd00:e::1",), "h2": ("fd00:e::2",)},
    "both": {"h1": ("172.16.1.1", "fd00:e::1"), "h2": ("172.16.2.1", "fd00:e::2")},
}


async def farm_on(underlay: str, pools: dict[str, tuple[str, ...]] | None = None, **options) -> Farm:
    farm = Farm(**options)
    pools = pools or {}
    hosts = [
        Host(name, "here", tuple(map(read_address, addresses)), tuple(map(read_address, pools.get(name, ()))))
        for name, addresses in UNDERLAYS[underlay].items()
    ]
    await farm.start([TENANT], hosts)
    for each in (WEB1, WEB2, WEB3, DB1):
        await farm.add_endpoint(each, PORTS[each.name])
    return farm


class Wire:
    """What is on the underlay."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def __call__(self, _: str, port: int, packet: bytes) -> None:
        if port == PORT_UNDERLAY:
            self.packets.append(packet)


@pytest.fixture(params=UNDERLAYS)
async def farm(request):
    farm = await farm_on(request.param)
    farm.underlay = request.param
    yield farm
    await farm.stop()


def header(sender: Endpoint, receiver: Endpoint, family: int, **fields):
    source, destination = (show_address(each.addresses[family == 6]) for each in (sender, receiver))
    if family == 6:
        return IPv6(src=source, dst=destination, fl=0x54321, tc=8, **fields)
    return IP(src=source, dst=destination, flags="DF", tos=8, id=0, **fields)


def frame(sender: Endpoint, receiver: Endpoint, packet) -> bytes:
    mac = receiver.mac if sender.network == receiver.network else TENANT.gateway_mac(sender.network)
    return bytes(Ether(src=show_mac(sender.mac), dst=show_mac(mac)) / packet)


async def sent(farm, sender: Endpoint, *packets: bytes) -> dict[str, list[bytes]]:
    for packet in packets:
        farm.emit(sender.name, packet)
    await farm.settle()
    return {each.name: got for each in (WEB1, WEB2, WEB3, DB1) if (got := farm.delivered(each.name))}


def echo(family: int, kind: str, identifier: int = 7):
    if family == 6:
        return (ICMPv6EchoRequest if kind == "request" else ICMPv6EchoReply)(id=identifier, data=b"payload")
    return ICMP(type=8 if kind == "request" else 0, id=identifier) / b"payload"


FAMILIES = pytest.mark.parametrize("family", [4, 6])


@FAMILIES
@pytest.mark.parametrize("kind", ["tcp", "udp", "echo"])
async def test_what_arrives_is_what_was_sent(farm, family, kind):
    there, back = {
        "tcp": (TCP(sport=1000, dport=80, flags="S"), TCP(sport=80, dport=1000, flags="SA")),
        "udp": (UDP(sport=1000, dport=53) / b"question", UDP(sport=53, dport=1000) / b"answer"),
        "echo": (echo(family, "request"), echo(family, "reply")),
    }[kind]
    first = frame(WEB1, WEB2, header(WEB1, WEB2, family) / there)
    assert await sent(farm, WEB1, first) == {"web2": [first]}
    answer = frame(WEB2, WEB1, header(WEB2, WEB1, family) / back)
    assert await sent(farm, WEB2, answer) == {"web1": [answer]}
    assert await sent(farm, WEB1, first) == {"web2": [first]}
    assert farm.hosts["h1"].agent._local.events["offers sent"] == 1


@FAMILIES
async def test_between_networks_a_router_shows(farm, family):
    limit = {"hlim": 9} if family == 6 else {"ttl": 9}
    packet = frame(WEB1, DB1, header(WEB1, DB1, family, **limit) / UDP(sport=1000, dport=53))
    got = Ether((await sent(farm, WEB1, packet))["db1"][0])
    assert got.src == show_mac(TENANT.gateway_mac("db"))
    assert (got[IPv6].hlim if family == 6 else got[IP].ttl) == 8


@FAMILIES
async def test_ttl_that_ends_at_the_router_is_explained_also_later(farm, family):
    for limit in (9, 1, 1):
        field = {"hlim": limit} if family == 6 else {"ttl": limit}
        packet = frame(WEB1, DB1, header(WEB1, DB1, family, **field) / UDP(sport=1000, dport=53))
        received = await sent(farm, WEB1, packet)
        if limit == 9:
            assert set(received) == {"db1"}
        else:
            (error,) = received["web1"]
            read = Ether(error)
            assert show_address(NETWORKS["web"].subnets[family == 6].gateway) == read.payload.src
            assert (ICMPv6TimeExceeded in read) if family == 6 else (read[ICMP].type == 11)


async def test_the_underlay_has_the_overlays_family_if_both_hosts_have_it():
    wire = Wire()
    farm = await farm_on("both", capture=wire)
    for family in (4, 6):
        await sent(farm, WEB1, frame(WEB1, WEB2, header(WEB1, WEB2, family) / UDP(sport=1000, dport=53)))
        assert len(addresses_of(wire.packets[-1])[0]) == (16 if family == 6 else 4)
    await farm.stop()


# ---- neighbours and routers -----------------------------------------------------------------------------------------


def solicit(asker: Endpoint, target: str, source: str | None = None) -> bytes:
    group = read_address("ff02::1:ff00:0")[:13] + read_address(target)[13:]
    packet = IPv6(src=source or show_address(asker.addresses[1]), dst=show_address(group), hlim=255)
    option = ICMPv6NDOptSrcLLAddr(lladdr=show_mac(asker.mac)) if source != "::" else b""
    mac = "33:33:ff:" + ":".join(f"{byte:02x}" for byte in group[13:])
    return bytes(Ether(src=show_mac(asker.mac), dst=mac) / packet / ICMPv6ND_NS(tgt=target) / option)


async def test_defect_23_neighbours_of_ipv6_are_answered_at_the_port():
    farm = await farm_on("IPv4")
    link_local = show_address(interface_address(b"\xfe\x80" + bytes(14), TENANT.gateway_mac("web")))
    for target, mac, is_router in (
        ("fd00:1::2", WEB2.mac, 0),
        ("fd00:1::ffff", TENANT.gateway_mac("web"), 1),
        (link_local, TENANT.gateway_mac("web"), 1),
    ):
        for _ in range(2):
            (answer,) = (await sent(farm, WEB1, solicit(WEB1, target)))["web1"]
            read = Ether(answer)[ICMPv6ND_NA]
            assert (read.tgt, read.R, read.S, read.O) == (target, is_router, 1, 1)
            assert Ether(answer).src == show_mac(mac)
    events = farm.hosts["h1"].agent._local.events
    assert events["punts neighbour"] == 3, "the second time, the switch knew"
    assert await sent(farm, WEB1, solicit(WEB1, "fd00:1::77")) == {}
    assert await sent(farm, WEB1, solicit(WEB1, "fd00:2::1")) == {}, "another network"
    await farm.stop()


async def test_an_address_is_probed_its_owner_hears_nothing_and_a_rival_of_the_owner():
    farm = await farm_on("IPv4")
    assert await sent(farm, WEB1, solicit(WEB1, "fd00:1::1", "::")) == {}
    own = show_address(interface_address(b"\xfe\x80" + bytes(14), WEB1.mac))
    assert await sent(farm, WEB1, solicit(WEB1, own, "::")) == {}
    (answer,) = (await sent(farm, WEB1, solicit(WEB1, "fd00:1::2", "::")))["web1"]
    read = Ether(answer)
    assert (read.dst, read[IPv6].dst, read[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)
    await farm.stop()


async def test_nobody_speaks_for_another_address_of_ipv6():
    farm = await farm_on("IPv4")
    spoofed = frame(WEB1, WEB2, IPv6(src="fd00:1::3", dst="fd00:1::2") / UDP(dport=53))
    assert await sent(farm, WEB1, spoofed) == {}
    assert await sent(farm, WEB1, solicit(WEB1, "fd00:1::2", "fd00:1::3")) == {}
    drops = (await farm.hosts["h1"].switch.read_drops([16]))[16]
    assert {reason.name: count for reason, count in drops.items()} == {"SPOOFED": 2}
    await farm.stop()


async def test_routers_answer_solicitations_and_pings_of_ipv6():
    farm = await farm_on("IPv4")
    link_local = show_address(interface_address(b"\xfe\x80" + bytes(14), WEB1.mac))
    packet = IPv6(src=link_local, dst="ff02::2", hlim=255) / ICMPv6ND_RS()
    ethernet = Ether(src=show_mac(WEB1.mac), dst="33:33:00:00:00:02")
    (answer,) = (await sent(farm, WEB1, bytes(ethernet / packet)))["web1"]
    read = Ether(answer)
    assert (read[IPv6].dst, read[ICMPv6NDOptMTU].mtu) == (link_local, 1500)
    assert (read[ICMPv6NDOptPrefixInfo].prefix, read[ICMPv6NDOptPrefixInfo].A) == ("fd00:1::", 0)
    assert ICMPv6ND_RA in read
    for router in ("fd00:1::ffff", read[IPv6].src):
        ping = IPv6(src="fd00:1::1", dst=router) / ICMPv6EchoRequest(id=7)
        ethernet = Ether(src=show_mac(WEB1.mac), dst=show_mac(TENANT.gateway_mac("web")))
        (reply,) = (await sent(farm, WEB1, bytes(ethernet / ping)))["web1"]
        assert (Ether(reply)[IPv6].src, Ether(reply)[ICMPv6EchoReply].id) == (router, 7)
    await farm.stop()


async def test_dhcp_reaches_the_agent_through_the_switch():
    farm = await farm_on("IPv4")
    said = BOOTP(chaddr=WEB1.mac) / DHCP(options=[("message-type", "discover"), "end"])
    packet = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / said
    (offer,) = (await sent(farm, WEB1, bytes(Ether(src=show_mac(WEB1.mac), dst="ff:ff:ff:ff:ff:ff") / packet)))["web1"]
    assert Ether(offer)[BOOTP].yiaddr == "10.0.1.1"
    await farm.stop()


# ---- errors ---------------------------------------------------------------------------------------------------------


@FAMILIES
async def test_defect_19_a_far_endpoints_error_reaches_who_it_is_for_with_what_it_sent(farm, family):
    question = frame(WEB1, WEB2, header(WEB1, WEB2, family) / UDP(sport=1000, dport=53) / b"question")
    await sent(farm, WEB1, question)
    quoted = question[14:]
    error = ICMPv6DestUnreach(code=4) / Raw(quoted) if family == 6 else ICMP(type=3, code=3) / Raw(quoted)
    (got,) = (await sent(farm, WEB2, frame(WEB2, WEB1, header(WEB2, WEB1, family) / error)))["web1"]
    read = Ether(got)
    assert read.payload.src == show_address(WEB2.addresses[family == 6]), "it comes from the far endpoint"
    if family == 6:
        told = bytes(read[ICMPv6DestUnreach])[8:]
        assert (read[ICMPv6DestUnreach].code, told) == (4, quoted)
        assert (read.payload.fl, read.payload.tc) == (0x54321, 8), "also across families"
    else:
        assert (read[ICMP].code, bytes(read[ICMP])[8:]) == (3, quoted)


@pytest.mark.parametrize(("family", "underlay"), [(4, "IPv6"), (6, "IPv4")])
async def test_path_mtu_discovery_across_families(family, underlay):
    """A router of the underlay cannot forward what was sent: the endpoint is told, in its family, and how much fits."""
    wire = Wire()
    farm = await farm_on(underlay, capture=wire)
    large = frame(WEB1, WEB2, header(WEB1, WEB2, family) / UDP(sport=1000, dport=53) / bytes(1200))
    await sent(farm, WEB1, large)
    on_wire = wire.packets[-1]
    source, _ = addresses_of(on_wire)
    if underlay == "IPv6":
        router = IPv6(src="fd00:e::99", dst=show_address(source)) / ICMPv6PacketTooBig(mtu=1300)
    else:
        router = IP(src="172.16.9.9", dst=show_address(source)) / ICMP(type=3, code=4, nexthopmtu=1300)
    error = bytes(Ether(src=on_wire[:6], dst=on_wire[6:12]) / router / Raw(on_wire[14:500]))
    farm.hosts["h1"].switch.receive(PORT_UNDERLAY, error)
    await farm.settle()
    (got,) = farm.delivered("web1")
    read = Ether(got)
    assert read.payload.src == show_address(NETWORKS["web"].subnets[family == 6].gateway)
    if family == 6:
        assert (read[ICMPv6PacketTooBig].mtu, bytes(read[ICMPv6PacketTooBig])[8 + 40 : 8 + 48]) == (1320, large[54:62])
    else:
        assert (read[ICMP].code, read[ICMP].nexthopmtu) == (4, 1280)
        assert (read[IPerror].dst, read[UDPerror].sport, read[UDPerror].chksum) == (
            "10.0.1.2",
            1000,
            Ether(large)[UDP].chksum,
        )
    assert farm.hosts["h1"].agent._local.events["errors translated"] == 1
    await farm.stop()


async def test_an_error_about_nothing_reaches_nobody(farm):
    await sent(farm, WEB1, frame(WEB1, WEB2, header(WEB1, WEB2, 4) / UDP(sport=1000, dport=53)))
    quoted = header(WEB1, WEB2, 4) / UDP(sport=1001, dport=53)
    lie = frame(WEB2, WEB1, header(WEB2, WEB1, 4) / ICMP(type=3, code=3) / quoted)
    assert await sent(farm, WEB2, lie) == {}


# ---- packets that are too long --------------------------------------------------------------------------------------


@FAMILIES
async def test_defect_27_what_is_too_long_for_the_underlay_is_refused_with_the_mtu(family):
    farm = await farm_on("both", mtu=1400)
    ports = UDP(sport=1000, dport=53)
    small, large = (frame(WEB1, WEB2, header(WEB1, WEB2, family) / ports / bytes(size)) for size in (100, 1440))
    assert await sent(farm, WEB1, small) == {"web2": [small]}
    (error,) = (await sent(farm, WEB1, large))["web1"]
    read = Ether(error)
    assert (read[ICMPv6PacketTooBig].mtu if family == 6 else read[ICMP].nexthopmtu) == 1400
    await farm.stop()


@pytest.mark.parametrize(
    ("underlay", "mtu", "family", "limit"),
    [
        ("IPv4", 1500, 4, 0),
        ("IPv6", 1500, 6, 0),
        ("IPv6", 1500, 4, 1480),
        ("IPv4", 1500, 6, 0),
        ("IPv4", 1400, 6, 1420),
    ],
)
async def test_the_switch_looks_at_lengths_only_where_a_packet_can_be_too_long(underlay, mtu, family, limit):
    farm = await farm_on(underlay, mtu=mtu)
    await sent(farm, WEB1, frame(WEB1, WEB2, header(WEB1, WEB2, family) / UDP(sport=1000, dport=53)))

    async def limits() -> set[int]:
        entries = await farm.hosts["h1"].switch.read_connections()
        return {entry.action.max_length for entry in entries if entry.key.scope == 16}

    assert await limits() == {limit}
    farm.mtu = 1300  # a route changes
    peer = read_address(UNDERLAYS[underlay]["h2"][0])
    await farm.hosts["h1"].agent._joiner.redirect(PORT_UNDERLAY, peer)
    growth = {("IPv6", 4): 20, ("IPv4", 6): -20}.get((underlay, family), 0)
    assert await limits() == {1300 - growth}
    await farm.stop()


async def test_what_may_be_cut_is_cut():
    farm = await farm_on("IPv4", mtu=1400)
    packet = IP(src="10.0.1.1", dst="10.0.1.2", id=9) / UDP(sport=1000, dport=53) / (bytes(range(240)) * 6)
    await sent(farm, WEB1, frame(WEB1, WEB2, header(WEB1, WEB2, 4) / UDP(sport=1000, dport=53)))
    large = frame(WEB1, WEB2, packet)
    got = (await sent(farm, WEB1, large))["web2"]
    assert [len(each) - 14 for each in got] == [1396, len(large) - 14 - 1376]
    assert b"".join(each[34:] for each in got) == large[34:]
    assert farm.hosts["h1"].agent._local.events["cut"] == 1
    await farm.stop()


@pytest.mark.parametrize("size", [1500, 1484, 1472])
async def test_fragments_that_grow_across_families_arrive_whole(size):
    """They are as long as the link, and each needs a header more in IPv6. So is the very first packet."""
    farm = await farm_on("IPv6")
    payload = bytes(n % 251 for n in range(4000))
    whole = IP(src="10.0.1.1", dst="10.0.1.2", id=9) / UDP(sport=1000, dport=53) / payload
    for _ in range(2):
        for piece in cut(frame(WEB1, WEB2, whole), size):
            farm.emit("web1", piece)
        await farm.settle()
        got = [IP(each[14:]) for each in farm.delivered("web2")]
        assert len({each.id for each in got}) == 1
        assert b"".join(bytes(each.payload) for each in sorted(got, key=lambda each: each.frag))[8:] == payload
        assert [each.flags.MF for each in sorted(got, key=lambda each: each.frag)] == [True] * (len(got) - 1) + [False]
        assert max(map(len, got)) <= 1472
    await farm.stop()


# ---- fragments ------------------------------------------------------------------------------------------------------


def pieces_of(family: int, size: int = 3000) -> list[bytes]:
    payload = bytes(n % 251 for n in range(size))
    if family == 4:
        whole = IP(src="10.0.1.1", dst="10.0.1.2", id=9) / UDP(sport=1000, dport=53) / payload
        return cut(frame(WEB1, WEB2, whole), 1400)
    base = IPv6(src="fd00:1::1", dst="fd00:1::2") / IPv6ExtHdrFragment(id=9) / UDP(sport=1000, dport=53) / payload
    return [frame(WEB1, WEB2, each) for each in fragment6(base, 1400)]


@FAMILIES
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_defect_21_fragments_arrive_in_whatever_order_they_come(family, order):
    """The very first packet of the connection is in fragments, and they overtake each other."""
    farm = await farm_on("both")
    pieces = pieces_of(family)
    for index in order:
        farm.emit("web1", pieces[index])
    await farm.settle()
    got = farm.delivered("web2")
    at = 54 + 8 if family == 6 else 34

    def data(packets: list[bytes]) -> set[bytes]:
        return {packet[at:] for packet in packets}

    assert data(got) == data(pieces)
    assert len(got) == 3
    await farm.stop()


# ---- protocols without ports ----------------------------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("protocol", [47, 50, 132, 4, 253, 33, 136])
async def test_defect_22_protocols_without_ports_pass_both_ways(farm, family, protocol):
    field = {"nh": protocol} if family == 6 else {"proto": protocol}
    there = frame(WEB1, WEB2, header(WEB1, WEB2, family, **field) / Raw(b"there" * 20))
    back = frame(WEB2, WEB1, header(WEB2, WEB1, family, **field) / Raw(b"back" * 20))
    assert await sent(farm, WEB1, there) == {"web2": [there]}
    assert await sent(farm, WEB2, back) == {"web1": [back]}


async def test_two_flows_without_ports_need_two_pairs_of_addresses():
    farm = await farm_on("IPv4")
    flows = [frame(WEB1, each, header(WEB1, each, 4, proto=47) / Raw(b"gre" * 9)) for each in (WEB2, WEB3)]
    assert await sent(farm, WEB1, flows[0]) == {"web2": [flows[0]]}
    (error,) = (await sent(farm, WEB1, flows[1]))["web1"]
    assert (Ether(error)[ICMP].type, Ether(error)[ICMP].code) == (3, 1)
    assert farm.hosts["h1"].agent._local.events["refused exhausted"] == 1
    other = frame(WEB1, WEB3, header(WEB1, WEB3, 4, proto=50) / Raw(b"esp" * 9))
    assert await sent(farm, WEB1, other) == {"web3": [other]}, "another protocol has its own"
    await farm.stop()


@pytest.mark.parametrize("pool", ["h1", "h2"])
async def test_a_pool_of_either_host_makes_room_for_more_and_survives_restarts(pool):
    wire = Wire()
    farm = await farm_on("IPv4", pools={pool: ("172.16.9.1",)}, capture=wire)
    flows = {each.name: frame(WEB1, each, header(WEB1, each, 4, proto=47) / Raw(b"gre" * 9)) for each in (WEB2, WEB3)}
    for name, packet in flows.items():
        assert await sent(farm, WEB1, packet) == {name: [packet]}
    assert len({addresses_of(packet) for packet in wire.packets}) == 2
    for host in ("h1", "h2"):
        await farm.restart_agent(host)
    for name, packet in flows.items():
        assert await sent(farm, WEB1, packet) == {name: [packet]}
    assert farm.hosts["h1"].agent._local.events["punts miss"] == 0, "adopted, not made anew"
    await farm.restart_switch("h2")
    for name, packet in flows.items():
        assert await sent(farm, WEB1, packet) == {name: [packet]}
    await farm.stop()


@pytest.mark.parametrize("underlay", ["IPv6", "IPv4"])
async def test_extension_headers_pass_within_ipv6_and_are_refused_elsewhere(underlay):
    farm = await farm_on(underlay)
    packet = frame(WEB1, WEB2, header(WEB1, WEB2, 6) / IPv6ExtHdrDestOpt() / UDP(sport=1000, dport=53) / b"x")
    received = await sent(farm, WEB1, packet)
    if underlay == "IPv6":
        assert received == {"web2": [packet]}
    else:
        assert Ether(received["web1"][0])[ICMPv6DestUnreach].code == 3
        assert farm.hosts["h1"].agent._local.events["refused family"] == 1
    await farm.stop()


async def test_when_all_is_idle_nothing_is_left(farm):
    for family in (4, 6):
        await sent(farm, WEB1, frame(WEB1, WEB2, header(WEB1, WEB2, family) / UDP(sport=1000, dport=53)))
        await sent(farm, WEB1, frame(WEB1, WEB2, header(WEB1, WEB2, family) / GRE()))
    # On an underlay of one family, two flows of GRE have but one pair of addresses.
    assert len(farm.hosts["h1"].agent._local.keys) == (4 if farm.underlay == "both" else 3)
    await farm.remove_endpoint("web1")
    await farm.settle()
    for host in ("h1", "h2"):
        assert await farm.hosts[host].switch.read_connections() == []
        assert len(farm.hosts[host].agent._local.keys) == 0
