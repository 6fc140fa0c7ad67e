"""A netlink route socket in a network namespace of choice, read by asyncio.

pyroute2 encodes and decodes the messages. Its own sockets are not used: to open one in another namespace it forks
a process, and it reads through a datagram transport, which uvloop has only for IP.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from ..namespaces import open_socket

Message = Any
"""A decoded message of pyroute2: fields by subscript, attributes by `get_attr`."""

_SO_RCVBUFFORCE = 33
"""asm-generic/socket.h; Python has no name for it."""
_RECEIVE_BUFFER = 1 << 20
_ANSWER_TIMEOUT = 2.0
"""Seconds within which the kernel answers a request. It does so at once, but drops the answer without a word while
the socket's buffer is full of events."""
_LARGEST = 1 << 16
"""The kernel sends no netlink datagram larger than 32 KiB."""


class RouteSocket:
    """Requests to the kernel's routing, and what it says of itself."""

    def __init__(self, sock: socket.socket, on_event: Callable[[Message], None], on_loss: Callable[[], None]) -> None:
        """Read `sock` from the running loop; `open` is the usual way here.

        `on_event` gets each message of the subscribed groups, in the order of what happened. `on_loss` is called
        when the kernel had to drop some: what was learnt from them must be asked for again.
        """
        self._socket = sock
        self._on_event = on_event
        self._on_loss = on_loss
        self._marshal = MarshalRtnl()
        self._sequence = count(1)
        self._port: int = sock.getsockname()[0]
        self._requests: dict[int, tuple[asyncio.Future[list[Message]], list[Message]]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)

    @classmethod
    async def open(
        cls,
        netns: str | None,
        groups: int,
        on_event: Callable[[Message], None],
        on_loss: Callable[[], None],
    ) -> RouteSocket:
        """Open a socket in the namespace at path `netns` (None: the process's own), subscribed to RTMGRP_* `groups`.

        Raises OSError with a sentence that names the namespace.
        """
        sock = _open(groups) if netns is None else await open_socket(netns, lambda: _open(groups))
        return cls(sock, on_event, on_loss)

    async def request(self, kind: int, message: Message, flags: int = 0) -> list[Message]:
        """Send a request of the RTM_* `kind`, and return what the kernel answers.

        Raises pyroute2's NetlinkError with the kernel's errno, and OSError if the answer is lost.
        """
        sequence = next(self._sequence) & 0xFFFFFFFF
        # A dump ends by itself, everything else by its acknowledgement.
        flags |= NLM_F_REQUEST | (0 if flags & NLM_F_DUMP else NLM_F_ACK)
        message["header"] = {"type": kind, "flags": flags, "sequence_number": sequence, "pid": 0}
        message.encode()
        answer: asyncio.Future[list[Message]] = self._loop.create_future()
        self._requests[sequence] = answer, []
        try:
            self._socket.send(message.data)
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                return await answer
        except TimeoutError:
            raise OSError("the kernel's answer was lost; try again") from None
        finally:
            del self._requests[sequence]

    def close(self) -> None:
        """Stop reading; requests under way end with OSError."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._abandon("the netlink socket was closed")

    def _abandon(self, reason: str) -> None:
        """Await no answers to the requests under way."""
        for answer, _ in self._requests.values():
            if not answer.done():
                answer.set_exception(OSError(reason))

    def _read(self) -> None:
        """Take one datagram; the loop calls again while there are more, and does other work in between."""
        try:
            data = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: more happened than the buffer holds
            self._abandon("the kernel had more to say than its buffer holds; try again")
            self._on_loss()
            return
        for message in self._marshal.parse(data):
            self._dispatch(message)

    def _dispatch(self, message: Message) -> None:
        """Hand a message to the request that it answers, or to `on_event`."""
        header = message["header"]
        if header["sequence_number"] == 0 or header["pid"] != self._port:
            # Events carry 0, or the numbers of whoever caused them.
            if header["error"] is None:
                self._on_event(message)
            return
        answer, parts = self._requests.get(header["sequence_number"], (None, []))
        if answer is None or answer.done():
            return  # whoever asked was cancelled
        if header["error"] is not None:
            answer.set_exception(header["error"])
        elif header["type"] in (NLMSG_DONE, NLMSG_ERROR):
            answer.set_result(parts)
        else:
            parts.append(message)


def _open(groups: int) -> socket.socket:
    """A non-blocking route socket in the namespace of this thread."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    with suppress(PermissionError):  # without the privilege, the usual buffer has to do
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    sock.bind((0, groups))
    return sock
