"""The way to agents that are known, beside NATS: TLS over the underlay, for as long as NATS is away.

Where an agent listens, and the certificate that it shows, is in its host's lease. Whoever uses a host holds its lease,
so it needs nothing else to ask its agent, and to know who asks: both ends must show the certificate of the lease that
they name. A host of which no lease is known, or a later one, is not heard.

A message is its length, a number by which the answer finds whoever has asked, and bytes (`nvi.offers.wire`).
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from struct import Struct
from typing import Any

import structlog

from ..model import Address, Contact, Host, show_address
from ..namespaces import open_socket
from ..route import NoWay, meet
from .identity import Identity, peer_of
from .wire import LARGEST

IDLE = 30.0
"""Seconds after which a connection that nobody uses is closed by whoever has opened it; the other end does so later."""

AT_A_TIME = 64
"""Requests of one agent that are answered at a time; further ones wait."""

CONNECTIONS = 1024
"""To and from other agents, at a time."""

HANDSHAKE_SECONDS = 2.0

_HEAD = Struct(">II")
_FREEBIND, _IPV6_FREEBIND = 15, 78
"""linux/in.h, linux/in6.h: the address need not be there yet."""

_log = structlog.get_logger()

Answer = Callable[[str, bytes], Awaitable[bytes]]
"""(name of the host that asks, what it asks) -> the answer."""


class Unreached(Exception):
    """Another agent cannot be asked directly. The text says why."""


class Direct:
    """One agent's direct way to others, and theirs to it."""

    def __init__(self, host: Host, netns: str | None, known: Callable[[str], Host | None]) -> None:
        """`netns`: path of the host's network namespace, None for our own; `known`: what a host's lease says of it."""
        self._host = host
        self._netns = netns
        self._known = known
        self._identity = Identity(host.name)
        self._answer: Answer | None = None
        self._servers: list[asyncio.Server] = []
        self._channels: dict[str, _Channel] = {}
        self._dialling: dict[str, asyncio.Task[_Channel]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        """One for each connection, both ways."""
        self._replies: set[asyncio.Task[None]] = set()

    async def listen(self, port: int) -> Contact:
        """Be there for others, at all addresses of the host. Returns what its lease has to say.

        `port`: TCP; 0 for one that is free. Raises OSError with a sentence.
        """
        addresses = list(self._host.addresses)
        if self._host.external is not None:
            addresses.append(self._host.external.address)
        sockets: list[socket.socket] = []
        try:
            for address in addresses:
                sockets.append(await self._open(partial(_listening, address, port)))
                port = sockets[0].getsockname()[1]
        except OSError:
            for each in sockets:
                each.close()
            raise
        context = self._identity.from_any(self._certificate_of)
        for each in sockets:
            self._servers.append(
                await asyncio.start_server(
                    self._serve, sock=each, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS, limit=LARGEST
                )
            )
        return Contact(port, self._identity.certificate)

    def serve(self, answer: Answer) -> None:
        """Answer what is asked from now on."""
        self._answer = answer

    def leave(self) -> None:
        """Answer no more."""
        self._answer = None

    async def stop(self) -> None:
        """Answer what is being answered, and close everything."""
        for server in self._servers:
            server.close()
        if self._replies:
            await asyncio.wait(self._replies, timeout=HANDSHAKE_SECONDS)
        tasks = [*self._tasks, *self._replies, *self._dialling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in list(self._channels.values()):
            channel.close()

    async def request(self, receiver: str, data: bytes, patience: float) -> bytes:
        """Ask the agent of another host. `patience`: seconds. Raises Unreached."""
        try:
            async with asyncio.timeout(patience):
                return await (await self._channel(receiver)).request(data)
        except TimeoutError:
            raise Unreached(f"no answer within {patience:g} s") from None

    # ---- asking -----------------------------------------------------------------------------------------------------

    async def _channel(self, receiver: str) -> _Channel:
        peer = self._known(receiver)
        if peer is None or peer.contact is None:
            raise Unreached(f"nothing is known of host {receiver}" if peer is None else f"{receiver} does not listen")
        channel = self._channels.get(receiver)
        if channel is not None and channel.certificate == peer.contact.certificate:
            return channel
        dialling = self._dialling.get(receiver)
        if dialling is None:
            dialling = self._dialling[receiver] = asyncio.create_task(self._dial(peer, peer.contact))
            dialling.add_done_callback(lambda _: self._dialling.pop(receiver, None))
        # Others may wait for the same: it goes on when one of them gives up.
        return await asyncio.shield(dialling)

    async def _dial(self, peer: Host, contact: Contact) -> _Channel:
        try:
            _, address = meet(self._host, peer, self._host.addresses[0])
            where = f"{show_address(address)} port {contact.port}"
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                sock = await self._open(partial(_unconnected, address))
                try:
                    await asyncio.get_running_loop().sock_connect(sock, (show_address(address), contact.port))
                except BaseException:
                    sock.close()
                    raise
                context = self._identity.towards(contact.certificate)
                reader, writer = await asyncio.open_connection(
                    sock=sock, ssl=context, server_hostname=self._host.name, limit=LARGEST
                )
        except NoWay as error:
            raise Unreached(str(error)) from None
        except TimeoutError:
            raise Unreached(f"no answer at {where}") from None
        except ssl.SSLError as error:
            raise Unreached(f"whoever is at {where} does not show the certificate of {peer.name}: {error}") from None
        except OSError as error:
            raise Unreached(f"{where}: {error.strerror or error}") from None
        channel = _Channel(writer, contact.certificate)
        if (old := self._channels.pop(peer.name, None)) is not None:
            old.close()
        self._channels[peer.name] = channel
        self._spawn(self._tasks, self._listen_to(peer.name, channel, reader))
        return channel

    async def _listen_to(self, name: str, channel: _Channel, reader: asyncio.StreamReader) -> None:
        try:
            await channel.hear(reader)
        finally:
            channel.close()
            if self._channels.get(name) is channel:
                del self._channels[name]

    # ---- answering --------------------------------------------------------------------------------------------------

    def _certificate_of(self, name: str) -> bytes | None:
        peer = self._known(name)
        return None if peer is None or peer.contact is None else peer.contact.certificate

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams run this in a task"
        if len(self._tasks) >= CONNECTIONS:
            writer.close()
            return
        self._tasks.add(task)
        try:
            await self._hear(reader, writer)
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            pass  # it is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, certificate = peer_of(writer.get_extra_info("ssl_object"))
        turns = asyncio.Semaphore(AT_A_TIME)

        async def reply(number: int, data: bytes) -> None:
            try:
                if self._answer is not None:
                    writer.write(_frame(number, await self._answer(name, data)))
                    await writer.drain()
            except OSError:
                pass  # whoever has asked is gone
            finally:
                turns.release()

        while True:
            number, data = await _next(reader, 4 * IDLE)
            # The lease may be another one by now, or have ended: that holds for open connections, too.
            if self._certificate_of(name) != certificate:
                return
            await turns.acquire()
            # Not this connection's: what has been begun is finished, whatever becomes of who has asked.
            self._spawn(self._replies, reply(number, data))

    # ---- the rest ---------------------------------------------------------------------------------------------------

    async def _open(self, make: Callable[[], socket.socket]) -> socket.socket:
        return make() if self._netns is None else await open_socket(self._netns, make)

    def _spawn(self, kind: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        def done(task: asyncio.Task[None]) -> None:
            kind.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("unexpected failure", error=repr(error), exc_info=error)

        task = asyncio.create_task(work)
        kind.add(task)
        task.add_done_callback(done)


class _Channel:
    """A connection to another agent, for our questions."""

    def __init__(self, writer: asyncio.StreamWriter, certificate: bytes) -> None:
        self.certificate = certificate
        self._writer = writer
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._closed = False

    async def request(self, data: bytes) -> bytes:
        """Raises Unreached if the connection ends."""
        if self._closed:
            raise Unreached("the connection has just ended")
        number = next(self._numbers) & 0xFFFFFFFF
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._writer.write(_frame(number, data))
            return await answer
        finally:
            self._asked.pop(number, None)

    async def hear(self, reader: asyncio.StreamReader) -> None:
        """Hand on answers, until the connection ends or nobody uses it."""
        try:
            while True:
                number, data = await _next(reader, IDLE)
                answer = self._asked.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(data)
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            pass

    def close(self) -> None:
        """Whoever waits for an answer is told."""
        self._closed = True
        self._writer.close()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(Unreached("the connection has ended"))


def _frame(number: int, data: bytes) -> bytes:
    return _HEAD.pack(len(data), number) + data


async def _next(reader: asyncio.StreamReader, patience: float) -> tuple[int, bytes]:
    """The next message. Raises TimeoutError if none comes, IncompleteReadError at the end, OSError if it is absurd."""
    async with asyncio.timeout(patience):
        size, number = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        if size > LARGEST:
            raise OSError(errno.EMSGSIZE, f"a message of {size} bytes: at most {LARGEST} make sense")
        data: bytes = await reader.readexactly(size)
        return number, data


def _unconnected(address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET if len(address) == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


def _listening(address: Address, port: int) -> socket.socket:
    sock = _unconnected(address)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if len(address) == 4:
            sock.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        sock.bind((show_address(address), port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen at {show_address(address)} port {port}: {error.strerror}") from None
    return sock
