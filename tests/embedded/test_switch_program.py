"""What the embedded switch refuses, and how it says so."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from types import CodeType
from typing import Any

import pytest
from switch_support import PROGRAMS

from nvi.embedded.compiler import compile_program
from nvi.embedded.engine import Engine
from nvi.embedded.ir import ProgramError, UnsupportedConstruct
from nvi.embedded.program import load

Json = dict[str, Any]


def changed(change: Callable[[Json], object], name: str = "tables") -> str:
    root = json.loads((PROGRAMS / f"{name}.json").read_text())
    change(root)
    return json.dumps(root)


def action(root: Json, name: str) -> Json:
    return next(item for item in root["actions"] if item["name"] == name)


def start_state(root: Json) -> Json:
    state: Json = root["parsers"][0]["parse_states"][0]
    return state


def add_primitive(op: str, *parameters: Json) -> Callable[[Json], object]:
    primitive = {"op": op, "parameters": list(parameters), "source_info": {"filename": "tables.p4", "line": 12}}
    return lambda root: action(root, "I.punt")["primitives"].append(primitive)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (add_primitive("recirculate", {"type": "hexstr", "value": "0x1"}), "primitive 'recirculate'"),
        (add_primitive("clone_ingress_pkt_to_egress"), "primitive 'clone_ingress_pkt_to_egress' (clone)"),
        (add_primitive("generate_digest"), "(digest)"),
        (add_primitive("truncate"), "primitive 'truncate'"),
        (add_primitive("_jump", {"type": "hexstr", "value": "0x0"}), "a loop"),
        (lambda root: root["header_stacks"].append({"name": "vlans", "id": 0}), "a header stack"),
        (lambda root: root["learn_lists"].append({"name": "learn", "id": 0}), "a digest"),
        (lambda root: root["parse_vsets"].append({"name": "set", "id": 0}), "a parser value set"),
        (lambda root: root["pipelines"][0]["action_profiles"].append({"name": "ap"}), "an action profile"),
        (lambda root: root["pipelines"][0]["tables"][0].update(type="indirect"), "table type 'indirect'"),
        (lambda root: root["pipelines"][0]["tables"][0].update(novelty=1), "JSON key 'novelty'"),
        (lambda root: root["headers"][0].update(novelty=1), "JSON key 'novelty'"),
        (lambda root: root.update(novelty=[1]), "JSON key 'novelty'"),
        (lambda root: start_state(root)["parser_ops"].append({"op": "dance", "parameters": []}), "'dance'"),
        (lambda root: root["meter_arrays"][0].update(rate_count=1), "a meter with 1 rates"),
    ],
)  # fmt: skip
def test_unsupported(change: Callable[[Json], object], text: str) -> None:
    with pytest.raises(UnsupportedConstruct) as error:
        Engine.load(changed(change))
    assert text in str(error.value)
    assert str(error.value).endswith("is not supported")


def test_message_names_the_place() -> None:
    with pytest.raises(UnsupportedConstruct) as error:
        load(changed(add_primitive("resubmit")))
    assert str(error.value) == "action I.punt, line tables.p4:12: primitive 'resubmit' is not supported"


def test_multicast_is_refused_when_it_is_used() -> None:
    target = {"type": "field", "value": ["standard_metadata", "mcast_grp"]}
    program = load(changed(add_primitive("assign", target, {"type": "hexstr", "value": "0x1"})))
    with pytest.raises(UnsupportedConstruct, match="multicast"):
        compile_program(program)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"__meta__": {"version": [3, 0]}}', "nonsense", '{"headers": [{"name": "x"}]}'],
)
def test_malformed(text: str) -> None:
    with pytest.raises(ProgramError):
        load(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root["pipelines"].pop(),
        lambda root: root["pipelines"][0].update(init_table="nowhere"),
        lambda root: action(root, "I.set")["primitives"][0]["parameters"][0].update(value=["k", "nothing"]),
        lambda root: root["parsers"][0].update(init_state="nowhere"),
        lambda root: root["deparsers"][0]["order"].append("nowhere"),
    ],
)
def test_dangling(change: Callable[[Json], object]) -> None:
    with pytest.raises(ProgramError):
        Engine.load(changed(change))


def test_parser_loop_is_refused() -> None:
    def loop(root: Json) -> None:
        for state in root["parsers"][0]["parse_states"]:
            for transition in state["transitions"]:
                transition["next_state"] = "start"

    with pytest.raises(UnsupportedConstruct, match="a loop through"):
        Engine.load(changed(loop))


def test_generated_code_is_small_enough() -> None:
    """Python makes room for every variable of a function at each call: thousands would cost more than the packet."""
    for name in ("alu", "headers", "tables"):
        functions = compile_program(load((PROGRAMS / f"{name}.json").read_bytes())).functions()
        assert len(functions) > 1
        for function in functions:
            (make,) = (part for part in compile(function.source, "", "exec").co_consts if isinstance(part, CodeType))
            (made,) = (part for part in make.co_consts if isinstance(part, CodeType))
            assert made.co_nlocals < 300


def test_a_way_is_compiled_when_a_packet_takes_it() -> None:
    """And once for all engines of the program."""
    program = load((PROGRAMS / "tables.json").read_bytes())
    one, two = Engine(program), Engine(program)
    assert one.compiled._ways == {}
    packet = struct.pack(">BIHBIB", 0, 1, 2, 0, 0, 0)
    out = one.process(5, packet)
    taken = set(one.compiled._ways)
    assert taken
    assert one.process(5, packet) == two.process(5, packet) == out
    assert set(one.compiled._ways) == taken
    assert len(one.compiled.functions()) > 1 + len(taken)
