"""The same session against every target: BMv2 where it is installed, and the embedded switch."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from nvi.model import Flow
from nvi.switch import (
    PORT_CPU,
    Condition,
    ConnectionEntry,
    ConnectionKey,
    Drop,
    DropReason,
    GuardEntry,
    NeighbourEntry,
    Operation,
    Punt,
    PuntReason,
    Rewrite,
    ServiceEntry,
    Update,
    Usage,
    WriteFailed,
)
from p4rt.conftest import Recorded

Connect = Callable[..., Recorded]
INSERT, MODIFY, DELETE = Operation


def command(target: str, address: str) -> list[str]:
    if target == "bmv2":
        return [
            *("simple_switch_grpc", "--no-p4", "--device-id", "1", "-L", "off"),
            *("--", "--grpc-server-addr", address, "--cpu-port", str(PORT_CPU)),
        ]
    return [sys.executable, "-m", "nvi.embedded", "switch", "--p4runtime", address, "--device-id", "1"]


BMV2 = pytest.param(
    "bmv2",
    marks=pytest.mark.skipif(shutil.which("simple_switch_grpc") is None, reason="simple_switch_grpc is not installed"),
)


class Target:
    """A switch that can be started again."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._command = command(name, address)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=quiet, stderr=quiet)

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None


@pytest.fixture(params=[BMV2, "embedded"])
async def target(request: pytest.FixtureRequest, socket: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Target]:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    target = Target(request.param, socket)
    await target.start()
    yield target
    await target.kill()


@pytest.fixture
async def agent(target: Target, connect: Connect) -> Recorded:  # noqa: ARG001
    agent = connect()
    assert await agent.session.start(patience=30) is True
    return agent


def entry(number: int, idle_timeout: float = 30.0, tag: int = 7) -> ConnectionEntry:
    flow = Flow(bytes([10, 0, 0, 1]), number.to_bytes(4), 6, 40000, 80)
    rewrite = Rewrite(bytes(6), b"\2" * 6, Flow(bytes(4), b"\1" * 4, 6, 20000, 20001), 64, 1)
    return ConnectionEntry(ConnectionKey(16, b"\2" * 6, flow), rewrite, idle_timeout, tag)


async def test_entries(agent: Recorded) -> None:
    session = agent.session
    refused = ConnectionEntry(ConnectionKey(1, bytes(6), Flow(bytes(4), bytes(4), 1, 0, 0)), Drop(DropReason.DENIED))
    guard, neighbour = GuardEntry(16, bytes(6), bytes(4), 0), NeighbourEntry(65535, b"\xff" * 4, b"\xff" * 6)
    await session.write([Update(INSERT, e) for e in (entry(0), entry(1, 0.0, 0), refused, guard, neighbour)])
    await session.write([Update(MODIFY, entry(0, 10.0, 2**64 - 1)), Update(DELETE, entry(1))])
    assert sorted(await session.read_connections(), key=lambda e: e.key.scope) == [refused, entry(0, 10.0, 2**64 - 1)]
    assert await session.read_guard() == [guard]
    assert await session.read_neighbours() == [neighbour]


FAR = bytes.fromhex("fd00") + bytes(13) + b"\2"
NEAR = bytes.fromhex("fd00") + bytes(13) + b"\1"


async def test_entries_of_both_families(agent: Recorded) -> None:
    """In each direction between them, with all that a rewrite may say."""
    session = agent.session
    v4, v6 = Flow(bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), 6, 40000, 80), Flow(NEAR, FAR, 6, 20000, 20001)
    macs, more = (bytes(6), b"\2" * 6), {"routed": True, "max_length": 1400}
    rewrites = (
        (v6, Rewrite(*macs, v6, 64, 1, router=FAR)),
        (v6.reversed(), Rewrite(*macs, v6, 64, 1, **more)),
        (v4, Rewrite(*macs, v6, 64, 1, flow_label=0x12345, **more)),
        (v4.reversed(), Rewrite(*macs, v4, 63, 1, bytes([10, 0, 0, 254]), **more)),
        (
            Flow(FAR, NEAR, 17, 1, 2),
            Rewrite(*macs, Flow(v4.source, v4.destination, 17, 3, 4), 64, 1, dont_fragment=False),
        ),
        (Flow(FAR, NEAR, 58, 1, 0x800), Rewrite(*macs, Flow(v4.source, v4.destination, 1, 3, 0x800), 64, 1)),
        (Flow(FAR, NEAR, 47, 0, 0), Drop(DropReason.FILTERED)),
    )
    entries = [ConnectionEntry(ConnectionKey(16, b"\2" * 6, flow), action, 30.0) for flow, action in rewrites]
    guards = [GuardEntry(16, bytes(6), address, 3) for address in (bytes(4), bytes(16), NEAR)]
    neighbours = [NeighbourEntry(3, FAR, b"\2" * 6, router=True), NeighbourEntry(3, bytes(4), b"\3" * 6)]
    services = [ServiceEntry(FAR, 6, 443), ServiceEntry(bytes([198, 51, 100, 1]), 47, 0)]
    everything = (*entries, *guards, *neighbours, *services)
    await session.write([Update(INSERT, e) for e in everything])
    for read, written in (
        (await session.read_connections(), entries),
        (await session.read_guard(), guards),
        (await session.read_neighbours(), neighbours),
        (await session.read_services(), services),
    ):
        assert sorted(read, key=repr) == sorted(written, key=repr)
    assert None not in await session.usage([e.key for e in entries])
    await session.write([Update(DELETE, e) for e in everything])
    assert await session.usage([e.key for e in entries]) == [None] * len(entries)
    assert await session.read_services() == []


async def test_failures(agent: Recorded) -> None:
    session = agent.session
    await session.write([Update(INSERT, entry(0))])
    with pytest.raises(WriteFailed) as failed:
        await session.write([Update(INSERT, entry(1)), Update(INSERT, entry(0)), Update(DELETE, entry(2))])
    assert [(update, status) for update, status, _ in failed.value.failures] == [
        (Update(INSERT, entry(0)), "ALREADY_EXISTS"),
        (Update(DELETE, entry(2)), "NOT_FOUND"),
    ]
    assert len(await session.read_connections()) == 2


async def test_many_entries(agent: Recorded) -> None:
    session = agent.session
    await session.write([Update(INSERT, entry(number)) for number in range(3000)])
    assert {e.key for e in await session.read_connections()} == {entry(number).key for number in range(3000)}
    with pytest.raises(WriteFailed) as failed:
        await session.write([Update(INSERT, entry(number)) for number in range(3000)])
    assert len(failed.value.failures) == 3000
    usage = await session.usage([entry(number).key for number in range(2900, 3100)])
    assert [used is None for used in usage] == [False] * 100 + [True] * 100


async def test_age(agent: Recorded) -> None:
    """BMv2 itself reports it wrongly for timeouts above 4.29 s: `codec.elapsed`."""
    timeouts = [1.0, 4.0, 5.0, 30.0, 3600.0]
    await agent.session.write([Update(INSERT, entry(i, timeout)) for i, timeout in enumerate(timeouts)])
    await asyncio.sleep(0.3)
    for used in await agent.session.usage([entry(i).key for i in range(len(timeouts))]):
        assert used is not None
        assert 0.25 <= used.idle < 0.9
        assert used == Usage(used.idle, 0, 0)


async def test_packets(agent: Recorded) -> None:
    """What is sent to the CPU port comes back: the first two bytes are taken for the packet_in header."""
    header = (16 << 7 | PuntReason.STRAY).to_bytes(2)
    for number in range(50):
        agent.session.send(PORT_CPU, header + bytes(60) + bytes([number]))
    await agent.until(lambda a: len(a.punts) == 50)
    assert agent.punts == [Punt(16, PuntReason.STRAY, bytes(60) + bytes([number])) for number in range(50)]


async def test_punt_limits_and_drops(agent: Recorded) -> None:
    await agent.session.set_punt_limit(16, 500, 50)
    agent.session.reinject(16, bytes(12) + b"\x88\xcc" + bytes(50))
    async with asyncio.timeout(5):
        while not (drops := await agent.session.read_drops([16, 17]))[16]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert drops == {16: {DropReason.UNSUPPORTED: 1}, 17: {}}


async def test_rivals(agent: Recorded, connect: Connect) -> None:
    await agent.session.write([Update(INSERT, entry(0))])
    rival = connect(200)
    assert await rival.session.start() is False
    await agent.until(lambda a: a.session.state.condition is Condition.BACKUP)
    assert await rival.session.read_connections() == [entry(0)]
    await rival.session.close()
    await agent.until(lambda a: a.primary == [True, False, True])
    await agent.session.write([Update(DELETE, entry(0))])
    assert agent.fresh == [True, False]


async def test_ones_own_remains(agent: Recorded, connect: Connect) -> None:
    again = connect(agent.session.election_id)
    assert await again.session.start() is False
    assert again.session.election_id > 100


async def test_a_new_switch(target: Target, agent: Recorded) -> None:
    await agent.session.write([Update(INSERT, entry(0))])
    await target.kill()
    await agent.until(lambda a: a.primary == [True, False])
    await target.start()
    await agent.until(lambda a: len(a.primary) == 3, seconds=30)
    assert agent.fresh == [True, True]
    assert await agent.session.read_connections() == []
