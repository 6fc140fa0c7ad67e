"""The embedded switch's P4Runtime server, through a real channel."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from finsy.proto import U128, p4r, p4r_grpc, rpc_status
from switch_support import SECOND, Clock, Messages, SetConfig, p4info, query, set_config, update

from nvi.embedded import service as service_module
from nvi.embedded.dataplane import MemoryDataPlane
from nvi.embedded.device import Device
from nvi.embedded.service import P4RuntimeService, start_server

INSERT, MODIFY, DELETE = p4r.Update.INSERT, p4r.Update.MODIFY, p4r.Update.DELETE
OK, NOT_FOUND, ALREADY_EXISTS = 0, 5, 6
Code = grpc.StatusCode
M = Messages(p4info("tables"))
_sockets = itertools.count()


class Controller:
    """A client with a stream."""

    def __init__(self, stub: p4r_grpc.P4RuntimeStub) -> None:
        self.stub = stub
        self.stream = stub.StreamChannel()

    async def arbitrate(self, election_id: int | None, device_id: int = 1, role: str = "") -> None:
        request = p4r.StreamMessageRequest()
        request.arbitration.device_id = device_id
        if role:
            request.arbitration.role.name = role
        if election_id is not None:
            request.arbitration.election_id.CopyFrom(U128.encode(election_id))
        await self.stream.write(request)

    async def next(self) -> p4r.StreamMessageResponse:
        async with asyncio.timeout(5):
            return await self.stream.read()

    async def status(self) -> tuple[int, int | None]:
        """(status code, highest election id) of the next arbitration message."""
        message = (await self.next()).arbitration
        highest = U128.decode(message.election_id) if message.HasField("election_id") else None
        return message.status.code, highest

    async def quiet(self) -> bool:
        """Nothing comes for a while. The stream cannot be read afterwards."""
        try:
            async with asyncio.timeout(0.1):
                await self.stream.read()
        except TimeoutError:
            return True
        return False

    async def failure(self) -> grpc.StatusCode:
        """How the server ended the stream."""
        async with asyncio.timeout(5):
            return await self.stream.code()


class Switch:
    def __init__(
        self, stub: p4r_grpc.P4RuntimeStub, server: P4RuntimeService, plane: MemoryDataPlane, clock: Clock
    ) -> None:
        self.stub, self.server, self.plane, self.clock = stub, server, plane, clock

    def controller(self) -> Controller:
        return Controller(self.stub)

    async def primary(self, name: str = "tables") -> Controller:
        """A primary that has set the pipeline."""
        controller = self.controller()
        await controller.arbitrate(1)
        assert await controller.status() == (OK, 1)
        await self.stub.SetForwardingPipelineConfig(set_config(name))
        return controller

    async def write(self, *updates: p4r.Update, election_id: int = 1, device_id: int = 1, atomicity: int = 0) -> None:
        await self.stub.Write(
            p4r.WriteRequest(
                device_id=device_id, election_id=U128.encode(election_id), updates=updates, atomicity=atomicity
            )
        )

    async def errors(self, *updates: p4r.Update) -> list[int]:
        """Canonical codes, one for each update of a failed write."""
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await self.write(*updates)
        assert failure.value.code() == Code.UNKNOWN
        details = dict(failure.value.trailing_metadata())["grpc-status-details-bin"]
        status = rpc_status.Status.FromString(details)
        assert status.code == 2
        codes = []
        for item in status.details:
            error = p4r.Error()
            assert item.Unpack(error)
            codes.append(error.canonical_code)
        return codes

    async def read(self, *entities: p4r.Entity) -> list[p4r.Entity]:
        found = []
        async for response in self.stub.Read(p4r.ReadRequest(device_id=1, entities=entities)):
            found += response.entities
        return found

    async def read_code(self, entity: p4r.Entity) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await self.read(entity)
        return failure.value.code()


@pytest.fixture
async def switch(tmp_path: Path) -> AsyncIterator[Switch]:
    clock, plane = Clock(), MemoryDataPlane()
    server = P4RuntimeService(Device(1, plane, clock))
    address = f"unix:{tmp_path}/p4rt{next(_sockets)}.sock"
    listener, _ = await start_server(server, address)
    async with grpc.aio.insecure_channel(address) as channel:
        yield Switch(p4r_grpc.P4RuntimeStub(channel), server, plane, clock)
    await listener.stop(0)


def exact(value: int = 7, a: int = 1, b: int = 2, **fields: object) -> p4r.TableEntry:
    return M.entry("t_exact", (a, b), "metered", (value,), **fields)


def packet(a: int = 1, b: int = 2, stage: int = 0) -> bytes:
    return bytes([stage]) + a.to_bytes(4) + b.to_bytes(2) + bytes(6)


# ------------------------------------------------------------------------------------------------ arbitration


async def test_primary_and_backups(switch: Switch) -> None:
    first, second, third = switch.controller(), switch.controller(), switch.controller()
    await first.arbitrate(10)
    assert await first.status() == (OK, 10)
    await second.arbitrate(5)
    assert await second.status() == (ALREADY_EXISTS, 10)
    await third.arbitrate(1 << 100)
    assert await first.status() == (ALREADY_EXISTS, 1 << 100)
    assert await second.status() == (ALREADY_EXISTS, 1 << 100)
    assert await third.status() == (OK, 1 << 100)
    third.stream.cancel()
    assert await first.status() == (NOT_FOUND, 1 << 100)
    assert await second.status() == (NOT_FOUND, 1 << 100)
    # Nobody is promoted by itself, nor with an id below the highest.
    await second.arbitrate(11)
    assert await second.status() == (NOT_FOUND, 1 << 100)
    await second.arbitrate((1 << 100) + 1)
    assert await first.status() == (ALREADY_EXISTS, (1 << 100) + 1)
    assert await second.status() == (OK, (1 << 100) + 1)


async def test_downgrade(switch: Switch) -> None:
    first, second = switch.controller(), switch.controller()
    await first.arbitrate(10)
    assert await first.status() == (OK, 10)
    await second.arbitrate(5)
    assert await second.status() == (ALREADY_EXISTS, 10)
    await first.arbitrate(3)
    assert (await first.status(), await second.status()) == ((NOT_FOUND, 10), (NOT_FOUND, 10))


async def test_without_election_id(switch: Switch) -> None:
    controller = switch.controller()
    await controller.arbitrate(None)
    assert await controller.status() == (NOT_FOUND, None)


async def test_roles_are_apart(switch: Switch) -> None:
    one, other = switch.controller(), switch.controller()
    await one.arbitrate(7)
    await other.arbitrate(7, role="other")
    assert (await one.status(), await other.status()) == ((OK, 7), (OK, 7))
    await other.arbitrate(8)
    assert await other.failure() == Code.FAILED_PRECONDITION


async def test_refused_streams(switch: Switch) -> None:
    wrong = switch.controller()
    await wrong.arbitrate(1, device_id=2)
    assert await wrong.failure() == Code.NOT_FOUND
    first, same = switch.controller(), switch.controller()
    await first.arbitrate(4)
    assert await first.status() == (OK, 4)
    await same.arbitrate(4)
    assert await same.failure() == Code.INVALID_ARGUMENT
    assert await first.quiet()


# ----------------------------------------------------------------------------------------------------- config


async def test_pipeline_config(switch: Switch) -> None:
    get = p4r.GetForwardingPipelineConfigRequest
    controller = switch.controller()
    await controller.arbitrate(1)
    await controller.status()
    assert not (await switch.stub.GetForwardingPipelineConfig(get(device_id=1))).HasField("config")
    assert await switch.read_code(query(p4r.TableEntry())) == Code.FAILED_PRECONDITION
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await switch.write(update(INSERT, exact()))
    assert failure.value.code() == Code.FAILED_PRECONDITION

    await switch.stub.SetForwardingPipelineConfig(set_config("tables", SetConfig.VERIFY))
    assert not (await switch.stub.GetForwardingPipelineConfig(get(device_id=1))).HasField("config")
    await switch.stub.SetForwardingPipelineConfig(set_config("tables"))
    wanted = set_config("tables").config
    for kind, info, device in ((get.ALL, 1, 1), (get.COOKIE_ONLY, 0, 0), (get.P4INFO_AND_COOKIE, 1, 0)):
        config = (await switch.stub.GetForwardingPipelineConfig(get(device_id=1, response_type=kind))).config
        assert config.cookie.cookie == 42
        assert config.HasField("p4info") == bool(info)
        assert not info or config.p4info == wanted.p4info
        assert bool(config.p4_device_config) == bool(device)


async def test_save_and_commit(switch: Switch) -> None:
    await switch.primary()
    await switch.write(update(INSERT, exact()))
    await switch.stub.SetForwardingPipelineConfig(set_config("tables", SetConfig.VERIFY_AND_SAVE))
    assert await switch.read(query(p4r.TableEntry(table_id=M.tables["t_exact"].preamble.id))) == []
    await switch.write(update(INSERT, exact(9)))
    switch.plane.receive(1, packet())
    assert switch.plane.sent[-1][1][8:12] == (7).to_bytes(4), "the old pipeline runs until COMMIT"
    commit = SetConfig(device_id=1, election_id=U128.encode(1), action=SetConfig.COMMIT)
    await switch.stub.SetForwardingPipelineConfig(commit)
    switch.plane.receive(1, packet())
    assert switch.plane.sent[-1][1][8:12] == (9).to_bytes(4)
    for request, code in (
        (commit, Code.NOT_FOUND),
        (set_config("tables", SetConfig.RECONCILE_AND_COMMIT), Code.UNIMPLEMENTED),
        (set_config("tables", SetConfig.UNSPECIFIED), Code.INVALID_ARGUMENT),
        (set_config("tables", election_id=9), Code.PERMISSION_DENIED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await switch.stub.SetForwardingPipelineConfig(request)
        assert failure.value.code() == code


async def test_bad_programs_are_refused_and_change_nothing(switch: Switch) -> None:
    await switch.primary()
    await switch.write(update(INSERT, exact()))
    mixed, broken, empty = set_config("tables"), set_config("tables"), set_config("tables")
    mixed.config.p4_device_config = set_config("alu").config.p4_device_config
    broken.config.p4_device_config = b"{"
    empty.ClearField("config")
    for request in (mixed, broken, empty):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await switch.stub.SetForwardingPipelineConfig(request)
        assert failure.value.code() == Code.INVALID_ARGUMENT
    assert len(await switch.read(query(M.entry("t_exact")))) == 1


async def test_capabilities(switch: Switch) -> None:
    assert (await switch.stub.Capabilities(p4r.CapabilitiesRequest())).p4runtime_api_version.startswith("1.")


# ------------------------------------------------------------------------------------------------------ write


async def test_write_needs_the_primary(switch: Switch) -> None:
    await switch.primary()
    for arguments, code in (
        ({"election_id": 2}, Code.PERMISSION_DENIED),
        ({"device_id": 2}, Code.NOT_FOUND),
        ({"atomicity": p4r.WriteRequest.DATAPLANE_ATOMIC}, Code.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await switch.write(update(INSERT, exact()), **arguments)
        assert failure.value.code() == code


async def test_each_update_has_its_own_result(switch: Switch) -> None:
    await switch.primary()
    assert await switch.errors(
        update(INSERT, exact()),
        update(INSERT, exact()),
        update(INSERT, exact(a=5)),
        update(DELETE, exact(a=6)),
        update(MODIFY, exact(a=6)),
    ) == [0, 6, 0, 5, 5]
    assert len(await switch.read(query(M.entry("t_exact")))) == 2


async def test_full_table(switch: Switch) -> None:
    await switch.primary()
    codes = await switch.errors(*(update(INSERT, exact(a=value)) for value in range(10)))
    assert codes == [0] * 8 + [8] * 2


async def test_details_of_many_updates_arrive(switch: Switch) -> None:
    await switch.primary()
    assert await switch.errors(*(update(DELETE, exact(a=value)) for value in range(200))) == [5] * 200


def _twice(entry: p4r.TableEntry) -> p4r.TableEntry:
    entry.match.append(entry.match[0])
    return entry


def _param(entry: p4r.TableEntry, number: int) -> p4r.TableEntry:
    entry.action.action.params[0].param_id = number
    return entry


BAD_ENTRIES: Sequence[tuple[p4r.TableEntry, int]] = [
    (p4r.TableEntry(table_id=0x02000000), 3),
    (M.entry("t_exact", (1,), "metered", (1,)), 3),
    (M.entry("t_exact", (1, b"\x01\x00\x00"), "metered", (1,)), 3),
    (M.entry("t_exact", (1, b""), "metered", (1,)), 3),
    (M.entry("t_exact", (1, 2)), 3),
    (M.entry("t_exact", (1, 2), "set", (1,)), 3),
    (M.entry("t_exact", (1, 2), "metered", (b"\x01" + bytes(4),)), 3),
    (M.entry("t_exact", (1, 2), "NoAction"), 7),
    (M.entry("t_exact", (1, 2), "metered", (1,), priority=1), 3),
    (_twice(exact()), 3),
    (_param(exact(), 9), 3),
    (exact(is_const=True), 3),
    (M.entry("t_lpm", (1, (0x0A000001, 24)), "set", (1,)), 3),
    (M.entry("t_lpm", (1, (0, 0)), "set", (1,)), 3),
    (M.entry("t_lpm", (1, (1, 33)), "set", (1,)), 3),
    (M.entry("t_lpm", (1, None), "set", (1,), idle_timeout_ns=5), 3),
    (M.entry("t_lpm", (1, None), "set", (1,), counter_data=p4r.CounterData()), 3),
    (M.entry("t_ternary", ((2, 1), None, 1), "set", (1,), priority=1), 3),
    (M.entry("t_ternary", ((0, 0), None, 1), "set", (1,), priority=1), 3),
    (M.entry("t_ternary", (None, None, 1), "set", (1,)), 3),
    (M.entry("t_range", ((5, 4), None), "set", (1,), priority=1), 3),
    (M.entry("t_range", ((0, 65535), None), "set", (1,), priority=1), 3),
    (M.entry("t_const", ((1, 1), (0, 99)), "set", (1,), priority=9), 7),
]


@pytest.mark.parametrize(("entry", "code"), BAD_ENTRIES)
async def test_bad_entries(switch: Switch, entry: p4r.TableEntry, code: int) -> None:
    await switch.primary()
    assert await switch.errors(update(INSERT, entry)) == [code]


async def test_default_entries(switch: Switch) -> None:
    await switch.primary()
    entry = M.entry("t_lpm", (), "add", (5, 6), is_default_action=True)
    await switch.write(update(MODIFY, entry))
    switch.plane.receive(1, packet(stage=1))
    assert switch.plane.sent[-1][1][8:13] == bytes([0, 0, 0, 5, 6])
    (found,) = await switch.read(query(M.entry("t_lpm", is_default_action=True)))
    assert found.table_entry.action == M.entry("t_lpm", (), "add", (b"\x05", b"\x06")).action
    await switch.write(update(MODIFY, M.entry("t_lpm", is_default_action=True)))
    switch.plane.receive(1, packet(stage=1))
    assert switch.plane.sent[-1][1][8:12] == bytes([0, 0, 0, 7])
    assert await switch.errors(
        update(INSERT, entry),
        update(DELETE, entry),
        update(MODIFY, M.entry("t_range", (), "set", (5,), is_default_action=True)),
        update(MODIFY, M.entry("t_ternary", (), "drop", is_default_action=True)),
    ) == [3, 3, 7, 7]


async def test_counters_and_meters(switch: Switch) -> None:
    await switch.primary()
    counter, meter = switch.server.device.configured.schema.counters, switch.server.device.configured.schema.meters
    (counter_id,), (meter_id,) = counter, meter
    index = p4r.Index(index=3)
    data = p4r.CounterData(packet_count=5, byte_count=6)
    config = p4r.MeterConfig(cir=1, cburst=2, pir=3, pburst=4)
    await switch.write(
        update(MODIFY, p4r.CounterEntry(counter_id=counter_id, index=index, data=data)),
        update(MODIFY, p4r.MeterEntry(meter_id=meter_id, index=index, config=config)),
        update(INSERT, exact(meter_config=config)),
        update(MODIFY, p4r.DirectCounterEntry(table_entry=exact(), data=data)),
    )
    (one,) = await switch.read(query(p4r.CounterEntry(counter_id=counter_id, index=index)))
    assert one.counter_entry.data == data
    assert len(await switch.read(query(p4r.CounterEntry()))) == 16
    (one,) = await switch.read(query(p4r.MeterEntry(meter_id=meter_id, index=index)))
    assert one.meter_entry.config == config
    (one,) = await switch.read(
        query(M.entry("t_exact", counter_data=p4r.CounterData(), meter_config=p4r.MeterConfig()))
    )
    assert (one.table_entry.counter_data, one.table_entry.meter_config) == (data, config)
    (one,) = await switch.read(query(p4r.DirectMeterEntry(table_entry=exact())))
    assert one.direct_meter_entry.config == config
    await switch.write(update(MODIFY, p4r.MeterEntry(meter_id=meter_id)), update(MODIFY, exact(8)))
    assert not any(e.meter_entry.HasField("config") for e in await switch.read(query(p4r.MeterEntry())))
    (one,) = await switch.read(
        query(M.entry("t_exact", counter_data=p4r.CounterData(), meter_config=p4r.MeterConfig()))
    )
    assert one.table_entry.counter_data == data
    assert not one.table_entry.HasField("meter_config"), "a MODIFY without meter_config resets the meter"
    beyond = p4r.Index(index=16)
    assert await switch.errors(
        update(INSERT, p4r.CounterEntry(counter_id=counter_id, index=index, data=data)),
        update(MODIFY, p4r.CounterEntry(counter_id=counter_id, index=beyond, data=data)),
        update(MODIFY, p4r.CounterEntry(counter_id=counter_id, index=p4r.Index(index=-1), data=data)),
        update(MODIFY, p4r.CounterEntry(counter_id=77, index=index, data=data)),
        update(MODIFY, p4r.MeterEntry(meter_id=meter_id, index=beyond, config=config)),
        update(MODIFY, p4r.MeterEntry(meter_id=meter_id, index=index, config=p4r.MeterConfig(cir=5, pir=4))),
        update(MODIFY, p4r.DirectCounterEntry(table_entry=exact(a=99), data=data)),
        update(MODIFY, p4r.RegisterEntry(register_id=1)),
        p4r.Update(type=INSERT),
        update(p4r.Update.UNSPECIFIED, exact()),
    ) == [3, 11, 3, 3, 11, 3, 5, 12, 3, 3]


# ------------------------------------------------------------------------------------------------------- read


async def test_what_was_written_is_read_back_canonical(switch: Switch) -> None:
    await switch.primary()
    entry = exact(b"\0\0\0\x07", controller_metadata=1 << 63, metadata=b"mine", idle_timeout_ns=3 * SECOND)
    await switch.write(update(INSERT, entry))
    switch.clock.advance(2)
    (found,) = await switch.read(query(M.entry("t_exact", (1, 2), time_since_last_hit={})))
    wanted = M.entry("t_exact", (b"\x01", b"\x02"), "metered", (b"\x07",))
    wanted.controller_metadata, wanted.metadata, wanted.idle_timeout_ns = 1 << 63, b"mine", 3 * SECOND
    wanted.time_since_last_hit.elapsed_ns = 2 * SECOND
    assert found.table_entry == wanted
    (found,) = await switch.read(query(M.entry("t_exact")))
    assert not found.table_entry.HasField("time_since_last_hit")
    assert not found.table_entry.HasField("counter_data")


async def test_reads_by_key_by_table_and_of_all(switch: Switch) -> None:
    await switch.primary()
    await switch.write(
        *(update(INSERT, exact(a=value)) for value in range(4)),
        update(INSERT, M.entry("t_range", ((1, 2), None), "set", (1,), priority=3)),
    )
    assert len(await switch.read(query(exact()), query(exact(a=3)), query(exact(a=9)))) == 2
    assert len(await switch.read(query(M.entry("t_exact")))) == 4
    everything = await switch.read(query(p4r.TableEntry(counter_data={}, time_since_last_hit={})))
    assert len(everything) == 4 + 1 + 3
    assert sum(entity.table_entry.is_const for entity in everything) == 3
    assert await switch.read_code(query(M.entry("t_lpm", time_since_last_hit={}))) == Code.INVALID_ARGUMENT
    assert await switch.read_code(query(p4r.TableEntry(table_id=5))) == Code.INVALID_ARGUMENT
    assert await switch.read_code(p4r.Entity()) == Code.INVALID_ARGUMENT
    assert await switch.read_code(query(p4r.RegisterEntry())) == Code.UNIMPLEMENTED


async def test_large_reads_come_in_several_messages(switch: Switch) -> None:
    await switch.primary("headers")
    await switch.stub.SetForwardingPipelineConfig(set_config("tables"))
    service_chunk = service_module.READ_CHUNK
    service_module.READ_CHUNK = 10
    try:
        sizes = []
        async for response in switch.stub.Read(p4r.ReadRequest(device_id=1, entities=[query(p4r.CounterEntry())] * 2)):
            sizes.append(len(response.entities))
        assert sizes == [10, 10, 10, 2]
    finally:
        service_module.READ_CHUNK = service_chunk


# ----------------------------------------------------------------------------------------------------- stream


async def test_packet_in_and_out(switch: Switch) -> None:
    controller = await switch.primary()
    await switch.write(update(INSERT, M.entry("t_exact", (1, 2), "punt")))
    switch.plane.receive(5, packet() + b"payload")
    message = (await controller.next()).packet
    assert message.payload == packet()[:-1] + b"\x01payload"
    assert {item.metadata_id: item.value for item in message.metadata} == {1: b"\x05", 2: b"\x05"}
    out = p4r.StreamMessageRequest()
    out.packet.payload = b"hello"
    out.packet.metadata.add(metadata_id=1, value=b"\0\x07")
    out.packet.metadata.add(metadata_id=2, value=b"\0")
    await controller.stream.write(out)
    for _ in range(500):
        if switch.plane.sent:
            break
        await asyncio.sleep(0.01)
    assert switch.plane.sent == [(7, b"hello")]


async def test_bad_packet_out(switch: Switch) -> None:
    controller, backup = await switch.primary(), switch.controller()
    await backup.arbitrate(None)
    await backup.next()
    out = p4r.StreamMessageRequest()
    out.packet.payload = b"hello"
    for client, code in ((controller, 3), (backup, 7)):
        await client.stream.write(out)
        error = (await client.next()).error
        assert error.canonical_code == code
        assert error.packet_out.packet_out == out.packet
    ack = p4r.StreamMessageRequest(digest_ack=p4r.DigestListAck(digest_id=1))
    await controller.stream.write(ack)
    assert (await controller.next()).error.WhichOneof("details") == "digest_list_ack"


async def test_only_the_primary_gets_packets(switch: Switch) -> None:
    controller, backup = await switch.primary(), switch.controller()
    await backup.arbitrate(None)
    await backup.next()
    await switch.write(update(INSERT, M.entry("t_exact", (1, 2), "punt")))
    switch.plane.receive(5, packet())
    assert (await controller.next()).HasField("packet")
    assert await backup.quiet()


async def test_a_client_that_does_not_read_stops_nobody(switch: Switch) -> None:
    sleeper = await switch.primary()
    await switch.write(update(INSERT, M.entry("t_exact", (1, 2), "punt")))
    for _ in range(30):
        for _ in range(1000):
            switch.plane.receive(5, packet() + bytes(1300))
        await asyncio.sleep(0.01)
    switch.plane.receive(1, packet(b=9))
    assert switch.plane.sent, "packets still go through"
    other = switch.controller()
    await other.arbitrate(2)
    assert await other.status() == (OK, 2)
    await switch.write(update(INSERT, exact(a=8)), election_id=2)
    sleeper.stream.cancel()


async def test_idle_notifications(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "IDLE_SCAN_INTERVAL", 0.01)
    scanner = asyncio.create_task(switch.server.notify_idle())
    try:
        controller = await switch.primary()
        await switch.write(
            update(INSERT, exact(idle_timeout_ns=5 * SECOND, controller_metadata=9, metadata=b"m")),
            update(INSERT, exact(a=2)),
        )
        for _ in range(2):  # again after another timeout
            switch.clock.advance(5)
            (entry,) = (await controller.next()).idle_timeout_notification.table_entry
            assert (entry.idle_timeout_ns, entry.controller_metadata, entry.metadata) == (5 * SECOND, 9, b"m")
            assert entry.match == M.entry("t_exact", (b"\x01", b"\x02")).match
        switch.clock.advance(3)
        switch.plane.receive(1, packet())
        switch.clock.advance(4)
        assert await controller.quiet()
    finally:
        scanner.cancel()
