"""The agent's behaviour, on the real pipeline, in one process."""

import asyncio

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from agent.farm import ACME, ENDPOINTS, frame, ip, start
from nvi.agent import joining
from nvi.model import Endpoint, Rule, Tenant, derive_mac, pair_of, read_address
from nvi.switch import PORT_UNDERLAY, ConnectionEntry, Operation, Update


@pytest.fixture
async def farm():
    farm = await start()
    yield farm
    await farm.stop()


def header(sender, receiver, **fields):
    return IP(**{"src": ip(sender), "dst": ip(receiver), "flags": "DF", **fields})


def tcp(sender, receiver, flags="S", sport=1000, dport=80, payload=b"", **fields):
    packet = header(sender, receiver, **fields) / TCP(sport=sport, dport=dport, flags=flags) / payload
    return frame(sender, receiver, packet)


def udp(sender, receiver, sport=1000, dport=53, payload=b"", **fields):
    return frame(
        sender,
        receiver,
        header(sender, receiver, **fields) / UDP(sport=sport, dport=dport) / payload,
    )


def ping(sender, receiver, kind=8, identifier=7, **fields):
    return frame(
        sender,
        receiver,
        header(sender, receiver, **fields) / ICMP(type=kind, id=identifier) / b"payload",
    )


async def entries(farm, host):
    return len(await farm.hosts[host].switch.read_connections())


async def exchange(farm, sender, packet):
    """Send, and return everything that anybody received."""
    farm.emit(sender, packet)
    await farm.settle()
    return {name: got for name in ENDPOINTS if (got := farm.delivered(name))}


async def test_a_first_packet_arrives_as_it_was_sent_and_leaves_four_entries(farm):
    syn = tcp("acme-web1", "acme-web2")
    assert await exchange(farm, "acme-web1", syn) == {"acme-web2": [syn]}
    assert [await entries(farm, host) for host in ("h1", "h2", "h3")] == [2, 2, 0]
    answer = tcp("acme-web2", "acme-web1", "SA", 80, 1000)
    assert await exchange(farm, "acme-web2", answer) == {"acme-web1": [answer]}
    assert farm.hosts["h2"].agent._local.events["offers sent"] == 0


async def test_same_host_needs_two_entries_of_one_switch(farm):
    syn = tcp("acme-web1", "acme-web3")
    assert await exchange(farm, "acme-web1", syn) == {"acme-web3": [syn]}
    assert [await entries(farm, host) for host in ("h1", "h2", "h3")] == [2, 0, 0]
    answer = tcp("acme-web3", "acme-web1", "SA", 80, 1000)
    assert await exchange(farm, "acme-web3", answer) == {"acme-web1": [answer]}


async def test_between_networks_a_router_shows(farm):
    received = await exchange(farm, "acme-web1", tcp("acme-web1", "acme-db1", ttl=33))
    got = Ether(received["acme-db1"][0])
    db = ENDPOINTS["acme-db1"][0]
    assert got.dst == ":".join(f"{byte:02x}" for byte in db.mac)
    assert got[IP].ttl == 32
    assert got[IP].src == ip("acme-web1")


async def test_a_routed_packet_whose_ttl_ends_gets_its_time_exceeded(farm):
    received = await exchange(farm, "acme-web1", udp("acme-web1", "acme-db1", ttl=1))
    got = Ether(received["acme-web1"][0])
    assert (got[ICMP].type, got[IP].src) == (11, "10.0.1.254")
    assert set(received) == {"acme-web1"}
    assert await entries(farm, "h1") == 0


@pytest.mark.parametrize("identifier", [1, 7, 0x0800, 0x0801, 0xFFFF])
async def test_echo_both_ways_with_one_identifier(farm, identifier):
    for sender, receiver in (("acme-web1", "acme-web2"), ("acme-web2", "acme-web1")):
        request = ping(sender, receiver, identifier=identifier)
        reply = ping(receiver, sender, 0, identifier)
        assert await exchange(farm, sender, request) == {receiver: [request]}
        assert await exchange(farm, receiver, reply) == {sender: [reply]}
    assert [await entries(farm, host) for host in ("h1", "h2")] == [4, 4]


async def test_tenants_with_the_same_addresses_each_reach_only_their_own(farm):
    ours, theirs = tcp("acme-web1", "acme-web2"), tcp("globex-web1", "globex-web2")
    farm.emit("acme-web1", ours)
    farm.emit("globex-web1", theirs)
    await farm.settle()
    assert {name: got for name in ENDPOINTS if (got := farm.delivered(name))} == {
        "acme-web2": [ours],
        "globex-web2": [theirs],
    }


async def test_packets_in_flight_wait_for_the_connection_and_punt_but_once(farm):
    packets = [udp("acme-web1", "acme-web2", payload=bytes([n])) for n in range(5)]
    for packet in packets:
        farm.emit("acme-web1", packet)
    await farm.settle()
    assert farm.delivered("acme-web2") == packets
    assert farm.hosts["h1"].agent._local.events["offers sent"] == 1


async def test_crossing_offers_merge_into_one_connection(farm):
    """Both ends send at once: one connection results, the offer of the lower host id wins, nothing is lost."""
    there, back = udp("acme-web1", "acme-web2", 5000, 5001), udp("acme-web2", "acme-web1", 5001, 5000)
    farm.emit("acme-web1", there)
    farm.emit("acme-web2", back)
    await farm.settle()
    assert farm.delivered("acme-web2") == [there]
    assert farm.delivered("acme-web1") == [back]
    assert [await entries(farm, host) for host in ("h1", "h2")] == [2, 2]
    (one,), (other,) = [await farm.hosts[host].agent.connections() for host in ("h1", "h2")]
    assert one["segments"] == other["segments"]
    assert len(farm.hosts["h1"].agent._local.keys) == len(farm.hosts["h2"].agent._local.keys) == 1


async def test_a_refused_flow_costs_one_punt_and_is_explained(farm):
    syn = tcp("acme-web1", "acme-lab1")
    received = await exchange(farm, "acme-web1", syn)
    got = Ether(received["acme-web1"][0])
    assert (got[ICMP].type, got[ICMP].code, got[IP].src) == (3, 13, "10.0.1.254")
    assert await exchange(farm, "acme-web1", syn) == {}
    status = await farm.hosts["h1"].agent.status()
    assert status["drops"]["acme-web1"] == {"denied": 1}
    assert status["events"]["punts miss"] == 1


async def test_refusals_are_at_most_64_per_endpoint(farm):
    for port in range(100):
        farm.emit("acme-web1", tcp("acme-web1", "acme-lab1", dport=1 + port))
    await farm.settle()
    assert await entries(farm, "h1") == 64


async def test_unknown_destination_is_refused_as_unreachable(farm):
    packet = frame("acme-web1", "acme-db1", IP(src=ip("acme-web1"), dst="10.0.2.77") / UDP(dport=53))
    received = await exchange(farm, "acme-web1", packet)
    assert Ether(received["acme-web1"][0])[ICMP].code == 1


async def test_answers_resume_nothing_that_nobody_remembers(farm):
    assert await exchange(farm, "acme-web1", ping("acme-web1", "acme-web2", 0)) != {"acme-web2": ...}
    assert farm.delivered("acme-web2") == []
    assert await entries(farm, "h2") == 0


async def test_a_tcp_connection_is_resumed_from_either_end_after_both_forgot(farm):
    segment = tcp("acme-web2", "acme-web1", "A", 80, 1000, b"data")
    assert await exchange(farm, "acme-web2", segment) == {"acme-web1": [segment]}
    (connection,) = await farm.hosts["h1"].agent.connections()
    assert connection["initiator"]["endpoint"] == "acme-web1", "the one with the service's port did not open it"


async def delete_all(switch):
    await switch.write([Update(Operation.DELETE, ConnectionEntry(e.key)) for e in await switch.read_connections()])


@pytest.mark.parametrize("emptied", ["h1", "h2"])
@pytest.mark.parametrize("restarted", [(), ("h1",), ("h2",)])
@pytest.mark.parametrize("sender", ["acme-web1", "acme-web2"])
@pytest.mark.parametrize("make", [tcp, udp])
async def test_entries_that_vanish_are_plugged_again_from_either_end(
    farm, emptied, restarted, sender, make, monkeypatch
):
    """At most one of the two agents has forgotten as well: what one knows mends the other."""
    monkeypatch.setattr(joining, "LINGER_SECONDS", 0.0)
    await exchange(farm, "acme-web1", make("acme-web1", "acme-web2", sport=1000, dport=80))
    await delete_all(farm.hosts[emptied].switch)
    for host in restarted:
        await farm.restart_agent(host)
    receiver = "acme-web2" if sender == "acme-web1" else "acme-web1"
    ports = (1000, 80) if sender == "acme-web1" else (80, 1000)
    flags = {"flags": "A"} if make is tcp else {}
    packet = make(sender, receiver, sport=ports[0], dport=ports[1], payload=b"more", **flags)
    assert await exchange(farm, sender, packet) == {receiver: [packet]}
    back = make(receiver, sender, sport=ports[1], dport=ports[0], payload=b"back", **flags)
    assert await exchange(farm, receiver, back) == {sender: [back]}
    await asyncio.sleep(0.01)
    await farm.settle()
    assert [await entries(farm, host) for host in ("h1", "h2")] == [2, 2]
    for host in ("h1", "h2"):
        (connection,) = await farm.hosts[host].agent.connections()
        assert connection["initiator"]["endpoint"] == "acme-web1"


async def test_a_restarted_agent_adopts_what_its_switch_holds(farm):
    for sender, receiver in (("acme-web1", "acme-web2"), ("acme-web1", "acme-web3"), ("acme-web2", "acme-web1")):
        await exchange(farm, sender, tcp(sender, receiver, sport=1234))
        await exchange(farm, sender, ping(sender, receiver, identifier=9))

    async def shown():
        connections = await farm.hosts["h1"].agent.connections()
        for connection in connections:
            del connection["hosts"]["h1"]["idle_seconds"]
        return sorted(connections, key=lambda connection: connection["id"])

    before = await shown()
    held = await farm.hosts["h1"].switch.read_connections()
    await farm.restart_agent("h1")
    assert await shown() == before
    assert await farm.hosts["h1"].switch.read_connections() == held, "an adopted entry was touched"
    status = await farm.hosts["h1"].agent.status()
    assert status["keys"] == 4


async def test_what_nobody_can_claim_is_deleted_at_take_over(farm):
    await exchange(farm, "acme-web1", tcp("acme-web1", "acme-web2"))
    switch = farm.hosts["h1"].switch
    out, *_ = [e for e in await switch.read_connections() if e.key.scope != PORT_UNDERLAY]
    await switch.write([Update(Operation.DELETE, out)])
    farm.hosts["h1"].agent._local.connections.remove(next(iter(farm.hosts["h1"].agent._local.connections)))
    await farm.restart_agent("h1")
    assert await entries(farm, "h1") == 0


async def test_removing_an_endpoint_ends_its_connections_at_both_ends(farm):
    await exchange(farm, "acme-web1", tcp("acme-web1", "acme-web2"))
    await farm.hosts["h2"].agent.remove_endpoint("acme-web2")
    await farm.settle()
    assert [await entries(farm, host) for host in ("h1", "h2")] == [0, 0]
    assert await exchange(farm, "acme-web2", tcp("acme-web2", "acme-web1", "A", 80, 1000)) == {}


async def test_idle_connections_leave_nothing_behind():
    farm = await start(idle_timeout=0.2)
    await exchange(farm, "acme-web1", tcp("acme-web1", "acme-web2"))
    await exchange(farm, "acme-web1", tcp("acme-web1", "acme-web3"))
    await asyncio.sleep(2.3)
    assert [await entries(farm, host) for host in ("h1", "h2", "h3")] == [0, 0, 0]
    assert [len(farm.hosts[host].agent._local.keys) for host in ("h1", "h2", "h3")] == [0, 0, 0]
    await farm.stop()


async def test_arp_is_answered_from_the_switch_and_silent_for_what_is_not(farm):
    web1 = ENDPOINTS["acme-web1"][0]

    def who_has(address, sender=None):
        mac = ":".join(f"{byte:02x}" for byte in web1.mac)
        request = ARP(hwsrc=mac, psrc=sender if sender is not None else ip("acme-web1"), pdst=address)
        return bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / request)

    for address, owner in (
        ("10.0.1.2", ENDPOINTS["acme-web2"][0].mac),
        ("10.0.1.254", derive_mac("gateway", "acme", "web")),
    ):
        for sender in (None, "0.0.0.0"):
            (got,) = (await exchange(farm, "acme-web1", who_has(address, sender)))["acme-web1"]
            reply = Ether(got)[ARP]
            assert (reply.op, reply.psrc) == (2, address)
            assert bytes.fromhex(reply.hwsrc.replace(":", "")) == owner
    assert farm.hosts["h1"].agent._local.events["punts neighbour"] == 2
    for silent in (who_has("10.0.1.77"), who_has("10.0.1.1"), who_has("10.0.1.1", "0.0.0.0"), who_has("10.0.2.1")):
        assert await exchange(farm, "acme-web1", silent) == {}
    # Another endpoint of the network has asked for web1, so the switch knows the answer; web1's own probe gets none.
    web3 = ":".join(f"{byte:02x}" for byte in ENDPOINTS["acme-web3"][0].mac)
    asks = bytes(Ether(src=web3, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=web3, psrc=ip("acme-web3"), pdst="10.0.1.1"))
    assert "acme-web3" in await exchange(farm, "acme-web3", asks)
    assert await exchange(farm, "acme-web1", who_has("10.0.1.1", "0.0.0.0")) == {}


async def test_strays_never_reach_the_stack_but_the_hosts_own_pings_do(farm):
    host = farm.hosts["h1"]
    other, me = "172.16.2.1", "172.16.1.1"
    ether = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
    stray = bytes(ether / IP(src=other, dst=me) / TCP(sport=20001, dport=20002, flags="A"))
    for packet in (stray, stray):
        host.switch.receive(PORT_UNDERLAY, packet)
    await farm.settle()
    assert host.delivered == {}
    own_ping = bytes(ether / IP(src=other, dst=me) / ICMP(type=0, id=25000))
    ssh = bytes(ether / IP(src=other, dst=me) / TCP(sport=40000, dport=22, flags="S"))
    host.switch.receive(PORT_UNDERLAY, own_ping)
    host.switch.receive(PORT_UNDERLAY, ssh)
    await farm.settle()
    assert sorted(host.delivered[2]) == sorted([own_ping, ssh])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "acme-web1"}, "already"),
        ({"addresses": (read_address("10.0.1.1"),)}, "already"),
        ({"addresses": (read_address("10.0.2.9"),)}, "not an address"),
        ({"addresses": (read_address("10.0.1.254"),)}, "not an address"),
        ({"tenant": "nobody"}, "no tenant"),
        ({"network": "nowhere"}, "no network"),
    ],
)
async def test_endpoints_that_cannot_be_are_refused_and_change_nothing(farm, change, complaint):
    fields = {
        "name": "new",
        "tenant": "acme",
        "network": "web",
        "mac": derive_mac("new"),
        "addresses": (read_address("10.0.1.9"),),
        "host": "h1",
    }
    before = farm.hosts["h1"].agent.endpoints()
    with pytest.raises(ValueError, match=complaint):
        await farm.hosts["h1"].agent.add_endpoint(Endpoint(**(fields | change)), 20)
    with pytest.raises(ValueError, match="taken"):
        await farm.hosts["h1"].agent.add_endpoint(Endpoint(**fields), 16)
    assert farm.hosts["h1"].agent.endpoints() == before


def policy(rules=(), pairs=None):
    return Tenant("acme", ACME.networks, ACME.groups, tuple(rules), pairs or {})


@pytest.mark.parametrize("receiver", ["acme-web2", "acme-web3"])
async def test_a_change_of_the_policy_holds_for_live_connections_at_both_ends(farm, receiver):
    syn = tcp("acme-web1", receiver)
    assert await exchange(farm, "acme-web1", syn) == {receiver: [syn]}
    await farm.directory.publish_tenant(policy(pairs={pair_of("acme-web1", receiver): False}))
    await farm.settle()
    assert [await entries(farm, host) for host in ("h1", "h2")] == [0, 0]
    for sender, packet in (("acme-web1", syn), (receiver, tcp(receiver, "acme-web1", "A", 80, 1000))):
        assert set(await exchange(farm, sender, packet)) == {sender}, "only the sender hears: of the refusal"
    await farm.directory.publish_tenant(policy())
    await farm.settle()
    assert await exchange(farm, "acme-web1", syn) == {receiver: [syn]}, "the refusal outlived the policy"


async def test_a_policy_that_changes_while_an_offer_is_under_way_is_not_missed(farm):
    farm.emit("acme-web1", tcp("acme-web1", "acme-web2"))
    await asyncio.sleep(0)
    await farm.directory.publish_tenant(policy([Rule("web", "web", False)]))
    await farm.settle()
    assert farm.delivered("acme-web2") == []
    assert [await entries(farm, host) for host in ("h1", "h2")] == [1, 0], "one refusal, and nothing else"


async def test_rules_are_judged_in_the_initiators_orientation(farm):
    await farm.directory.publish_tenant(
        policy([Rule("acme-web1", "acme-lab1", True, 6, (80,)), Rule("lab", "web", False)])
    )
    syn, answer = tcp("acme-web1", "acme-lab1"), tcp("acme-lab1", "acme-web1", "SA", 80, 1000)
    received = await exchange(farm, "acme-web1", syn)
    assert list(received) == ["acme-lab1"]
    assert list(await exchange(farm, "acme-lab1", answer)) == ["acme-web1"]
    assert list(await exchange(farm, "acme-lab1", tcp("acme-lab1", "acme-web1"))) == ["acme-lab1"]
    assert list(await exchange(farm, "acme-web1", tcp("acme-web1", "acme-lab1", dport=81))) == ["acme-web1"]


async def test_an_endpoint_that_comes_while_the_switch_is_taken_over_is_admitted(farm):
    host = farm.hosts["h2"]
    late = Endpoint("acme-late", "acme", "web", derive_mac("late"), (read_address("10.0.1.9"),), "h2")
    read, added = host.switch.read_connections, asyncio.Event()

    async def slow_read():
        await added.wait()
        return await read()

    host.switch.read_connections = slow_read
    host.switch.on_primary(False)
    host.switch.on_primary(True)
    await farm.settle()
    await farm.add_endpoint(late, 20)
    added.set()
    await farm.settle()
    assert {entry.port for entry in await host.switch.read_guard()} == {16, 17, 20}


async def test_entries_of_another_tenant_are_not_adopted_though_port_and_addresses_agree(farm):
    """The agent died when it had forgotten an endpoint, but not deleted its entries; then the port was reused."""
    await exchange(farm, "acme-web1", tcp("acme-web1", "acme-web2"))
    host = farm.hosts["h1"]
    for name in ("acme-web1", "acme-web3", "globex-web1"):
        host.state.remove(name)
        await farm.directory.withdraw_endpoint(ENDPOINTS[name][0])
    acme = ENDPOINTS["acme-web1"][0]
    host.state.put(Endpoint("globex-new", "globex", "web", acme.mac, acme.addresses, "h1"), 16)
    await farm.restart_agent("h1")
    assert [endpoint.name for endpoint, _ in farm.hosts["h1"].agent.endpoints()] == ["globex-new"]
    assert await entries(farm, "h1") == 0
