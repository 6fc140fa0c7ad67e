"""Connections with the outside, on the real pipeline, in one process: SNAT, published services, hairpin."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from structlog.testing import capture_logs

from nvi.agent.journal import JournalError
from nvi.emulation.views import connections_view
from nvi.keys import KEY_FIRST, KEY_LAST
from nvi.mappings import ICMP_SECONDS, TCP_SECONDS, TCP_TRANSITORY_SECONDS, UDP_SECONDS
from nvi.model import (
    Endpoint,
    External,
    Host,
    Network,
    Rule,
    Service,
    Subnet,
    Tenant,
    derive_mac,
    read_address,
    show_address,
    show_mac,
)
from nvi.simulation import Farm, VirtualClockLoop
from nvi.switch import PORT_EXTERNAL, DropReason

PEER, OTHER_PEER = "203.0.113.7", "203.0.113.8"


def host(name: str, site: str, address: str, external: str = "", public: str = "") -> Host:
    outside = External(read_address(external), read_address(public or external)) if external else None
    return Host(name, site, (read_address(address),), external=outside)


HOSTS = [
    host("e1", "east", "172.16.1.1"),
    host("e2", "east", "172.16.2.1"),
    host("e8", "east", "172.16.1.8", "198.51.100.8"),
    host("e9", "east", "172.16.1.9", "198.51.100.9"),
    host("w1", "west", "172.16.1.1"),
    host("w9", "west", "172.16.1.9", "10.99.0.2", "198.51.100.2"),
    host("s9", "south", "172.16.1.9", "198.51.100.3"),
]


def network(name: str, third: int, internet: bool) -> Network:
    prefix = read_address(f"10.0.{third}.0")
    return Network(name, (Subnet(prefix, 24, prefix[:3] + b"\xfe"),), internet=internet)


TENANTS = {
    "acme": Tenant("acme", {"web": network("web", 1, True), "db": network("db", 2, False)}),
    "globex": Tenant("globex", {"web": network("web", 1, True)}),
}
ENDPOINTS = {
    name: (Endpoint(name, tenant, net, derive_mac("endpoint", tenant, name), (read_address(address),), where), port)
    for name, tenant, net, address, where, port in (
        ("web1", "acme", "web", "10.0.1.1", "e1", 16),
        ("web2", "acme", "web", "10.0.1.2", "e2", 16),
        ("gate", "acme", "web", "10.0.1.4", "e9", 16),
        ("west", "acme", "web", "10.0.1.5", "w1", 16),
        ("db1", "acme", "db", "10.0.2.1", "e1", 17),
        ("globex1", "globex", "web", "10.0.1.1", "e1", 18),
    )
}
PUBLIC = {host.name: show_address(host.external.public) for host in HOSTS if host.external is not None}


def simulated(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test on a farm of its own, on the virtual clock."""

    @functools.wraps(test)
    def run(**parameters: object) -> None:
        async def on_a_farm() -> None:
            farm = Farm()
            await farm.start(TENANTS.values(), HOSTS)
            for endpoint, port in ENDPOINTS.values():
                await farm.add_endpoint(endpoint, port)
            try:
                await test(farm, **parameters)
                assert not any(host.agent._local.events["failures"] for host in farm.hosts.values())
            finally:
                await farm.stop()

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(on_a_farm())

    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values()][1:])  # type: ignore[attr-defined]
    return run


def address_of(name: str) -> str:
    return show_address(ENDPOINTS[name][0].address)


def frame(sender: str, packet: Packet) -> bytes:
    """What an endpoint sends to somebody outside: to its router."""
    endpoint = ENDPOINTS[sender][0]
    router = TENANTS[endpoint.tenant].gateway_mac(endpoint.network)
    return bytes(Ether(src=show_mac(endpoint.mac), dst=show_mac(router)) / IP(bytes(packet)))


def sent(sender: str, packet: Packet, to: str = PEER, ttl: int = 64) -> bytes:
    return frame(sender, IP(src=address_of(sender), dst=to, ttl=ttl) / packet)


async def arrived(farm: Farm, at: str = PEER) -> list[Packet]:
    """What somebody outside has received since the last call."""
    await asyncio.sleep(0.5)
    return [Ether(packet)[IP] for packet in farm.outside.pop(read_address(at), [])]


async def delivered(farm: Farm, name: str) -> list[Packet]:
    await asyncio.sleep(0.5)
    return [Ether(packet)[IP] for packet in farm.delivered(name)]


def answer(farm: Farm, packet: Packet, layer: Packet, ttl: int = 57) -> None:
    """Somebody outside answers a packet that it has received."""
    farm.emit_outside(bytes(Ether() / IP(bytes(IP(src=packet.dst, dst=packet.src, ttl=ttl) / layer))))


def back(packet: Packet, flags: str = "SA", payload: bytes = b"") -> Packet:
    return TCP(sport=packet.dport, dport=packet.sport, flags=flags) / payload


async def opened(farm: Farm, name: str, to: str = PEER, sport: int = 40001, dport: int = 80) -> Packet:
    """A TCP connection that an endpoint has opened, and that has been answered. Returns its SYN as it arrived."""
    farm.emit(name, sent(name, TCP(sport=sport, dport=dport, flags="S"), to))
    (syn,) = await arrived(farm, to)
    answer(farm, syn, back(syn))
    assert len(await delivered(farm, name)) == 1
    return syn


def checked(packet: Packet) -> None:
    """Its checksums are right."""
    again = packet.copy()
    del again.chksum
    transport = again.payload
    if getattr(transport, "chksum", None) is not None:
        del transport.chksum
    assert bytes(IP(bytes(again))) == bytes(packet)


@pytest.mark.parametrize(("name", "gateways"), [("web1", ("e8", "e9")), ("gate", ("e9",)), ("west", ("w9",))])
@simulated
async def test_an_endpoint_talks_to_the_internet_from_its_gateways_public_address(farm, name, gateways):
    """Through a gateway of its site, from the gateway itself, and from behind a 1:1 NAT. The first packet arrives."""
    farm.emit(name, sent(name, TCP(sport=40001, dport=80, flags="S", seq=7) / b""))
    (syn,) = await arrived(farm)
    assert syn.src in [PUBLIC[gateway] for gateway in gateways]
    assert (syn.dport, syn[TCP].flags, syn[TCP].seq, syn.ttl) == (80, "S", 7, 63)
    assert KEY_FIRST <= syn.sport <= KEY_LAST
    checked(syn)
    answer(farm, syn, back(syn, payload=b"hello"))
    (reply,) = await delivered(farm, name)
    assert (reply.src, reply.dst) == (PEER, address_of(name))
    assert (reply.sport, reply.dport, reply.ttl, bytes(reply[TCP].payload)) == (80, 40001, 63, b"hello")
    checked(reply)
    farm.emit(name, sent(name, TCP(sport=40001, dport=80, flags="A")))
    (ack,) = await arrived(farm)
    assert (ack.src, ack.sport) == (syn.src, syn.sport)


@simulated
async def test_defect_06_a_burst_has_one_external_port(farm):
    for _ in range(3):
        farm.emit("web1", sent("web1", TCP(sport=40001, dport=80, flags="S")))
    assert len({(packet.src, packet.sport) for packet in await arrived(farm)}) == 1


@simulated
async def test_a_mapping_does_not_depend_on_the_peer(farm):
    """RFC 4787 REQ-1 and REQ-2: one port, one address, whomever it talks to."""
    seen = []
    for peer, dport in ((PEER, 53), (PEER, 123), (OTHER_PEER, 53)):
        farm.emit("web1", sent("web1", UDP(sport=5000, dport=dport) / b"x", peer))
        seen += await arrived(farm, peer)
    assert len(seen) == 3
    assert len({(packet.src, packet.sport) for packet in seen}) == 1
    assert seen[0].sport % 2 == 0


@simulated
async def test_endpoints_with_equal_addresses_do_not_meet(farm):
    first, second = await opened(farm, "web1"), await opened(farm, "globex1")
    assert (first.src, first.sport) != (second.src, second.sport)
    answer(farm, second, back(second, "A", b"yours"))
    assert not await delivered(farm, "web1")
    assert [bytes(packet[TCP].payload) for packet in await delivered(farm, "globex1")] == [b"yours"]


@simulated
async def test_echoes_are_told_apart_by_mapped_identifiers(farm):
    for name in ("web1", "globex1"):
        farm.emit(name, sent(name, ICMP(type=8, id=7, seq=1) / b"ping"))
    requests = await arrived(farm)
    assert len({(each.src, each[ICMP].id) for each in requests}) == 2
    for request in requests:
        checked(request)
        answer(farm, request, ICMP(type=0, id=request[ICMP].id, seq=1) / b"ping")
    for name in ("web1", "globex1"):
        (reply,) = await delivered(farm, name)
        assert (reply.src, reply[ICMP].type, reply[ICMP].id) == (PEER, 0, 7)


@simulated
async def test_what_is_not_asked_for_does_not_come_in(farm):
    """Filtering by peer, address and port."""
    syn = await opened(farm, "web1")
    stranger = IP(src=OTHER_PEER, dst=syn.src) / TCP(sport=80, dport=syn.sport, flags="A")
    other_port = IP(src=PEER, dst=syn.src) / TCP(sport=81, dport=syn.sport, flags="A")
    free_port = IP(src=PEER, dst=syn.src) / TCP(sport=80, dport=syn.sport + 2, flags="S")
    for packet in (stranger, other_port, free_port):
        farm.emit_outside(bytes(Ether() / IP(bytes(packet))))
    assert not await delivered(farm, "web1")
    assert not await arrived(farm)


@simulated
async def test_the_internet_is_denied_unless_allowed(farm):
    farm.emit("db1", sent("db1", TCP(sport=40001, dport=80, flags="S")))
    (error,) = await delivered(farm, "db1")
    assert (error.src, error[ICMP].type, error[ICMP].code) == ("10.0.2.254", 3, 13)
    assert not await arrived(farm)
    rules = (Rule("db1", "internet", True, 6, (80,)),)
    tenant = Tenant("acme", TENANTS["acme"].networks, rules=rules)
    await farm.directory.publish_tenant(tenant)
    await asyncio.sleep(1.0)
    syn = await opened(farm, "db1", sport=40002)
    await farm.directory.publish_tenant(TENANTS["acme"])
    await asyncio.sleep(1.0)
    farm.emit("db1", sent("db1", TCP(sport=40002, dport=80, flags="A")))
    answer(farm, syn, back(syn, "A", b"more"))
    assert not await arrived(farm), "what was live has ended"
    assert not any(b"more" in bytes(packet) for packet in await delivered(farm, "db1"))


@pytest.mark.parametrize(
    "destination",
    [
        "127.0.0.1", "169.254.169.254", "224.0.0.251", "255.255.255.255", "172.16.2.1", "172.16.1.9",
        "198.51.100.9", "198.51.100.8", "198.51.100.2",
    ],
)  # fmt: skip
@simulated
async def test_defect_23_gateways_carry_nothing_to_hosts_nor_to_groups(farm, destination):
    for name in ("web1", "gate"):
        farm.emit(name, sent(name, UDP(sport=5000, dport=53) / b"x", destination))
    await asyncio.sleep(0.5)
    assert not farm.outside
    for host in farm.hosts.values():
        assert not any(host.delivered.get(port) for port in (2, 4))
    assert not any(len(host.agent._outlets.mappings) for host in farm.hosts.values())


@simulated
async def test_defect_13_what_comes_in_after_a_connection_was_idle_passes_for_two_hours(farm):
    """RFC 5382 REQ-5. The original let the gateway's own stack reset it after 30 seconds."""
    syn = await opened(farm, "web1")
    await asyncio.sleep(100)
    assert not any(len(host.agent._local.connections) for host in farm.hosts.values()), "nothing of it is in a switch"
    answer(farm, syn, back(syn, "A", b"late"))
    assert [bytes(each[TCP].payload) for each in await delivered(farm, "web1")] == [b"late"]
    await asyncio.sleep(TCP_SECONDS - 100)
    farm.emit("web1", sent("web1", TCP(sport=40001, dport=80, flags="A") / b"later"))
    (later,) = await arrived(farm)
    assert (later.src, later.sport) == (syn.src, syn.sport)
    await asyncio.sleep(TCP_SECONDS + 100)
    answer(farm, syn, back(syn, "A", b"too late"))
    assert not await delivered(farm, "web1")


@pytest.mark.parametrize(
    ("packet", "reply", "seconds"),
    [
        (TCP(sport=40001, dport=80, flags="S"), None, TCP_TRANSITORY_SECONDS),
        (UDP(sport=5000, dport=53), True, UDP_SECONDS),
        (ICMP(type=8, id=7), True, ICMP_SECONDS),
    ],
)
@simulated
async def test_how_long_a_mapping_outlives_its_connection(farm, packet, reply, seconds):
    """RFC 5382 REQ-5 (transitory), RFC 4787 REQ-5, RFC 5508 REQ-2."""
    farm.emit("web1", sent("web1", packet))
    (first,) = await arrived(farm)

    def again() -> None:
        if TCP in first:
            answer(farm, first, back(first))
        elif UDP in first:
            answer(farm, first, UDP(sport=first.dport, dport=first.sport) / b"x")
        else:
            answer(farm, first, ICMP(type=0, id=first[ICMP].id))

    if reply:
        again()
        assert await delivered(farm, "web1")
    await asyncio.sleep(30 + seconds - 5)
    again()
    assert len(await delivered(farm, "web1")) == 1
    await asyncio.sleep(30 + TCP_SECONDS + 5)
    assert not any(len(host.agent._outlets.mappings) for host in farm.hosts.values())
    again()
    assert not await delivered(farm, "web1")


@pytest.mark.parametrize("name", ["web1", "gate"])
@pytest.mark.parametrize("switch_too", [False, True])
@simulated
async def test_a_gateways_agent_that_restarts_has_the_same_mappings_and_adopts_its_entries(farm, name, switch_too):
    syn = await opened(farm, name)
    gateway = next(host for host, public in PUBLIC.items() if public == syn.src)
    await farm.stop_agent(gateway)
    if switch_too:
        farm.hosts[gateway].switch.restart()
    await farm.start_agent(gateway)
    assert len(farm.hosts[gateway].agent._local.connections) == (0 if switch_too else 1)
    farm.emit(name, sent(name, TCP(sport=40001, dport=80, flags="A") / b"up"))
    await asyncio.sleep(1.0)  # who remembers nothing waits for another gateway's offer first
    (up,) = await arrived(farm)
    assert (up.src, up.sport) == (syn.src, syn.sport)
    answer(farm, syn, back(syn, "A", b"down"))
    assert [bytes(each[TCP].payload) for each in await delivered(farm, name)] == [b"down"]


@simulated
async def test_an_idle_mapping_outlives_the_gateways_agent(farm):
    syn = await opened(farm, "web1")
    gateway = next(host for host, public in PUBLIC.items() if public == syn.src)
    await asyncio.sleep(100)
    await farm.restart_agent(gateway)
    answer(farm, syn, back(syn, "A", b"down"))
    assert [bytes(each[TCP].payload) for each in await delivered(farm, "web1")] == [b"down"]


@simulated
async def test_when_a_gateway_dies_new_connections_use_another(farm):
    syn = await opened(farm, "web1")
    gateway, other = ("e8", "e9") if syn.src == PUBLIC["e8"] else ("e9", "e8")
    await farm.stop_agent(gateway)
    await asyncio.sleep(30)
    assert not any(each.exit == gateway for each in farm.hosts["e1"].agent._local.connections)
    assert (await opened(farm, "web1", sport=40002)).src == PUBLIC[other]


@simulated
async def test_an_endpoint_keeps_its_gateway_while_a_mapping_may_live(farm):
    """RFC 4787 REQ-2, also when another gateway would be chosen now."""
    syn = await opened(farm, "web1")
    gateway, other = ("e8", "e9") if syn.src == PUBLIC["e8"] else ("e9", "e8")
    await farm.stop_agent(gateway)
    await asyncio.sleep(30)
    assert (await opened(farm, "web1", sport=40002)).src == PUBLIC[other]
    await farm.start_agent(gateway)
    await asyncio.sleep(1000)
    assert (await opened(farm, "web1", sport=40003)).src == PUBLIC[other]


# ---- published services -------------------------------------------------------------------------------------------


async def published(farm: Farm, name: str, via: str, external_port: int = 8080, port: int = 80, protocol: int = 6):
    endpoint = ENDPOINTS[name][0]
    service = Service(endpoint.tenant, endpoint.address, port, protocol, via, external_port)
    await farm.hosts[via].agent.publish_service(service)
    await farm.settle()
    return service


def called(farm: Farm, via: str, layer: Packet, source: str = PEER, ttl: int = 57) -> None:
    """Somebody outside sends a packet to a gateway."""
    farm.emit_outside(bytes(Ether() / IP(bytes(IP(src=source, dst=PUBLIC[via], ttl=ttl) / layer))))


SERVED = [("web1", "e9"), ("gate", "e9"), ("gate", "e8"), ("db1", "e8"), ("west", "e9"), ("web2", "w9"), ("west", "w9")]


@pytest.mark.parametrize(("name", "via"), SERVED)
@simulated
async def test_defect_26_a_published_service_sees_the_clients_address_from_the_first_packet(farm, name, via):
    """On the gateway, in its site, and in another one. The original lost the first packet, and knew one site only."""
    await published(farm, name, via)
    called(farm, via, TCP(sport=51000, dport=8080, flags="S", seq=9))
    (syn,) = await delivered(farm, name)
    assert (syn.src, syn.sport, syn.dst, syn.dport) == (PEER, 51000, address_of(name), 80)
    assert (syn[TCP].seq, syn[TCP].flags, syn.ttl) == (9, "S", 56)
    checked(syn)
    farm.emit(name, sent(name, TCP(sport=80, dport=51000, flags="SA") / b""))
    (reply,) = await arrived(farm)
    assert (reply.src, reply.sport, reply.dport) == (PUBLIC[via], 8080, 51000)
    checked(reply)
    called(farm, via, TCP(sport=51000, dport=8080, flags="PA") / b"GET /")
    assert [bytes(each[TCP].payload) for each in await delivered(farm, name)] == [b"GET /"]


@simulated
async def test_defect_09_two_clients_with_one_port_and_two_services_with_one_port_do_not_meet(farm):
    await published(farm, "web1", "e9", 8080)
    await published(farm, "globex1", "e9", 8081)
    for port in (8080, 8081):
        for source in (PEER, OTHER_PEER):
            called(farm, "e9", TCP(sport=51000, dport=port, flags="S"), source)
    for name in ("web1", "globex1"):
        assert sorted(each.src for each in await delivered(farm, name)) == [PEER, OTHER_PEER]
        for source in (PEER, OTHER_PEER):
            farm.emit(name, sent(name, TCP(sport=80, dport=51000, flags="SA"), source))
    for source in (PEER, OTHER_PEER):
        assert sorted(each.sport for each in await arrived(farm, source)) == [8080, 8081]


@simulated
async def test_only_the_published_protocol_and_port_lead_inside(farm):
    await published(farm, "web1", "e9")
    called(farm, "e9", UDP(sport=51000, dport=8080) / b"x")
    called(farm, "e9", TCP(sport=51000, dport=80, flags="S"))
    called(farm, "e8", TCP(sport=51000, dport=8080, flags="S"))
    assert not await delivered(farm, "web1")


@simulated
async def test_a_rule_may_deny_what_is_published(farm):
    await published(farm, "web1", "e9")
    rules = (Rule("internet", "web1", False),)
    await farm.directory.publish_tenant(Tenant("acme", TENANTS["acme"].networks, rules=rules))
    called(farm, "e9", TCP(sport=51000, dport=8080, flags="S"))
    assert not await delivered(farm, "web1")


@simulated
async def test_nobody_outside_speaks_from_an_address_of_the_tenants_own(farm):
    await published(farm, "web1", "e9")
    called(farm, "e9", TCP(sport=51000, dport=8080, flags="S"), source="10.0.1.2")
    assert not await delivered(farm, "web1")


@pytest.mark.parametrize(("name", "via"), SERVED)
@simulated
async def test_what_is_published_no_more_has_ended(farm, name, via):
    await published(farm, name, via)
    called(farm, via, TCP(sport=51000, dport=8080, flags="S"))
    assert await delivered(farm, name)
    await farm.hosts[via].agent.unpublish_service(6, 8080)
    await asyncio.sleep(1.0)
    called(farm, via, TCP(sport=51000, dport=8080, flags="A") / b"more")
    assert not await delivered(farm, name)
    assert not any(len(host.agent._local.connections) for host in farm.hosts.values())
    with pytest.raises(KeyError):
        await farm.hosts[via].agent.unpublish_service(6, 8080)


@pytest.mark.parametrize("name", ["web1", "gate", "west"])
@simulated
async def test_a_router_outside_is_not_taken_for_whom_it_leads_to(farm, name):
    """As traceroute sees it: the network's gateway tells of what happens on the way, the far end of itself."""
    farm.emit(name, sent(name, UDP(sport=40001, dport=33434) / b"probe"))
    (probe,) = await arrived(farm)
    for source, shown in (("192.0.2.1", "10.0.1.254"), (PEER, PEER)):
        error = IP(src=source, dst=probe.src) / ICMP(type=11) / IP(bytes(probe))
        farm.emit_outside(bytes(Ether() / IP(bytes(error))))
        (told,) = await delivered(farm, name)
        quoted = told[ICMP].payload
        assert (told.src, quoted.dst, quoted.payload.sport) == (shown, PEER, 40001)
        checked(told)


@simulated
async def test_two_changes_of_what_is_published_do_not_overtake_each_other(farm):
    agent, endpoint = farm.hosts["e9"].agent, ENDPOINTS["web1"][0].address
    with capture_logs() as logs:
        for external_port in (8080, 8081):
            await agent.publish_service(Service("acme", endpoint, 80, 6, "e9", external_port))
        await asyncio.sleep(1.0)
    assert not [entry for entry in logs if entry["log_level"] in ("warning", "error")]
    assert {entry.port for entry in await farm.hosts["e9"].switch.read_services()} == {8080, 8081}


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize(("name", "via"), [("web1", "e9"), ("web1", "e8"), ("west", "e9"), ("gate", "e8")])
@simulated
async def test_replies_go_back_through_the_gateway_that_owns_the_connection(farm, name, via, idle):
    """Whatever gateway the endpoint itself would use, and also after the connection was idle."""
    await published(farm, name, "e8")
    await published(farm, name, "e9")
    called(farm, via, TCP(sport=51000, dport=8080, flags="S"))
    assert await delivered(farm, name)
    if idle:
        await asyncio.sleep(100)
        assert not any(len(host.agent._local.connections) for host in farm.hosts.values())
    farm.emit(name, sent(name, TCP(sport=80, dport=51000, flags="A") / b"pushed"))
    (reply,) = await arrived(farm)
    assert (reply.src, reply.sport) == (PUBLIC[via], 8080)


@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize(("name", "via"), [("db1", "e9"), ("web1", "e8"), ("gate", "e8")])
@simulated
async def test_a_service_whose_host_has_lost_everything_replies_through_its_gateway(farm, name, via, protocol):
    """Also if its network may not open connections to the Internet."""
    layer = TCP if protocol == 6 else UDP
    await published(farm, name, via, protocol=protocol)
    called(farm, via, layer(sport=51000, dport=8080) / b"ask")
    assert await delivered(farm, name)
    host = ENDPOINTS[name][0].host
    await farm.stop_agent(host)
    farm.hosts[host].switch.restart()
    await farm.start_agent(host)
    reply = TCP(sport=80, dport=51000, flags="A") if protocol == 6 else UDP(sport=80, dport=51000)
    farm.emit(name, sent(name, reply / b"tell"))
    (seen,) = await arrived(farm)
    assert (seen.src, seen.sport) == (PUBLIC[via], 8080)


@simulated
async def test_a_connection_opened_again_after_its_gateway_died_uses_another(farm):
    syn = await opened(farm, "web1")
    gateway, other = ("e8", "e9") if syn.src == PUBLIC["e8"] else ("e9", "e8")
    await farm.stop_agent(gateway)
    await asyncio.sleep(30)
    assert (await opened(farm, "web1")).src == PUBLIC[other]


@pytest.mark.parametrize("to", ["e2", "w1", "e9", "s9"])
@simulated
async def test_a_moved_endpoint_keeps_its_connections_with_the_outside(farm, to):
    """Those that it has opened, and those that it serves; both through the gateways that own them."""
    await published(farm, "web1", "e8")
    syn = await opened(farm, "web1")
    called(farm, "e8", TCP(sport=51000, dport=8080, flags="S"))
    assert await delivered(farm, "web1")
    await farm.move_endpoint("web1", to, 30)
    await asyncio.sleep(5.0)
    farm.emit("web1", sent("web1", TCP(sport=80, dport=51000, flags="A") / b"served"))
    farm.emit("web1", sent("web1", TCP(sport=40001, dport=80, flags="A") / b"asked"))
    packets = {bytes(each[TCP].payload): each for each in await arrived(farm)}
    assert {key: (each.src, each.sport) for key, each in packets.items()} == {
        b"served": (PUBLIC["e8"], 8080),
        b"asked": (syn.src, syn.sport),
    }
    called(farm, "e8", TCP(sport=51000, dport=8080, flags="A") / b"in")
    answer(farm, syn, back(syn, "A", b"answer"))
    assert {bytes(each[TCP].payload) for each in await delivered(farm, "web1")} == {b"in", b"answer"}


@simulated
async def test_what_cannot_be_published_is_said(farm):
    web1 = ENDPOINTS["web1"][0].address
    agent = farm.hosts["e9"].agent
    await published(farm, "web1", "e9")
    await published(farm, "web1", "e9")
    syn = await opened(farm, "gate")
    for service, text in (
        (Service("acme", web1, 80, 6, "e8", 80), "that must be e8's agent"),
        (Service("acme", web1, 80, 47, "e9", 80), "has no ports"),
        (Service("acme", web1, 0, 6, "e9", 80), "0 is not a port"),
        (Service("acme", web1, 80, 6, "e9", 65536), "65536 is not a port"),
        (Service("acme", read_address("10.0.1.77"), 80, 6, "e9", 80), "no endpoint 10.0.1.77"),
        (Service("globex", web1, 80, 6, "e9", 8080), "8080"),
        (Service("acme", web1, 80, 6, "e9", syn.sport), "stands for an endpoint's"),
    ):
        with pytest.raises(ValueError, match=text):
            await agent.publish_service(service)


# ---- hairpin ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["web1", "web2", "gate", "west", "globex1"])
@pytest.mark.parametrize("via", ["e8", "e9", "w9"])
@pytest.mark.parametrize("client", ["web2", "gate", "globex1"])
@simulated
async def test_hairpin_a_published_service_is_reached_from_inside_as_from_outside(farm, client, via, server):
    """RFC 4787 REQ-9: also of another tenant, also on one gateway, with the client's external address and port."""
    if client == server:
        return
    await published(farm, server, via)
    farm.emit(client, sent(client, TCP(sport=40001, dport=8080, flags="S"), PUBLIC[via]))
    (syn,) = await delivered(farm, server)
    assert syn.src in PUBLIC.values()
    assert (syn.dst, syn.dport) == (address_of(server), 80)
    assert KEY_FIRST <= syn.sport <= KEY_LAST
    checked(syn)
    farm.emit(server, sent(server, TCP(sport=80, dport=syn.sport, flags="SA"), syn.src))
    (reply,) = await delivered(farm, client)
    assert (reply.src, reply.sport, reply.dst, reply.dport) == (PUBLIC[via], 8080, address_of(client), 40001)
    checked(reply)
    await asyncio.sleep(100)
    assert not any(len(host.agent._local.connections) for host in farm.hosts.values())


def test_ports_and_reasons_are_those_of_the_pipeline():
    assert PORT_EXTERNAL == 3
    assert DropReason.UNREACHABLE == 12


@simulated
async def test_what_people_see_of_the_outside(farm):
    syn = await opened(farm, "web1")
    await published(farm, "west", "e9")
    called(farm, "e9", TCP(sport=51000, dport=8080, flags="S"))
    assert await delivered(farm, "west")
    merged = connections_view([await host.agent.connections() for host in farm.hosts.values()])["connections"]
    asked, served = sorted(merged, key=lambda each: each["initiator"]["endpoint"] is None)
    assert asked["initiator"] == {"endpoint": "web1", "address": "10.0.1.1", "port": 40001}
    assert asked["responder"] == {"endpoint": None, "address": PEER, "port": 80}
    assert asked["segments"][0]["from"]["host"] == "e1"
    outer = asked["segments"][1]
    assert outer["from"]["host"] == asked["segments"][0]["to"]["host"]
    assert (outer["from"]["address"], outer["from"]["port"]) == (syn.src, syn.sport)
    assert outer["to"] == {"host": None, "address": PEER, "port": 80}
    assert [each["from"]["host"] for each in served["segments"]] == [None, "e9", "w9"]
    assert served["segments"][0]["to"] == {"host": "e9", "address": PUBLIC["e9"], "port": 8080}


# ---- limits -------------------------------------------------------------------------------------------------------


@simulated
async def test_whoever_finds_no_external_port_is_told_and_what_is_live_goes_on(farm):
    syn = await opened(farm, "gate")
    outlets = farm.hosts["e9"].agent._outlets
    outlets.mappings._per_endpoint = 1
    farm.emit("gate", sent("gate", TCP(sport=40002, dport=80, flags="S")))
    (error,) = await delivered(farm, "gate")
    assert (error[ICMP].type, error[ICMP].code) == (3, 1)
    assert farm.hosts["e9"].agent._local.events["refused exhausted"] == 1
    assert not await arrived(farm)
    answer(farm, syn, back(syn, "A", b"live"))
    assert [bytes(each[TCP].payload) for each in await delivered(farm, "gate")] == [b"live"]


@pytest.mark.parametrize("name", ["gate", "web1"])
@simulated
async def test_nothing_leaves_by_a_mapping_that_cannot_be_kept(farm, name):
    """The journal is on the disk first: else a restarted gateway might give the port to somebody else."""
    for gateway in ("e8", "e9"):
        journal = farm.hosts[gateway].journal

        async def full() -> None:
            raise JournalError("cannot write the journal: No space left on device; make room")

        journal.sync = full
    farm.emit(name, sent(name, TCP(sport=40001, dport=80, flags="S")))
    assert not await arrived(farm)
    assert sum(farm.hosts[gateway].agent._local.events["journal failed"] for gateway in ("e8", "e9")) == 1
    for gateway in ("e8", "e9"):
        del farm.hosts[gateway].journal.sync
    assert (await opened(farm, name)).dport == 80, "once there is room it goes on"


@simulated
async def test_an_endpoint_that_has_gone_leaves_its_mappings_to_nobody(farm):
    syn = await opened(farm, "gate")
    outlets = farm.hosts["e9"].agent._outlets
    assert len(outlets.mappings) == 1
    endpoint, port = ENDPOINTS["gate"]
    await farm.remove_endpoint("gate")
    await asyncio.sleep(20)
    assert len(outlets.mappings) == 0
    await farm.add_endpoint(endpoint, port)
    answer(farm, syn, back(syn, "A", b"for the one before"))
    assert not await delivered(farm, "gate")
