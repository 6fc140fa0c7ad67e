"""Sockets in other network namespaces. A socket stays in the namespace that its thread was in when it was made."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_CLONE_NEWNET = 0x40000000


async def open_socket(netns: str, make: Callable[[], socket.socket]) -> socket.socket:
    """What `make` makes, in the namespace at the path `netns`.

    Raises OSError with a sentence that names the namespace, or what `make` raises.
    """
    # The thread ends here, so that no other work of the process finds itself in there.
    with ThreadPoolExecutor(1, "netns") as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, _make_in, netns, make)


def _make_in(netns: str, make: Callable[[], socket.socket]) -> socket.socket:
    """For a thread that does nothing else afterwards."""
    remedy = "check that the host is up, and that this process has CAP_SYS_ADMIN"
    try:
        namespace = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, f"cannot open the network namespace {netns}: {error.strerror}; {remedy}") from None
    try:
        libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cannot enter the network namespace {netns}: {os.strerror(code)}; {remedy}")
    finally:
        os.close(namespace)
    return make()
