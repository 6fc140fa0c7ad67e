"""What Python and P4 must agree on: the numbers in `p4src/ids.p4`, those in the P4Info, and those typed in Python."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from nvi import keys, packets, switch
from nvi.agent import local
from nvi.embedded import memory
from nvi.emulation import plan
from nvi.model import Protocol
from nvi.p4rt.codec import nvi_codec
from nvi.p4rt.pipeline import nvi_pipeline
from nvi.topology import load

P4SRC = Path(__file__).parents[2] / "p4src"
CODE = {path.name: re.sub(r"//.*", "", path.read_text()) for path in P4SRC.glob("*.p4")}
CONSTANTS = {
    name: int(value, 0)
    for text in CODE.values()
    for name, value in re.findall(r"(?:const \S+ |#define )(\w+) (?:= )?(0x[0-9a-f]+|\d+)\b", text)
}
ENUMS = {
    name: {member: int(value) for member, value in re.findall(r"(\w+) = (\d+)", body)}
    for name, body in re.findall(r"enum bit<\d+> (\w+) \{(.*?)\}", CODE["ids.p4"], re.DOTALL)
}


def test_the_source_is_read() -> None:
    """Lest all that follows compares nothing."""
    assert set(ENUMS) == {"PuntReason", "PacketOutOrder", "DropReason"}
    assert len(CONSTANTS) >= 18


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("PORT_UNDERLAY", switch.PORT_UNDERLAY),
        ("PORT_HOST_STACK", switch.PORT_HOST_STACK),
        ("PORT_EXTERNAL", switch.PORT_EXTERNAL),
        ("PORT_EXTERNAL_STACK", switch.PORT_EXTERNAL_STACK),
        ("PORT_FIRST_ENDPOINT", switch.PORT_FIRST_ENDPOINT),
        ("PORT_CPU", switch.PORT_CPU),
        ("KEY_FIRST", keys.KEY_FIRST),
        ("KEY_LAST", keys.KEY_LAST),
        ("ECHO_PORT", packets.ECHO_PORT),
        ("PROTOCOL_ICMP", Protocol.ICMP),
        ("PROTOCOL_TCP", Protocol.TCP),
        ("PROTOCOL_UDP", Protocol.UDP),
        ("PROTOCOL_ICMPV6", Protocol.ICMPV6),
        ("CONNECTIONS_SIZE", local.CONNECTIONS_SIZE),
    ],
)
def test_constants(name: str, here: int) -> None:
    assert CONSTANTS[name] == here


@pytest.mark.parametrize("reasons", [switch.DropReason, switch.PuntReason])
def test_reasons(reasons: type[IntEnum]) -> None:
    """By name and number; NONE is never seen outside the pipeline."""
    assert ENUMS[reasons.__name__] == {"NONE": 0, **{reason.name: reason.value for reason in reasons}}


def test_orders() -> None:
    orders = ENUMS["PacketOutOrder"]
    assert (orders["REINJECT"], orders["SEND"]) == (nvi_codec().reinject, nvi_codec().send)
    assert (orders["REINJECT"], orders["SEND"]) == (memory._REINJECT, memory._SEND)


@pytest.mark.parametrize("name", ["PuntReason", "PacketOutOrder"])
def test_p4info_shows_enums(name: str) -> None:
    assert nvi_pipeline().enum(name) == ENUMS[name]


def test_hosts_reserve_the_range_of_keys() -> None:
    reserve = f"echo {CONSTANTS['KEY_FIRST']}-{CONSTANTS['KEY_LAST']} > /proc/sys/net/ipv4/ip_local_reserved_ports"
    topology = load(Path(__file__).parents[2] / "topologies" / "two-hosts.yaml")
    hosts = [node for node in plan.make_plan(topology).nodes if node.kind == "host"]
    assert len(hosts) == 2
    assert all(reserve in host.prepare.splitlines() for host in hosts)


def test_echo_stand_ins() -> None:
    """Python's rule, for every identifier, is the parser's."""
    first, mask = CONSTANTS["ECHO_PORT"], CONSTANTS["ECHO_PORT_MASK"]
    stand_ins = [identifier + 1 if identifier & mask == first else first for identifier in range(0x10000)]
    assert [packets.echo_port(identifier) for identifier in range(0x10000)] == stand_ins


def test_sizes() -> None:
    p4info = nvi_pipeline().p4info
    sizes = {
        thing.preamble.alias: thing.size for kind in (p4info.tables, p4info.counters, p4info.meters) for thing in kind
    }
    declared = {name: name.upper() for name in ("connections", "guard", "neighbours", "services", "drops")}
    declared["connections6"] = declared["connections"]
    assert sizes == {name: CONSTANTS[f"{size}_SIZE"] for name, size in {**declared, "punts": "PORTS"}.items()}
    assert CONSTANTS["PORTS_SIZE"] == 1 << nvi_pipeline().table("connections")["scope"].bits
    assert CONSTANTS["DROPS_SIZE"] == CONSTANTS["PORTS_SIZE"] << nvi_pipeline().action("drop")["reason"].bits


def test_ids_are_chosen_not_generated() -> None:
    """p4c would derive the ids from names and order; what the sources say stays when they change."""
    p4info = nvi_pipeline().p4info
    kinds = (p4info.tables, p4info.actions, p4info.counters, p4info.direct_counters, p4info.meters)
    compiled = [thing.preamble.id for kind in kinds for thing in kind]
    written = [int(number, 16) for text in CODE.values() for number in re.findall(r"@id\((0x[0-9a-f]+)\)", text)]
    assert len(compiled) > 10
    assert sorted(compiled) == sorted(written)


def test_everything_in_the_p4info_is_documented() -> None:
    p4info = nvi_pipeline().p4info
    kinds = (p4info.tables, p4info.actions, p4info.counters, p4info.direct_counters, p4info.meters)
    headers = p4info.controller_packet_metadata
    assert [thing.preamble.name for kind in (*kinds, headers) for thing in kind if not thing.preamble.doc.brief] == []
