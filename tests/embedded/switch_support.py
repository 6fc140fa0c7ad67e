"""What the tests of the embedded switch share: the test programs, a clock to turn by hand, messages by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finsy.proto import U128, p4i, p4r
from google.protobuf import text_format

from nvi.embedded.dataplane import MemoryDataPlane
from nvi.embedded.device import Device
from nvi.embedded.engine import Engine
from nvi.embedded.program import load

PROGRAMS = Path(__file__).parent / "programs"
"""Our own programs with what p4c 1.2.5 made of them: `p4c-bm2-ss --p4runtime-files X.p4info.txtpb -o X.json X.p4`."""
SECOND = 1_000_000_000
SetConfig = p4r.SetForwardingPipelineConfigRequest

_programs = {name: load((PROGRAMS / f"{name}.json").read_bytes()) for name in ("alu", "headers", "tables")}


class Clock:
    """Time that passes when the test says so, in ns."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


def engine(name: str, clock: Clock | None = None) -> Engine:
    """A fresh engine for one of the test programs."""
    return Engine(_programs[name], clock or Clock())


def p4info(name: str) -> p4i.P4Info:
    return text_format.Parse((PROGRAMS / f"{name}.p4info.txtpb").read_text(), p4i.P4Info())


def set_config(name: str, action: int = SetConfig.VERIFY_AND_COMMIT, election_id: int = 1) -> SetConfig:
    request = SetConfig(device_id=1, election_id=U128.encode(election_id), action=action)
    request.config.p4info.CopyFrom(p4info(name))
    request.config.p4_device_config = (PROGRAMS / f"{name}.json").read_bytes()
    request.config.cookie.cookie = 42
    return request


def device(name: str, clock: Clock | None = None) -> Device:
    """A configured device with a data plane in memory."""
    result = Device(1, MemoryDataPlane(), clock or Clock())
    result.set_config(set_config(name))
    return result


class Messages:
    """Builds P4Runtime messages from names."""

    def __init__(self, info: p4i.P4Info) -> None:
        self.info = info
        self.tables = {item.preamble.name.rpartition(".")[2]: item for item in info.tables}
        self.actions = {item.preamble.name.rpartition(".")[2]: item for item in info.actions}

    def entry(
        self,
        table: str,
        keys: Sequence[object] = (),
        action: str | None = None,
        params: Sequence[int | bytes] = (),
        priority: int = 0,
        **fields: object,
    ) -> p4r.TableEntry:
        """`keys`: for each field None, an int, or a pair (prefix, range, value and mask)."""
        schema = self.tables[table]
        entry = p4r.TableEntry(table_id=schema.preamble.id, priority=priority, **fields)
        for field, key in zip(schema.match_fields, keys, strict=False):
            if key is None:
                continue
            size = (field.bitwidth + 7) // 8
            match = entry.match.add(field_id=field.id)
            if field.match_type == p4i.MatchField.LPM:
                match.lpm.value, match.lpm.prefix_len = key[0].to_bytes(size), key[1]
            elif field.match_type == p4i.MatchField.TERNARY:
                match.ternary.value, match.ternary.mask = key[0].to_bytes(size), key[1].to_bytes(size)
            elif field.match_type == p4i.MatchField.RANGE:
                match.range.low, match.range.high = key[0].to_bytes(size), key[1].to_bytes(size)
            else:
                which = match.exact if field.match_type == p4i.MatchField.EXACT else match.optional
                which.value = key if isinstance(key, bytes) else key.to_bytes(size)
        if action is not None:
            message = self.actions[action]
            entry.action.action.action_id = message.preamble.id
            for param, value in zip(message.params, params, strict=True):
                data = value if isinstance(value, bytes) else value.to_bytes((param.bitwidth + 7) // 8)
                entry.action.action.params.add(param_id=param.id, value=data)
        return entry


def update(kind: int, entity: object) -> p4r.Update:
    """An update of any entity message."""
    names = {
        p4r.TableEntry: "table_entry",
        p4r.CounterEntry: "counter_entry",
        p4r.MeterEntry: "meter_entry",
        p4r.DirectCounterEntry: "direct_counter_entry",
        p4r.DirectMeterEntry: "direct_meter_entry",
        p4r.RegisterEntry: "register_entry",
    }
    result = p4r.Update(type=kind)
    getattr(result.entity, names[type(entity)]).CopyFrom(entity)
    return result


def query(entity: object) -> p4r.Entity:
    return update(p4r.Update.UNSPECIFIED, entity).entity
