"""The least of a P4Runtime controller: one thread, prebuilt requests, nothing asynchronous.

It programs the forwarder that throughput is compared with, and does the bare minimum for a first packet: a packet in,
one write, a packet out.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc

from nvi.p4rt.messages import U128, p4r
from nvi.p4rt.pipeline import Pipeline

_SERVICE = "/p4.v1.P4Runtime/"


class Controller:
    """The primary of one switch, which it gives its program. A context manager."""

    def __init__(self, address: str, device_id: int, pipeline: Pipeline) -> None:
        self._device_id = device_id
        self._election_id = U128.encode(1)
        self._channel = grpc.insecure_channel(address)
        method = self._channel.unary_unary
        self._push = method(_SERVICE + "SetForwardingPipelineConfig", _serialize, bytes)
        self._write = method(_SERVICE + "Write", bytes, bytes)
        self._outgoing: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        stream = self._channel.stream_stream(_SERVICE + "StreamChannel", bytes, p4r.StreamMessageResponse.FromString)
        self._incoming = iter(stream(iter(self._outgoing.get, b"")))
        claim = p4r.MasterArbitrationUpdate(device_id=device_id, election_id=self._election_id)
        self._outgoing.put(p4r.StreamMessageRequest(arbitration=claim).SerializeToString())
        next(self._incoming)
        self._push(
            p4r.SetForwardingPipelineConfigRequest(
                device_id=device_id,
                election_id=self._election_id,
                action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT,
                config=pipeline.forwarding_config(),
            )
        )

    def close(self) -> None:
        """Leave the switch as it is."""
        self._outgoing.put(b"")
        self._channel.close()

    def request(self, updates: Sequence[bytes]) -> bytes:
        """A WriteRequest. `updates`: its `updates` fields, serialized."""
        header = p4r.WriteRequest(device_id=self._device_id, election_id=self._election_id)
        return header.SerializeToString() + b"".join(updates)

    def write(self, request: bytes) -> None:
        """One Write RPC."""
        self._write(request)

    def send(self, message: bytes) -> None:
        """A StreamMessageRequest."""
        self._outgoing.put(message)

    def packets(self) -> Iterator[p4r.PacketIn]:
        """The packets that come in, until the channel is closed."""
        try:
            for message in self._incoming:
                if message.HasField("packet"):
                    yield message.packet
        except grpc.RpcError:
            return


def compiled(name: str) -> Pipeline:
    """One of the programs of this directory."""
    directory = Path(__file__).with_name("compiled")
    return Pipeline((directory / f"{name}.json").read_bytes(), (directory / f"{name}.p4info.txtpb").read_bytes())


def route(pipeline: Pipeline, prefix: bytes, length: int, next_hop: bytes, port: int) -> bytes:
    """An `updates` field that inserts a route into the forwarder."""
    table, forward = pipeline.table("routes"), pipeline.action("forward")
    entry = p4r.TableEntry(table_id=table.id)
    match = entry.match.add(field_id=table["hdr.ipv4.destination"].id)
    match.lpm.value, match.lpm.prefix_len = prefix, length
    action = entry.action.action
    action.action_id = forward.id
    for name, value in (("next_hop", next_hop), ("port", port.to_bytes(2))):
        action.params.add(param_id=forward[name].id, value=value)
    update = p4r.Update(type=p4r.Update.INSERT, entity=p4r.Entity(table_entry=entry))
    return p4r.WriteRequest(updates=[update]).SerializeToString()


def _serialize(message: p4r.SetForwardingPipelineConfigRequest) -> bytes:
    return message.SerializeToString()
