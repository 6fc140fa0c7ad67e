"""The P4Runtime server: the five RPCs, on grpc.aio.

One event loop serves all clients; the data plane runs in a thread of its own and is never waited for, nor does it
ever wait for a client: what a client does not read in time is dropped and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import grpc
import structlog
from finsy.proto import p4r, p4r_grpc

from . import codec
from .arbitration import Arbiter, Controller
from .device import API_VERSION, Device
from .status import Code, StatusError, number, write_failure

log = structlog.get_logger()

READ_CHUNK = 500
"""Entities per ReadResponse: about 100 kB, well below gRPC's default limit of 4 MiB."""
STREAM_QUEUE = 1024
"""Messages that wait for one client before more are dropped."""
PACKET_QUEUE = 4096
"""Packets for the CPU that wait for the event loop before more are dropped."""
IDLE_SCAN_INTERVAL = 0.5
"""Seconds between two looks for idle entries."""
SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # Details of failed updates travel in trailers: 35 bytes and more for each update.
    ("grpc.max_metadata_size", 1 << 20),
    ("grpc.absolute_max_metadata_size", 1 << 20),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.so_reuseport", 0),
)

Context = grpc.aio.ServicerContext[Any, Any]


class _Stream:
    """What waits to be sent to one client."""

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: asyncio.Queue[p4r.StreamMessageResponse | StatusError | None] = asyncio.Queue()

    def send(self, message: p4r.StreamMessageResponse) -> None:
        """Queue a message. Arbitration is never dropped; a packet is if the client does not keep up."""
        if self._queue.qsize() >= STREAM_QUEUE and message.WhichOneof("update") != "arbitration":
            self.dropped += 1
        else:
            self._queue.put_nowait(message)

    def end(self, error: StatusError | None = None) -> None:
        """There is nothing to come after what is queued."""
        self._queue.put_nowait(error)

    async def next(self) -> p4r.StreamMessageResponse | None:
        """The next message; None at the end. Raises the StatusError that ended the stream."""
        item = await self._queue.get()
        if isinstance(item, StatusError):
            raise item
        return item


class P4RuntimeService(p4r_grpc.P4RuntimeServicer):
    """The servicer of one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.arbiter = Arbiter(device.device_id)
        self.dropped_packets = 0
        """Packets for the CPU that nobody was there for, or that came faster than they could be sent."""
        self._packets: deque[bytes] = deque()
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: set[_Stream] = set()

    def attach(self) -> None:
        """Take packets from the data plane; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        self.device.dataplane.on_cpu_packet = self._on_cpu_packet

    def close(self) -> None:
        """End all streams: they would never end by themselves."""
        for stream in self._streams:
            stream.end(StatusError(Code.UNAVAILABLE, "the switch is stopping"))

    # ---------------------------------------------------------------------------------------------- unary

    async def Write(self, request: p4r.WriteRequest, context: Context) -> p4r.WriteResponse:
        """Do the updates in order; one that fails does not stop the others."""
        try:
            self.device.check_id(request.device_id)
            self._check_primary(request)
            entities = self.device.configured.entities
            if request.atomicity != p4r.WriteRequest.CONTINUE_ON_ERROR:
                raise StatusError(Code.UNIMPLEMENTED, "only CONTINUE_ON_ERROR is supported")
        except StatusError as error:
            await _abort(context, error)
        results: list[StatusError | None] = []
        for update in request.updates:
            try:
                entities.write(update)
                results.append(None)
            except StatusError as error:
                results.append(error)
        if any(results):
            failure = write_failure(results)
            trailer = (("grpc-status-details-bin", failure.SerializeToString()),)
            await context.abort(Code.UNKNOWN, failure.message, trailer)
        return p4r.WriteResponse()

    async def Read(self, request: p4r.ReadRequest, context: Context) -> AsyncIterator[p4r.ReadResponse]:
        """Everything that the queries ask for, in several messages if it is much."""
        try:
            self.device.check_id(request.device_id)
            entities = self.device.configured.entities
            response = p4r.ReadResponse()
            for query in request.entities:
                for entity in entities.read(query):
                    response.entities.append(entity)
                    if len(response.entities) >= READ_CHUNK:
                        yield response
                        response = p4r.ReadResponse()
                        # Let writes and packets through in between.
                        await asyncio.sleep(0)
            if response.entities:
                yield response
        except StatusError as error:
            await _abort(context, error)

    async def SetForwardingPipelineConfig(
        self, request: p4r.SetForwardingPipelineConfigRequest, context: Context
    ) -> p4r.SetForwardingPipelineConfigResponse:
        """Verify, save, commit."""
        try:
            self.device.check_id(request.device_id)
            self._check_primary(request)
            self.device.set_config(request)
        except StatusError as error:
            await _abort(context, error)
        return p4r.SetForwardingPipelineConfigResponse()

    async def GetForwardingPipelineConfig(
        self, request: p4r.GetForwardingPipelineConfigRequest, context: Context
    ) -> p4r.GetForwardingPipelineConfigResponse:
        """The running configuration."""
        try:
            self.device.check_id(request.device_id)
        except StatusError as error:
            await _abort(context, error)
        return self.device.get_config(request.response_type)

    async def Capabilities(
        self,
        request: p4r.CapabilitiesRequest,
        context: Context,
    ) -> p4r.CapabilitiesResponse:
        """The version of the API."""
        device_id = getattr(request, "device_id", 0)  # since P4Runtime 1.5
        if device_id:
            try:
                self.device.check_id(device_id)
            except StatusError as error:
                await _abort(context, error)
        return p4r.CapabilitiesResponse(p4runtime_api_version=API_VERSION)

    def _check_primary(self, request: p4r.WriteRequest | p4r.SetForwardingPipelineConfigRequest) -> None:
        if request.role_id:
            raise StatusError(Code.NOT_FOUND, "role ids are not supported, use role names")
        self.arbiter.check(request.role, request.election_id if request.HasField("election_id") else None)

    # --------------------------------------------------------------------------------------------- stream

    async def StreamChannel(
        self, requests: AsyncIterator[p4r.StreamMessageRequest], context: Context
    ) -> AsyncIterator[p4r.StreamMessageResponse]:
        """Arbitration, packets, notifications, for as long as the client likes."""
        stream = _Stream()
        controller = Controller(stream.send)
        self._streams.add(stream)
        reader = asyncio.create_task(self._listen(controller, stream, requests))
        try:
            while (message := await stream.next()) is not None:
                yield message
        except StatusError as error:
            await _abort(context, error)
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            self._streams.discard(stream)
            self.arbiter.leave(controller)
            if stream.dropped:
                log.warning("a controller did not read its stream", dropped=stream.dropped)

    async def _listen(
        self, controller: Controller, stream: _Stream, requests: AsyncIterator[p4r.StreamMessageRequest]
    ) -> None:
        try:
            async for request in requests:
                self._on_request(controller, request)
        except StatusError as error:
            stream.end(error)
        except Exception:
            log.exception("a stream failed")
            stream.end(StatusError(Code.INTERNAL, "the stream failed, see the switch's log"))
        else:
            stream.end()

    def _on_request(self, controller: Controller, request: p4r.StreamMessageRequest) -> None:
        match request.WhichOneof("update"):
            case "arbitration":
                self.arbiter.update(controller, request.arbitration)
            case "packet":
                self._on_packet_out(controller, request.packet)
            case "digest_ack":
                response = _stream_error(StatusError(Code.INVALID_ARGUMENT, "there is no digest"))
                response.error.digest_list_ack.digest_list_ack.CopyFrom(request.digest_ack)
                controller.send(response)
            case _:
                response = _stream_error(StatusError(Code.UNIMPLEMENTED, "this message is not supported"))
                response.error.other.SetInParent()
                controller.send(response)

    def _on_packet_out(self, controller: Controller, message: p4r.PacketOut) -> None:
        try:
            if not self.arbiter.is_primary(controller):
                raise StatusError(Code.PERMISSION_DENIED, "Not primary")
            running = self.device.running
            if running is None:
                raise StatusError(Code.FAILED_PRECONDITION, "no forwarding pipeline config has been set")
            self.device.dataplane.inject(codec.packet_out(running.schema.packet_out, message))
        except StatusError as error:
            response = _stream_error(error)
            response.error.packet_out.packet_out.CopyFrom(message)
            controller.send(response)

    # ------------------------------------------------------------------------- from the data plane's thread

    def _on_cpu_packet(self, packet: bytes) -> None:
        if len(self._packets) >= PACKET_QUEUE:
            self.dropped_packets += 1
            return
        self._packets.append(packet)
        # One wake-up for all packets that arrive before the loop gets to them.
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            with suppress(RuntimeError):  # the loop is closed: the switch is stopping
                self._loop.call_soon_threadsafe(self._send_packets)

    def _send_packets(self) -> None:
        self._scheduled = False
        primaries = self.arbiter.primaries()
        running = self.device.running
        while self._packets:
            packet = self._packets.popleft()
            if not primaries or running is None:
                self.dropped_packets += 1
                continue
            message = p4r.StreamMessageResponse(packet=codec.packet_in(running.schema.packet_in, packet))
            for controller in primaries:
                controller.send(message)

    # ----------------------------------------------------------------------------------------------- idle

    async def notify_idle(self) -> None:
        """Send idle notifications, for ever."""
        while True:
            await asyncio.sleep(IDLE_SCAN_INTERVAL)
            if not self.arbiter.primaries():
                continue
            for notification in self.device.idle():
                if notification is not None:
                    notification.timestamp = time.time_ns()
                    response = p4r.StreamMessageResponse(idle_timeout_notification=notification)
                    for controller in self.arbiter.primaries():
                        controller.send(response)
                await asyncio.sleep(0)


def _stream_error(error: StatusError) -> p4r.StreamMessageResponse:
    return p4r.StreamMessageResponse(error=p4r.StreamError(canonical_code=number(error.code), message=error.message))


async def _abort(context: Context, error: StatusError) -> NoReturn:
    await context.abort(error.code, error.message)
    raise AssertionError("abort returns")


async def start_server(service: P4RuntimeService, address: str) -> tuple[grpc.aio.Server, int]:
    """Listen on an address ("127.0.0.1:9559", "unix:/path"); (server, port). Raises OSError if that is impossible."""
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    p4r_grpc.add_P4RuntimeServicer_to_server(service, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    service.attach()
    await server.start()
    return server, port
