"""What the JSON may contain, and how messages name a place in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .ir import UnsupportedConstruct

Json = Mapping[str, Any]

MAJOR_VERSION = 2
CORE_ERRORS = (
    "NoError",
    "PacketTooShort",
    "NoMatch",
    "StackOutOfBounds",
    "HeaderTooShort",
    "ParserTimeout",
    "ParserInvalidArgument",
)
"""core.p4's errors; those that the program does not list get the numbers after its own, in this order."""

ALGORITHMS = frozenset({"crc16", "crc32", "crcCCITT", "csum16", "xor16", "identity", "crc16_custom", "crc32_custom"})

IGNORED_ROOT_KEYS = frozenset({"program", "__meta__", "enums", "force_arith", "config_options", "field_aliases"})
READ_ROOT_KEYS = frozenset(
    {"header_types", "headers", "errors", "parsers", "deparsers", "meter_arrays", "counter_arrays"}
    | {"register_arrays", "calculations", "actions", "pipelines", "checksums", "field_lists"}
)
EMPTY_ROOT_KEYS = {
    "header_stacks": "header stack",
    "header_union_types": "header union type",
    "header_unions": "header union",
    "header_union_stacks": "header union stack",
    "parse_vsets": "parser value set",
    "learn_lists": "digest",
    "extern_instances": "extern",
}
NOT_SUPPORTED_PRIMITIVES = {
    "resubmit": "resubmit",
    "recirculate": "recirculate",
    "clone_ingress_pkt_to_egress": "clone",
    "clone_egress_pkt_to_egress": "clone",
    "generate_digest": "digest",
}


def where(kind: str, item: Json, statement: Json | None = None) -> str:
    """For messages: "action MyIngress.foo, line nvi.p4:12"; the line of the statement if there is one."""
    text = f"{kind} {item.get('name') or '?'}"
    source = (statement or item).get("source_info") or item.get("source_info")
    if isinstance(source, Mapping) and "line" in source:
        text += f", line {source.get('filename', '?')}:{source['line']}"
    return text


def only_keys(item: Json, known: Iterable[str], place: str) -> None:
    """Refuse keys that this switch does not know."""
    present = {key for key, value in item.items() if value is not None}
    unknown = present - set(known) - {"name", "id", "source_info"}
    if unknown:
        raise UnsupportedConstruct(f"JSON key {sorted(unknown)[0]!r}", place)
