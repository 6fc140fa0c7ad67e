"""Programs that run inside endpoints, as workloads would: `python workload.py WHAT ARGUMENTS`. Only stdlib."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import random
import selectors
import socket
import socketserver
import struct
import sys
import time
from functools import partial


class _Files(http.server.SimpleHTTPRequestHandler):
    """Says to whom it serves."""

    def log_message(self, *_: object) -> None:
        if self.server.log is not None:
            with open(self.server.log, "a") as log:  # noqa: PTH123
                log.write(self.client_address[0].removeprefix("::ffff:") + "\n")


class _BothFamilies(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 100

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks a resolver for our name, and there is none
        self.server_name, self.server_port = "", self.server_address[1]


def serve_http(port: str, directory: str, log: str | None = None) -> None:
    """Serve the files of a directory, in both families; write the address of each client to `log`."""
    server = _BothFamilies(("", int(port)), partial(_Files, directory=directory))
    server.log = log
    server.serve_forever()


def serve_tcp(port: str) -> None:
    """Echo every connection, any number at a time."""
    server = socket.create_server(("", int(port)), backlog=1024)
    server.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is server:
                connection, _ = server.accept()
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj
            data = b""
            with contextlib.suppress(OSError):
                data = connection.recv(65536)
            if data:
                connection.sendall(data)
            else:
                selector.unregister(connection)
                connection.close()


def serve_udp(port: str) -> None:
    """Echo every datagram, of both families where there are both."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("", int(port)))
    while True:
        data, sender = server.recvfrom(65536)
        server.sendto(data, sender)


def many_tcp(address: str, port: str, count: str) -> None:
    """Open many connections, have them all open at once, and exchange a word of its own on each."""
    sockets = []
    for number in range(int(count)):
        connection = socket.create_connection((address, int(port)), timeout=20)
        connection.sendall(f"word {number}\n".encode())
        sockets.append(connection)
    for number, connection in enumerate(sockets):
        expected = f"word {number}\n".encode()
        got = b""
        while len(got) < len(expected) and (data := connection.recv(len(expected) - len(got))):
            got += data
        if got != expected:
            sys.exit(f"connection {number}: sent {expected!r}, received {got!r}")
    print(f"{len(sockets)} connections at once")


def say_udp(address: str, port: str, count: str, size: str = "100") -> None:
    """Send datagrams, each of which must come back as it is."""
    client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((address, int(port)))
    client.settimeout(5)
    for number in range(int(count)):
        data = random.Random(number).randbytes(int(size))
        client.send(data)
        if client.recv(65536) != data:
            sys.exit(f"datagram {number} came back changed")
    print(f"{count} datagrams")


def connect_tcp(address: str, port: str) -> None:
    """Open one connection and say how long that took, in seconds."""
    begin = time.monotonic()
    with socket.create_connection((address, int(port)), timeout=20) as connection:
        connection.sendall(b"hello")
        if connection.recv(100) != b"hello":
            sys.exit("no echo")
    print(f"{time.monotonic() - begin:.3f}")


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _udp_frame(destination_mac: bytes, mac: bytes, source: str, destination: str, ports: tuple[int, int]) -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 36, 0, 0x4000, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(destination)
    )
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return destination_mac + mac + b"\x08\x00" + header + struct.pack("!HHHH", *ports, 16, 0) + b"flooding"


def _raw(interface: str = "eth0") -> tuple[socket.socket, bytes]:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.bind((interface, 0))
    return link, link.getsockname()[4]


def flood(source: str, destination: str, destination_mac: str, count: str, rate: str) -> None:
    """Send the first packets of many different flows, so many per second."""
    link, mac = _raw()
    to = bytes.fromhex(destination_mac.replace(":", ""))
    begin = time.monotonic()
    for number in range(int(count)):
        ports = (1024 + number % 60000, 1 + number // 60000 + 5000)
        with contextlib.suppress(BlockingIOError):
            link.send(_udp_frame(to, mac, source, destination, ports))
        if (ahead := number / float(rate) - (time.monotonic() - begin)) > 0.001:
            time.sleep(ahead)
    print(f"{count} flows in {time.monotonic() - begin:.1f} s")


def spoof(own: str, other: str, destination: str, destination_mac: str, count: str) -> None:
    """Send packets under a MAC, and under an address, that are not our own."""
    link, mac = _raw()
    to = bytes.fromhex(destination_mac.replace(":", ""))
    wrong_mac = mac[:5] + bytes([mac[5] ^ 0xFF])
    for number in range(int(count)):
        link.send(_udp_frame(to, wrong_mac, own, destination, (1000 + number, 53)))
        link.send(_udp_frame(to, mac, other, destination, (1000 + number, 53)))


def malformed(own: str, destination: str, destination_mac: str, count: str, seed: str) -> None:
    """Send packets none of which may open a connection: cut short, lengthened, with bits turned over, or noise."""
    link, mac = _raw()
    chance = random.Random(int(seed))
    to = bytes.fromhex(destination_mac.replace(":", ""))
    sent = hashlib.sha256()
    for number in range(int(count)):
        frame = _udp_frame(to, mac, own, destination, (chance.randrange(1, 65536), chance.randrange(1, 65536)))
        kind = number % 8
        if kind == 0:  # cut short
            frame = frame[: chance.randrange(14, len(frame) - 8)]
        elif kind == 1:  # one wrong bit in the header: its checksum, at least, does not fit
            at = chance.randrange(14 * 8, 34 * 8)
            frame = bytes(byte ^ (1 << at % 8 if index == at // 8 else 0) for index, byte in enumerate(frame))
        elif kind == 2:  # claims to be longer than it is
            frame = frame[:16] + struct.pack("!H", chance.randrange(len(frame) - 13, 65536)) + frame[18:]
        elif kind == 3:  # UDP length does not fit
            frame = frame[:38] + struct.pack("!H", chance.choice([0, 7, 17, 65535])) + frame[40:]
        elif kind == 4:  # header of less than 20 bytes, or of another version
            frame = frame[:14] + bytes([chance.choice([0x40, 0x44, 0x35, 0x65, 0x00, 0xFF])]) + frame[15:]
        elif kind == 5:  # noise of a known EtherType
            frame = (
                to
                + mac
                + chance.choice([b"\x08\x00", b"\x08\x06", b"\x86\xdd"])
                + chance.randbytes(chance.randrange(100))
            )
        elif kind == 6:  # no EtherType that we know
            frame = to + mac + chance.randbytes(chance.randrange(2, 1000))
        else:  # another protocol
            frame = frame[:23] + bytes([chance.choice([0, 2, 41, 50, 132, 255])]) + frame[24:]
        with contextlib.suppress(OSError):
            link.send(frame)
        sent.update(frame)
    print(f"{count} packets, digest {sent.hexdigest()[:12]}")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    {
        program.__name__: program
        for program in (
            serve_http,
            serve_tcp,
            serve_udp,
            many_tcp,
            say_udp,
            connect_tcp,
            flood,
            spoof,
            malformed,
        )
    }[what](*arguments)
