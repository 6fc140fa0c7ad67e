"""`nvi check`: does everybody reach exactly whom the policy lets them reach? Tried with datagrams, in the namespaces.

Every endpoint gets a socket that answers with the endpoint's name, so it shows also when somebody else answers. The
sockets belong to this process: nothing is started in the endpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from ..model import Address, Endpoint, Protocol, Tenant, show_address
from ..namespaces import open_socket
from ..policy import judge
from .views import SCHEMA

PATIENCE = 6.0
"""Seconds for an answer that should come. A first packet makes a connection, on a machine that may be busy."""
SILENCE = 2.0
"""Seconds in which no answer is enough, where none should come; and after which a question is repeated."""
LIMIT = 1000
"""Questions at most; of more than that, some are chosen by chance."""
_AT_ONCE = 50
_PAUSE = 0.3
_PORTS = range(40000, 60000)  # beside the keys of connections


class Probe(Struct, frozen=True):
    """One question, who is asked by whom, and what the answer should be."""

    source: str
    destination: str
    address: Address
    expected: str | None
    """The name that should answer; None if nobody should."""
    why: str
    """What the policy says."""


class Finding(Struct, frozen=True):
    """What came of a probe."""

    probe: Probe
    answered: str | None

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.answered == self.probe.expected


class Findings(Struct, frozen=True):
    """What came of all of them."""

    possible: int
    """How many questions there are, asked or not."""
    found: tuple[Finding, ...]


def plan_probes(tenants: Mapping[str, Tenant], endpoints: Iterable[Endpoint], port: int) -> list[Probe]:
    """Every endpoint asks every other address of its farm, of each family that both have.

    Within its tenant the policy decides. An address that only other tenants have is nobody's.
    """
    everybody = list(endpoints)
    probes = []
    for source in everybody:
        tenant = tenants[source.tenant]
        mine = {address: other for other in everybody if other.tenant == source.tenant for address in other.addresses}
        everything = dict.fromkeys(address for other in everybody for address in other.addresses)
        for address in everything:
            if address in source.addresses or source.address_like(address) is None:
                continue
            responder = mine.get(address)
            if responder is None:
                other = next(other for other in everybody if address in other.addresses)
                probes.append(Probe(source.name, other.name, address, None, "another tenant's address"))
            else:
                verdict = judge(tenant, source, responder, Protocol.UDP, port)
                expected = responder.name if verdict.allowed else None
                probes.append(Probe(source.name, responder.name, address, expected, verdict.rule))
    return probes


async def probe(tenants: Mapping[str, Tenant], endpoints: Iterable[Endpoint], pids: Mapping[str, int]) -> Findings:
    """Ask everything. `pids`: of a process in each endpoint's namespace. Raises OSError if no sockets can be had."""
    everybody = list(endpoints)
    port = random.choice(_PORTS)
    probes = plan_probes(tenants, everybody, port)
    limit = asyncio.Semaphore(_AT_ONCE)
    with _Sockets() as sockets:
        for endpoint in everybody:
            for length in sorted({len(address) for address in endpoint.addresses}):
                await sockets.answer(endpoint.name, pids[endpoint.name], length, port)

        async def ask(each: Probe) -> Finding:
            patience = SILENCE if each.expected is None else PATIENCE
            async with limit:
                return Finding(each, await sockets.ask(pids[each.source], each.address, port, patience))

        tried = random.sample(probes, min(len(probes), LIMIT))
        return Findings(len(probes), tuple(await asyncio.gather(*(ask(each) for each in tried))))


def check_view(findings: Findings) -> dict[str, Any]:
    """`nvi check --json`."""
    found = findings.found
    return {
        "schema": SCHEMA,
        "verdict": "good" if all(finding.good for finding in found) else "bad",
        "possible": findings.possible,
        "tried": len(found),
        "reached": sum(finding.good and finding.answered is not None for finding in found),
        "isolated": sum(finding.good and finding.answered is None for finding in found),
        "problems": [
            {
                "source": finding.probe.source,
                "destination": finding.probe.destination,
                "address": show_address(finding.probe.address),
                "expected": finding.probe.expected,
                "answered": finding.answered,
                "policy": finding.probe.why,
            }
            for finding in sorted(found, key=lambda each: (each.probe.source, each.probe.destination))
            if not finding.good
        ],
    }


class _Sockets:
    """Datagram sockets in other namespaces, driven by the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answering: list[socket.socket] = []

    def __enter__(self) -> _Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._answering:
            self._loop.remove_reader(sock)
            sock.close()

    async def answer(self, name: str, pid: int, length: int, port: int) -> None:
        """Answer datagrams with a name: the question (some bytes), then the name."""
        sock = await _open(pid, length)
        self._answering.append(sock)
        sock.bind(("" if length == 4 else "::", port))
        self._loop.add_reader(sock, _reply, sock, name.encode())

    async def ask(self, pid: int, address: Address, port: int, patience: float) -> str | None:
        """The name that answers; None if nobody does."""
        question = os.urandom(8)
        with await _open(pid, len(address)) as sock, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while True:
                    try:
                        await self._loop.sock_connect(sock, (show_address(address), port))
                        await self._loop.sock_sendall(sock, question)
                        async with asyncio.timeout(SILENCE):
                            answer = await self._loop.sock_recv(sock, 2048)
                            return answer.removeprefix(question).decode(errors="replace")
                    except TimeoutError:
                        continue
                    except OSError:  # whoever refuses it may say so, and may think better of it
                        await asyncio.sleep(_PAUSE)
        return None


def _reply(sock: socket.socket, name: bytes) -> None:
    with contextlib.suppress(OSError):  # whoever has asked asks again
        question, sender = sock.recvfrom(2048)
        sock.sendto(question + name, sender)


async def _open(pid: int, length: int) -> socket.socket:
    """A datagram socket that belongs to the namespace of a process. `length`: of its addresses."""
    family = socket.AF_INET if length == 4 else socket.AF_INET6
    sock = await open_socket(f"/proc/{pid}/ns/net", lambda: socket.socket(family, socket.SOCK_DGRAM))
    sock.setblocking(False)
    if length == 16:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock
