"""A P4Runtime controller for tests: synchronous, and primary from the start. What it writes is `nvi.p4rt.codec`'s."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from queue import SimpleQueue
from types import TracebackType

import grpc
from finsy.proto import p4r_grpc

from nvi.p4rt.codec import Change, decode_write_errors, nvi_codec
from nvi.p4rt.messages import U128, p4r
from nvi.p4rt.pipeline import nvi_pipeline
from nvi.switch import ConnectionKey, Entry, Operation, Punt, Update, Usage

DEADLINE = 15.0
"""Seconds for anything that the switch is asked."""
CHUNK = 200
"""Updates per Write."""


class Refused(Exception):
    """The switch has refused an update. The text has its reasons."""


class Client:
    """The primary of a switch that has just been given NVI's pipeline."""

    def __init__(self, address: str, device_id: int = 1, election_id: int = 1) -> None:
        """`address`: gRPC's, such as `unix:/path`. Waits for the switch to answer. Raises grpc.RpcError."""
        self.punts: SimpleQueue[Punt] = SimpleQueue()
        """What the switch has punted and nobody has looked at yet."""
        self.idle: SimpleQueue[p4r.TableEntry] = SimpleQueue()
        """The entries of which it has said that they are idle."""
        self._codec = nvi_codec()
        self._device_id = device_id
        self._election_id = U128.encode(election_id)
        self._channel = grpc.insecure_channel(
            address, options=(("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20))
        )
        grpc.channel_ready_future(self._channel).result(DEADLINE)
        self._stub = p4r_grpc.P4RuntimeStub(self._channel)
        self._requests: SimpleQueue[p4r.StreamMessageRequest | None] = SimpleQueue()
        self._primary = threading.Event()
        self._stream = self._stub.StreamChannel(iter(self._requests.get, None))
        threading.Thread(target=self._listen, daemon=True).start()
        arbitration = p4r.MasterArbitrationUpdate(device_id=device_id, election_id=self._election_id)
        self._requests.put(p4r.StreamMessageRequest(arbitration=arbitration))
        if not self._primary.wait(DEADLINE):
            raise Refused(f"the switch at {address} does not make us its primary")
        self._stub.SetForwardingPipelineConfig(
            p4r.SetForwardingPipelineConfigRequest(
                device_id=device_id,
                election_id=self._election_id,
                action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT,
                config=nvi_pipeline().forwarding_config(),
            ),
            timeout=DEADLINE,
        )

    def close(self) -> None:
        """Hang up."""
        self._requests.put(None)
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # Writing.

    def insert(self, entries: Iterable[Entry]) -> None:
        """Add entries. Raises Refused."""
        self._write_entries(Operation.INSERT, entries)

    def modify(self, entries: Iterable[Entry]) -> None:
        """Change entries. Raises Refused."""
        self._write_entries(Operation.MODIFY, entries)

    def delete(self, entries: Iterable[Entry]) -> None:
        """Remove entries. Raises Refused."""
        self._write_entries(Operation.DELETE, entries)

    def limit_punts(self, port: int, rate: int, burst: int) -> None:
        """Set the meter of a port. Raises Refused."""
        self._write([self._codec.encode_punt_limit(port, rate, burst)])

    def unlimit_punts(self, port: int) -> None:
        """Unset the meter of a port: without a configuration a meter lets everything pass. Raises Refused."""
        meter = p4r.MeterEntry(meter_id=nvi_pipeline().meter_id("punts"), index=p4r.Index(index=port))
        update = p4r.Update(type=p4r.Update.MODIFY, entity=p4r.Entity(meter_entry=meter))
        self._write([Change(port, p4r.WriteRequest(updates=[update]).SerializeToString())])

    def _write_entries(self, operation: Operation, entries: Iterable[Entry]) -> None:
        self._write([self._codec.encode(Update(operation, entry)) for entry in entries])

    def _write(self, changes: Sequence[Change]) -> None:
        for start in range(0, len(changes), CHUNK):
            request = p4r.WriteRequest(device_id=self._device_id, election_id=self._election_id)
            request.MergeFromString(b"".join(change.message for change in changes[start : start + CHUNK]))
            try:
                self._stub.Write(request, timeout=DEADLINE)
            except grpc.RpcError as error:
                details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
                reasons = [f"{e.status} {e.message}" for e in decode_write_errors(details) if e.status != "OK"]
                raise Refused(f"{error.code().name} {error.details()}: {', '.join(reasons)}") from error

    # Reading.

    def usage(self, keys: Sequence[ConnectionKey]) -> dict[ConnectionKey, Usage]:
        """Counters and age of the entries with these keys; one that is not there is left out."""
        entities = self._read(self._codec.encode_usage_request(keys))
        return dict(self._codec.decode_usage(entity.table_entry) for entity in entities)

    def drops(self, *indices: int) -> dict[int, int]:
        """The counter `drops` at these indices, or all of it: packets by index, without zeros."""
        counter = nvi_pipeline().counter_id("drops")
        cells = [p4r.CounterEntry(counter_id=counter, index=p4r.Index(index=index)) for index in indices]
        cells = cells or [p4r.CounterEntry(counter_id=counter)]
        request = p4r.ReadRequest(entities=[p4r.Entity(counter_entry=cell) for cell in cells])
        read = (entity.counter_entry for entity in self._read(request.SerializeToString()))
        return {entry.index.index: entry.data.packet_count for entry in read if entry.data.packet_count}

    def _read(self, entities: bytes) -> Iterator[p4r.Entity]:
        request = p4r.ReadRequest(device_id=self._device_id)
        request.MergeFromString(entities)
        for response in self._stub.Read(request, timeout=DEADLINE):
            yield from response.entities

    # Packets.

    def reinject(self, port: int, packet: bytes) -> None:
        """Have the packet processed as if it had just arrived at the port."""
        self._send(self._codec.reinject, port, packet)

    def send(self, port: int, packet: bytes) -> None:
        """Have the packet sent out of the port as it is."""
        self._send(self._codec.send, port, packet)

    def _send(self, order: int, port: int, packet: bytes) -> None:
        message = self._codec.encode_packet_out(order, port, packet)
        self._requests.put(p4r.StreamMessageRequest.FromString(message))

    def _listen(self) -> None:
        try:
            for message in self._stream:
                kind = message.WhichOneof("update")
                if kind == "packet":
                    self.punts.put(self._codec.decode_packet_in(message.packet))
                elif kind == "idle_timeout_notification":
                    for entry in message.idle_timeout_notification.table_entry:
                        self.idle.put(entry)
                elif kind == "arbitration" and not message.arbitration.status.code:
                    self._primary.set()
        except grpc.RpcError:
            return  # the channel is closed, or the next request will say what happened
