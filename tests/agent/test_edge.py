"""What an agent does at the edge of its switch, in the name of its endpoints' router."""

import asyncio
from collections import Counter

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from agent.farm import ACME, ENDPOINTS, GATEWAYS, frame, ip, start
from nvi.agent import neighbours
from nvi.agent.explaining import ERROR_BURST, ERROR_RATE, Allowance
from nvi.agent.fragments import BYTES_PER_PORT, LONG_PATIENCE, PATIENCE, PER_PORT, Fragments
from nvi.model import Endpoint, Tenant, show_mac
from nvi.packets import cut
from nvi.simulation import VirtualClockLoop
from nvi.switch import Punt, PuntReason
from nvi.trace import Question

WEB1 = ENDPOINTS["acme-web1"][0]
ROUTER_MAC = show_mac(ACME.gateway_mac("web"))


@pytest.fixture
async def farm():
    farm = await start()
    yield farm
    await farm.stop()


def to_router(packet) -> bytes:
    return bytes(Ether(src=show_mac(WEB1.mac), dst=ROUTER_MAC) / packet)


async def answers(farm, packet: bytes, reason: PuntReason | None = None) -> list[Ether]:
    """What `acme-web1` receives for a packet that it sends, or that is punted."""
    if reason is None:
        farm.emit("acme-web1", packet)
    else:
        farm.hosts["h1"].switch.on_punt(Punt(16, reason, packet))
    await farm.settle()
    return [Ether(each) for each in farm.delivered("acme-web1")]


def events(farm, host="h1"):
    return farm.hosts[host].agent._local.events


def on_virtual_clock(work) -> None:
    loop = VirtualClockLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


async def test_the_gateway_address_answers_ping(farm):
    for sequence in (1, 2):
        (reply,) = await answers(
            farm, to_router(IP(src=ip("acme-web1"), dst=GATEWAYS["web"]) / ICMP(id=7, seq=sequence))
        )
        assert (reply.src, reply[IP].src, reply[ICMP].type, reply[ICMP].id) == (ROUTER_MAC, GATEWAYS["web"], 0, 7)
        assert reply[ICMP].seq == sequence
    assert not await farm.hosts["h1"].switch.read_connections()


async def test_the_gateway_address_serves_nothing(farm):
    base = IP(src=ip("acme-web1"), dst=GATEWAYS["web"])
    (refused,) = await answers(farm, to_router(base / TCP(sport=1000, dport=22, flags="S", seq=5)))
    assert (refused[TCP].flags, refused[TCP].ack, refused[IP].src) == ("RA", 6, GATEWAYS["web"])
    (refused,) = await answers(farm, to_router(base / UDP(sport=1000, dport=33434)))
    assert (refused[ICMP].type, refused[ICMP].code) == (3, 3)
    assert await answers(farm, to_router(base / ICMP(type=0, id=7))) == []


async def test_another_networks_gateway_is_no_endpoint(farm):
    (refused,) = await answers(farm, to_router(IP(src=ip("acme-web1"), dst=GATEWAYS["db"]) / ICMP(id=7)))
    assert (refused[ICMP].type, refused[ICMP].code) == (3, 1)


def discover(mac=WEB1.mac, source="0.0.0.0", destination="255.255.255.255", kind="discover", **fields) -> bytes:
    bootp = BOOTP(chaddr=mac, xid=7, **fields) / DHCP(options=[("message-type", kind), "end"])
    packet = IP(src=source, dst=destination) / UDP(sport=68, dport=67) / bootp
    ethernet = "ff:ff:ff:ff:ff:ff" if destination == "255.255.255.255" else ROUTER_MAC
    return bytes(Ether(src=show_mac(WEB1.mac), dst=ethernet) / packet)


async def test_defect_25_dhcp_is_answered_from_what_the_orchestrator_said(farm):
    (offer,) = await answers(farm, discover(), PuntReason.LOCAL)
    options = dict(each for each in offer[DHCP].options if isinstance(each, tuple))
    assert (offer[BOOTP].yiaddr, offer[IP].src) == (ip("acme-web1"), GATEWAYS["web"])
    assert (options["subnet_mask"], options["router"], options["interface-mtu"]) == (
        "255.255.255.0",
        GATEWAYS["web"],
        1500,
    )


async def test_a_lease_is_renewed_at_the_gateway_address(farm):
    mine = ip("acme-web1")
    (ack,) = await answers(farm, discover(source=mine, destination=GATEWAYS["web"], kind="request", ciaddr=mine))
    assert dict(each for each in ack[DHCP].options if isinstance(each, tuple))["message-type"] == 5


async def test_names_that_mean_two_things_are_refused(farm):
    agent = farm.hosts["h1"].agent
    with pytest.raises(ValueError, match="'web' is both network and group for tenant acme"):
        await agent.publish_tenant(Tenant("acme", ACME.networks, {"web": ("db",)}))
    assert await farm.directory.tenant("acme") == ACME
    for name, kind in (("db", "network"), ("backend", "group"), ("internet", "endpoint")):
        twin = Endpoint(name, "acme", "web", bytes([2, 0, 0, 0, 9, 9]), (bytes([10, 0, 1, 99]),), "h1")
        with pytest.raises(ValueError, match=f"'{name}' is both {kind} and "):
            await agent.add_endpoint(twin, 30)


async def test_dhcp_for_somebody_elses_mac_gets_no_answer(farm):
    assert await answers(farm, discover(mac=b"\x02\0\0\0\0\x77"), PuntReason.LOCAL) == []
    assert events(farm)["DHCP without an answer"] == 1


async def test_what_nobody_understands_is_counted(farm):
    before = events(farm)["malformed"]
    for reason in PuntReason:
        for packet in (b"", bytes(14), bytes(60), b"\xff" * 90):
            farm.hosts["h1"].switch.on_punt(Punt(16, reason, packet))
    await farm.settle()
    assert events(farm)["malformed"] > before
    assert events(farm)["failures"] == 0


async def test_a_tcp_connection_that_the_policy_ends_is_reset(farm):
    """An ICMP error would leave it to time out (RFC 1122 section 4.2.3.9)."""
    ack = frame("acme-web1", "acme-lab1", IP(src=ip("acme-web1"), dst=ip("acme-lab1")) / TCP(flags="A", seq=5, ack=77))
    (end,) = await answers(farm, ack)
    assert (end[TCP].flags, end[TCP].seq, end[IP].src) == ("R", 77, ip("acme-lab1"))


async def test_no_error_is_sent_about_an_error(farm):
    quoted = IP(src=ip("acme-lab1"), dst=ip("acme-web1")) / UDP()
    about = IP(src=ip("acme-web1"), dst=ip("acme-lab1")) / ICMP(type=3, code=3) / quoted
    assert await answers(farm, frame("acme-web1", "acme-lab1", about), PuntReason.TTL) == []
    assert events(farm)["errors not to be sent"] == 1


def test_errors_are_limited():
    allowance = Allowance(ERROR_RATE, ERROR_BURST)
    assert sum(allowance.take(10.0) for _ in range(1000)) == ERROR_BURST
    assert sum(allowance.take(10.5) for _ in range(1000)) == ERROR_RATE // 2


@pytest.mark.parametrize(("receiver", "ttl"), [("acme-lab1", 64), ("acme-db1", 1)], ids=["denied", "TTL ends"])
def test_defect_29_a_flood_of_what_is_refused_is_answered_within_the_limit(receiver, ttl):
    async def run() -> None:
        farm = await start()
        for port in range(1000, 1000 + 2 * ERROR_BURST):
            packet = IP(src=ip("acme-web1"), dst=ip(receiver), ttl=ttl) / UDP(dport=port)
            farm.emit("acme-web1", frame("acme-web1", receiver, packet))
            await asyncio.sleep(0)
        await farm.settle()
        assert len(farm.delivered("acme-web1")) == ERROR_BURST
        assert events(farm)["errors over the limit"] == ERROR_BURST
        await farm.stop()

    on_virtual_clock(run())


async def test_a_trace_says_what_would_happen(farm):
    agent = farm.hosts["h1"].agent
    shown = await agent.trace("acme-web1", Question(ENDPOINTS["acme-web2"][0].address, 6, 80))
    assert (shown["verdict"], shown["rule"]) == ("delivered", "same network web")
    assert [hop["host"] for hop in shown["hops"]] == ["h1", "h1", "h2"]
    denied = await agent.trace("acme-web1", Question(ENDPOINTS["acme-lab1"][0].address, 6, 80))
    assert (denied["verdict"], denied["rule"]) == ("refused", "no rule allows it")
    with pytest.raises(KeyError):
        await agent.trace("acme-web2", Question(ENDPOINTS["acme-web1"][0].address, 6, 80))


# ---- neighbours -----------------------------------------------------------------------------------------------------


def who_has(sender: str, address: str) -> bytes:
    mac = show_mac(ENDPOINTS[sender][0].mac)
    return bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=mac, psrc=ip(sender), pdst=address))


async def test_who_asks_for_a_whole_network_takes_no_room_of_others(farm, monkeypatch):
    monkeypatch.setattr(neighbours, "PER_ENDPOINT", 4)
    for n in range(10, 20):
        there = Endpoint(f"web{n}", "acme", "web", bytes([2, 0, 0, 0, 9, n]), (bytes([10, 0, 1, n]),), "h2")
        await farm.directory.publish_endpoint(there)
    farm.emit("acme-web3", who_has("acme-web3", "10.0.1.10"))
    await farm.settle()
    assert len(farm.delivered("acme-web3")) == 1
    for n in range(10, 20):
        farm.emit("acme-web1", who_has("acme-web1", f"10.0.1.{n}"))
        await farm.settle()
        (answer,) = farm.delivered("acme-web1")
        assert Ether(answer)[ARP].hwsrc == f"02:00:00:00:09:{n:02x}"
    # The first one was the answer to somebody else's question, and found there.
    assert {entry.address[3] for entry in await farm.hosts["h1"].switch.read_neighbours()} == {10, 16, 17, 18, 19}
    assert events(farm)["neighbours over the limit"] == 5
    await farm.remove_endpoint("acme-web1")


async def test_a_full_table_of_neighbours_refuses_and_counts(farm, monkeypatch):
    monkeypatch.setattr(neighbours, "PER_HOST", 1)
    farm.emit("acme-web3", who_has("acme-web3", ip("acme-web2")))
    await farm.settle()
    farm.emit("acme-web1", who_has("acme-web1", GATEWAYS["web"]))
    await farm.settle()
    assert farm.delivered("acme-web1") == []
    assert events(farm)["neighbours over the limit"] == 1
    assert len(await farm.hosts["h1"].switch.read_neighbours()) == 1


# ---- fragments ------------------------------------------------------------------------------------------------------


class Reinjected:
    """A switch and an agent's Local, as far as fragments need them."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.switch = self
        self.packets: list[tuple[int, bytes]] = []

    def reinject(self, port: int, packet: bytes) -> None:
        self.packets.append((port, packet))


PARTS = cut(
    frame("acme-web1", "acme-web2", IP(src=ip("acme-web1"), dst=ip("acme-web2"), id=9) / UDP(dport=53) / bytes(4000)),
    1500,
)


def test_a_fragment_ahead_of_its_first_is_handed_back_after_a_moment():
    async def run() -> None:
        local = Reinjected()
        fragments = Fragments(local)  # type: ignore[arg-type]
        fragments.hold(16, PARTS[2])
        fragments.hold(16, PARTS[1])
        await asyncio.sleep(PATIENCE / 2)
        assert (local.packets, len(fragments)) == ([], 2)
        await asyncio.sleep(PATIENCE)
        assert local.packets == [(16, PARTS[2]), (16, PARTS[1])]
        assert len(fragments) == 0

    on_virtual_clock(run())


def test_fragments_wait_for_their_first_as_long_as_that_waits_for_its_connection():
    async def run() -> None:
        local = Reinjected()
        fragments = Fragments(local)  # type: ignore[arg-type]
        fragments.hold(16, PARTS[1])
        fragments.first_waits(16, PARTS[0])
        fragments.first_waits(16, PARTS[0])
        fragments.hold(16, PARTS[2])
        fragments.hold(17, PARTS[2])
        await asyncio.sleep(1.0)
        assert local.packets == [(17, PARTS[2])], "another port's datagram is another one"
        fragments.passed(16, PARTS[0])
        assert local.packets[1:] == [(16, PARTS[1]), (16, PARTS[2])]
        assert len(fragments) == 0
        fragments.first_waits(16, PARTS[0])
        fragments.hold(16, PARTS[1])
        await asyncio.sleep(LONG_PATIENCE + 0.1)
        assert local.packets[3:] == [(16, PARTS[1])], "a first one that was refused"
        assert len(fragments) == 0

    on_virtual_clock(run())


def test_what_is_held_of_fragments_is_bounded_and_counted():
    async def run() -> None:
        local = Reinjected()
        fragments = Fragments(local)  # type: ignore[arg-type]
        for n in range(PER_PORT + 50):
            packet = IP(src=ip("acme-web1"), dst=ip("acme-web2"), id=n, frag=1, proto=17) / bytes(64)
            fragments.hold(16, frame("acme-web1", "acme-web2", packet))
        assert (len(fragments), local.events["overflow fragments"]) == (PER_PORT, 50)
        fragments.hold(17, PARTS[1])
        assert len(fragments) == PER_PORT + 1, "another port has its own room"
        await asyncio.sleep(PATIENCE + 0.1)
        assert (len(fragments), len(local.packets)) == (0, PER_PORT + 1)
        large = IP(src=ip("acme-web1"), dst=ip("acme-web2"), frag=1, proto=17) / bytes(1464)
        for _ in range(PER_PORT):
            fragments.hold(16, frame("acme-web1", "acme-web2", large))
        assert len(fragments) == BYTES_PER_PORT // (14 + 20 + 1464)
        fragments.stop()
        assert len(fragments) == 0

    on_virtual_clock(run())


def test_only_fragments_are_held():
    local = Reinjected()
    fragments = Fragments(local)  # type: ignore[arg-type]
    for packet in (b"", bytes(60), PARTS[0], frame("acme-web1", "acme-web2", IP() / UDP())):
        fragments.hold(16, packet)
    for packet in (b"", bytes(60), PARTS[1], frame("acme-web1", "acme-web2", IP() / UDP())):
        fragments.first_waits(16, packet)
    assert (len(fragments), local.events["malformed"]) == (0, 4)
