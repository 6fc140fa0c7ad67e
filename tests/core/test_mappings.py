"""External ports: one for each port of an endpoint, whomever it talks to; never two owners, never reused too early."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nvi.keys import KEY_FIRST, KEY_LAST, SEARCH_LIMIT, Exhausted
from nvi.mappings import (
    ICMP_SECONDS,
    TCP_SECONDS,
    TCP_TRANSITORY_SECONDS,
    UDP_SECONDS,
    Change,
    Closed,
    Inside,
    Mappings,
    Opened,
    lifetime,
)
from nvi.model import End, Protocol

WEB1 = b"\x0a\x00\x01\x01"
WEB2 = b"\x0a\x00\x01\x02"
PEER = End(b"\xcb\x00\x71\x07", 80)
OTHER_PEER = End(b"\xcb\x00\x71\x08", 443)


def tcp(port: int, address: bytes = WEB1, tenant: str = "acme") -> Inside:
    return Inside(tenant, address, Protocol.TCP, port)


def made(**options: int) -> tuple[Mappings, list[Change]]:
    changes: list[Change] = []
    return Mappings(changes.append, rng=random.Random(1), **options), changes  # type: ignore[arg-type]


def test_the_external_port_does_not_depend_on_the_peer():
    """RFC 4787 REQ-1, RFC 5382 REQ-1. Defect 6 of the original: several ports for one connection."""
    mappings, _ = made()
    first = mappings.open(tcp(40001), PEER)
    assert mappings.open(tcp(40001), OTHER_PEER) is first
    assert mappings.open(tcp(40001), PEER) is first
    assert len(mappings) == 1


def test_an_external_port_is_of_one_endpoint_and_protocol():
    mappings, _ = made()
    insides = [tcp(40001), tcp(40001, WEB2), tcp(40001, tenant="globex"), tcp(40002)]
    ports = {mappings.open(inside, PEER).port for inside in insides}
    assert len(ports) == len(insides)
    udp = Inside("acme", WEB1, Protocol.UDP, 40001)
    assert mappings.open(udp, PEER) is not mappings.find(tcp(40001))


def test_a_packet_passes_only_from_a_peer_that_the_endpoint_has_sent_to():
    mappings, _ = made()
    mapping = mappings.open(tcp(40001), PEER)
    assert mappings.admit(Protocol.TCP, mapping.port, PEER) is mapping
    for stranger in (OTHER_PEER, End(PEER.address, 81), End(OTHER_PEER.address, PEER.port)):
        assert mappings.admit(Protocol.TCP, mapping.port, stranger) is None
    assert mappings.admit(Protocol.UDP, mapping.port, PEER) is None


def test_a_port_in_the_range_is_preserved_and_parity_always():
    """RFC 4787 REQ-4."""
    mappings, _ = made()
    assert mappings.open(tcp(25000), PEER).port == 25000
    assert mappings.open(tcp(25000, WEB2), PEER).port != 25000
    for port in (1, 2, 1023, 40001, 40002, 25000, 65535):
        mapped = mappings.open(tcp(port, tenant="globex"), PEER).port
        assert mapped % 2 == port % 2
        assert KEY_FIRST <= mapped <= KEY_LAST


@pytest.mark.parametrize(
    ("protocol", "established", "seconds"),
    [
        (Protocol.TCP, True, TCP_SECONDS),
        (Protocol.TCP, False, TCP_TRANSITORY_SECONDS),
        (Protocol.UDP, True, UDP_SECONDS),
        (Protocol.UDP, False, UDP_SECONDS),
        (Protocol.ICMP, True, ICMP_SECONDS),
        (Protocol.ICMPV6, True, ICMP_SECONDS),
    ],
)
def test_a_mapping_outlives_its_connection_by_what_the_rfcs_say(protocol, established, seconds):
    mappings, _ = made()
    inside = Inside("acme", WEB1, protocol, 40001)
    mapping = mappings.open(inside, PEER)
    mappings.expire(1e9)
    assert mappings.find(inside) is mapping, "a connection is held, however long"
    mappings.leave(mapping, PEER, 1000.0, established)
    mappings.expire(1000.0 + seconds - 1)
    assert mappings.admit(protocol, mapping.port, PEER) is mapping
    mappings.expire(1000.0 + seconds)
    assert mappings.find(inside) is None
    assert mappings.admit(protocol, mapping.port, PEER) is None
    assert not mappings.in_use(protocol, mapping.port)


def test_a_connection_that_was_answered_once_stays_established():
    mappings, _ = made()
    mapping = mappings.open(tcp(40001), PEER)
    mappings.leave(mapping, PEER, 0.0, answered=True)
    mappings.open(tcp(40001), PEER)
    mappings.leave(mapping, PEER, 100.0, answered=False)
    mappings.expire(99.0 + TCP_SECONDS)
    assert mappings.find(tcp(40001)) is mapping


def test_a_mapping_lives_while_one_of_its_peers_is_remembered():
    mappings, _ = made()
    mapping = mappings.open(tcp(40001), PEER)
    mappings.open(tcp(40001), OTHER_PEER)
    mappings.leave(mapping, PEER, 0.0, answered=False)
    mappings.expire(TCP_TRANSITORY_SECONDS)
    assert mappings.find(tcp(40001)) is mapping
    assert mappings.admit(Protocol.TCP, mapping.port, PEER) is None
    assert mappings.admit(Protocol.TCP, mapping.port, OTHER_PEER) is mapping


def test_a_connection_that_goes_on_is_not_forgotten_by_an_earlier_leave():
    mappings, _ = made()
    mapping = mappings.open(tcp(40001), PEER)
    mappings.leave(mapping, PEER, 0.0, answered=False)
    mappings.open(tcp(40001), PEER)
    mappings.expire(1e9)
    assert mappings.find(tcp(40001)) is mapping


def test_quotas_are_refusals_with_a_reason_and_take_nothing():
    mappings, changes = made(per_endpoint=2, peers_per_endpoint=3, peers=4)
    mappings.open(tcp(1), PEER)
    mappings.open(tcp(2), PEER)
    with pytest.raises(Exhausted, match=r"endpoint 10\.0\.1\.1 of tenant acme has 2 external ports"):
        mappings.open(tcp(3), PEER)
    mappings.open(tcp(1), OTHER_PEER)
    with pytest.raises(Exhausted, match="has talked to 3 peers"):
        mappings.open(tcp(2), OTHER_PEER)
    mappings.open(tcp(1, WEB2), PEER)
    with pytest.raises(Exhausted, match="the gateway remembers 4 peers"):
        mappings.open(tcp(2, WEB2), PEER)
    assert (len(mappings), mappings.peers, len(changes)) == (3, 4, 4)
    assert mappings.open(tcp(1), PEER).port, "what is remembered goes on at 100 %"


def test_when_all_ports_are_taken_nobody_loses_one():
    """Defect 3 of the original: a search without an end."""
    mappings, _ = made(first=20000, last=20009)
    for port in range(0, 20, 2):
        address = bytes([10, 0, 0, port])
        if port < 10:
            mappings.open(tcp(port, address), PEER)
        else:
            with pytest.raises(Exhausted, match="no free external port among 5 tried"):
                mappings.open(tcp(port, address), PEER)
    assert len(mappings) == 5


def test_a_search_looks_at_a_bounded_number_of_ports():
    mappings, _ = made(per_endpoint=100_000)
    for port in range(KEY_FIRST, KEY_LAST + 1, 2):
        mappings.open(tcp(port), PEER)
    looked_at = 0
    free = mappings._free

    def counting(protocol: int, port: int) -> bool:
        nonlocal looked_at
        looked_at += 1
        return free(protocol, port)

    mappings._free = counting  # type: ignore[method-assign]
    with pytest.raises(Exhausted):
        mappings.open(tcp(2, WEB2), PEER)
    assert looked_at <= SEARCH_LIMIT


def test_defect_08_a_published_port_is_never_a_mapping():
    mappings, _ = made(first=20000, last=20003)
    mappings.reserve([(Protocol.TCP, 20000), (Protocol.UDP, 20002)])
    assert mappings.open(tcp(20000), PEER).port == 20002
    with pytest.raises(Exhausted):
        mappings.open(tcp(2), PEER)
    assert mappings.open(Inside("acme", WEB1, Protocol.UDP, 20000), PEER).port == 20000


def test_ports_of_an_endpoint_that_has_gone_rest():
    mappings, changes = made(first=20000, last=20001)
    mapping = mappings.open(tcp(20000), PEER)
    assert mappings.end("acme", WEB1, now=100.0) == [mapping]
    assert mappings.admit(Protocol.TCP, 20000, PEER) is None
    assert changes[-1] == Closed(Protocol.TCP, 20000, PEER)
    with pytest.raises(Exhausted):
        mappings.open(tcp(20000, WEB2), PEER)
    mappings.expire(100.0 + TCP_TRANSITORY_SECONDS)
    assert mappings.open(tcp(20000, WEB2), PEER).port == 20000


def test_what_makes_no_sense_is_not_restored():
    mappings, _ = made()
    one, other = tcp(1), tcp(2)
    left_out = mappings.restore(
        [
            Opened(one, 20001, PEER),
            Opened(other, 20001, PEER),  # another's port
            Opened(one, 20003, PEER),  # a second port
            Opened(other, 80, PEER),  # no port for a mapping
            Closed(Protocol.TCP, 20005, PEER),  # never opened
        ],
        now=5.0,
    )
    assert left_out == 4
    assert list(mappings.changes()) == [Opened(one, 20001, PEER)]


PORTS = st.sampled_from([tcp(port, address) for port in (1, 2, 20001, 20004) for address in (WEB1, WEB2)])
PEERS = st.sampled_from([PEER, OTHER_PEER, End(PEER.address, 81)])


class AgainstAModel(RuleBasedStateMachine):
    """The model: for each (inside, peer) until when it is remembered, and for each inside its port."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.journal: list[Change] = []
        self.mappings = self.fresh()
        self.until: dict[tuple[Inside, End], float] = {}
        self.established: set[tuple[Inside, End]] = set()
        self.ports: dict[Inside, int] = {}
        self.resting: dict[int, float] = {}

    def fresh(self) -> Mappings:
        return Mappings(
            self.journal.append, first=20000, last=20007, per_endpoint=3, peers=9, rng=random.Random(self.now)
        )

    @rule(inside=PORTS, peer=PEERS)
    def open(self, inside: Inside, peer: End) -> None:
        try:
            mapping = self.mappings.open(inside, peer)
        except Exhausted:
            assert (inside, peer) not in self.until, "what is remembered has room"
            return
        assert self.ports.setdefault(inside, mapping.port) == mapping.port
        self.until[inside, peer] = math.inf

    @rule(inside=PORTS, peer=PEERS, established=st.booleans())
    def leave(self, inside: Inside, peer: End, established: bool) -> None:
        mapping = self.mappings.find(inside)
        if mapping is not None:
            self.mappings.leave(mapping, peer, self.now, established)
            if (inside, peer) in self.until:
                if established:
                    self.established.add((inside, peer))
                self.until[inside, peer] = self.now + lifetime(inside.protocol, (inside, peer) in self.established)

    @rule(seconds=st.floats(0, 8000))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.mappings.expire(self.now)
        self.until = {key: until for key, until in self.until.items() if until > self.now}
        self.resting = {port: until for port, until in self.resting.items() if until > self.now}
        self._forget_ports()

    @rule(address=st.sampled_from([WEB1, WEB2]))
    def end(self, address: bytes) -> None:
        self.mappings.end("acme", address, self.now)
        self.until = {(inside, peer): at for (inside, peer), at in self.until.items() if inside.address != address}
        for inside, port in self.ports.items():
            if inside.address == address:
                self.resting[port] = self.now + TCP_TRANSITORY_SECONDS
        self._forget_ports()

    @precondition(lambda self: self.journal)
    @rule()
    def restart(self) -> None:
        """The agent dies; the next one has the journal."""
        journal, self.journal = self.journal, []
        self.mappings = self.fresh()
        assert self.mappings.restore(journal, self.now) == 0
        self.journal.extend(self.mappings.changes())
        self.until = dict.fromkeys(self.until, self.now + TCP_SECONDS)
        self.established = set(self.until)
        self.resting = {}

    def _forget_ports(self) -> None:
        alive = {inside for inside, _ in self.until}
        self.ports = {inside: port for inside, port in self.ports.items() if inside in alive}
        self.established &= set(self.until)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        there = {(mapping.inside, peer): until for mapping in self.mappings for peer, until in mapping.peers.items()}
        assert there == self.until
        assert {mapping.inside: mapping.port for mapping in self.mappings} == self.ports
        assert self.mappings.peers == len(self.until) <= 9

    @invariant()
    def no_port_has_two_owners(self) -> None:
        ports = list(self.ports.values())
        assert len(ports) == len(set(ports))
        assert not set(ports) & set(self.resting)

    @invariant()
    def passes_only_who_was_asked(self) -> None:
        for port in range(20000, 20008):
            for peer in (PEER, OTHER_PEER, End(PEER.address, 81)):
                owner = next((inside for inside, mapped in self.ports.items() if mapped == port), None)
                admitted = self.mappings.admit(Protocol.TCP, port, peer)
                expected = owner if (owner, peer) in self.until else None
                assert (admitted.inside if admitted is not None else None) == expected


AgainstAModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAgainstAModel = AgainstAModel.TestCase
