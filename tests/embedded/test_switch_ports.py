"""The embedded switch as a process on real interfaces, in a network namespace of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from finsy.proto import U128, p4r, p4r_grpc
from switch_support import set_config

from nvi.embedded.ports import PortPlan

needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")
RUNTIME = Path(__file__).parents[2] / "runtime"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Namespace:
    """A namespace with the switch in it; the other ends of its interfaces are in the test's own namespace."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.name = f"nvi-test-{tag}"
        ip("netns", "add", self.name)

    def link(self, inside: str, mtu: int = 1500) -> str:
        outside = f"{self.tag}{inside}"
        ip(
            "link",
            "add",
            outside,
            "mtu",
            str(mtu),
            "type",
            "veth",
            "peer",
            "name",
            inside,
            "mtu",
            str(mtu),
            "netns",
            self.name,
        )
        for command in (["link", "set", outside, "up"], ["-n", self.name, "link", "set", inside, "up"]):
            ip(*command)
        for prefix, interface in (((), outside), (("ip", "netns", "exec", self.name), inside)):
            quiet = f"net.ipv6.conf.{interface}.disable_ipv6=1"
            subprocess.run([*prefix, "sysctl", "-qw", quiet], check=False, capture_output=True)
        return outside

    def close(self) -> None:
        ip("netns", "del", self.name)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    result = Namespace(f"n{os.getpid() % 100000}")
    yield result
    result.close()


class Wire:
    """The test's end of a link."""

    def __init__(self, interface: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
        self.socket.bind((interface, 3))
        self.socket.settimeout(5)

    def send(self, frame: bytes) -> None:
        self.socket.send(frame)

    def receive(self) -> bytes:
        return self.socket.recv(65536)

    def silent(self) -> bool:
        self.socket.settimeout(0.2)
        try:
            self.socket.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(5)
        return False


def frame(kind: int = 0x88B5, payload: bytes = b"hello") -> bytes:
    return b"\x02" * 6 + b"\x04" * 6 + kind.to_bytes(2) + payload


class Process:
    """`python -m nvi.embedded switch` in a namespace, with the program `headers`: everything leaves at port 1."""

    def __init__(self, namespace: Namespace, address: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "nvi.embedded", "switch", "--p4runtime", address, *arguments]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace.name, *command],
            env={**os.environ, "PYTHONPATH": str(RUNTIME)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        asyncio.run(self._configure(address))

    async def _configure(self, address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(20):
            await channel.channel_ready()
            stub = p4r_grpc.P4RuntimeStub(channel)
            stream = stub.StreamChannel()
            hello = p4r.StreamMessageRequest()
            hello.arbitration.device_id = 1
            hello.arbitration.election_id.CopyFrom(U128.encode(1))
            await stream.write(hello)
            await stream.read()
            await stub.SetForwardingPipelineConfig(set_config("headers"))

    def stop(self) -> str:
        """The log; raises if it did not end well."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=10)
        assert self.process.returncode == 0, output
        return output


@needs_root
def test_frames_pass_and_ports_come_and_go(namespace: Namespace, tmp_path: Path) -> None:
    out, first = Wire(namespace.link("underlay0")), Wire(namespace.link("ep16"))
    switch = Process(namespace, f"unix:{tmp_path}/s", "--port", "1@underlay0", "--port-prefix", "ep")
    try:
        first.send(frame())
        assert out.receive()[6:] == frame()
        assert first.silent(), "what goes out is not taken for something that comes in"
        # An endpoint arrives, moves away and comes back.
        for _ in range(2):
            outside = namespace.link("ep17")
            late = Wire(outside)
            for _ in range(50):
                late.send(frame(payload=b"late"))
                time.sleep(0.05)
                if not out.silent():
                    break
            else:
                pytest.fail("the port was not attached")
            while not out.silent():
                pass
            ip("link", "del", outside)
            time.sleep(0.3)
            first.send(frame(payload=b"still here"))
            assert out.receive()[6:] == frame(payload=b"still here")
    finally:
        log = switch.stop()
    assert log.count("port attached") == 4
    assert log.count("port detached") == 4


@needs_root
def test_vlan_tags_stay(namespace: Namespace, tmp_path: Path) -> None:
    """The kernel takes a tag out of the frame before anybody sees it; the switch must see it all the same."""
    out, source = Wire(namespace.link("underlay0")), Wire(namespace.link("ep16"))
    switch = Process(namespace, f"unix:{tmp_path}/s", "--port", "1@underlay0", "--port-prefix", "ep")
    try:
        source.send(frame(0x8100, b"\x10\x07\x88\xb5tagged"))
        assert out.receive()[0] == 3, "the parser meets a tag with the drop bit, and says NoMatch"
    finally:
        switch.stop()


@needs_root
def test_large_frames_and_send_errors(namespace: Namespace, tmp_path: Path) -> None:
    out, source = Wire(namespace.link("underlay0")), Wire(namespace.link("ep16", mtu=9000))
    switch = Process(namespace, f"unix:{tmp_path}/s", "--port", "1@underlay0", "--port-prefix", "ep")
    try:
        largest = frame(payload=bytes(1500 - 6))
        for sent in (frame(payload=bytes(8000)), frame(payload=bytes(1501)), largest):
            source.send(sent)
        assert out.receive()[6:] == largest, "frames that do not fit are lost, and nothing else"
    finally:
        switch.stop()


@needs_root
def test_what_cannot_be_used(namespace: Namespace, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nvi.embedded", "switch", "--p4runtime"]
    environment = {**os.environ, "PYTHONPATH": str(RUNTIME), "COLUMNS": "200"}
    for arguments, code, text in (
        ([f"unix:{tmp_path}/missing/s"], 1, "cannot listen"),
        ([f"unix:{tmp_path}/s", "--port", "underlay0"], 2, "NUMBER@INTERFACE"),
        ([f"unix:{tmp_path}/s", "--port", "511@underlay0"], 2, "NUMBER@INTERFACE"),
    ):
        result = subprocess.run(
            ["ip", "netns", "exec", namespace.name, *command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert result.returncode == code, result.stderr
        assert text in result.stderr


def test_port_plan() -> None:
    plan = PortPlan({1: "underlay0", 20: "special"}, "ep", 16)
    names = ["lo", "underlay0", "ep16", "ep2", "ep017", "ep20", "ep", "epx", "ep509", "ep510", "xep16"]
    assert plan.wanted(names) == {1: "underlay0", 16: "ep16", 509: "ep509"}
    assert plan.wanted(["special"]) == {20: "special"}
    assert PortPlan({}).wanted(names) == {}
