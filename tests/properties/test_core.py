"""The invariants on the pure core: what joins two segments, whose keys are whose, who may talk to whom."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fuzz import wire
from nvi.formulation import Side, Told, endpoint_side, join, link_side, mark, pair_up, tag, untag
from nvi.keys import SEARCH_LIMIT, Exhausted, Keys, Pair, Path
from nvi.model import ConnectionId, End, Endpoint, FirstPacket, Flow, Network, Subnet, Tenant
from nvi.packets import MalformedPacket, echo_port, parse
from nvi.policy import judge
from nvi.switch import NO_MAC, PORT_UNDERLAY, ConnectionEntry, ConnectionKey, Drop, DropReason, Rewrite

NETWORKS = {
    name: Network(name, (Subnet(bytes([10, 0, n, 0]), 24, bytes([10, 0, n, 254])),)) for n, name in enumerate("abc")
}
TENANT = Tenant("t", NETWORKS)
HOSTS = [(bytes([172, 16, 0, n]), bytes([2, 0xAA, 0, 0, 0, n])) for n in range(1, 5)]
KEYS = st.integers(20000, 32767)
PORTS = st.integers(1, 0xFFFF)
TTLS = st.integers(2, 255)


@st.composite
def endpoints(draw: st.DrawFn, host: str = "h") -> Endpoint:
    network, number = draw(st.sampled_from(list(NETWORKS))), draw(st.integers(1, 200))
    address = NETWORKS[network].subnets[0].prefix[:3] + bytes([number])
    return Endpoint(f"{network}{number}", "t", network, b"\x02\0\0\0" + address[2:], (address,), host)


@st.composite
def flows(draw: st.DrawFn, one: Endpoint, other: Endpoint) -> Flow:
    """Packets of `one`, who opens a connection with `other`."""
    protocol, port = draw(st.sampled_from((6, 17, 1))), draw(PORTS)
    return Flow(one.address, other.address, protocol, port, echo_port(port) if protocol == 1 else draw(PORTS))


Symbolic = tuple[int, bytes, bytes, Flow, int]
"""A packet: (port, source MAC, destination MAC, 5-tuple, TTL)."""


def forward(entries: dict[ConnectionKey, ConnectionEntry], packet: Symbolic) -> Symbolic:
    """What a switch with these entries makes of a packet."""
    port, source_mac, _, flow, _ = packet
    mac = NO_MAC if port == PORT_UNDERLAY else source_mac
    action = entries[ConnectionKey(port, mac, flow)].action
    assert isinstance(action, Rewrite)
    return action.egress_port, action.ethernet_source, action.ethernet_destination, action.flow, action.ttl


@given(st.data(), TTLS)
def test_what_arrives_is_what_was_sent_there_and_back(data: st.DataObject, ttl: int) -> None:
    """Over two hosts and the segment between them, and on the segment nothing is seen of the overlay."""
    one, other = data.draw(endpoints()), data.draw(endpoints())
    assume(one.name != other.name)
    flow = data.draw(flows(one, other))
    (near, near_mac), (far, far_mac) = data.draw(st.permutations(HOSTS))[:2]
    hop, first = b"\x02\xbb\0\0\0\0", FirstPacket(ttl)
    segment = Flow(near, far, flow.protocol, data.draw(KEYS), data.draw(KEYS))
    here = join(
        endpoint_side(TENANT, one, 16, other, flow, first),
        link_side(PORT_UNDERLAY, segment, near_mac, hop, 1500, first),
        30.0,
        (1, 2),
    )
    back = segment.reversed()
    there = join(
        endpoint_side(TENANT, other, 17, one, flow.reversed(), first),
        link_side(PORT_UNDERLAY, back, far_mac, hop, 1500, first),
        30.0,
        (1, 2),
    )
    first, second = ({entry.key: entry for entry in entries} for entries in (here, there))
    assert len(first) == len(second) == 2
    for sender, receiver, port, into, outof, sent, way, mac in (
        (one, other, 17, first, second, flow, segment, near_mac),
        (other, one, 16, second, first, flow.reversed(), back, far_mac),
    ):
        routed = one.network != other.network
        start = 16 if sender is one else 17
        on_wire = forward(into, (start, sender.mac, receiver.mac, sent, ttl))
        assert on_wire == (PORT_UNDERLAY, mac, hop, way, 64)
        # Routers of the underlay change MACs and TTL.
        arrived = forward(outof, (PORT_UNDERLAY, hop, mac, way, 61))
        seen_mac = TENANT.gateway_mac(receiver.network) if routed else sender.mac
        assert arrived == (port, seen_mac, receiver.mac, sent, ttl - routed)


@given(st.data(), TTLS)
def test_on_one_host_no_segment_lies_between(data: st.DataObject, ttl: int) -> None:
    one, other = data.draw(endpoints()), data.draw(endpoints())
    assume(one.name != other.name)
    flow, first = data.draw(flows(one, other)), FirstPacket(ttl)
    back = flow.reversed()
    sides = endpoint_side(TENANT, one, 16, other, flow, first), endpoint_side(TENANT, other, 17, one, back, first)
    entries = {entry.key: entry for entry in join(*sides, 30.0, (1, 2))}
    routed = one.network != other.network
    shown = [TENANT.gateway_mac(each.network) if routed else peer.mac for each, peer in ((other, one), (one, other))]
    assert forward(entries, (16, one.mac, b"", flow, 9)) == (17, shown[0], other.mac, flow, ttl - routed)
    assert forward(entries, (17, other.mac, b"", back, 9)) == (16, shown[1], one.mac, back, ttl - routed)


@st.composite
def joined(draw: st.DrawFn) -> list[tuple[ConnectionEntry, ConnectionEntry]]:
    """What one host may hold: some connections, each with a pair of keys of its own."""
    segments = draw(st.lists(st.tuples(st.sampled_from(HOSTS[1:]), KEYS, KEYS), unique=True, max_size=6))
    pairs, taken = [], set()
    for (peer, mac), mine, theirs in segments:
        one, other = draw(endpoints()), draw(endpoints("elsewhere"))
        flow = draw(flows(one, other))
        port = draw(st.integers(16, 20))
        if one.name == other.name or {(port, flow), (port, flow.reversed())} & taken:
            continue
        taken.add((port, flow))
        side = endpoint_side(TENANT, one, port, other, flow, FirstPacket(64))
        out = Flow(HOSTS[0][0], peer, flow.protocol, mine, theirs)
        tags = tag(True, 64, "red", "h2"), tag(False, 64, "red", "h2")
        pairs.append(join(side, link_side(PORT_UNDERLAY, out, HOSTS[0][1], mac, 1500, FirstPacket(64)), 30.0, tags))
    return pairs


@given(joined())
def test_the_entries_of_a_hosts_connections_never_share_a_key(
    pairs: list[tuple[ConnectionEntry, ConnectionEntry]],
) -> None:
    keys = [entry.key for pair in pairs for entry in pair]
    assert len(keys) == len(set(keys))
    for out, back in pairs:
        assert isinstance(out.action, Rewrite) and isinstance(back.action, Rewrite)
        # Whatever is on the underlay is the segment's own, on the way out and on the way in.
        for flow in (out.action.flow, back.key.flow.reversed()):
            assert flow.source == HOSTS[0][0]
            assert flow.destination in {address for address, _ in HOSTS[1:]}
            assert 20000 <= flow.l4_source <= 32767 and 20000 <= flow.l4_destination <= 32767


@given(joined(), st.data())
def test_pair_up_finds_exactly_the_pairs_that_were_joined(
    pairs: list[tuple[ConnectionEntry, ConnectionEntry]], data: st.DataObject
) -> None:
    widowed = data.draw(st.lists(st.sampled_from(pairs), unique_by=id) if pairs else st.just([]))
    whole = [pair for pair in pairs if not any(pair is each for each in widowed)]
    lone = [pair[data.draw(st.integers(0, 1))] for pair in widowed]
    drop = ConnectionEntry(ConnectionKey(16, NO_MAC, Flow(b"", b"", 6, 1, 1)), Drop(DropReason.DENIED))
    shuffled = data.draw(st.permutations([*[entry for pair in whole for entry in pair], *lone, drop]))
    found, orphans = pair_up(shuffled)
    assert sorted(map(repr, found)) == sorted(map(repr, whole)), "the endpoint's side comes first"
    assert sorted(map(repr, orphans)) == sorted(map(repr, [*lone, drop]))


@given(st.data())
def test_entries_that_lead_elsewhere_are_no_pair(data: st.DataObject) -> None:
    """Two entries one of which leads to the other, but not back."""
    side, _ = Side(16, b"\x02" * 6, Flow(b"a", b"b", 6, 1, 2), b"\x04" * 6, b"\x02" * 6, FirstPacket(64)), None
    out = Flow(HOSTS[0][0], HOSTS[1][0], 6, 20000, 20001)
    one, other = join(
        side, link_side(PORT_UNDERLAY, out, b"\x06" * 6, b"\x08" * 6, 1500, FirstPacket(64)), 30.0, (0, 0)
    )
    assert isinstance(other.action, Rewrite)
    port = data.draw(st.integers(17, 30))
    flow = Flow(b"a", b"b", 6, data.draw(PORTS), 3)
    change = data.draw(st.sampled_from(({"egress_port": port}, {"flow": flow})))
    fields = {name: getattr(other.action, name) for name in other.action.__struct_fields__} | change
    both = data.draw(st.permutations([one, ConnectionEntry(other.key, Rewrite(**fields))]))
    assert pair_up(both) == ([], both)


@given(st.booleans(), st.integers(0, 255))
def test_a_tag_says_what_a_restarted_agent_needs(from_initiator: bool, ttl: int) -> None:
    told = tag(from_initiator, ttl, "red", "h1")
    assert told < 1 << 64
    assert untag(told, "red") == Told(from_initiator, ttl, mark("h1"))
    assert mark("h1") != mark("h2")
    assert untag(told, "blue") is None


@given(st.data())
def test_a_connection_is_the_same_from_both_ends(data: st.DataObject) -> None:
    one, other = data.draw(endpoints()), data.draw(endpoints())
    flow = data.draw(flows(one, other))
    identity = ConnectionId.of("t", flow)
    assert identity == ConnectionId.of("t", flow.reversed())
    assert identity != ConnectionId.of("u", flow)
    if flow != flow.reversed():
        assert identity.flow_from(End(flow.source, flow.l4_source)) == flow
        assert identity.flow_from(End(flow.destination, flow.l4_destination)) == flow.reversed()


# ---- policy ---------------------------------------------------------------------------------------------------------

GROUPS = st.dictionaries(
    st.sampled_from("gh"), st.lists(st.sampled_from(("a", "b", "c", "a1", "b1", "c1")), max_size=4).map(tuple)
)


@given(st.data(), GROUPS, st.sampled_from("tu"), st.sampled_from("tu"), st.sampled_from("tu"))
def test_policy_never_crosses_tenants_and_needs_a_common_network_or_group(
    data: st.DataObject, groups: dict[str, tuple[str, ...]], whose: str, first: str, second: str
) -> None:
    ends = []
    for owner in (first, second):
        network = data.draw(st.sampled_from("abc"))
        name = network + data.draw(st.sampled_from("12"))
        ends.append(Endpoint(name, owner, network, bytes(6), (bytes(4),), "h"))
    one, other = ends
    verdict = judge(Tenant(whose, NETWORKS, groups), one, other, 6, 80)
    assert verdict.rule
    common = any({one.name, one.network} & set(m) and {other.name, other.network} & set(m) for m in groups.values())
    assert verdict.allowed == (whose == first == second and (one.network == other.network or common))


# ---- keys -----------------------------------------------------------------------------------------------------------

PATHS = [
    Path(PORT_UNDERLAY, b"\n\0\0\1", peer, protocol) for peer in (b"\n\0\0\2", b"\n\0\0\3") for protocol in (6, 17)
]


class KeysMachine(RuleBasedStateMachine):
    """A host takes, gives back and resumes pairs; a model knows whose each is, and until when it rests."""

    used = Bundle("used")

    def __init__(self) -> None:
        super().__init__()
        self.keys = Keys(60.0, first=20000, last=20002)
        self.now = 0.0
        self.busy: set[Pair] = set()
        self.resting: dict[Pair, float] = {}

    def accepted(self, pair: Pair) -> Pair:
        assert pair not in self.busy, "one pair for two connections"
        self.busy.add(pair)
        return pair

    @rule(target=used, path=st.sampled_from(PATHS), peer=st.integers(20000, 20002))
    def answer_an_offer(self, path, peer):
        taken = {pair.local for pair in self.busy | self.resting.keys() if (pair.path, pair.peer) == (path, peer)}
        try:
            pair = Pair(path, self.keys.pick(path, peer), peer)
        except Exhausted:
            assert len(taken) == 3, "refused though there is room"
            return None
        assert pair not in self.resting, "still in quarantine"
        assert self.keys.take(pair)
        return self.accepted(pair)

    @rule(path=st.sampled_from(PATHS), local=st.integers(20000, 20002), peer=st.integers(20000, 20002))
    def take(self, path, local, peer):
        pair = Pair(path, local, peer)
        free = pair not in self.busy and pair not in self.resting
        assert self.keys.take(pair) == free
        if free:
            self.accepted(pair)
            self.give_back(pair, True)

    @rule(pair=consumes(used), acknowledged=st.booleans())
    def give_back(self, pair, acknowledged):
        if pair is None:
            return
        self.busy.discard(pair)
        if acknowledged:
            self.keys.free(pair)
            self.resting.pop(pair, None)
        else:
            self.keys.rest(pair, self.now)
            self.resting[pair] = self.now + 60.0

    @rule(data=st.data())
    def the_peer_lets_go_at_last(self, data):
        if self.resting:
            pair = data.draw(st.sampled_from(list(self.resting)))
            del self.resting[pair]
            self.keys.free(pair)

    @rule(target=used, data=st.data())
    def the_peer_uses_it_still(self, data):
        pairs = sorted(self.resting.keys() | self.busy, key=repr)
        if not pairs:
            return None
        pair = data.draw(st.sampled_from(pairs))
        assert self.keys.resume(pair) == (pair in self.resting)
        if self.resting.pop(pair, None) is None:
            return None
        return self.accepted(pair)

    @rule(seconds=st.sampled_from((1.0, 20.0, 59.0, 61.0)))
    def wait(self, seconds):
        self.now += seconds
        self.keys.wake(self.now)
        self.resting = {pair: until for pair, until in self.resting.items() if until > self.now}

    @invariant()
    def as_many_as_there_are(self):
        assert len(self.keys) == len(self.busy) + len(self.resting)
        assert not any(self.keys.take(pair) for pair in self.busy | self.resting.keys())


TestKeys = KeysMachine.TestCase
TestKeys.settings = settings(settings.default, stateful_step_count=30)


@given(st.integers(0, 1 << 30))
def test_a_search_finds_what_is_free_wherever_it_begins(start: int) -> None:
    keys = Keys(60.0, first=20000, last=20000 + SEARCH_LIMIT - 1, start=start)
    free = 20000 + start % SEARCH_LIMIT
    for key in range(20000, 20000 + SEARCH_LIMIT):
        if key != free:
            keys.take(Pair(PATHS[0], key, 25000))
    assert keys.pick(PATHS[0], 25000) == free
    keys.take(Pair(PATHS[0], free, 25000))
    with pytest.raises(Exhausted):
        keys.pick(PATHS[0], 25000)


# ---- packets --------------------------------------------------------------------------------------------------------


@given(st.sampled_from((6, 17, 1)), PORTS, PORTS, st.integers(0, 99), st.lists(st.tuples(st.integers(0, 99), PORTS)))
def test_parsing_reads_what_was_built_and_survives_what_was_broken(
    protocol: int, source: int, destination: int, cut: int, changes: list[tuple[int, int]]
) -> None:
    kind = 8 if protocol == 1 else 0x12
    ports = wire.Ports(protocol, source, destination)
    frame = wire.frame((b"s" * 6, b"d" * 6), (b"src1", b"dst2"), ports, kind, b"payload")
    packet = parse(frame)
    expected = Flow(b"src1", b"dst2", protocol, source, echo_port(source) if protocol == 1 else destination)
    assert (packet.source_mac, packet.destination_mac, packet.flow, packet.ttl) == (b"s" * 6, b"d" * 6, expected, 64)
    assert packet.opens == (protocol != 6)
    broken = bytearray(frame)
    for at, change in changes:
        broken[at % len(broken)] ^= change & 0xFF
    try:
        parse(bytes(broken[: len(broken) - cut]))
    except MalformedPacket:
        return
    assert wire.ones_sum(bytes(broken[14:34])) == 0, "a broken IP header was believed"
