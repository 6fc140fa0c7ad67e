"""The mappings of a gateway: which external port stands for which port of an endpoint. No I/O; time is a parameter.

NAT as the RFCs want it (RFC 4787 for UDP, 5382 for TCP, 5508 for ICMP, 7857 for what was amended):

* A mapping is endpoint-independent: an endpoint's (protocol, port) has one external port, whomever it talks to
  (RFC 4787 REQ-1). An external port stands for one of them (REQ-3: no overloading).
* Filtering is by peer, address and port: a packet from outside passes only if the endpoint has sent to where it is
  from.
* A mapping lives as long as one of its peers is remembered, and a peer outlives the connection with it: see
  `lifetime`.

What must survive a restart is told to `record`, and `restore` takes it back. Lifetimes are not among it: a restart
counts as use, so no clock needs to be the same before and after it, and none can end a mapping too early by being set.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from .keys import KEY_FIRST, KEY_LAST, SEARCH_LIMIT, Exhausted
from .model import Address, End, Protocol, show_address

TCP_SECONDS = 7440.0
"""2 hours 4 minutes: just longer than the keep-alives of an idle connection (RFC 5382 REQ-5)."""
TCP_TRANSITORY_SECONDS = 240.0
"""Of a connection that nobody has answered, or that is closed: 4 minutes (RFC 5382 REQ-5)."""
UDP_SECONDS = 300.0
"""RFC 4787 REQ-5: 2 minutes at least, 5 recommended."""
ICMP_SECONDS = 60.0
"""RFC 5508 REQ-2."""

TRANSLATED = frozenset((Protocol.TCP, Protocol.UDP, Protocol.ICMP, Protocol.ICMPV6))
"""What has a port, or an identifier in its place, by which an answer finds its endpoint."""

MAPPINGS_PER_ENDPOINT = (KEY_LAST - KEY_FIRST + 1) // 4
"""External ports of one protocol that one endpoint may have."""
PEERS_PER_ENDPOINT = 16384
"""Peers, over all its mappings, that are remembered for one endpoint."""
PEERS_PER_GATEWAY = 65536
"""Peers that a gateway remembers: with them its memory and its journal are bounded."""


def lifetime(protocol: int, established: bool) -> float:
    """Seconds for which a peer is remembered after the last packet.

    `established`: whether packets have gone both ways, and none has ended the connection.
    """
    if protocol == Protocol.TCP:
        return TCP_SECONDS if established else TCP_TRANSITORY_SECONDS
    return UDP_SECONDS if protocol == Protocol.UDP else ICMP_SECONDS


class Inside(Struct, frozen=True):
    """What is mapped: an endpoint's port, or the identifier of its echoes."""

    tenant: str
    address: Address
    protocol: int
    port: int


@dataclass(slots=True, eq=False)
class Mapping:
    """An external port, for as long as it stands for an endpoint's."""

    inside: Inside
    port: int
    """The external one."""
    peers: dict[End, float] = field(default_factory=dict)
    """Who may answer, and until when: infinite while a connection with it is held."""
    established: set[End] = field(default_factory=set)
    """Those of them with whom packets have gone both ways."""


class Opened(Struct, frozen=True, tag="opened"):
    """An endpoint talks to a peer through an external port."""

    inside: Inside
    port: int
    peer: End


class Closed(Struct, frozen=True, tag="closed"):
    """A peer is not remembered any more; with the last one its mapping ends."""

    protocol: int
    port: int
    peer: End


Change = Opened | Closed
"""What must survive a restart."""


class Mappings:
    """Those of one external address."""

    def __init__(
        self,
        record: Callable[[Change], None],
        *,
        first: int = KEY_FIRST,
        last: int = KEY_LAST,
        per_endpoint: int = MAPPINGS_PER_ENDPOINT,
        peers_per_endpoint: int = PEERS_PER_ENDPOINT,
        peers: int = PEERS_PER_GATEWAY,
        rng: random.Random | None = None,
    ) -> None:
        """`record` is told of every change that must survive a restart.

        `rng` chooses ports such that an outsider cannot guess them (RFC 6056), unless a test needs to.
        """
        self._record = record
        self._first, self._last = first, last
        self._per_endpoint, self._peers_per_endpoint, self._peers = per_endpoint, peers_per_endpoint, peers
        self._rng = rng or random.SystemRandom()
        self._by_inside: dict[Inside, Mapping] = {}
        self._by_port: dict[tuple[int, int], Mapping] = {}
        self._resting: dict[tuple[int, int], float] = {}
        """Ports whose endpoint has gone: until when they are nobody's."""
        self._services: frozenset[tuple[int, int]] = frozenset()
        self._mapped: Counter[tuple[str, Address, int]] = Counter()
        """Mappings by endpoint and protocol."""
        self._remembered: Counter[tuple[str, Address]] = Counter()
        """Peers by endpoint."""
        self._peer_count = 0
        self._agenda: list[tuple[float, int, Mapping, End]] = []
        self._serial = 0

    def __len__(self) -> int:
        """How many mappings there are."""
        return len(self._by_inside)

    def __iter__(self) -> Iterator[Mapping]:
        """All of them, as they are now."""
        return iter(list(self._by_inside.values()))

    @property
    def peers(self) -> int:
        """How many peers are remembered."""
        return self._peer_count

    def find(self, inside: Inside) -> Mapping | None:
        """The mapping of an endpoint's port."""
        return self._by_inside.get(inside)

    def has(self, tenant: str, address: Address) -> bool:
        """Whether an endpoint has mappings."""
        return (tenant, address) in self._remembered

    def of_endpoint(self, tenant: str, address: Address) -> list[Mapping]:
        """All mappings of an endpoint. Looks at all that there are."""
        return [each for each in self if (each.inside.tenant, each.inside.address) == (tenant, address)]

    def admit(self, protocol: int, port: int, peer: End) -> Mapping | None:
        """The mapping through which a packet that comes from `peer` to an external port passes; None if none does."""
        mapping = self._by_port.get((protocol, port))
        return mapping if mapping is not None and peer in mapping.peers else None

    def open(self, inside: Inside, peer: End) -> Mapping:
        """A connection of an endpoint with a peer begins, or goes on: the mapping for it, which from now on is in use.

        Raises Exhausted if the endpoint or the gateway has no room. Call `leave` when the connection is idle.
        """
        mapping = self._by_inside.get(inside)
        if mapping is None or peer not in mapping.peers:
            self._check_room(inside)
        if mapping is None:
            mapping = Mapping(inside, self._pick(inside))
            self._hold(mapping)
        self._remember(mapping, peer, math.inf)
        return mapping

    def leave(self, mapping: Mapping, peer: End, now: float, answered: bool) -> None:
        """A connection is held no more: remember the peer for its lifetime. `now`: seconds, monotonic.

        `answered`: whether packets have gone both ways since `open`.
        """
        if peer in mapping.peers:
            if answered:
                mapping.established.add(peer)
            self._expect(mapping, peer, now + lifetime(mapping.inside.protocol, peer in mapping.established))

    def end(self, tenant: str, address: Address, now: float) -> list[Mapping]:
        """An endpoint is no more, and neither are its mappings, which are returned.

        Their ports rest, so that a straggler of its peers finds nobody.
        """
        ended = self.of_endpoint(tenant, address)
        for mapping in ended:
            for peer in list(mapping.peers):
                self._forget(mapping, peer)
            self._resting[mapping.inside.protocol, mapping.port] = now + TCP_TRANSITORY_SECONDS
        return ended

    def expire(self, now: float) -> None:
        """Forget the peers whose time has come, and the mappings that have none left."""
        while self._agenda and self._agenda[0][0] <= now:
            until, _, mapping, peer = heapq.heappop(self._agenda)
            if mapping.peers.get(peer) == until:
                self._forget(mapping, peer)
        self._resting = {port: until for port, until in self._resting.items() if until > now}

    def reserve(self, services: Collection[tuple[int, int]]) -> None:
        """These (protocol, port) are those of published services: no new mapping gets one of them."""
        self._services = frozenset(services)

    def in_use(self, protocol: int, port: int) -> bool:
        """Whether a port stands, or stood so recently that its peers may not know, for an endpoint's."""
        return (protocol, port) in self._by_port or (protocol, port) in self._resting

    def changes(self) -> Iterator[Change]:
        """What `restore` needs to make the same mappings."""
        for mapping in self:
            for peer in mapping.peers:
                yield Opened(mapping.inside, mapping.port, peer)

    def restore(self, changes: Iterable[Change], now: float) -> int:
        """Take back what was recorded, each peer with its full lifetime. Returns how many changes made no sense."""
        left_out = 0
        for change in changes:
            match change:
                case Opened(inside, port, peer):
                    mapping = self._by_inside.get(inside) or Mapping(inside, port)
                    other = self._by_port.get((inside.protocol, port))
                    if mapping.port != port or other not in (None, mapping) or not self._first <= port <= self._last:
                        left_out += 1
                        continue
                    self._hold(mapping)
                    self._remember(mapping, peer, math.inf, record=False)
                case Closed(protocol, port, peer):
                    known = self._by_port.get((protocol, port))
                    if known is None or peer not in known.peers:
                        left_out += 1
                        continue
                    self._forget(known, peer, record=False)
        for mapping in self:
            for peer in mapping.peers:
                self.leave(mapping, peer, now, answered=True)
        return left_out

    def _check_room(self, inside: Inside) -> None:
        whose = f"endpoint {show_address(inside.address)} of tenant {inside.tenant}"
        if self._remembered[inside.tenant, inside.address] >= self._peers_per_endpoint:
            raise Exhausted(f"{whose} has talked to {self._peers_per_endpoint} peers outside, as many as it may")
        if self._peer_count >= self._peers:
            raise Exhausted(f"the gateway remembers {self._peers} peers outside, as many as it can")

    def _pick(self, inside: Inside) -> int:
        """An external port: the endpoint's own if possible, else one of the same parity (RFC 4787 REQ-4).

        Raises Exhausted after looking at SEARCH_LIMIT ports.
        """
        if self._mapped[inside.tenant, inside.address, inside.protocol] >= self._per_endpoint:
            whose = f"endpoint {show_address(inside.address)} of tenant {inside.tenant}"
            raise Exhausted(f"{whose} has {self._per_endpoint} external ports, as many as it may")
        if self._first <= inside.port <= self._last and self._free(inside.protocol, inside.port):
            return inside.port
        ports = range(self._first + (inside.port - self._first) % 2, self._last + 1, 2)
        start = self._rng.randrange(len(ports))
        for tried in range(min(SEARCH_LIMIT, len(ports))):
            port = ports[(start + tried) % len(ports)]
            if self._free(inside.protocol, port):
                return port
        raise Exhausted(f"no free external port among {min(SEARCH_LIMIT, len(ports))} tried")

    def _free(self, protocol: int, port: int) -> bool:
        return not self.in_use(protocol, port) and (protocol, port) not in self._services

    def _hold(self, mapping: Mapping) -> None:
        inside = mapping.inside
        if inside not in self._by_inside:
            self._by_inside[inside] = self._by_port[inside.protocol, mapping.port] = mapping
            self._mapped[inside.tenant, inside.address, inside.protocol] += 1

    def _remember(self, mapping: Mapping, peer: End, until: float, record: bool = True) -> None:
        new = peer not in mapping.peers
        mapping.peers[peer] = until
        if new:
            self._peer_count += 1
            self._remembered[mapping.inside.tenant, mapping.inside.address] += 1
            if record:
                self._record(Opened(mapping.inside, mapping.port, peer))

    def _expect(self, mapping: Mapping, peer: End, until: float) -> None:
        mapping.peers[peer] = until
        self._serial += 1
        heapq.heappush(self._agenda, (until, self._serial, mapping, peer))

    def _forget(self, mapping: Mapping, peer: End, record: bool = True) -> None:
        inside = mapping.inside
        del mapping.peers[peer]
        mapping.established.discard(peer)
        self._peer_count -= 1
        _discount(self._remembered, (inside.tenant, inside.address))
        if not mapping.peers:
            del self._by_inside[inside], self._by_port[inside.protocol, mapping.port]
            _discount(self._mapped, (inside.tenant, inside.address, inside.protocol))
        if record:
            self._record(Closed(inside.protocol, mapping.port, peer))


def _discount(counts: Counter[Any], key: object) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
