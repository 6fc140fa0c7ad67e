"""Whatever happens to a farm, the invariants of section 8 of the design hold: what arrives, where, and what is left."""

from __future__ import annotations

from contextlib import suppress
from itertools import permutations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fuzz import wire
from fuzz.wire import ICMP, TCP, UDP, Ports
from nvi.model import Endpoint, Rule, Tenant, pair_of
from properties.world import NETWORKS, TENANTS, Conversation, World

pytestmark = pytest.mark.timeout(900)
"""A thousand farms take minutes on a machine that is busy otherwise."""

PROTOCOLS = st.sampled_from((TCP, UDP, ICMP))
MEMBERS = st.lists(st.sampled_from((*NETWORKS, "acme-web1", "acme-db2", "globex-web1")), max_size=3).map(tuple)
KINDS = {TCP: (0, 1, 2, 4, 0x10, 0x11, 0x12, 0x14, 0x18, 0x3F), UDP: (0,), ICMP: (0, 8, 3, 5, 11, 13)}

# Hypothesis takes the interruption of a slow run for a test that is not deterministic.
pytestmark = pytest.mark.timeout(900)


class FarmMachine(RuleBasedStateMachine):
    """Endpoints come and go and talk; agents, switches and messages get lost."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World

    @initialize(
        hosts=st.integers(1, 4),
        latency=st.sampled_from((0.0, 0.02)),
        seed=st.integers(0, 1 << 16),
        groups=st.fixed_dictionaries({tenant: st.fixed_dictionaries({"g": MEMBERS}) for tenant in TENANTS}),
        sites=st.sampled_from((1, 1, 2, 3)),
        data=st.data(),
    )
    def start(self, hosts, latency, seed, groups, sites, data):
        self.world = World(max(hosts, sites), latency, seed, groups, sites)
        for number in range(data.draw(st.integers(3, 6))):
            self.add(data, TENANTS[number % 3 == 2])
        for protocol in data.draw(st.lists(PROTOCOLS, min_size=1, max_size=3)):
            if partners := self.partners():
                self.world.open(*data.draw(st.sampled_from(partners)), protocol)

    # ---- choices --------------------------------------------------------------------------------------------------

    def someone(self, data) -> Endpoint:
        return data.draw(st.sampled_from(list(self.world.here.values())), label="endpoint")

    def awake(self) -> list[Conversation]:
        """Conversations whose hosts have their agents."""
        return [c for c in self.world.conversations if self.way_is_awake(c.one, c.other)]

    def way_is_awake(self, one: Endpoint, other: Endpoint) -> bool:
        return self.world.dead.isdisjoint(self.world.way(one.host, other.host))

    def partners(self) -> list[tuple[Endpoint, Endpoint]]:
        pairs = permutations(self.world.here.values(), 2)
        return [pair for pair in pairs if self.world.allowed(*pair) and self.way_is_awake(*pair)]

    def any_host(self, data) -> str:
        return data.draw(st.sampled_from(list(self.world.farm.hosts)), label="host")

    # ---- endpoints ------------------------------------------------------------------------------------------------

    def add(self, data, tenant: str | None = None, replace: Endpoint | None = None) -> None:
        tenant = tenant or data.draw(st.sampled_from(TENANTS))
        network = replace.network if replace else data.draw(st.sampled_from(("web", "web", "db", "lab")))
        number = replace.address[3] if replace else data.draw(st.integers(1, 3))
        host = data.draw(st.sampled_from((replace.host, self.any_host(data)))) if replace else self.any_host(data)
        endpoint = self.world.endpoint(tenant, network, number, host, data.draw(st.sampled_from(("", "b"))))
        if self.world.can_add(endpoint):
            self.world.add(endpoint)

    @rule(data=st.data())
    def endpoint_comes(self, data):
        if len(self.world.here) < 10:
            self.add(data)

    @precondition(lambda self: self.world.here)
    @rule(data=st.data(), rush=st.booleans(), again=st.booleans())
    def endpoint_goes_and_perhaps_another_gets_its_address(self, data, rush, again):
        gone = self.someone(data)
        if gone.host in self.world.dead:
            return
        if rush:
            # While packets of its are under way and connections in the making.
            for protocol in (TCP, UDP, ICMP):
                other = self.someone(data)
                self.world.send(gone, other, Ports(protocol, 999, 999), wire.ECHO_REQUEST if protocol == ICMP else 2)
                self.world.send(other, gone, Ports(protocol, 998, 998), wire.ECHO_REQUEST if protocol == ICMP else 2)
            self.world.settle(data.draw(st.sampled_from((0.0, 0.005, 0.01, 0.03))))
        self.world.remove(gone)
        if again:
            self.add(data, replace=gone)
        self.world.settle(0.5 if rush else 0.0)

    @precondition(lambda self: self.world.here)
    @rule(data=st.data())
    def endpoint_moves(self, data):
        endpoint, host = self.someone(data), self.any_host(data)
        if host != endpoint.host and self.world.dead.isdisjoint((host, endpoint.host)):
            self.world.move(endpoint, host)
            self.world.settle()

    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def policy_changes(self, data, tenant):
        names = sorted(each.name for each in self.world.here.values() if each.tenant == tenant)
        who = st.sampled_from([*names, *NETWORKS, "g"])
        rules = st.builds(Rule, initiator=who, responder=who, allow=st.booleans())
        pairs = data.draw(st.dictionaries(st.builds(pair_of, who, who), st.booleans(), max_size=2))
        talks = [each for each in self.world.conversations if each.one.tenant == tenant]
        if talks:
            talk = data.draw(st.sampled_from(talks))
            pairs[pair_of(talk.one.name, talk.other.name)] = data.draw(st.booleans())
        self.world.change_policy(
            Tenant(
                tenant,
                self.world.tenants[tenant].networks,
                {"g": data.draw(MEMBERS)},
                tuple(data.draw(st.lists(rules, max_size=2))),
                pairs,
            )
        )

    # ---- packets --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.partners())
    @rule(data=st.data(), protocol=PROTOCOLS)
    def open(self, data, protocol):
        self.world.open(*data.draw(st.sampled_from(self.partners())), protocol)

    @precondition(lambda self: self.awake())
    @rule(data=st.data(), backwards=st.booleans())
    def go_on(self, data, backwards):
        self.world.converse(data.draw(st.sampled_from(self.awake())), opening=False, backwards=backwards)

    @precondition(lambda self: len(self.world.here) > 1)
    @rule(
        data=st.data(),
        protocol=PROTOCOLS,
        ports=st.tuples(*[st.sampled_from((0, 80, 0x800, 0x801, 1000, 20001, 0xFFFF))] * 2),
        ttl=st.sampled_from((0, 1, 2, 64, 255)),
        burst=st.integers(1, 3),
    )
    def anybody_sends_anything_to_anybody(self, data, protocol, ports, ttl, burst):
        one, other = self.someone(data), self.someone(data)
        kind = data.draw(st.sampled_from(KINDS[protocol]))
        # The first packet's TTL is a connection's for good, so each is of a flow of its own.
        source = ports[0] if protocol == ICMP and ttl == 64 else 2000 + len(self.world.sent)
        flow = Ports(protocol, source, ports[1])
        for _ in range(burst):
            self.world.send(one, other, flow, kind, ttl=ttl, udp_checksum=data.draw(st.booleans()))
        self.world.settle()

    @precondition(lambda self: len(self.world.here) > 1)
    @rule(data=st.data(), protocol=PROTOCOLS)
    def somebody_pretends_to_be_somebody_else(self, data, protocol):
        one, pretend, to = self.someone(data), self.someone(data), self.someone(data)
        talks = self.world.conversations
        ports = data.draw(st.sampled_from([t.ports for t in talks])) if talks else Ports(protocol, 7, 7)
        lies = data.draw(st.sampled_from((("pretend_mac",), ("pretend_address",), ("pretend_mac", "pretend_address"))))
        kind = wire.ECHO_REQUEST if ports.protocol == ICMP else wire.SYN
        self.world.send(one, to, ports, kind, **dict.fromkeys(lies, pretend))
        self.world.settle()

    @precondition(lambda self: self.world.conversations)
    @rule(data=st.data(), at=st.integers(0, 60), bit=st.integers(0, 7), cut=st.integers(0, 20))
    def a_packet_is_spoilt(self, data, at, bit, cut):
        """Headers, checksums, payload: what comes through at all comes through as it was."""
        talk = data.draw(st.sampled_from(self.world.conversations))
        kind = wire.ECHO_REQUEST if talk.ports.protocol == ICMP else wire.ACK
        serial, frame = self.world.packet(talk.one, talk.other, talk.ports, kind, size=32)
        spoilt = bytearray(frame)
        # But what the checks go by: MACs, addresses, TTL, protocol, whether UDP has a checksum, the serial number.
        mark = frame.index(wire.MARK)
        if at not in {*range(14), 22, 23, *range(26, 34), 40, 41, *range(mark, mark + 8)}:
            spoilt[at] ^= 1 << bit
        self.world.emit(talk.one, serial, bytes(spoilt[: len(spoilt) - cut]))
        self.world.settle()

    @rule(data=st.data(), junk=st.binary(max_size=80))
    def junk(self, data, junk):
        if self.world.here:
            self.world.put_in(self.someone(data), junk)
            self.world.settle(0.0)

    # ---- mishaps --------------------------------------------------------------------------------------------------

    @rule(data=st.data())
    def agent_restarts(self, data):
        host = self.any_host(data)
        if host not in self.world.dead:
            self.world.run(self.world.farm.stop_agent(host))
        self.world.revive_agent(host)
        self.world.settle()

    @rule(data=st.data())
    def agent_dies(self, data):
        if not self.world.dead:
            self.world.kill_agent(self.any_host(data))

    @rule(data=st.data())
    def switch_restarts(self, data):
        host = self.any_host(data)
        if host not in self.world.dead:
            self.world.empty_switch(host)

    @rule(data=st.data())
    def entries_vanish(self, data):
        host = self.any_host(data)
        keys = [entry.key for entry in self.world.entries(host)]
        if keys:
            self.world.take_from_switch(host, data.draw(st.lists(st.sampled_from(keys), max_size=4, unique=True)))

    @rule(which=st.lists(st.sampled_from(("question", "answer")), min_size=1, max_size=3))
    def messages_get_lost(self, which):
        self.world.offers.to_lose = which
        self.world.calm = False

    @rule(seconds=st.sampled_from((0.5, 2, 6, 20, 29, 32)))
    def time_passes(self, seconds):
        self.world.settle(seconds)

    @precondition(lambda self: not self.world.dead)
    @rule()
    def nobody_sends_for_a_while(self):
        self.world.offers.to_lose.clear()
        self.world.rest()
        # What an endpoint remembers of UDP and echo after that is a new connection.

    @invariant()
    def a_switch_names_only_hosts_with_which_it_has_to_do(self):
        if hasattr(self, "world"):
            self.world.check_names()

    def teardown(self):
        if not hasattr(self, "world"):
            return
        world = self.world
        try:
            if not world.broken:
                world.offers.to_lose.clear()
                for host in list(world.dead):
                    world.revive_agent(host)
                world.rest()
        finally:
            with suppress(RuntimeError):
                world.close()


TestFarm = FarmMachine.TestCase
TestFarm.settings = settings(max_examples=max(1000, settings.default.max_examples), stateful_step_count=15)
