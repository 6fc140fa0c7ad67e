"""The underlay as a real kernel sees it: namespaces, a bridge, neighbours and routers that come and go."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from nvi.agent import underlay as module
from nvi.agent.underlay import KernelUnderlay, NextHop, NoRoute
from nvi.model import Address, read_address, read_mac

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

HOST_MAC = "02:00:00:00:00:01"
MACS = {"peer": "02:00:00:00:00:02", "router": "02:00:00:00:00:fe"}
NEW_MAC = "02:00:00:00:aa:aa"


def run(*commands: str) -> None:
    """Give each to `ip`."""
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True, timeout=10)


def batch(namespace: str, commands: str) -> None:
    """Give all of them to one `ip`."""
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=commands.encode(), check=True, timeout=10)


class Lan:
    """`host`, `peer` and `router` on one bridge, each in a namespace of its own."""

    def __init__(self) -> None:
        self.prefix = f"nvi{os.getpid()}"

    def name(self, member: str) -> str:
        return f"{self.prefix}{member}"

    def path(self, member: str) -> str:
        return f"/run/netns/{self.name(member)}"

    def sysctl(self, member: str, *settings: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name(member), "sysctl", "-qw", *settings], check=True, timeout=10)

    def ip(self, member: str, *commands: str) -> None:
        run(*(f"-n {self.name(member)} {command}" for command in commands))

    def build(self) -> None:
        run(f"netns add {self.name('lan')}")
        self.ip("lan", "link add name bridge type bridge", "link set bridge up")
        for member, mac, host_part in (
            ("host", HOST_MAC, "1"), ("peer", MACS["peer"], "2"), ("router", MACS["router"], "fe"),
        ):  # fmt: skip
            run(f"netns add {self.name(member)}")
            # A link-local address that is being checked for duplicates, which takes a second, cannot solicit yet.
            self.sysctl(member, "net.ipv6.conf.default.accept_dad=0")
            run(
                f"link add nvi0 netns {self.name(member)} address {mac} type veth "
                f"peer name {member} netns {self.name('lan')}"
            )
            self.ip("lan", f"link set {member} master bridge up")
            self.ip(
                member,
                f"address add 10.1.1.{int(host_part, 16)}/24 dev nvi0",
                f"address add fd00:1::{host_part}/64 dev nvi0",
                "link set nvi0 up",
            )
        self.ip("host", "route add default via 10.1.1.254", "route add default via fd00:1::fe")

    def remove(self) -> None:
        for member in ("host", "peer", "router", "lan"):
            subprocess.run(["ip", "netns", "del", self.name(member)], capture_output=True, timeout=10)


@pytest.fixture
def lan() -> Iterator[Lan]:
    lan = Lan()
    try:
        lan.build()
        yield lan
    finally:
        lan.remove()


class Followed:
    """An underlay and what it said."""

    def __init__(self, underlay: KernelUnderlay) -> None:
        self.underlay = underlay
        self.changes: asyncio.Queue[Address] = asyncio.Queue()
        underlay.on_change = self.changes.put_nowait

    async def hop(self, destination: str) -> NextHop:
        return await self.underlay.next_hop(read_address(destination))

    async def change(self, within: float = 30.0) -> Address:
        async with asyncio.timeout(within):
            return await self.changes.get()


@pytest.fixture
async def followed(lan: Lan) -> AsyncIterator[Followed]:
    underlay = KernelUnderlay(lan.path("host"), "nvi0")
    await underlay.start()
    yield Followed(underlay)
    await underlay.close()


def hop(source: str, mac: str) -> NextHop:
    return NextHop(read_address(source), read_mac(HOST_MAC), read_mac(mac))


@pytest.mark.parametrize(
    ("destination", "source", "next_mac"),
    [
        ("10.1.1.2", "10.1.1.1", MACS["peer"]),
        ("10.7.7.7", "10.1.1.1", MACS["router"]),
        ("fd00:1::2", "fd00:1::1", MACS["peer"]),
        ("fd00:7::7", "fd00:1::1", MACS["router"]),
    ],
)
async def test_neighbours_and_what_is_behind_a_router(
    followed: Followed, destination: str, source: str, next_mac: str
) -> None:
    assert await followed.hop(destination) == hop(source, next_mac)
    assert followed.changes.empty()


async def test_an_ipv4_route_by_way_of_an_ipv6_router(lan: Lan, followed: Followed) -> None:
    lan.ip("host", "route add 10.9.0.0/16 via inet6 fd00:1::fe dev nvi0")
    assert await followed.hop("10.9.1.1") == hop("10.1.1.1", MACS["router"])


async def test_many_ask_at_once_and_one_is_cancelled(followed: Followed) -> None:
    asking = [asyncio.create_task(followed.hop("10.1.1.2")) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert set(answers[1:]) == {hop("10.1.1.1", MACS["peer"])}


async def test_a_known_next_hop_costs_next_to_nothing(followed: Followed) -> None:
    destination = read_address("10.1.1.2")
    next_hop = followed.underlay.next_hop
    await next_hop(destination)
    best = min([await _seconds_each(next_hop, destination) for _ in range(5)])
    assert best < 3e-6


async def _seconds_each(next_hop: Callable[[Address], Awaitable[NextHop]], destination: Address) -> float:
    started = time.perf_counter()
    for _ in range(1000):
        await next_hop(destination)
    return (time.perf_counter() - started) / 1000


async def test_no_route(lan: Lan, followed: Followed) -> None:
    lan.ip("host", "route del default", "-6 route del default", "route add unreachable 10.8.0.0/16")
    for destination in ("10.7.7.7", "fd00:7::7", "10.8.1.1"):
        with pytest.raises(NoRoute, match=f"no route to {destination}: .* through nvi0"):
            await followed.hop(destination)


@pytest.mark.parametrize("destination", ["10.1.1.1", "fd00:1::1"])
async def test_no_route_to_itself(followed: Followed, destination: str) -> None:
    with pytest.raises(NoRoute, match="of this host itself"):
        await followed.hop(destination)


async def test_a_route_through_another_interface_is_none(lan: Lan, followed: Followed) -> None:
    lan.ip(
        "host",
        "link add other type veth peer name other1",
        "link set other1 up",
        "link set other up",
        "route add 10.6.0.0/16 dev other",
    )
    with pytest.raises(NoRoute, match="leads through another interface"):
        await followed.hop("10.6.0.1")


@pytest.mark.parametrize("destination", ["10.1.1.99", "fd00:1::99"])
async def test_a_dead_neighbour_is_given_up_after_about_a_second(followed: Followed, destination: str) -> None:
    started = time.monotonic()
    with pytest.raises(NoRoute, match=f"neighbour {destination} on nvi0 does not answer"):
        await asyncio.gather(*(followed.hop(destination) for _ in range(5)))
    assert time.monotonic() - started < 1.6


async def test_a_router_that_says_it_is_replaced(lan: Lan, followed: Followed) -> None:
    await followed.hop("10.7.7.7")
    await followed.hop("10.1.1.2")
    lan.ip("host", f"neighbour replace 10.1.1.254 dev nvi0 lladdr {NEW_MAC} nud reachable")
    assert await followed.change() == read_address("10.7.7.7")
    assert await followed.hop("10.7.7.7") == hop("10.1.1.1", NEW_MAC)
    assert followed.changes.empty()  # nothing about the peer


async def test_a_router_that_is_replaced_without_a_word(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    lan.sysctl("host", "net.ipv4.neigh.nvi0.retrans_time_ms=100")  # three unanswered questions take 3 s by default
    monkeypatch.setattr(module, "CONFIRM_INTERVAL", 0.2)
    underlay = Followed(KernelUnderlay(lan.path("host"), "nvi0"))
    await underlay.underlay.start()
    try:
        await underlay.hop("10.7.7.7")
        lan.ip("router", "link set nvi0 arp off", f"link set nvi0 address {NEW_MAC}", "link set nvi0 arp on")
        assert await underlay.change() == read_address("10.7.7.7")
        while (await underlay.hop("10.7.7.7")).destination_mac != read_mac(NEW_MAC):
            assert await underlay.change() == read_address("10.7.7.7")
    finally:
        await underlay.underlay.close()


async def test_a_route_that_changes(lan: Lan, followed: Followed) -> None:
    assert await followed.hop("10.7.7.7") == hop("10.1.1.1", MACS["router"])
    await followed.hop("10.1.1.2")
    lan.ip("host", "route add 10.7.0.0/16 via 10.1.1.2")
    assert await followed.change() == read_address("10.7.7.7")
    assert await followed.hop("10.7.7.7") == hop("10.1.1.1", MACS["peer"])
    assert followed.changes.empty()


async def test_a_route_that_goes_and_comes_back(lan: Lan, followed: Followed) -> None:
    await followed.hop("10.7.7.7")
    lan.ip("host", "route del default")
    await followed.change()
    with pytest.raises(NoRoute):
        await followed.hop("10.7.7.7")
    lan.ip("host", "route add default via 10.1.1.254")
    await followed.change()
    assert await followed.hop("10.7.7.7") == hop("10.1.1.1", MACS["router"])


async def test_an_interface_that_goes_down(lan: Lan, followed: Followed) -> None:
    await followed.hop("10.7.7.7")
    lan.ip("host", "link set nvi0 down")
    await followed.change()
    with pytest.raises(NoRoute):
        await followed.hop("10.7.7.7")


async def test_an_interface_that_comes_later(lan: Lan) -> None:
    late = KernelUnderlay(lan.path("host"), "late0")
    await late.start()
    try:
        with pytest.raises(NoRoute, match="there is no interface late0"):
            await late.next_hop(read_address("10.5.0.2"))
        lan.ip(
            "host",
            f"link add late0 address {NEW_MAC} type veth peer name late1",
            "link set late1 up",
            "link set late0 up",
            "address add 10.5.0.1/24 dev late0",
            "neighbour add 10.5.0.2 dev late0 lladdr 02:00:00:00:00:05",
        )
        await asyncio.sleep(0.1)
        assert (await late.next_hop(read_address("10.5.0.2"))).source_mac == read_mac(NEW_MAC)
    finally:
        await late.close()


async def test_what_is_forgotten_is_not_watched(lan: Lan, followed: Followed) -> None:
    await followed.hop("10.7.7.7")
    followed.underlay.forget(read_address("10.7.7.7"))
    lan.ip("host", "route del default")
    await asyncio.sleep(0.2)
    assert followed.changes.empty()


async def test_lost_events_are_made_up_for(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = 0

    def lose(underlay: KernelUnderlay) -> None:
        nonlocal losses
        losses += 1
        on_loss(underlay)

    on_loss = KernelUnderlay._on_loss
    monkeypatch.setattr(KernelUnderlay, "_on_loss", lose)
    monkeypatch.setattr("nvi.agent.netlink._RECEIVE_BUFFER", 4096)
    followed = Followed(KernelUnderlay(lan.path("host"), "nvi0"))
    await followed.underlay.start()
    try:
        await followed.hop("10.1.1.2")
        others = "\n".join(f"neighbour add 10.1.1.{n} dev nvi0 lladdr {NEW_MAC}" for n in range(20, 250))
        change = f"neighbour replace 10.1.1.2 dev nvi0 lladdr {NEW_MAC} nud permanent"
        # All of it while the loop does not read.
        batch(lan.name("host"), f"{others}\n{change}")
        assert await followed.change() == read_address("10.1.1.2")
        assert await followed.hop("10.1.1.2") == hop("10.1.1.1", NEW_MAC)
        assert losses
    finally:
        await followed.underlay.close()


async def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(OSError, match=r"cannot open the network namespace /run/netns/none-such: .*check that"):
        await KernelUnderlay("/run/netns/none-such", "nvi0").start()


@pytest.mark.parametrize("run_in_loop", [asyncio.run, uvloop.run])
def test_the_process_stays_where_it_was(lan: Lan, run_in_loop: Callable[..., None]) -> None:
    async def follow() -> None:
        underlay = KernelUnderlay(lan.path("host"), "nvi0")
        await underlay.start()
        assert await asyncio.to_thread(Path("/proc/thread-self/ns/net").readlink) == before
        assert (await underlay.next_hop(read_address("10.1.1.2"))).destination_mac == read_mac(MACS["peer"])
        await underlay.close()

    before = Path("/proc/thread-self/ns/net").readlink()
    run_in_loop(follow())
    assert Path("/proc/thread-self/ns/net").readlink() == before
