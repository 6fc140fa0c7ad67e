"""BMv2 without interfaces: packets go in and out over gRPC, in an order that says when all of them are through."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from nvi.emulation.targets import command
from nvi.p4rt.codec import nvi_codec
from nvi.switch import PORT_CPU
from ptf_tests.client import Client

Output = tuple[int, bytes]

PATIENCE = 10.0
"""Seconds until a packet must have come out. It takes a millisecond."""
_FENCE = b"everything before this is through"
_NUMBERS = descriptor_pb2.FieldDescriptorProto.TYPE_UINT64, descriptor_pb2.FieldDescriptorProto.TYPE_UINT32


def _make_message() -> type:
    """BMv2's PacketStreamRequest and PacketStreamResponse, which have the same fields (dataplane_interface.proto)."""
    number, port = _NUMBERS
    fields = {"id": number, "device_id": number, "port": port, "packet": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES}
    file = descriptor_pb2.FileDescriptorProto(name="nvi/dataplane.proto", package="nvi.dataplane", syntax="proto3")
    message = file.message_type.add(name="Frame")
    for place, (name, kind) in enumerate(fields.items(), 1):
        message.field.add(name=name, number=place, type=kind, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nvi.dataplane.Frame"))


Frame = _make_message()


class Bmv2:
    """A running BMv2 with NVI's pipeline."""

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        """`ports`: all by which packets may leave."""
        self.client = Client(f"unix:{directory / 'p4rt.sock'}")
        self._ports = ports
        self._sent: SimpleQueue[object] = SimpleQueue()
        self._received: SimpleQueue[Output] = SimpleQueue()
        self._channel = grpc.insecure_channel(_dataplane(directory), options=(("grpc.enable_http_proxy", 0),))
        grpc.channel_ready_future(self._channel).result(PATIENCE)
        call = self._channel.stream_stream(
            "/p4.bm.DataplaneInterface/PacketStream", Frame.SerializeToString, Frame.FromString
        )
        stream = call(iter(self._sent.get, None))
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        self._channel.close()
        self.client.close()

    def run(self, packets: Sequence[Output]) -> dict[int, list[bytes]]:
        """What leaves by each port if these packets come in, each at its port; punts leave by the CPU port.

        As ingress and every port are queues, and a packet-out passes through both, nothing is missing when the one
        that has been sent after the packets has come out. There is room for 64 packets in each of BMv2's queues.
        """
        assert len(packets) < 64
        for port, packet in packets:
            self._sent.put(Frame(device_id=1, port=port, packet=packet))
        for port in (*self._ports, PORT_CPU):
            # To the CPU port it goes as a punt.
            fence = _FENCE if port != PORT_CPU else (1 << 7 | 1).to_bytes(2) + _FENCE
            header = (port << 7 | nvi_codec().send).to_bytes(2)
            self._sent.put(Frame(device_id=1, port=PORT_CPU, packet=header + fence))
        outputs: dict[int, list[bytes]] = defaultdict(list)
        missing = set(self._ports)
        while missing:
            port, packet = self._received.get(timeout=PATIENCE)
            if packet == _FENCE:
                missing.remove(port)
            else:
                outputs[port].append(packet)
        while (punt := self.client.punts.get(timeout=PATIENCE)).packet != _FENCE:
            outputs[PORT_CPU].append((punt.port << 7 | punt.reason).to_bytes(2) + punt.packet)
        return dict(outputs)

    def _listen(self, stream: Iterator[object]) -> None:
        try:
            for frame in stream:
                self._received.put((frame.port, frame.packet))  # type: ignore[attr-defined]
        except grpc.RpcError:
            return  # the channel is closed, or somebody will miss the packets


@contextmanager
def running_bmv2(directory: Path, ports: Sequence[int]) -> Iterator[Bmv2]:
    """Start one, and end it."""
    start = [*command("bmv2", 1, directory, {}), "--dp-grpc-server-addr", _dataplane(directory)]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *start], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (directory / "p4rt.sock").exists():
            assert process.poll() is None, "BMv2 does not start"
            assert time.monotonic() < deadline, "BMv2 does not listen"
            time.sleep(0.02)
        switch = Bmv2(directory, ports)
        yield switch
        switch.close()
    finally:
        process.kill()
        process.wait()


def _dataplane(directory: Path) -> str:
    return f"unix:{directory / 'dataplane.sock'}"
