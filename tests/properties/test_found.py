"""Defects that the properties, or the writing of them, have found: each once, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from fuzz import wire
from fuzz.wire import SYN, TCP, UDP, Ports
from nvi.directory import LEASE, DirectoryError
from nvi.keys import Pair, Path
from nvi.model import ConnectionId, End, Endpoint, FirstPacket, Flow, SegmentEnd, pair_of
from nvi.offers import VERSION, Offer, Reason, Refuse, Release, Stamp
from nvi.switch import (
    ConnectionEntry,
    Drop,
    DropReason,
    NeighbourEntry,
    Operation,
    Rewrite,
    SwitchError,
    Update,
)
from properties.world import IDLE, QUARANTINE, World


@pytest.fixture
def farm() -> Iterator[World]:
    world = World(3)
    yield world
    world.close()


def test_a_pair_whose_peer_still_uses_it_is_resumed_and_does_not_rest(farm: World) -> None:
    """h1 expires while h0's agent is dead, so nobody hears its release; h0's switch still sends along the segment."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    talk = farm.open(one, other, TCP)
    farm.kill_agent("h0")
    farm.settle(IDLE + 2)
    assert farm.entries("h1") == []
    farm.revive_agent("h0")
    serial = farm.send(one, other, talk.ports, wire.ACK)
    farm.settle()
    assert farm.arrived[serial], "a black hole, until the quarantine ends"


def test_a_pair_that_was_released_late_is_not_freed_under_its_next_connection(farm: World) -> None:
    keys = farm.farm.hosts["h0"].agent._local.keys
    pair = Pair(Path(1, b"a", b"b", 6), 20000, 20001)
    assert keys.take(pair)
    keys.rest(pair, 0.0)
    keys.free(pair)
    assert keys.take(pair)
    keys.wake(QUARANTINE + 1)
    assert not keys.take(pair)
    keys.free(pair)


def test_an_endpoint_that_came_back_elsewhere_is_not_stale(farm: World) -> None:
    """h0 holds a connection that h1's agent offered in its second life, and has not heard that it is over."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    farm.kill_agent("h1")
    farm.revive_agent("h1")
    farm.open(other, one, TCP)
    ports = farm.conversations[0].ports
    farm.offers.to_lose = ["question"]
    farm.remove(other)
    again = farm.add(farm.endpoint("acme", "web", 2, "h2"))
    serial = farm.send(again, one, ports, SYN)
    farm.settle()
    assert farm.arrived[serial]


def test_no_offer_is_answered_before_the_switch_is_known(farm: World) -> None:
    """The keys in it would be given away."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    talk = farm.open(one, other, UDP)
    switch = farm.farm.hosts["h1"].switch
    switch.on_primary(False)
    serial = farm.send(one, other, Ports(UDP, 7, 7), 0)
    farm.settle()
    assert not farm.arrived[serial]
    assert farm.farm.hosts["h1"].agent._local.events["offers refused busy"] == 1

    async def own() -> None:
        switch.on_primary(True)

    farm.run(own())
    farm.settle()
    farm.converse(talk, opening=False)


def test_what_was_removed_while_the_switch_was_not_ours_does_not_come_back_with_it(farm: World) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    talk = farm.open(one, other, TCP)
    switch = farm.farm.hosts["h1"].switch
    switch.on_primary(False)
    farm.remove(other)
    heir = farm.add(farm.endpoint("globex", "web", 2, "h1"))
    assert farm.at["h1", 16] == heir
    farm.empty_switch("h1")
    farm.send(one, other, talk.ports, wire.ACK)
    farm.settle()
    assert farm.entries("h1") == []


@pytest.mark.parametrize("lost", [True, False])
def test_nothing_of_an_endpoint_comes_out_at_its_port_once_another_is_there(farm: World, lost: bool) -> None:
    """Its packets wait for an offer; meanwhile it goes, and another tenant's gets its port, MAC and address."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    theirs = farm.add(farm.endpoint("globex", "web", 2, "h1"))
    farm.offers.latency = 1.0
    farm.offers.to_lose = ["question"] if lost else []
    farm.calm = False
    farm.send(one, other, Ports(TCP, 7, 7), SYN)
    farm.settle(0.0)
    while not lost and not farm.entries("h1"):
        farm.settle(0.01)  # until the peer has accepted, and its word is on the way back
    farm.remove(one)
    heir = farm.add(farm.endpoint("globex", "web", 1, "h0"))
    assert farm.port_of[heir.name] == 16
    farm.offers.latency = 0.0
    farm.deliver(heir, theirs, Ports(TCP, 7, 7), SYN)
    farm.settle(4.0)
    farm.send(other, one, Ports(TCP, 7, 7), wire.SYN_ACK)  # `World` complains of what comes out
    farm.settle()
    farm.rest()


def test_refusals_go_with_the_endpoint_that_was_refused(farm: World) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    farm.send(one, farm.endpoint("acme", "web", 2, "h1"), Ports(TCP, 7, 7), SYN)
    farm.settle()
    assert [type(entry.action) for entry in farm.entries("h0")] == [Drop]
    farm.remove(one)
    assert farm.entries("h0") == []


def test_what_was_being_written_when_its_endpoint_went_goes_too(farm: World) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h0"))
    switch = farm.farm.hosts["h0"].switch
    write = switch.write
    in_order = asyncio.Lock()

    async def slow(updates: Sequence[Update]) -> None:
        async with in_order:
            await asyncio.sleep(0.1)
            await write(updates)

    switch.write = slow  # type: ignore[method-assign]
    farm.send(one, other, Ports(TCP, 7, 7), SYN)
    farm.settle(0.05)
    farm.remove(other)
    farm.settle()
    assert farm.entries("h0") == []
    farm.rest()


def test_a_refusal_that_comes_too_late_leaves_the_connection_alone(farm: World) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    farm.open(one, other, UDP)
    agent = farm.farm.hosts["h0"].agent
    key = next(iter(agent._local.connections)).keys[0]
    near = agent._local.by_name[one.name]
    _, frame = farm.packet(one, other, farm.conversations[0].ports, 0)
    farm.run(agent._refusals.refuse(near, key, DropReason.UNREACHABLE, frame, "too late"))
    farm.settle()
    assert not [entry for entry in farm.entries("h0") if isinstance(entry.action, Drop)]
    assert farm.left_over("h0").keys() & {"refusals"} == set()


def test_a_connection_whose_pair_the_peer_takes_to_be_free_ends(farm: World) -> None:
    """The peer has forgotten it, and accepts another one with the same pair: where the packets of the first arrive."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    farm.open(one, other, TCP)
    here, there = (farm.farm.hosts[name].agent._local for name in ("h0", "h1"))
    (held,) = here.connections
    (link,) = held.links
    farm.run(farm.farm.stop_agent("h1"))
    farm.farm.hosts["h1"].switch.restart()
    farm.revive_agent("h1")
    there = farm.farm.hosts["h1"].agent._local
    here.keys._next = link.pair.local - 20001
    there.keys._next = link.pair.peer - 20001
    farm.open(one, other, TCP)
    assert here.connections.get(held.id) is None
    assert {key for key in held.keys if key in [entry.key for entry in farm.entries("h0")]} == set()
    farm.converse(farm.conversations[0], opening=False)


def test_arp_is_answered_after_somebody_has_deleted_the_answer(farm: World) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    switch = farm.farm.hosts["h0"].switch
    fields = one.mac, one.address, bytes(6), other.address
    request = b"\xff" * 6 + one.mac + b"\x08\x06" + b"\0\x01\x08\0\x06\x04\0\x01" + b"".join(fields)
    seen = farm.farm.hosts["h0"].delivered
    del farm.at["h0", 16]  # `World` knows IP only
    for _ in range(2):
        farm.put_in(one, request)
        farm.settle()
        (reply,) = seen.pop(16)
        assert reply[6:12] == other.mac
        (entry,) = farm.run(switch.read_neighbours())
        farm.run(switch.write([Update(Operation.DELETE, NeighbourEntry(entry.network, entry.address, entry.mac))]))


def test_a_dead_agent_does_nothing_any_more(farm: World) -> None:
    """What it would have taken back later is its successor's."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    nobody = farm.endpoint("acme", "web", 2, "h1")
    farm.send(one, nobody, Ports(UDP, 7, 7), 0)
    farm.settle()
    old = farm.farm.hosts["h0"].agent
    farm.kill_agent("h0")
    writes = []

    async def write(updates: object) -> None:
        writes.append(updates)

    old._local.switch.write = write  # type: ignore[method-assign, assignment]
    farm.settle(10.0)
    assert writes == []
    assert len(old._refusals) == 0


def test_each_end_judges_by_itself(farm: World) -> None:
    """An agent that has another policy in mind, or none, gets nothing from its peer."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "db", 2, "h1"))
    initiator = End(one.address, 7)
    identity = ConnectionId.of("acme", Flow(one.address, other.address, TCP, 7, 80))
    address = farm.farm.hosts["h0"].host.addresses[0]
    end = SegmentEnd("h0", "s0", address, address, 20001)
    offer = Offer(VERSION, Stamp(9, 9), identity, initiator, FirstPacket(64), end)
    reply = farm.run(farm.offers.request("h0", "h1", offer))
    assert isinstance(reply, Refuse) and reply.reason is Reason.DENIED
    assert farm.entries("h1") == []


def test_an_agent_adopts_nothing_of_an_endpoint_that_its_successor_has_replaced(farm: World) -> None:
    """It died between forgetting an endpoint and deleting its entries; the port has been given away since."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    farm.open(one, other, TCP)
    farm.kill_agent("h0")
    state = farm.farm.hosts["h0"].state
    state.remove(one.name)
    state.put(farm.endpoint("acme", "web", 3, "h0"), 16)
    farm.revive_agent("h0")
    assert farm.entries("h0") == []


@pytest.mark.parametrize("flags", [0x00, 0x20, 0x60, 0xE0])
def test_what_is_or_may_be_cut_arrives_with_an_identification_of_its_hosts(farm: World, flags: int) -> None:
    """Once in 1,200 farms a spoilt packet had MF: of two endpoints behind one host, so it must not keep its own."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    talk = farm.open(one, other, UDP)
    serial, frame = farm.packet(one, other, talk.ports, 0, size=32)
    farm.emit(one, serial, frame[:20] + bytes([flags]) + frame[21:])
    farm.settle()
    assert farm.arrived[serial]


# ---- found by `make fuzz` --------------------------------------------------------------------------------------------


def test_what_is_adopted_is_judged_by_the_policy_as_it_is_now(farm: World) -> None:
    """It has changed while the agents of both ends were dead, and each holds that the other one has seen to it."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    farm.open(one, other, TCP)
    for host in ("h0", "h1"):
        farm.kill_agent(host)
    apart = replace(farm.tenants["acme"], pairs={pair_of(one.name, other.name): False})
    farm.run(farm.directory.publish_tenant(apart))
    for host in ("h0", "h1"):
        farm.revive_agent(host)
    farm.settle()
    assert farm.entries("h0") == farm.entries("h1") == []


def test_a_removal_that_the_directory_prevents_changes_nothing(farm: World) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    talk = farm.open(one, other, TCP)
    withdraw = farm.directory.withdraw_endpoint

    async def away(_: Endpoint) -> None:
        raise DirectoryError("away")

    farm.directory.withdraw_endpoint = away  # type: ignore[method-assign]
    agent = farm.farm.hosts["h0"].agent
    with pytest.raises(DirectoryError):
        farm.run(agent.remove_endpoint(one.name))
    assert agent.endpoints() == [(one, 16)]
    farm.converse(talk, opening=False)
    farm.directory.withdraw_endpoint = withdraw  # type: ignore[method-assign]
    farm.remove(one)
    farm.settle()
    assert farm.entries("h0") == farm.entries("h1") == []
    assert farm.run(farm.directory.endpoint("acme", one.address)) is None


def test_a_port_is_not_given_away_before_it_is_known_what_the_switch_has_of_it(farm: World) -> None:
    """An agent that has just begun is told to remove an endpoint, and to add another tenant's in its place."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h0"))
    farm.open(one, other, TCP)
    farm.kill_agent("h0")
    switch = farm.farm.hosts["h0"].switch
    read, gate = switch.read_connections, asyncio.Event()

    async def slow() -> list[ConnectionEntry]:
        await gate.wait()
        return await read()

    switch.read_connections = slow  # type: ignore[method-assign]
    farm.revive_agent("h0")
    agent = farm.farm.hosts["h0"].agent
    farm.run(agent.remove_endpoint(one.name))
    heir = farm.endpoint("globex", "web", 1, "h0")
    with pytest.raises(ValueError, match="port 16 of host h0 still has entries"):
        farm.run(agent.add_endpoint(heir, 16))
    gate.set()
    farm.settle()
    switch.read_connections = read  # type: ignore[method-assign]
    assert farm.entries("h0") == []
    farm.run(agent.add_endpoint(heir, 16))


def test_a_restart_keeps_the_connections_with_a_host_whose_lease_has_run_out(farm: World) -> None:
    """An agent that is dead says nothing about its switch."""
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    talk = farm.open(one, other, UDP)
    farm.kill_agent("h1")
    farm.settle(LEASE + 1)
    farm.converse(talk, opening=False)
    farm.kill_agent("h0")
    farm.revive_agent("h0")
    assert len(farm.entries("h0")) == 2
    farm.calm = True
    farm.converse(talk, opening=False)


def test_a_release_that_comes_late_leaves_the_connection_s_next_life_alone(farm: World) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    farm.open(one, other, TCP)
    talk = farm.open(one, other, UDP)
    _, held = farm.farm.hosts["h0"].agent._local.connections
    (link,) = held.links
    _, there = farm.farm.hosts["h1"].agent._local.connections
    late = Release(VERSION, held.id, link.yours, link.mine, Stamp(there.stamp.epoch, there.stamp.counter - 1))
    reply = farm.run(farm.offers.request("h0", "h1", late))
    assert isinstance(reply, Refuse) and reply.reason is Reason.STALE
    assert len(farm.entries("h1")) == 4
    farm.converse(talk, opening=False)


def test_who_has_moved_is_followed_once_the_directory_answers(farm: World) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    talk = farm.open(one, other, UDP)
    local = farm.farm.hosts["h0"].agent._local
    there = local.directory

    class Away:
        def __getattr__(self, name: str) -> Any:
            if name == "endpoint":
                raise DirectoryError("away")
            return getattr(there, name)

    local.directory = Away()  # type: ignore[assignment]
    farm.move(other, "h2")
    farm.settle(2.0)
    local.directory = there
    farm.settle(2.0)
    farm.converse(talk, opening=False)


def test_who_offers_says_both_addresses_of_a_flow_without_ports(farm: World) -> None:
    """What the peer has forgotten it would give away, while our switch still sends along it: here, other addresses."""
    tenants = {}
    for tenant in ("acme", "globex"):
        ends = [farm.add(farm.endpoint(tenant, "web", n, f"h{n - 1}")) for n in (1, 2)]
        tenants[tenant] = ends
    farm.send(*tenants["acme"], Ports(wire.PORTLESS, 0, 0), 0)
    farm.settle()
    farm.kill_agent("h1")
    farm.farm.hosts["h1"].switch.restart()
    farm.revive_agent("h1")
    serial = farm.send(*tenants["globex"], Ports(wire.PORTLESS, 0, 0), 0)
    farm.settle()
    assert farm.arrived[serial]
    used = [each.action.flow for each in farm.entries("h0") if isinstance(each.action, Rewrite)]
    towards = [flow for flow in used if flow.source[0] == 172]
    assert len(set(towards)) == len(towards) == 2
    assert not farm.broken


@pytest.mark.parametrize("moves", [True, False], ids=["who moves away", "who is released"])
def test_keys_become_free_also_if_the_switch_is_down_when_their_connection_ends(farm: World, moves: bool) -> None:
    one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
    other = farm.add(farm.endpoint("acme", "web", 2, "h1"))
    farm.open(one, other, TCP)
    switch, keys = farm.farm.hosts["h0"].switch, farm.farm.hosts["h0"].agent._local.keys
    write = switch.write

    async def down(_: Sequence[Update]) -> None:
        raise SwitchError("the switch is down")

    switch.write = down  # type: ignore[method-assign]
    if moves:
        farm.move(one, "h2")
    else:
        farm.remove(other)
    farm.settle()
    assert len(keys) == 1, "its switch may still have the entries"
    farm.settle(QUARANTINE + 2)
    assert len(keys) == 0
    switch.write = write  # type: ignore[method-assign]
    farm.empty_switch("h0")
