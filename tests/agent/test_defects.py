"""Defects of the original system (`docs/defects.md`) that no other test names."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from agent.farm import frame, ip, start
from nvi.keys import Keys, Pair
from nvi.keys import Path as KeyPath
from nvi.switch import PORT_UNDERLAY, ConnectionEntry, Operation

TESTS = Path(__file__).parent.parent
ROWS = [
    line.split("|")[1:-1] for line in (TESTS.parent / "docs/defects.md").read_text().splitlines() if line[:3] > "| "
]
NOT_APPLICABLE = {"24", "28", "34"}


@pytest.fixture
async def farm():
    farm = await start()
    yield farm
    await farm.stop()


def udp(sender, receiver, **fields):
    return frame(sender, receiver, IP(src=ip(sender), dst=ip(receiver), flags="DF", **fields) / UDP(sport=7, dport=53))


def test_every_defect_is_accounted_for_and_every_test_named_exists():
    rows = {row[0].strip(): row for row in ROWS if row[0].strip().isdigit()}
    assert sorted(rows, key=int) == [str(n) for n in range(1, 35)]
    for number, (*_, test) in rows.items():
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", test)
        assert named or "the same" in test or number in NOT_APPLICABLE
        for file, name in named:
            assert re.search(rf"def {name}\(", (TESTS / file).read_text()), f"{number}: there is no {name} in {file}"


async def test_defect_04_what_is_refused_or_spoofed_takes_no_key(farm):
    for packet in (
        udp("acme-web1", "acme-lab1"),
        udp("acme-web1", "acme-web2").replace(bytes([10, 0, 1, 1]), bytes([10, 0, 1, 9])),
        frame("acme-web1", "acme-web2", IP(src=ip("acme-web1"), dst="10.0.1.77") / UDP()),
    ):
        farm.emit("acme-web1", packet)
        await farm.settle()
    assert [len(host.agent._local.keys) for host in farm.hosts.values()] == [0, 0, 0]


def test_defect_05_the_same_pair_serves_every_peer_and_protocol():
    keys = Keys(60.0)
    paths = [KeyPath(wire, b"here", peer, protocol) for wire in (1, 3) for peer in (b"a", b"b") for protocol in (6, 17)]
    assert all(keys.take(Pair(path, 20000, 20001)) for path in paths)


async def test_defect_12_the_far_side_is_written_first_and_the_way_in_before_the_way_out(farm):
    written = []
    for name, host in farm.hosts.items():

        async def write(updates, name=name, write=host.switch.write):
            await write(updates)
            written.extend(
                (name, each.entry.key.scope == PORT_UNDERLAY)
                for each in updates
                if each.operation is Operation.INSERT and isinstance(each.entry, ConnectionEntry)
            )

        host.switch.write = write
    farm.emit("acme-web1", udp("acme-web1", "acme-web2"))
    await farm.settle()
    assert written == [("h2", True), ("h2", False), ("h1", True), ("h1", False)]


def test_defect_18_no_two_entries_overlap():
    """Nothing but exact matches: no priorities, of which two could be equal."""
    kinds = re.findall(r"match_type: (\w+)", (files("nvi") / "compiled/nvi.p4info.txtpb").read_text())
    assert set(kinds) == {"EXACT"}


async def test_defect_19_an_error_comes_back_about_the_packet_as_it_was_sent(farm):
    sent = udp("acme-web1", "acme-web2")
    farm.emit("acme-web1", sent)
    await farm.settle()
    (received,) = farm.delivered("acme-web2")
    error = IP(src=ip("acme-web2"), dst=ip("acme-web1"), flags="DF") / ICMP(type=3, code=3) / Ether(received)[IP]
    farm.emit("acme-web2", frame("acme-web2", "acme-web1", error))
    await farm.settle()
    (told,) = farm.delivered("acme-web1")
    assert told[14 + 20 + 8 :] == sent[14:]
    assert (Ether(told)[IP].src, Ether(told)[ICMP].type) == (ip("acme-web2"), 3)
    assert [len(await host.switch.read_connections()) for host in farm.hosts.values()] == [2, 2, 0]
