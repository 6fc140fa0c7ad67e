"""A P4Runtime server whose behaviour a test scripts: what a real switch does only when it must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from finsy.proto import U128, p4r, p4r_grpc, rpc_code, rpc_status

Context = grpc.aio.ServicerContext[Any, Any]


class Client:
    """A controller with an open stream."""

    def __init__(self) -> None:
        self.election_id = 0
        self.outbox: asyncio.Queue[p4r.StreamMessageResponse | None] = asyncio.Queue()


class FakeSwitch(p4r_grpc.P4RuntimeServicer):
    """Holds entries by serialized key. Elects as PI does, or (`appoints` False) as the specification says."""

    def __init__(self, device_id: int = 1) -> None:
        self.device_id = device_id
        self.config: p4r.ForwardingPipelineConfig | None = None
        self.pushes = 0
        self.entries: dict[bytes, p4r.TableEntry] = {}
        self.meters: list[p4r.MeterEntry] = []
        self.counters: dict[int, int] = {}
        self.batches: list[list[p4r.Update]] = []
        self.packets: list[p4r.PacketOut] = []
        self.clients: list[Client] = []
        self.highest = 0
        self.in_flight = self.most_in_flight = 0
        # What a test sets.
        self.appoints = True
        self.answers = True
        self.write_delay = 0.0
        self.write_abort: tuple[grpc.StatusCode, str] | None = None
        self.push_abort: tuple[grpc.StatusCode, str] | None = None
        self.fail: Callable[[p4r.Update], str | None] = lambda _: None
        self.padding = 0
        """Bytes of metadata in each entry that is read."""
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> None:
        self._server = grpc.aio.server()
        p4r_grpc.add_P4RuntimeServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(address)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
        self.clients.clear()

    def punt(self, packet: p4r.PacketIn) -> None:
        """Hand a packet to the primary."""
        primary = self._primary()
        assert primary is not None
        primary.outbox.put_nowait(p4r.StreamMessageResponse(packet=packet))

    def hang_up(self) -> None:
        """End all streams; the server stays."""
        for client in self.clients:
            client.outbox.put_nowait(None)

    # The election.

    def _primary(self) -> Client | None:
        best = max(self.clients, key=lambda client: client.election_id, default=None)
        if best is None or (not self.appoints and best.election_id < self.highest):
            return None
        return best

    def _announce(self) -> None:
        primary = self._primary()
        election_id = primary.election_id if primary and self.appoints else self.highest
        for client in self.clients:
            code = rpc_code.OK if client is primary else rpc_code.ALREADY_EXISTS if primary else rpc_code.NOT_FOUND
            update = p4r.MasterArbitrationUpdate(
                device_id=self.device_id,
                election_id=U128.encode(election_id),
                status=rpc_status.Status(code=code),
            )
            client.outbox.put_nowait(p4r.StreamMessageResponse(arbitration=update))

    async def StreamChannel(
        self, requests: AsyncIterator[p4r.StreamMessageRequest], context: Context
    ) -> AsyncIterator[p4r.StreamMessageResponse]:
        client = Client()
        reader = asyncio.create_task(self._listen(client, requests, context))
        try:
            while (message := await client.outbox.get()) is not None:
                yield message
            if reader.done():
                await reader  # for what it raised
        finally:
            reader.cancel()
            if client in self.clients:
                self.clients.remove(client)
                self._announce()

    async def _listen(
        self, client: Client, requests: AsyncIterator[p4r.StreamMessageRequest], context: Context
    ) -> None:
        try:
            async for request in requests:
                if request.HasField("packet"):
                    self.packets.append(request.packet)
                elif request.HasField("arbitration") and self.answers:
                    await self._arbitrate(client, request.arbitration, context)
        finally:
            client.outbox.put_nowait(None)

    async def _arbitrate(self, client: Client, update: p4r.MasterArbitrationUpdate, context: Context) -> None:
        election_id = U128.decode(update.election_id)
        if update.device_id != self.device_id:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such device")
        if any(other.election_id == election_id for other in self.clients if other is not client):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Election id already exists")
        client.election_id = election_id
        if client not in self.clients:
            self.clients.append(client)
        self.highest = max(self.highest, election_id)
        self._announce()

    # The RPCs.

    async def Write(self, request: p4r.WriteRequest, context: Context) -> p4r.WriteResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.write_delay)
        finally:
            self.in_flight -= 1
        primary = self._primary()
        if primary is None or primary.election_id != U128.decode(request.election_id):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "Not primary")
        if self.write_abort is not None:
            await context.abort(*self.write_abort)
        self.batches.append(list(request.updates))
        errors = [self._apply(update) for update in request.updates]
        if any(error.canonical_code for error in errors):
            status = rpc_status.Status(code=rpc_code.UNKNOWN)
            for error in errors:
                status.details.add().Pack(error)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            await context.abort(grpc.StatusCode.UNKNOWN, "")
        return p4r.WriteResponse()

    def _apply(self, update: p4r.Update) -> p4r.Error:
        if (message := self.fail(update)) is not None:
            return p4r.Error(canonical_code=rpc_code.UNKNOWN, message=message)
        if update.entity.HasField("meter_entry"):
            self.meters.append(update.entity.meter_entry)
            return p4r.Error()
        entry = update.entity.table_entry
        key = _key(entry)
        if update.type == p4r.Update.INSERT and key in self.entries:
            return p4r.Error(canonical_code=rpc_code.ALREADY_EXISTS, message="entry exists")
        if update.type != p4r.Update.INSERT and key not in self.entries:
            return p4r.Error(canonical_code=rpc_code.NOT_FOUND, message="no such entry")
        if update.type == p4r.Update.DELETE:
            del self.entries[key]
        else:
            self.entries[key] = entry
        return p4r.Error()

    async def Read(
        self,
        request: p4r.ReadRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[p4r.ReadResponse]:
        answer = p4r.ReadResponse()
        for entity in request.entities:
            if entity.HasField("counter_entry"):
                counter = answer.entities.add().counter_entry
                counter.CopyFrom(entity.counter_entry)
                counter.data.packet_count = self.counters.get(counter.index.index, 0)
                continue
            asked = entity.table_entry
            found = [self.entries.get(_key(asked))] if asked.match else self.entries.values()
            for entry in found:
                if entry is not None and entry.table_id == asked.table_id:
                    answer.entities.add().table_entry.CopyFrom(self._as_read(entry, asked))
        yield answer

    def _as_read(self, entry: p4r.TableEntry, asked: p4r.TableEntry) -> p4r.TableEntry:
        read = p4r.TableEntry()
        read.CopyFrom(entry)
        read.metadata = bytes(self.padding)
        if asked.HasField("counter_data"):
            read.counter_data.packet_count = 3
        if asked.HasField("time_since_last_hit"):
            read.time_since_last_hit.elapsed_ns = 1_000_000_000
        return read

    async def SetForwardingPipelineConfig(
        self, request: p4r.SetForwardingPipelineConfigRequest, context: Context
    ) -> p4r.SetForwardingPipelineConfigResponse:
        if self.push_abort is not None:
            await context.abort(*self.push_abort)
        assert request.action == p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT
        self.config = request.config
        self.pushes += 1
        self.entries.clear()
        return p4r.SetForwardingPipelineConfigResponse()

    async def GetForwardingPipelineConfig(
        self, request: p4r.GetForwardingPipelineConfigRequest, context: Context
    ) -> p4r.GetForwardingPipelineConfigResponse:
        if self.config is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "No forwarding pipeline config set")
            raise AssertionError
        assert request.response_type == p4r.GetForwardingPipelineConfigRequest.COOKIE_ONLY
        return p4r.GetForwardingPipelineConfigResponse(config=p4r.ForwardingPipelineConfig(cookie=self.config.cookie))

    async def Capabilities(self, request: p4r.CapabilitiesRequest, context: Context) -> p4r.CapabilitiesResponse:  # noqa: ARG002
        return p4r.CapabilitiesResponse(p4runtime_api_version="1.3.0")


def _key(entry: p4r.TableEntry) -> bytes:
    return p4r.TableEntry(table_id=entry.table_id, match=entry.match).SerializeToString()
