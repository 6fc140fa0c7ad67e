"""The compiled pipeline: what the switch is given, and the numbers in its P4Info by the names in `p4src/`. No network.

The P4 source is the only place where ids and widths are written down; everything here looks them up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Protocol, TypeVar

from google.protobuf import text_format
from msgspec import Struct

from .messages import p4i, p4r


class _Described(Protocol):
    """What match fields, action parameters and packet metadata have in common."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def bitwidth(self) -> int: ...


class _Object(Protocol):
    """What has a preamble: tables, actions, counters, meters, controller headers."""

    @property
    def preamble(self) -> p4i.Preamble: ...


_T = TypeVar("_T", bound=_Object)


class Field(Struct, frozen=True):
    """A match field, an action's parameter, or a field of a controller header."""

    id: int
    name: str
    bits: int

    @property
    def size(self) -> int:
        """Bytes that hold any value of it."""
        return (self.bits + 7) // 8


class Group(Struct, frozen=True):
    """A table, an action, or a controller header: what has fields."""

    id: int
    name: str
    fields: tuple[Field, ...]

    def __getitem__(self, name: str) -> Field:
        """Its field of this name; KeyError if it has none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.name} has no field {name}")


class Pipeline:
    """A compiled P4 program."""

    def __init__(self, device_config: bytes, p4info_text: bytes) -> None:
        """`device_config`: the JSON that p4c makes for BMv2. `p4info_text`: P4Info as text.

        Raises google.protobuf.text_format.ParseError.
        """
        self.device_config = device_config
        self.p4info = text_format.Parse(p4info_text, p4i.P4Info())
        digest = hashlib.blake2b(device_config + b"\0" + p4info_text, digest_size=8).digest()
        self.cookie = int.from_bytes(digest)
        """64 bits that tell this program from any other (section 7.1)."""

    def table(self, alias: str) -> Group:
        """The match fields of a table."""
        table = _find(self.p4info.tables, alias)
        return _group(table.preamble, table.match_fields)

    def action(self, alias: str) -> Group:
        """The parameters of an action."""
        action = _find(self.p4info.actions, alias)
        return _group(action.preamble, action.params)

    def header(self, alias: str) -> Group:
        """The fields of a controller header."""
        header = _find(self.p4info.controller_packet_metadata, alias)
        return _group(header.preamble, header.metadata)

    def counter_id(self, alias: str) -> int:
        """The id of an indirect counter."""
        return _find(self.p4info.counters, alias).preamble.id

    def meter_id(self, alias: str) -> int:
        """The id of an indirect meter."""
        return _find(self.p4info.meters, alias).preamble.id

    def enum(self, name: str) -> dict[str, int]:
        """The members of a serializable enum."""
        members = self.p4info.type_info.serializable_enums[name].members
        return {member.name: int.from_bytes(member.value) for member in members}

    def forwarding_config(self) -> p4r.ForwardingPipelineConfig:
        """What SetForwardingPipelineConfig takes."""
        return p4r.ForwardingPipelineConfig(
            p4info=self.p4info,
            p4_device_config=self.device_config,
            cookie=p4r.ForwardingPipelineConfig.Cookie(cookie=self.cookie),
        )


@cache
def nvi_pipeline() -> Pipeline:
    """The pipeline that this package comes with."""
    compiled = files("nvi") / "compiled"
    return Pipeline((compiled / "nvi.json").read_bytes(), (compiled / "nvi.p4info.txtpb").read_bytes())


def _find(objects: Iterable[_T], alias: str) -> _T:
    for candidate in objects:
        if candidate.preamble.alias == alias:
            return candidate
    raise KeyError(f"the P4Info has no {alias}")


def _group(preamble: p4i.Preamble, fields: Iterable[_Described]) -> Group:
    return Group(preamble.id, preamble.alias, tuple(Field(f.id, f.name, f.bitwidth) for f in fields))
