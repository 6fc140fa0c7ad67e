"""Defects that the properties, or the writing of them, have found: each once, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from nvi.keys import Pair, Path
from nvi.model import ConnectionId, End, FirstPacket, Flow, SegmentEnd
from nvi.offers import VERSION, Offer, Reason, Refuse, Stamp
from nvi.switch import Drop, DropReason, NeighbourEntry, Operation, Update
from properties import wire
from properties.wire import SYN, TCP, UDP, Ports
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


def test_a_pair_that_another_connection_uses_is_never_given_back(farm: World) -> None:
    """The peer has forgotten a connection, and accepts another one with the same pair."""
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
    assert not here.keys.take(link.pair)
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
