"""Looks into switches and agents, without their knowing, and says whether what they hold may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nvi.agent.agent import Agent
from nvi.embedded.memory import MemorySwitch
from nvi.keys import Pair, Path
from nvi.model import Address, Flow, is_portless
from nvi.rows import CONNECTIONS
from nvi.simulation import SimulatedHost
from nvi.switch import PORT_EXTERNAL, PORT_FIRST_ENDPOINT, PORT_UNDERLAY, ConnectionEntry, ConnectionKey, Rewrite

from .farm import FaultyFarm
from .life import Life
from .model import Invariant, Model, expect

KEYS, TENANTS, NOTHING_LEFT = Invariant.KEYS, Invariant.TENANTS, Invariant.NOTHING_LEFT
_WIRES = (PORT_UNDERLAY, PORT_EXTERNAL)


class Audit:
    """Compares the hosts of a farm with each other, from time to time."""

    def __init__(self, model: Model, farm: FaultyFarm) -> None:
        """Nothing has been seen yet."""
        self._model = model
        self._farm = farm
        self._had: dict[str, tuple[Life, set[tuple[Pair, ConnectionKey]]]] = {}
        """By host: the life of its agent, the pairs that it has been seen to have in it, and what came along them."""

    def look(self) -> None:
        """Raises Broken."""
        arriving = {}
        leaving = []
        for name, host in self._farm.hosts.items():
            self._check_own_pairs(name, host.agent)
            for entry in entries_of(host):
                if not isinstance(entry.action, Rewrite):
                    continue
                if entry.key.scope in _WIRES:
                    arriving[name, entry.key.scope, entry.key.flow] = entry
                if entry.action.egress_port in _WIRES:
                    leaving.append((name, entry, entry.action))
        for name, entry, action in leaving:
            if (peer := self._across(name, action.egress_port, action.flow)) is None:
                continue
            beyond = arriving.get((peer[0], action.egress_port, peer[1]))
            if beyond is not None:
                self._check_joined(name, entry, peer[0], beyond)
            if not is_portless(action.flow.protocol):  # those few addresses are soon lent again
                self._check_not_free(name, entry, action, *peer)

    def _check_own_pairs(self, name: str, agent: Agent) -> None:
        local = agent._local
        if not self._farm.is_alive(name) or not local.ready:
            return
        pairs = [link.pair for each in local.connections for link in each.links]
        expect(len(pairs) == len(set(pairs)), KEYS, f"two connections of {name} have the same keys")
        expect(local.keys._busy.issuperset(pairs), KEYS, f"the keys of a connection of {name} may be given away")

    def _across(self, name: str, wire: int, flow: Flow) -> tuple[str, Flow] | None:
        """The host that a flow on a wire leads to, and the flow as that host sees it, beyond 1:1 NATs."""
        peer = self._model.host_at(name, flow.destination, wire == PORT_EXTERNAL)
        if peer is None:
            return None
        source, destination = flow.source, flow.destination
        if wire == PORT_EXTERNAL:
            source, destination = self._external(name, True), self._external(peer, False)
        return peer, Flow(source, destination, flow.protocol, flow.l4_source, flow.l4_destination)

    def _external(self, name: str, public: bool) -> Address:
        external = self._model.host[name].external
        assert external is not None, "only gateways have that wire"
        return external.public if public else external.address

    def _check_joined(self, name: str, entry: ConnectionEntry, peer: str, beyond: ConnectionEntry) -> None:
        """What an endpoint's host sends along a segment, the other end's host delivers to whom it was sent."""
        assert isinstance(beyond.action, Rewrite)
        if entry.key.scope < PORT_FIRST_ENDPOINT or beyond.action.egress_port < PORT_FIRST_ENDPOINT:
            return  # a gateway is on the way
        placed = self._model.placed
        sender, receiver = placed.get((name, entry.key.scope)), placed.get((peer, beyond.action.egress_port))
        if sender is None or receiver is None:
            return  # nobody is there who could send, or hear
        what = f"{sender.name} on {name} sends {entry}, which {peer} delivers to {receiver.name} by {beyond}"
        expect(sender.tenant == receiver.tenant, TENANTS, what)
        expect(entry.key.flow == beyond.action.flow, KEYS, what)

    def _check_not_free(self, name: str, entry: ConnectionEntry, action: Rewrite, peer: str, flow: Flow) -> None:
        """The pair along which a switch sends is free for nobody at the other end, unless that has forgotten it."""
        local, life = self._farm.hosts[peer].agent._local, self._farm.lives[peer]
        path = Path(action.egress_port, flow.destination, flow.source, flow.protocol)
        pair = Pair(path, flow.l4_destination, flow.l4_source)
        known, had = self._had.get(peer, (None, set()))
        if known is not life:
            self._had[peer] = (life, had := set())
        if pair in local.keys:
            had.add((pair, entry.key))
        elif (pair, entry.key) in had and not life.over:
            expect(False, KEYS, f"{name} sends along {pair}, which is free at {peer}")


def entries_of(host: SimulatedHost) -> Iterator[ConnectionEntry]:
    """All connections in a switch."""
    switch = host.switch
    assert isinstance(switch, MemorySwitch), "others are not looked into"
    return (switch._connection(CONNECTIONS, entry) for entry in switch._all(CONNECTIONS))


def check_empty(farm: FaultyFarm) -> None:
    """Raises Broken if a switch holds a connection."""
    for name, host in farm.hosts.items():
        left = list(entries_of(host))
        expect(not left, NOTHING_LEFT, f"the switch of {name} holds {left}")


def check_nothing_left(farm: FaultyFarm) -> None:
    """Raises Broken if an agent holds anything of a connection."""
    for name, host in farm.hosts.items():
        left = left_over(host.agent)
        expect(not left, NOTHING_LEFT, f"the agent of {name} holds {left}")


def left_over(agent: Agent) -> dict[str, Any]:
    """What an agent holds beyond its endpoints."""
    local, connections = agent._local, agent._local.connections
    holds = {
        "connections": list(connections),
        "by key": connections._by_key,
        "by port": connections._by_port,
        "by peer": connections._by_peer,
        "agenda": connections._agenda,
        "keys": local.keys._busy,
        "resting": local.keys._resting,
        "unknown": local.unknown,
        "waiting": agent._joiner.waiting,
        "in flight": +agent._connector._in_flight,
        "joining": agent._joiner.answering,
        "refusals": agent._refusals._by_port,
        "neighbours": agent._neighbours._held,
        "strays": agent._strays._frames,
        "questions": agent._strays._open,
        "backlog": agent._backlog,
        "tasks": [t for t in local._tasks if "_age" not in repr(t) and "_keep_lease" not in repr(t)],
        "failures": local.events["failures"],
    }
    return {what: held for what, held in holds.items() if held}
