"""What the endpoints of a farm of any size do: each opens TCP connections to some, and others open theirs to it.

One endpoint on each host, in one tenant and network that spans the farm. Host i opens a connection to hosts i + d, for
five distances d that grow with the farm: so its ten peers are anywhere, and it has as many in every farm.

A connection is an ARP question, a handshake, a request and a response; its frames are made and answered here, as the
stacks of the two endpoints would, and compared with what was sent, bit by bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct as Layout

from nvi.model import Address, Endpoint, Host, Mac, Network, Protocol, Subnet, Tenant, derive_mac
from nvi.packets.headers import ethernet, ip_packet, with_checksum
from nvi.simulation import Farm
from nvi.switch import PORT_FIRST_ENDPOINT

NETWORK = Network("web", (Subnet(bytes([10, 0, 0, 0]), 8, bytes([10, 255, 255, 254])),))
TENANT = Tenant("acme", {NETWORK.name: NETWORK})
SITE = "here"
PORT = PORT_FIRST_ENDPOINT

CONNECTIONS = 5
"""That each host opens; as many are opened to it."""
PEERS = 2 * CONNECTIONS
"""Hosts that each host has to do with."""
SPREAD = (0.07, 0.23, 0.41, 0.67, 0.89)
"""How far they are, in halves of the farm."""
SMALLEST = 20
"""Hosts of the smallest farm in which all the peers of a host are different ones."""

ROUND_SECONDS = 1.0
"""In each round every host opens one connection, at a time of its own."""
PATIENCE = 0.1
"""Seconds after which the last one of a round should have completed."""
_GOLDEN = 0.6180339887498949

SERVER_PORT, CLIENT_PORT = 80, 40000
_SYN, _SYN_ACK, _ACK, _PUSH = 0x02, 0x12, 0x10, 0x18
_REQUEST, _RESPONSE = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
_TCP = Layout("!HHIIBBHHH")
_ARP_REQUEST, _ARP_REPLY = (bytes.fromhex(f"000108000604000{operation}") for operation in (1, 2))
_BROADCAST = b"\xff" * 6


def host(number: int) -> Host:
    """The host with this number, from 0 on."""
    return Host(f"host{number:06}", SITE, ((0xAC100001 + number).to_bytes(4),))


def endpoint(number: int) -> Endpoint:
    """The one endpoint of that host."""
    name = f"endpoint{number:06}"
    address = (0x0A000001 + number).to_bytes(4)
    return Endpoint(name, TENANT.name, NETWORK.name, derive_mac(name), (address,), f"host{number:06}")


def distances(hosts: int) -> list[int]:
    """To which hosts, counted from itself, each one of this many opens connections."""
    found = [round(hosts / 2 * part) for part in SPREAD]
    if len(set(found)) < CONNECTIONS or not 0 < min(found) <= max(found) < hosts / 2:
        raise ValueError(f"{hosts} hosts are too few for {PEERS} peers each: at least {SMALLEST}")
    return found


def peers(number: int, hosts: int) -> set[int]:
    """The hosts with which this one has to do."""
    return {(number + sign * distance) % hosts for distance in distances(hosts) for sign in (1, -1)}


@dataclass(slots=True)
class Call:
    """A connection of the client's, and what is expected next of it."""

    client: int
    server: int
    asked: float
    """When the program said connect(): seconds on the loop's clock."""
    port: int
    sent: float = 0.0
    """When its first packet left."""
    frame: bytes = b""
    """The one that is under way."""


@dataclass
class Outcome:
    """What has come of it."""

    opened: int = 0
    completed: int = 0
    first_packets: list[float] = field(default_factory=list)
    """Seconds from a first packet's leaving to its arrival."""
    established: list[float] = field(default_factory=list)
    """Seconds from connect() to the end of the handshake, who has the address included."""


class Traffic:
    """The stacks of all endpoints, which are numbered from 0 on."""

    def __init__(self, farm: Farm, hosts: int) -> None:
        """The endpoints must be there."""
        self._hosts = hosts
        self._loop = asyncio.get_running_loop()
        self._endpoints = [endpoint(number) for number in range(hosts)]
        self._macs: dict[tuple[int, Address], Mac] = {}
        """By who has learnt it: MACs of neighbours."""
        self._asking: dict[tuple[int, Address], Callable[[], None]] = {}
        self._calls: dict[tuple[Address, int], Call] = {}
        """By the client's address and port."""
        self.outcome = Outcome()
        self._switches = [farm.hosts[each.host].switch for each in self._endpoints]
        for number, each in enumerate(self._endpoints):
            farm.hosts[each.host].delivered[PORT] = _Inbox(self._loop, self._received, number)

    async def round(self, number: int) -> None:
        """Every host opens a connection. Returns a while after the last one should have completed."""
        distance = distances(self._hosts)[number]
        for client in range(self._hosts):
            delay = ROUND_SECONDS * (client * _GOLDEN % 1)
            self._loop.call_later(delay, self._connect, client, (client + distance) % self._hosts, number)
        await asyncio.sleep(ROUND_SECONDS + PATIENCE)

    def _connect(self, client: int, server: int, number: int) -> None:
        self.outcome.opened += 1
        call = Call(client, server, self._loop.time(), CLIENT_PORT + number)
        self._calls[self._endpoints[client].address, call.port] = call
        self._resolve(client, server, lambda: self._open(call))

    def _open(self, call: Call) -> None:
        call.sent = self._loop.time()
        self._send(call, call.client, _SYN, b"")

    def _resolve(self, asker: int, target: int, then: Callable[[], None]) -> None:
        """As ARP does (RFC 826)."""
        us, address = self._endpoints[asker], self._endpoints[target].address
        if (asker, address) in self._macs:
            then()
            return
        self._asking[asker, address] = then
        question = us.mac + us.address + bytes(6) + address
        self._switches[asker].receive(PORT, _BROADCAST + us.mac + b"\x08\x06" + _ARP_REQUEST + question)

    def _send(self, call: Call, sender: int, flags: int, data: bytes) -> None:
        us, them = self._endpoints[sender], self._endpoints[call.server if sender == call.client else call.client]
        ports = (call.port, SERVER_PORT) if sender == call.client else (SERVER_PORT, call.port)
        tcp = _TCP.pack(*ports, 1, 1, 5 << 4, flags, 65535, 0, 0) + data
        tcp = with_checksum(us.address, them.address, Protocol.TCP, tcp, 16)
        packet = ip_packet(us.address, them.address, Protocol.TCP, tcp)
        call.frame = ethernet(self._macs[sender, them.address], us.mac, packet)
        self._switches[sender].receive(PORT, call.frame)

    def _received(self, here: int, frame: bytes) -> None:
        if frame[12:14] == b"\x08\x06":
            assert frame[14:22] == _ARP_REPLY, "what is not an answer is answered by the switch"
            address = frame[28:32]
            self._macs[here, address] = frame[22:28]
            self._asking.pop((here, address))()
            return
        source, ports = frame[26:30], frame[34:38]
        to_server = int.from_bytes(ports[2:]) == SERVER_PORT
        client, port = (source, ports[:2]) if to_server else (frame[30:34], ports[2:])
        call = self._calls[client, int.from_bytes(port)]
        if frame != call.frame:
            raise AssertionError(f"what arrives is not what was sent: {frame.hex()}, {call.frame.hex()}")
        self._next(call, frame[47], frame[54:])

    def _next(self, call: Call, flags: int, data: bytes) -> None:
        """What the receiver of a packet of the connection does about it."""
        now = self._loop.time()
        if flags == _SYN:
            self.outcome.first_packets.append(now - call.sent)
            self._resolve(call.server, call.client, lambda: self._send(call, call.server, _SYN_ACK, b""))
        elif flags == _SYN_ACK:
            self.outcome.established.append(now - call.asked)
            self._send(call, call.client, _ACK, b"")
        elif flags == _ACK:
            self._send(call, call.client, _PUSH, _REQUEST)
        elif data == _REQUEST:
            self._send(call, call.server, _PUSH, _RESPONSE)
        else:
            self.outcome.completed += 1
            del self._calls[self._endpoints[call.client].address, call.port]


class _Inbox(list[bytes]):
    """Hands over what comes out at a port, as soon as the switch is done with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Callable[[int, bytes], None], number: int) -> None:
        super().__init__()
        self._loop, self._receive, self._number = loop, receive, number

    def append(self, frame: bytes) -> None:
        self._loop.call_soon(self._receive, self._number, frame)
