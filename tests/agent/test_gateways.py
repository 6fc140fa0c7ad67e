"""Connections between sites, through none, one or two gateways, on the real pipeline, in one process."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from agent.sites import ENDPOINTS, HOSTS, TENANTS, frame, ip, start
from nvi.agent.joining import LINGER_SECONDS
from nvi.directory import LEASE
from nvi.emulation.views import connections_view
from nvi.model import ConnectionId, End, FirstPacket, Flow, SegmentEnd, Tenant, pair_of
from nvi.offers import VERSION, NoAnswer, Offer, Reason, Refuse, Release, Stamp
from nvi.simulation import VirtualClockLoop, addresses_of
from nvi.switch import PORT_EXTERNAL, PORT_UNDERLAY, ConnectionEntry, NotPrimary, Operation, Update

WAYS = {
    ("acme-east", "acme-west"): 4,
    ("acme-east", "acme-south"): 3,
    ("acme-gate", "acme-west"): 3,
    ("acme-gate", "acme-south"): 2,
    ("acme-east", "acme-db"): 4,
}
"""Hosts on the way, by ends."""


def simulated(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test on a farm of its own, on the virtual clock. `farm.seen` is (host, port, packet) of all that left."""

    @functools.wraps(test)
    def run(**parameters: object) -> None:
        async def on_a_farm() -> None:
            seen: list[tuple[str, int, bytes]] = []
            farm = await start(capture=lambda *packet: seen.append(packet))
            farm.seen = seen
            try:
                await test(farm, **parameters)
            finally:
                await farm.stop()

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(on_a_farm())

    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values()][1:])
    return run


def header(sender, receiver, **fields):
    """That of a packet which arrives as it was sent: without DF, its identification would be another one."""
    return IP(src=ip(sender), dst=ip(receiver), flags="DF", **fields)


def tcp(sender, receiver, flags="S", sport=1000, dport=80, payload=b"", **fields):
    packet = header(sender, receiver, **fields) / TCP(sport=sport, dport=dport, flags=flags) / payload
    return frame(sender, receiver, packet)


def udp(sender, receiver, sport=1000, dport=53, payload=b""):
    return frame(sender, receiver, header(sender, receiver) / UDP(sport=sport, dport=dport) / payload)


def ping(sender, receiver, kind=8, identifier=7):
    return frame(sender, receiver, header(sender, receiver) / ICMP(type=kind, id=identifier) / b"payload")


async def entries(farm, *hosts):
    return {name: len(await farm.hosts[name].switch.read_connections()) for name in hosts or farm.hosts}


async def holding(farm):
    return {name: count for name, count in (await entries(farm)).items() if count}


async def exchange(farm, sender, packet):
    """Send, and return everything that anybody received."""
    farm.emit(sender, packet)
    await asyncio.sleep(0.01)
    return {name: got for name in ENDPOINTS if (got := farm.delivered(name))}


def unrouted(frame: bytes) -> bytes:
    """What does not differ between networks: all beyond MACs, TTL and header checksum."""
    return frame[12:22] + frame[23:24] + frame[26:]


@pytest.mark.parametrize("ends", WAYS, ids="-".join)
@pytest.mark.parametrize("make", [tcp, udp, ping])
@simulated
async def test_a_connection_between_sites(farm, ends, make):
    one, other = ends
    request = make(one, other)
    back = {tcp: lambda: tcp(other, one, "SA", 80, 1000), udp: lambda: udp(other, one, 53, 1000)}.get(
        make, lambda: ping(other, one, 0)
    )()
    for sender, receiver, packet in ((one, other, request), (other, one, back), (one, other, request)):
        received = await exchange(farm, sender, packet)
        assert list(received) == [receiver]
        assert list(map(unrouted, received[receiver])) == [unrouted(packet)]
    held = await holding(farm)
    assert len(held) == WAYS[ends]
    assert set(held.values()) == {2}
    publics = {h.host.external.public for h in farm.hosts.values() if h.host.external}
    owns = {h.host.external.address for h in farm.hosts.values() if h.host.external}
    underlay = {h.host.addresses[0] for h in farm.hosts.values()}
    for port, ours, peers in ((PORT_UNDERLAY, underlay, underlay), (PORT_EXTERNAL, owns, publics)):
        for _, at, packet in farm.seen:
            if at != port:
                continue
            source, destination = addresses_of(packet)
            assert source in ours and destination in peers, "an address that is not the segment's"
            assert len(packet) in (len(request), len(back))
    assert PORT_EXTERNAL in {port for _, port, _ in farm.seen}
    (shown,) = await connections(farm)
    hosts = [ENDPOINTS[one][0].host, *(segment["to"]["host"] for segment in shown["segments"])]
    assert (len(hosts), hosts[-1]) == (WAYS[ends], ENDPOINTS[other][0].host)
    assert [segment["from"]["host"] for segment in shown["segments"]] == hosts[:-1]
    await asyncio.sleep(35)
    assert await holding(farm) == {}
    assert [len(each.agent._local.keys) for each in farm.hosts.values()] == [0] * len(farm.hosts)


async def connections(farm, dead=()):
    """As all hosts together show them."""
    alive = [each.agent for name, each in farm.hosts.items() if name not in dead]
    return connections_view([await agent.connections() for agent in alive])["connections"]


async def gateways(farm, dead=()):
    """The gateways on the way of the one connection that there is."""
    (shown,) = await connections(farm, dead)
    hosts = {segment[end]["host"] for segment in shown["segments"] for end in ("from", "to")}
    return [name for name in ("e8", "e9", "w9", "s9") if name in hosts]


async def talks(farm, one="acme-east", other="acme-west", make=tcp, ports=(1000, 80)):
    """Both ends send a packet each, and both arrive, though perhaps not at the first attempt."""
    for sender, receiver, (sport, dport) in ((one, other, ports), (other, one, ports[::-1])):
        packet = make(sender, receiver, sport=sport, dport=dport, **({"flags": "A"} if make is tcp else {}))
        received = await exchange(farm, sender, packet)
        assert {name: list(map(unrouted, got)) for name, got in received.items()} == {receiver: [unrouted(packet)]}


@simulated
async def test_tenants_with_the_same_addresses_share_hosts_and_gateways_and_nothing_else(farm):
    ours, theirs = tcp("acme-east", "acme-west"), tcp("globex-east", "globex-west")
    farm.emit("acme-east", ours)
    farm.emit("globex-east", theirs)
    await asyncio.sleep(0.01)
    assert {name: got for name in ENDPOINTS if (got := farm.delivered(name))} == {
        "acme-west": [ours],
        "globex-west": [theirs],
    }


@pytest.mark.parametrize("later", [0, 1, 2, 3, 5, 8])
@simulated
async def test_offers_that_cross_on_the_way_make_one_connection(farm, later):
    """Both ends open it, at nearly the same time: wherever the offers meet, that of the lower host name goes on."""
    there, back = udp("acme-east", "acme-west", 5000, 5001), udp("acme-west", "acme-east", 5001, 5000)
    farm.emit("acme-west", back)
    for _ in range(later):
        await asyncio.sleep(0)
    farm.emit("acme-east", there)
    await asyncio.sleep(LINGER_SECONDS + 0.1)
    assert farm.delivered("acme-west") == [there]
    assert farm.delivered("acme-east") == [back]
    held = await holding(farm)
    assert (len(held), set(held.values())) == (4, {2})
    assert len((await connections(farm))[0]["segments"]) == 3
    assert sorted(len(each.agent._local.keys) for each in farm.hosts.values()) == [0, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("who", [["gateways"], ["e1"], ["w1"], ["e1", "w1", "gateways"]], ids="-".join)
@simulated
async def test_agents_that_restart_adopt_what_their_switches_hold(farm, make, who):
    """A gateway's entries do not say what they are of: it asks its neighbours."""
    await talks(farm, make=make)
    hosts = [*(await gateways(farm)), *who] if "gateways" in who else who
    hosts = [each for each in hosts if each != "gateways"]
    before = {name: await farm.hosts[name].switch.read_connections() for name in farm.hosts}
    for name in hosts:
        await farm.stop_agent(name)
    for name in hosts:
        await farm.start_agent(name)
    await talks(farm, make=make)
    await asyncio.sleep(3)
    assert {name: await farm.hosts[name].switch.read_connections() for name in farm.hosts} == before
    assert [len(farm.hosts[name].agent._local.connections) for name in hosts] == [1] * len(hosts)
    assert not any(farm.hosts[name].agent._local.unknown for name in hosts)
    offers = sum(each.agent._local.events["offers sent"] for each in farm.hosts.values())
    await talks(farm, make=make)
    assert offers == sum(each.agent._local.events["offers sent"] for each in farm.hosts.values())
    await asyncio.sleep(35)
    assert await holding(farm) == {}
    assert [len(each.agent._local.keys) for each in farm.hosts.values()] == [0] * len(farm.hosts)


@simulated
async def test_what_a_gateway_finds_and_no_neighbour_knows_is_deleted(farm):
    await talks(farm)
    (near, far) = await gateways(farm)
    await farm.stop_agent(near)
    for name in ("e1", far):
        agent = farm.hosts[name].agent
        await agent._joiner.abandon(list(agent._local.connections))
    assert await entries(farm, near) == {near: 2}
    await farm.start_agent(near)
    await asyncio.sleep(3)
    assert await entries(farm, near) == {near: 0}


@simulated
async def test_what_a_gateway_finds_is_kept_while_its_neighbours_cannot_say_what_it_is_of(farm):
    await talks(farm)
    near, far = await gateways(farm)
    for name in ("e1", near, far):
        await farm.stop_agent(name)
    await farm.start_agent(near)
    for _ in range(4):
        await asyncio.sleep(20)
        await talks(farm)
    assert await entries(farm, near) == {near: 2}
    await asyncio.sleep(35)
    assert await entries(farm, near) == {near: 0}, "idle"
    assert len(farm.hosts[near].agent._local.keys) == 2, "in quarantine"
    await asyncio.sleep(60)
    assert len(farm.hosts[near].agent._local.keys) == 0


@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("sender", ["acme-east", "acme-west"])
@pytest.mark.parametrize("forgetful", [0, 1, 2, 3], ids=["e1", "near", "far", "w1"])
@pytest.mark.parametrize("agent_too", [False, True])
@simulated
async def test_whatever_vanishes_on_the_way_is_mended_from_either_end(farm, make, sender, forgetful, agent_too):
    await talks(farm, make=make)
    near, far = await gateways(farm)
    name = ["e1", near, far, "w1"][forgetful]
    if agent_too:
        await farm.stop_agent(name)
    switch = farm.hosts[name].switch
    await switch.write([Update(Operation.DELETE, ConnectionEntry(e.key)) for e in await switch.read_connections()])
    if agent_too:
        await farm.start_agent(name)
    if sender == "acme-east":
        await talks(farm, make=make)
    else:
        await talks(farm, "acme-west", "acme-east", make=make, ports=(80, 1000))
    await asyncio.sleep(LINGER_SECONDS + 0.1)
    held = await holding(farm)
    assert (len(held), set(held.values())) == (4, {2})


@pytest.mark.parametrize("make", [tcp, udp])
@simulated
async def test_a_gateway_that_dies_is_replaced_for_live_connections(farm, make):
    await talks(farm, make=make)
    near, far = await gateways(farm)
    other = {"e8": "e9", "e9": "e8"}[near]
    await farm.stop_agent(near)
    farm.hosts[near].switch.restart()
    await asyncio.sleep(LEASE + 1)
    for _ in range(2):
        await talks(farm, make=make)
    assert await gateways(farm, dead=[near]) == sorted([other, far])
    await asyncio.sleep(LINGER_SECONDS + 3)  # what is dead does not acknowledge
    assert await holding(farm) == dict.fromkeys(("e1", other, far, "w1"), 2)


@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("ends", [("acme-east", "acme-west"), ("acme-west", "acme-east")], ids="-".join)
@pytest.mark.parametrize("dead", ["e8", "e9"])
@simulated
async def test_what_is_opened_before_a_dead_gateways_lease_ends_takes_another_one(farm, dead, ends, make):
    await farm.stop_agent(dead)
    farm.hosts[dead].switch.restart()
    for sport in range(1000, 1010):
        packet = make(*ends, sport=sport)
        assert await exchange(farm, ends[0], packet) == {ends[1]: [packet]}
    assert await farm.directory.host(dead) is not None, "its lease still runs"
    asked = [host.agent._local.events["gateways silent"] for host in farm.hosts.values()]
    assert 0 < sum(asked) < 10, "of some connections it would have been the gateway"


@simulated
async def test_the_other_side_of_a_dead_gateway_replaces_it_if_the_first_cannot(farm):
    """The agent of the end that would go first was dead as well, and has seen nothing of the change."""
    await talks(farm)
    near, _ = await gateways(farm)
    await farm.stop_agent("e1")
    await farm.stop_agent(near)
    farm.hosts[near].switch.restart()
    await asyncio.sleep(LEASE)
    await farm.start_agent("e1")
    await asyncio.sleep(3)
    await talks(farm)


MOVES = {"w2": 20, "e2": 20, "e1": 20, "s9": 20, "e9": 20}


@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("to", MOVES)
@pytest.mark.parametrize("first", ["acme-east", "acme-west"])
@simulated
async def test_an_endpoint_that_moves_takes_its_connections_with_it(farm, make, to, first):
    """Within its site, to the other's, to its peer's host, to a third site, to a gateway."""
    await talks(farm, make=make)
    await farm.move_endpoint("acme-west", to, MOVES[to])
    await asyncio.sleep(0.01)
    if first == "acme-east":
        await talks(farm, make=make)
    else:
        await talks(farm, "acme-west", "acme-east", make=make, ports=(80, 1000))
    await asyncio.sleep(LINGER_SECONDS + 0.1)
    assert await entries(farm, "w1") == {"w1": 0}
    (shown,) = await connections(farm)
    assert shown["initiator"]["endpoint"] == "acme-east", "what is remembered moves, too"
    assert (shown["segments"][-1]["to"]["host"] if shown["segments"] else "e1") == to
    held = await holding(farm)
    assert (len(held), set(held.values())) == (len(shown["segments"]) + 1, {2}), "the old way is left"


@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("to", ["e2", "w1"])
@simulated
async def test_an_endpoint_that_leaves_its_peers_host_takes_its_connections_with_it(farm, make, to):
    await farm.move_endpoint("acme-west", "e1", 20)
    await talks(farm, make=make)
    assert await holding(farm) == {"e1": 2}
    await farm.move_endpoint("acme-west", to, 21)
    await asyncio.sleep(0.01)
    await talks(farm, make=make)
    assert {name: (await entries(farm, name))[name] for name in ("e1", to)} == {"e1": 2, to: 2}


@simulated
async def test_both_ends_move_one_after_the_other_and_back(farm):
    await talks(farm)
    for name, to, port in (
        ("acme-west", "w2", 20), ("acme-east", "e2", 20), ("acme-west", "s9", 20),
        ("acme-east", "w1", 20), ("acme-west", "w1", 21), ("acme-east", "e1", 20),
    ):  # fmt: skip
        await farm.move_endpoint(name, to, port)
        await asyncio.sleep(0.01)
        await talks(farm)
    await asyncio.sleep(LINGER_SECONDS + 0.1)
    held = await holding(farm)
    assert (len(held), set(held.values())) == (4, {2})
    await asyncio.sleep(35 + 60)
    assert await holding(farm) == {}
    assert [len(each.agent._local.keys) for each in farm.hosts.values()] == [0] * len(farm.hosts)


@simulated
async def test_an_endpoint_that_moved_while_its_peers_agent_was_dead_is_found_again(farm):
    await talks(farm)
    await farm.stop_agent("e1")
    await farm.move_endpoint("acme-west", "w2", 20)
    await farm.start_agent("e1")
    await asyncio.sleep(0.1)
    await talks(farm)


@simulated
async def test_an_endpoint_that_moved_away_while_its_own_agent_was_dead_is_not_taken_back(farm):
    await farm.stop_agent("w1")
    moved = ENDPOINTS["acme-west"][0]
    await farm.add_endpoint(type(moved)(moved.name, moved.tenant, moved.network, moved.mac, moved.addresses, "w2"), 20)
    await farm.start_agent("w1")
    await talks(farm)
    assert "acme-west" not in {endpoint.name for endpoint, _ in farm.hosts["w1"].agent.endpoints()}
    assert await entries(farm, "w2") == {"w2": 2}


@simulated
async def test_after_a_release_that_nobody_heard_the_moved_endpoint_is_found(farm):
    """Its host's word is lost, and it comes back elsewhere: no black hole until the connection is idle."""
    await talks(farm)
    request, lost = farm.offers.request, []

    async def deaf(sender, receiver, message):
        if sender == "w1" and isinstance(message, Release):
            lost.append(message)
            raise NoAnswer("lost")
        return await request(sender, receiver, message)

    farm.offers.request = deaf
    endpoint = ENDPOINTS["acme-west"][0]
    await farm.remove_endpoint("acme-west")
    await asyncio.sleep(0.1)
    assert lost
    await farm.add_endpoint(
        type(endpoint)(endpoint.name, endpoint.tenant, endpoint.network, endpoint.mac, endpoint.addresses, "w2"), 20
    )
    await asyncio.sleep(0.5)
    await talks(farm)


@simulated
async def test_an_endpoint_that_is_gone_for_good_takes_its_connections_with_it_on_the_whole_way(farm):
    await talks(farm)
    await farm.remove_endpoint("acme-west")
    await asyncio.sleep(0.1)
    assert await holding(farm) == {}


@simulated
async def test_what_the_policy_ends_ends_on_the_whole_way(farm):
    await talks(farm)
    acme = TENANTS["acme"]
    pairs = {pair_of("acme-east", "acme-west"): False}
    await farm.directory.publish_tenant(Tenant("acme", acme.networks, acme.groups, (), pairs))
    await asyncio.sleep(0.1)
    assert await holding(farm) == {}
    assert list(await exchange(farm, "acme-east", tcp("acme-east", "acme-west", "A"))) == ["acme-east"], "its refusal"


@simulated
async def test_packets_in_flight_on_the_segment_that_was_just_left_still_arrive(farm):
    await talks(farm, make=udp)
    mark = len(farm.seen)
    await talks(farm, make=udp)
    in_flight = [packet for host, port, packet in farm.seen[mark:] if (host, port) == ("e1", PORT_UNDERLAY)]
    near, _ = await gateways(farm)
    farm.hosts["e1"].switch.on_primary(False)
    await farm.stop_agent("e1")
    farm.hosts["e1"].switch.restart()
    await farm.start_agent("e1")
    await talks(farm, make=udp)  # by a new offer, with other keys
    farm.hosts[near].switch.receive(PORT_UNDERLAY, in_flight[0])
    await asyncio.sleep(0.01)
    assert len(farm.delivered("acme-west")) == 1
    await asyncio.sleep(LINGER_SECONDS)
    farm.hosts[near].switch.receive(PORT_UNDERLAY, in_flight[0])
    await asyncio.sleep(0.01)
    assert farm.delivered("acme-west") == []


@simulated
async def test_an_echo_in_flight_to_an_endpoint_that_has_moved_does_not_come_out_at_the_stack(farm):
    await exchange(farm, "acme-east", ping("acme-east", "acme-west"))
    farm.seen.clear()
    await exchange(farm, "acme-east", ping("acme-east", "acme-west"))
    on_the_way = [packet for _, port, packet in farm.seen if port == PORT_UNDERLAY]
    farm.seen.clear()
    await farm.move_endpoint("acme-west", "w2", 20)
    farm.hosts["w1"].switch.receive(PORT_UNDERLAY, on_the_way[-1])
    await asyncio.sleep(0.1)
    assert [(host, port) for host, port, _ in farm.seen if port in (2, 4)] == []
    assert farm.hosts["w1"].agent._local.events["punts stray"] == 1


@simulated
async def test_a_port_with_remains_of_another_endpoint_is_not_given_away(farm):
    """They cannot be deleted while the switch is not the agent's."""
    await talks(farm)
    switch = farm.hosts["w1"].switch
    write = switch.write

    async def refuse(_):
        raise NotPrimary("somebody else is")

    switch.on_primary(False)
    switch.write = refuse
    await farm.remove_endpoint("acme-west")
    heir = ENDPOINTS["globex-west"][0]
    await farm.remove_endpoint("globex-west")
    agent = farm.hosts["w1"].agent
    for port in (16, 17):
        with pytest.raises(ValueError, match="still has entries"):
            await agent.add_endpoint(heir, port)
    switch.write = write
    switch.on_primary(True)
    await farm.settle()
    await agent.add_endpoint(heir, 16)
    assert await entries(farm, "w1") == {"w1": 0}


@simulated
async def test_without_a_live_gateway_a_connection_is_refused_and_the_reason_named(farm):
    await farm.stop_agent("w9")
    await asyncio.sleep(LEASE + 1)
    refused = []
    refuse = farm.hosts["e1"].agent._refusals.refuse

    async def note(*arguments):
        refused.append(arguments[-1])
        await refuse(*arguments)

    farm.hosts["e1"].agent._refusals.refuse = note
    received = await exchange(farm, "acme-east", tcp("acme-east", "acme-west"))
    assert list(received) == ["acme-east"]
    assert "site west has no live gateway" in refused[0]


LIES = {
    "a host that is not on the way": ("e2", "e8", {}),
    "a gateway of a third site": ("s9", "w9", {}),
    "another gateway of the own site": ("e9", "e8", {}),
    "a public address that is not its own": ("e8", "w9", {"seen_address": b"\xc6\x33\x64\x63"}),
    "an address of another host": ("e1", "e8", {"address": b"\xac\x10\x02\x01"}),
    "to be seen elsewhere": ("e1", "e8", {"seen_address": b"\xac\x10\x02\x01"}),
    "another site": ("e1", "e8", {"site": "west"}),
    "a host beyond the gateway": ("e1", "w1", {}),
}


@pytest.mark.parametrize("lie", LIES)
@simulated
async def test_offers_that_lie_about_the_way_are_refused(farm, lie):
    sender, receiver, change = LIES[lie]
    one, other = ENDPOINTS["acme-east"][0], ENDPOINTS["acme-west"][0]
    identity = ConnectionId.of("acme", Flow(one.address, other.address, 6, 1000, 80))
    host = next(each for each in HOSTS if each.name == sender)
    outside = host.external if sender in ("s9", "w9") or (sender, receiver) == ("e8", "w9") else None
    fields = {
        "host": sender,
        "site": host.site,
        "address": outside.address if outside else host.addresses[0],
        "seen_address": outside.public if outside else host.addresses[0],
        "port": 20001,
    }
    end = SegmentEnd(**(fields | change))
    offer = Offer(VERSION, Stamp(9, 9), identity, End(one.address, 1000), FirstPacket(64), end)
    reply = await farm.offers.request(sender, receiver, offer)
    assert isinstance(reply, Refuse)
    assert reply.reason is (Reason.UNKNOWN if lie == "another gateway of the own site!" else Reason.FORGED)
    assert await holding(farm) == {}
