"""A session against a switch that misbehaves as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio
import pytest
from finsy.proto import p4r

from nvi.model import Flow
from nvi.p4rt import conversation
from nvi.p4rt.pipeline import nvi_pipeline
from nvi.switch import (
    Condition,
    ConnectionEntry,
    ConnectionKey,
    DropReason,
    GuardEntry,
    NeighbourEntry,
    NotPrimary,
    Operation,
    Punt,
    PuntReason,
    Rewrite,
    Switch,
    SwitchError,
    Update,
    Usage,
    WriteFailed,
)
from p4rt.conftest import Recorded
from p4rt.fake import FakeSwitch

Connect = Callable[..., Recorded]
INSERT, MODIFY, DELETE = Operation


def entry(number: int, tag: int = 0) -> ConnectionEntry:
    flow = Flow(bytes([10, 0, 0, 1]), number.to_bytes(4), 6, 40000, 80)
    rewrite = Rewrite(bytes(6), b"\2" * 6, Flow(bytes(4), b"\1" * 4, 6, 20000, 20001), 64, 1)
    return ConnectionEntry(ConnectionKey(16, b"\2" * 6, flow), rewrite, 30.0, tag)


def inserts(*numbers: int) -> list[Update]:
    return [Update(INSERT, entry(number)) for number in numbers]


def packet_in(payload: bytes, port: int = 16, reason: int = 1) -> p4r.PacketIn:
    header = nvi_pipeline().header("packet_in")
    values = ((header["ingress_port"], port), (header["reason"], reason))
    metadata = [p4r.PacketMetadata(metadata_id=f.id, value=v.to_bytes(f.size)) for f, v in values]
    return p4r.PacketIn(payload=payload, metadata=metadata)


def as_switch(recorded: Recorded) -> Switch:
    """For the type checker: a session is what agents want."""
    return recorded.session


# Starting.


async def test_an_empty_switch_gets_the_pipeline(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()
    assert await agent.session.start() is True
    assert switch.config is not None
    assert switch.config.p4_device_config == nvi_pipeline().device_config
    assert switch.config.p4info == nvi_pipeline().p4info
    assert agent.primary == [True]
    assert agent.session.state.condition is Condition.PRIMARY


async def test_a_switch_that_has_the_pipeline_keeps_its_entries(switch: FakeSwitch, connect: Connect) -> None:
    first = connect(1)
    await first.session.start()
    await first.session.write(inserts(1))
    await first.session.close()
    second = connect(2)
    assert await second.session.start() is False
    assert second.fresh == [False]
    assert await second.session.read_connections() == [entry(1)]
    assert switch.pushes == 1


@pytest.mark.parametrize("cookie", [True, False])
async def test_another_pipeline_is_replaced(switch: FakeSwitch, connect: Connect, cookie: bool) -> None:
    switch.config = p4r.ForwardingPipelineConfig()
    if cookie:
        switch.config.cookie.cookie = 1
    assert await connect().session.start() is True


async def test_a_switch_that_comes_late_is_waited_for(socket: str, connect: Connect) -> None:
    switch = FakeSwitch()
    starting = asyncio.create_task(connect().session.start())
    await asyncio.sleep(0.05)
    await switch.start(socket)
    assert await starting is True
    await switch.stop()


async def test_nobody_listens(connect: Connect) -> None:
    agent = connect()
    with pytest.raises(SwitchError, match=r"no switch listens at unix:/.*: start it or correct the address"):
        await agent.session.start(patience=0.1)
    assert agent.session.state.condition is Condition.UNREACHABLE
    assert agent.primary == []


async def test_not_a_p4runtime_server(socket: str, connect: Connect) -> None:
    server = grpc.aio.server()
    server.add_insecure_port(socket)
    await server.start()
    with pytest.raises(SwitchError, match="not a P4Runtime server"):
        await connect().session.start()
    await server.stop(None)


async def test_a_hanging_switch(switch: FakeSwitch, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "ANSWER", 0.05)
    switch.answers = False
    agent = connect()
    with pytest.raises(SwitchError, match=r"did not answer within 0\.05 s"):
        await agent.session.start(patience=0.2)


@pytest.mark.usefixtures("switch")
async def test_another_device(connect: Connect) -> None:
    with pytest.raises(SwitchError, match="has no device 7: correct the device id"):
        await connect(device_id=7).session.start()


async def test_another_device_as_bmv2_says_it(switch: FakeSwitch, connect: Connect) -> None:
    switch.push_abort = (grpc.StatusCode.UNKNOWN, "Error when trying to assign device")
    with pytest.raises(SwitchError, match=r"assign device; is 1 its device id \(--device-id\)\?"):
        await connect().session.start()


# Writing and reading.


@pytest.mark.usefixtures("switch")
async def test_what_is_written_is_read(connect: Connect) -> None:
    session = connect().session
    await session.start()
    guard, neighbour = GuardEntry(16, b"\2" * 6, bytes(4), 1), NeighbourEntry(1, b"\1" * 4, b"\3" * 6)
    await session.write([*inserts(1, 2), Update(INSERT, guard), Update(INSERT, neighbour)])
    await session.write([Update(MODIFY, entry(1, tag=2**64 - 1)), Update(DELETE, entry(2))])
    assert await session.read_connections() == [entry(1, tag=2**64 - 1)]
    assert await session.read_guard() == [guard]
    assert await session.read_neighbours() == [neighbour]


async def test_failed_updates(switch: FakeSwitch, connect: Connect) -> None:
    session = connect().session
    await session.start()
    await session.write(inserts(1))
    good, bad = session.write(inserts(5)), session.write([*inserts(2, 1), Update(DELETE, entry(3))])
    results = await asyncio.gather(good, bad, return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], WriteFailed)
    assert results[1].failures == [
        (Update(INSERT, entry(1)), "ALREADY_EXISTS", "entry exists"),
        (Update(DELETE, entry(3)), "NOT_FOUND", "no such entry"),
    ]
    assert len(switch.entries) == 3
    assert len(switch.batches[-1]) == 4


async def test_the_outcomes_of_a_whole_batch_get_through(switch: FakeSwitch, connect: Connect) -> None:
    """They are trailing metadata, of which gRPC takes 8 kB if it is not told otherwise."""
    session = connect().session
    await session.start()
    switch.fail = lambda _: "x" * 200
    with pytest.raises(WriteFailed) as failed:
        await session.write(inserts(*range(200)))
    assert len(failed.value.failures) == 200
    assert failed.value.failures[199][1:] == ("UNKNOWN", "x" * 200)


async def test_one_rpc_at_a_time(switch: FakeSwitch, connect: Connect) -> None:
    session = connect().session
    await session.start()
    switch.write_delay = 0.01

    async def write(number: int) -> None:
        await asyncio.sleep(number * 0.0005)
        await session.write(inserts(number))

    await asyncio.gather(*(write(number) for number in range(100)))
    assert len(switch.entries) == 100
    assert switch.most_in_flight == 1
    assert len(switch.batches) < 20
    assert (session.counts.updates, session.counts.batches) == (100, len(switch.batches))


async def test_a_refused_batch(switch: FakeSwitch, connect: Connect) -> None:
    session = connect().session
    await session.start()
    switch.write_abort = (grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
    with pytest.raises(SwitchError, match="refused a write: RESOURCE_EXHAUSTED too much"):
        await session.write(inserts(1))
    switch.write_abort = (grpc.StatusCode.PERMISSION_DENIED, "Not primary")
    with pytest.raises(NotPrimary):
        await session.write(inserts(1))


@pytest.mark.usefixtures("switch")
async def test_usage_keeps_the_order_and_leaves_gaps(connect: Connect) -> None:
    session = connect().session
    await session.start()
    await session.write(inserts(*range(0, 500, 2)))
    used = Usage(1.0, 3, 0)
    usage = await session.usage([entry(number).key for number in range(500)])
    assert usage == [used, None] * 250
    assert await session.usage([]) == []


async def test_a_large_answer_gets_through(switch: FakeSwitch, connect: Connect) -> None:
    """PI answers with one message, of which gRPC takes 4 MiB if it is not told otherwise."""
    session = connect().session
    await session.start()
    await session.write(inserts(*range(10)))
    switch.padding = 1 << 20
    assert len(await session.read_connections()) == 10


async def test_a_foreign_entry(switch: FakeSwitch, connect: Connect) -> None:
    session = connect().session
    await session.start()
    await session.write(inserts(1))
    next(iter(switch.entries.values())).action.action.action_id = 5
    with pytest.raises(SwitchError, match=r"that no agent has written .*: delete it"):
        await session.read_connections()


async def test_drops_and_punt_limits(switch: FakeSwitch, connect: Connect) -> None:
    session = connect().session
    await session.start()
    switch.counters = {32 * 16 + DropReason.DENIED: 5, 32 * 17 + DropReason.SPOOFED: 2}
    assert await session.read_drops([16, 17, 18]) == {16: {DropReason.DENIED: 5}, 17: {DropReason.SPOOFED: 2}, 18: {}}
    await session.set_punt_limit(16, 500, 50)
    assert [(meter.index.index, meter.config.pir) for meter in switch.meters] == [(16, 500)]
    switch.fail = lambda _: "no meter"
    with pytest.raises(SwitchError, match="refused to limit port 16 to 500 punts per second, 50 at once: UNKNOWN"):
        await session.set_punt_limit(16, 500, 50)


async def test_the_session_survives_what_is_made_of_its_news(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()

    def stumble(primary: bool) -> None:
        agent.primary.append(primary)
        raise RuntimeError("stumbled")

    agent.session.on_primary = stumble
    await agent.session.start()
    switch.hang_up()
    await agent.until(lambda a: a.primary == [True, False, True])


async def test_losing_the_role_before_the_pipeline_is_there(switch: FakeSwitch, connect: Connect) -> None:
    switch.push_abort = (grpc.StatusCode.PERMISSION_DENIED, "Not primary")
    agent = connect()
    starting = asyncio.create_task(agent.session.start())
    await asyncio.sleep(0.05)
    assert agent.primary == []
    switch.push_abort = None
    assert await starting is True


# Packets.


async def test_punts(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()
    await agent.session.start()
    for number in range(100):
        switch.punt(packet_in(bytes([number])))
    await agent.until(lambda a: len(a.punts) == 100)
    assert agent.punts == [Punt(16, PuntReason.MISS, bytes([number])) for number in range(100)]


async def test_the_stream_is_drained_whatever_a_punt_does(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()

    def stumble(punt: Punt) -> None:
        agent.punts.append(punt)
        raise RuntimeError("stumbled")

    agent.session.on_punt = stumble
    await agent.session.start()
    switch.punt(packet_in(b"one"))
    switch.punt(packet_in(b"two", reason=99))
    switch.punt(packet_in(b"three"))
    await agent.until(lambda a: len(a.punts) == 2)
    assert (agent.session.counts.punts, agent.session.counts.punts_discarded) == (3, 3)


async def test_packets_out(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()
    agent.session.send(1, b"too early")
    await agent.session.start()
    agent.session.reinject(16, b"one")
    agent.session.send(2, b"two")
    await agent.until(lambda _: len(switch.packets) == 2)
    assert [packet.payload for packet in switch.packets] == [b"one", b"two"]
    orders = nvi_pipeline().enum("PacketOutOrder")
    values = [[int.from_bytes(m.value) for m in packet.metadata] for packet in switch.packets]
    assert values == [[16, orders["REINJECT"]], [2, orders["SEND"]]]
    assert (agent.session.counts.packets_out, agent.session.counts.packets_out_discarded) == (2, 1)


async def test_too_many_packets_out(switch: FakeSwitch, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "OUTGOING", 10)
    agent = connect()
    await agent.session.start()
    for _ in range(15):
        agent.session.send(1, b"x")
    await agent.until(lambda _: len(switch.packets) == 10)
    assert agent.session.counts.packets_out_discarded == 5


# The election.


@pytest.mark.parametrize("appoints", [True, False], ids=["PI", "specification"])
async def test_a_rival_comes_and_goes(switch: FakeSwitch, connect: Connect, appoints: bool) -> None:
    switch.appoints = appoints
    agent, rival = connect(100), connect(200)
    await agent.session.start()
    await rival.session.start()
    await agent.until(lambda a: a.primary == [True, False])
    assert agent.session.state.condition is Condition.BACKUP
    assert "election id 200 is" in agent.session.state.text
    with pytest.raises(NotPrimary, match="election id 200 is the primary"):
        await agent.session.write(inserts(1))
    assert await agent.session.read_connections() == []
    await rival.session.close()
    await agent.until(lambda a: a.primary == [True, False, True])
    await agent.session.write(inserts(1))
    assert agent.session.election_id == (100 if appoints else 201)
    assert agent.fresh == [True, False]


async def test_a_rival_that_brings_its_own_pipeline(switch: FakeSwitch, connect: Connect) -> None:
    agent, rival = connect(100), connect(200)
    await agent.session.start()
    await rival.session.start()
    await agent.until(lambda a: a.primary[-1] is False)
    switch.config = p4r.ForwardingPipelineConfig()
    await rival.session.close()
    await agent.until(lambda a: a.primary[-1] is True)
    assert agent.fresh == [True, True]


@pytest.mark.usefixtures("switch")
async def test_starting_as_a_backup(connect: Connect) -> None:
    rival, agent = connect(200), connect(100)
    await rival.session.start()
    assert await agent.session.start() is False
    assert agent.primary == []
    assert agent.session.state.condition is Condition.BACKUP


@pytest.mark.usefixtures("switch")
async def test_an_election_id_that_is_taken(connect: Connect) -> None:
    """As by one's own last session, which the switch has not noticed to be dead."""
    remains, agent = connect(100), connect(100)
    await remains.session.start()
    await agent.session.start()
    await agent.until(lambda a: a.primary == [True])
    assert agent.session.election_id == 101


# When the switch goes.


async def test_the_stream_breaks(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()
    await agent.session.start()
    await agent.session.write(inserts(1))
    switch.hang_up()
    await agent.until(lambda a: a.primary == [True, False, True])
    assert agent.fresh == [True, False]
    assert await agent.session.read_connections() == [entry(1)]


async def test_a_new_switch_behind_the_same_path(socket: str, switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()
    await agent.session.start()
    await switch.stop()
    await agent.until(lambda a: a.primary == [True, False])
    assert agent.session.state.condition is Condition.UNREACHABLE
    for call in (agent.session.write(inserts(1)), agent.session.read_guard(), agent.session.usage([entry(1).key])):
        with pytest.raises(SwitchError, match=r"switch (at unix:.* is gone|listens at unix:)"):
            await call
    successor = FakeSwitch()
    await successor.start(socket)
    await agent.until(lambda a: a.primary == [True, False, True])
    assert agent.fresh == [True, True]
    await agent.session.write(inserts(1))
    assert len(successor.entries) == 1
    await successor.stop()


async def test_what_is_under_way_when_the_switch_goes_fails(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()
    await agent.session.start()
    switch.write_delay = 10
    writes = [asyncio.create_task(agent.session.write(inserts(1))) for _ in range(3)]
    await agent.until(lambda _: switch.in_flight == 1)
    writes.append(asyncio.create_task(agent.session.write(inserts(4))))
    await asyncio.sleep(0.01)
    await switch.stop()
    for result in await asyncio.gather(*writes, return_exceptions=True):
        assert isinstance(result, SwitchError), result


async def test_closing_fails_what_is_under_way(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()
    await agent.session.start()
    switch.write_delay = 10
    writes = [asyncio.create_task(agent.session.write(inserts(number))) for number in (1, 2)]
    await agent.until(lambda _: switch.in_flight == 1)
    writes.append(asyncio.create_task(agent.session.write(inserts(3))))
    await asyncio.sleep(0.01)
    await agent.session.close()
    async with asyncio.timeout(1):
        for result in await asyncio.gather(*writes, return_exceptions=True):
            assert isinstance(result, SwitchError), result
    assert agent.primary == [True]
    with pytest.raises(SwitchError, match="is closed"):
        await agent.session.write(inserts(1))


async def test_a_caller_that_gives_up_stays_cancelled(switch: FakeSwitch, connect: Connect) -> None:
    agent = connect()
    await agent.session.start()
    switch.write_delay = 0.05
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await agent.session.write(inserts(1))
    await agent.session.write(inserts(2))
    assert len(switch.entries) == 2


async def test_giving_up_while_connecting(connect: Connect) -> None:
    """Whatever the session is at just then."""
    for moment in range(30):
        starting = asyncio.create_task(connect().session.start())
        await asyncio.sleep(moment / 2000)
        starting.cancel()
        async with asyncio.timeout(1):
            with pytest.raises(asyncio.CancelledError):
                await starting
