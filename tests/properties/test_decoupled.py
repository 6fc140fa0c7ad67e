"""A host's work and memory depend on its own connections, and no loss breaks those of others (invariants 5 and 6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.wire import ACK, ECHO_REPLY, ECHO_REQUEST, ICMP, SYN, TCP, UDP, Ports
from nvi.agent.joining import LINGER_SECONDS
from properties.world import Conversation, World

PROTOCOLS = st.sampled_from((TCP, UDP, ICMP))


@contextmanager
def world(*arguments: object) -> Iterator[World]:
    made = World(*arguments)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


# ---- 5: work and memory ---------------------------------------------------------------------------------------------


def costs(hosts: int, traffic: list[tuple[int, int, int]]) -> list[object]:
    """What the first three hosts do and hold for some traffic of theirs, in a farm that is as busy as it is large."""
    with world(hosts) as farm:
        ours = [farm.add(farm.endpoint("acme", "web", 1 + n, f"h{n % 3}")) for n in range(5)]
        others = [farm.add(farm.endpoint("acme", "db", 1 + n, f"h{3 + n}")) for n in range(hosts - 3)]
        for one, other in pairwise(others):
            farm.open(one, other, TCP)
        asked = farm.directory.asked.copy()
        for one, step, protocol in traffic:
            farm.open(ours[one % 5], ours[(one + 1 + step % 4) % 5], protocol)
        farm.settle(2.0)
        seen: list[object] = [farm.directory.asked["acme", each.address] - asked["acme", each.address] for each in ours]
        for name in ("h0", "h1", "h2"):
            agent = farm.farm.hosts[name].agent
            status = farm.run(agent.status())
            seen += [status["entries"], status["keys"], status["events"], len(farm.entries(name))]
            seen += [farm.offers.requests[name, "Offer"], farm.offers.answered[name]]
            seen += [sorted(what for what in farm.left_over(name))]
        # Nor does anybody ask for anything but the ends of these connections.
        seen.append((farm.directory.asked - asked).total())
        return seen


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), PROTOCOLS), min_size=1, max_size=8))
def test_work_and_memory_do_not_depend_on_the_size_of_the_farm(traffic: list[tuple[int, int, int]]) -> None:
    assert costs(3, traffic) == costs(60, traffic)


# ---- 6: losses ------------------------------------------------------------------------------------------------------


def go_on(farm: World, talks: list[Conversation], backwards: bool) -> None:
    """Two packets of each connection, all at once. Not a single one is lost."""
    for turn in (1, 0) if backwards else (0, 1):
        sent = {}
        for talk in talks:
            echo = talk.ports.protocol == ICMP
            # An echo's answer comes after its question, always.
            there = (turn == 0) != (echo and backwards)
            sender, receiver = (talk.one, talk.other) if there else (talk.other, talk.one)
            kind = ACK if not echo else ECHO_REQUEST if there else ECHO_REPLY
            ports = talk.ports if there or echo else talk.ports.reversed()
            sent[farm.send(sender, receiver, ports, kind)] = talk
        farm.settle(0.25)
        lost = [talk for serial, talk in sent.items() if farm.arrived[serial] != 1]
        assert not lost, f"lost: {lost}"


LOSSES = st.sampled_from(("agent dies", "agent restarts", "switch restarts", "entries vanish"))


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), PROTOCOLS), min_size=1, max_size=5),
    st.lists(st.tuples(LOSSES, st.integers(0, 2), st.booleans(), st.floats(0, 3)), min_size=1, max_size=4),
    st.sampled_from((0.0, 0.02)),
)
def test_no_loss_breaks_an_established_connection(
    opened: list[tuple[int, int, int]], losses: list[tuple[str, int, bool, float]], latency: float
) -> None:
    """Those of others never notice; and those of its own go on too, as long as one end remembers them.

    It is over before anything can be idle, so nothing expires.
    """
    with world(3, latency) as farm:
        ends = [farm.add(farm.endpoint("acme", "web", 1 + n, f"h{n % 3}")) for n in range(6)]
        talks = [farm.open(ends[one], ends[(one + 1 + step) % 6], protocol) for one, step, protocol in opened]
        for loss, number, backwards, pause in losses:
            host = f"h{number}"
            before = {name: farm.entries(name) for name in farm.farm.hosts}
            match loss:
                case "agent dies":
                    farm.kill_agent(host)
                case "agent restarts":
                    farm.run(farm.farm.stop_agent(host))
                    farm.revive_agent(host)
                case "switch restarts":
                    farm.empty_switch(host)
                    assert set(farm.entries(host)) == set(before[host]), "the agent still knew all of it"
                case "entries vanish":
                    farm.take_from_switch(host, [entry.key for entry in before[host]])
            go_on(farm, talks, backwards)
            farm.settle(pause)
            if host in farm.dead:
                farm.revive_agent(host)
            go_on(farm, talks, not backwards)
            for name, entries in before.items():
                assert set(farm.entries(name)) == set(entries), f"{loss} of {host} left its mark on {name}"


@settings(max_examples=max(200, settings.default.max_examples))
@given(st.lists(st.integers(0, 1), min_size=1, max_size=2, unique=True), st.booleans(), st.booleans(), st.booleans())
def test_tcp_resumes_when_everybody_has_forgotten(
    emptied: list[int], routed: bool, backwards: bool, same_host: bool
) -> None:
    """Agents and switches of both ends begin anew, with nothing: the next segment, from either end, plugs again."""
    with world(2, 0.0, 0, {"acme": {"g": ("web", "db")}}) as farm:
        one = farm.add(farm.endpoint("acme", "web", 1, "h0"))
        other = farm.add(farm.endpoint("acme", "db" if routed else "web", 2, "h0" if same_host else "h1"))
        talk = farm.open(one, other, TCP)
        for number in emptied:
            farm.run(farm.farm.stop_agent(f"h{number}"))
            farm.farm.hosts[f"h{number}"].switch.restart()
        for number in emptied:
            farm.revive_agent(f"h{number}")
        go_on(farm, [talk], backwards)
        farm.settle(2 * LINGER_SECONDS)
        assert [len(farm.entries(name)) for name in ("h0", "h1")] == [2, 0 if same_host else 2]
        farm.rest()


@settings(max_examples=max(200, settings.default.max_examples))
@given(st.sampled_from((0.0, 0.02)), st.integers(0, 1 << 16), st.sampled_from((TCP, UDP)), st.floats(0, 0.04))
def test_offers_that_cross_make_one_connection(latency: float, seed: int, protocol: int, later: float) -> None:
    """Both ends open it, at nearly the same time."""
    with world(2, latency, seed) as farm:
        one, other = (farm.add(farm.endpoint("acme", "web", 1 + n, f"h{n}")) for n in range(2))
        ports = Ports(protocol, 7, 8)
        sent = [farm.send(one, other, ports, SYN)]
        if later > 0.001:
            farm.settle(later)
        sent.append(farm.send(other, one, ports.reversed(), SYN))
        farm.settle()
        assert [farm.arrived[serial] for serial in sent] == [1, 1]
        (here,), (there,) = (farm.run(farm.farm.hosts[name].agent.connections()) for name in ("h0", "h1"))
        assert here["segments"] == there["segments"]
        farm.settle(2 * LINGER_SECONDS)
        assert [len(farm.entries(name)) for name in ("h0", "h1")] == [2, 2]
        farm.rest()
