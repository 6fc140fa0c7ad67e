"""Reading and writing P4Runtime entities of a running program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from finsy.proto import p4r

from . import codec
from .codec import invalid
from .engine import Engine
from .matching import DuplicateEntry, Entry, NoSuchEntry, RuntimeTable, TableFull
from .meters import MeterConfig
from .schema import ArraySchema, Schema, TableSchema
from .status import Code, StatusError

Update = p4r.Update
INT64 = (1 << 63) - 1
T = TypeVar("T")


@dataclass(slots=True)
class Kept:
    """What the control plane wants back with an entry."""

    controller_metadata: int = 0
    metadata: bytes = b""
    wire: bytes | None = None
    """The constant part of the entry as a serialised TableEntry; made when it is first read."""
    notified: int = 0
    """When the last idle notification was sent (ns of the engine's clock)."""


class Entities:
    """The entities of one pipeline configuration."""

    def __init__(self, engine: Engine, schema: Schema) -> None:
        self.engine = engine
        self.schema = schema

    # ---------------------------------------------------------------------------------------------- write

    def write(self, update: p4r.Update) -> None:
        """Do one update. Raises StatusError."""
        if update.type == Update.UNSPECIFIED:
            raise invalid("the update has no type")
        kind = update.entity.WhichOneof("entity")
        match kind:
            case "table_entry":
                self._write_entry(update.type, update.entity.table_entry)
            case "direct_counter_entry":
                _only_modify(update)
                self._write_direct_counter(update.entity.direct_counter_entry)
            case "direct_meter_entry":
                _only_modify(update)
                self._write_direct_meter(update.entity.direct_meter_entry)
            case "counter_entry":
                _only_modify(update)
                self._write_counter(update.entity.counter_entry)
            case "meter_entry":
                _only_modify(update)
                self._write_meter(update.entity.meter_entry)
            case None:
                raise invalid("the update has no entity")
            case other:
                raise StatusError(Code.UNIMPLEMENTED, f"writing a {other} is not supported")

    def _write_entry(self, kind: int, message: p4r.TableEntry) -> None:
        schema = self.schema.table(message.table_id)
        if message.is_const:
            raise invalid("is_const must not be set in a write")
        if message.is_default_action:
            self._write_default(kind, schema, message)
            return
        if not schema.fields:
            raise invalid(f"table {schema.name} has no key, hence no entries")
        key, priority = self._identity(schema, message)
        if schema.is_const:
            self._write_const(kind, schema, message)
            return
        if kind == Update.DELETE:
            try:
                self.engine.remove(schema.name, key, priority)
            except NoSuchEntry:
                raise _not_found(schema) from None
            return
        _check_timeout(schema, message)
        if message.HasField("time_since_last_hit"):
            raise invalid("time_since_last_hit cannot be written")
        counter, meter = self._direct(schema, message)
        ref, args = codec.decode_action(schema, message)
        change = self.engine.insert if kind == Update.INSERT else self.engine.modify
        try:
            entry = change(
                schema.name,
                key,
                ref.number,
                args,
                priority,
                message.idle_timeout_ns,
                Kept(message.controller_metadata, message.metadata),
            )
        except DuplicateEntry:
            raise StatusError(Code.ALREADY_EXISTS, f"table {schema.name} has this entry already") from None
        except TableFull:
            text = f"table {schema.name} is full ({len(self.engine.tables[schema.name].entries)} entries)"
            raise StatusError(Code.RESOURCE_EXHAUSTED, text) from None
        except NoSuchEntry:
            raise _not_found(schema) from None
        if counter is not None:
            entry.packets, entry.octets = counter.packet_count, counter.byte_count
        if schema.meter:
            self.engine.set_direct_meter(entry, meter)

    def _write_default(self, kind: int, schema: TableSchema, message: p4r.TableEntry) -> None:
        if kind != Update.MODIFY:
            raise invalid("a default entry can only be modified")
        if message.match or message.priority:
            raise invalid("a default entry has neither match nor priority")
        if message.idle_timeout_ns or message.HasField("time_since_last_hit"):
            raise invalid("a default entry has no idle timeout")
        if message.HasField("counter_data") or message.HasField("meter_config"):
            raise StatusError(Code.UNIMPLEMENTED, "direct resources of default entries are not supported")
        if schema.const_default:
            raise StatusError(Code.PERMISSION_DENIED, f"the default action of table {schema.name} is constant")
        table = self.engine.tables[schema.name]
        if not message.HasField("action"):
            table.reset_default()
            return
        ref, args = codec.decode_action(schema, message)
        if table.table.default_action_const and ref.number != table.table.default.action:
            raise StatusError(Code.PERMISSION_DENIED, f"the default action of table {schema.name} is constant")
        kept = Kept(message.controller_metadata, message.metadata)
        self.engine.set_default(schema.name, ref.number, args, kept)

    def _write_const(self, kind: int, schema: TableSchema, message: p4r.TableEntry) -> None:
        """Of a const entry only the direct resources may change."""
        if kind != Update.MODIFY or message.HasField("action"):
            raise StatusError(Code.PERMISSION_DENIED, f"the entries of table {schema.name} are constant")
        counter, meter = self._direct(schema, message)
        entry = self._entry(schema, message)
        if counter is not None:
            entry.packets, entry.octets = counter.packet_count, counter.byte_count
        if schema.meter:
            self.engine.set_direct_meter(entry, meter)

    def _direct(
        self, schema: TableSchema, message: p4r.TableEntry
    ) -> tuple[p4r.CounterData | None, MeterConfig | None]:
        """Initial values of the direct resources of an entry."""
        counter = message.counter_data if message.HasField("counter_data") else None
        if counter is not None and not schema.counter:
            raise invalid(f"table {schema.name} has no direct counter")
        if message.HasField("meter_counter_data"):
            raise StatusError(Code.UNIMPLEMENTED, "counters of meters are not supported")
        if not message.HasField("meter_config"):
            return counter, None
        if not schema.meter:
            raise invalid(f"table {schema.name} has no direct meter")
        return counter, codec.decode_meter(message.meter_config)

    def _write_direct_counter(self, message: p4r.DirectCounterEntry) -> None:
        schema, entry = self._direct_entry(message.table_entry)
        if not schema.counter:
            raise invalid(f"table {schema.name} has no direct counter")
        if message.HasField("data"):
            entry.packets, entry.octets = message.data.packet_count, message.data.byte_count

    def _write_direct_meter(self, message: p4r.DirectMeterEntry) -> None:
        schema, entry = self._direct_entry(message.table_entry)
        if not schema.meter:
            raise invalid(f"table {schema.name} has no direct meter")
        config = codec.decode_meter(message.config) if message.HasField("config") else None
        self.engine.set_direct_meter(entry, config)

    def _write_counter(self, message: p4r.CounterEntry) -> None:
        array = _array(self.schema.counters, message.counter_id, "counter")
        cells = self.engine.counters[array.name]
        for index in _indices(array, message):
            if message.HasField("data"):
                cells.packets[index], cells.octets[index] = message.data.packet_count, message.data.byte_count

    def _write_meter(self, message: p4r.MeterEntry) -> None:
        array = _array(self.schema.meters, message.meter_id, "meter")
        config = codec.decode_meter(message.config) if message.HasField("config") else None
        for index in _indices(array, message):
            self.engine.configure_meter(array.name, index, config)

    # ----------------------------------------------------------------------------------------------- read

    def read(self, query: p4r.Entity) -> Iterator[p4r.Entity]:
        """All entities that a query of a ReadRequest asks for. Raises StatusError."""
        match query.WhichOneof("entity"):
            case "table_entry":
                yield from self._read_entries(query.table_entry)
            case "direct_counter_entry":
                yield from self._read_direct_counters(query.direct_counter_entry)
            case "direct_meter_entry":
                yield from self._read_direct_meters(query.direct_meter_entry)
            case "counter_entry":
                yield from self._read_counters(query.counter_entry)
            case "meter_entry":
                yield from self._read_meters(query.meter_entry)
            case "action_profile_member" | "action_profile_group" | "extern_entry" | "digest_entry" | "value_set_entry":
                # There are none in the programs that this switch runs, so a wildcard finds none.
                return
            case "packet_replication_engine_entry":
                return
            case None:
                raise invalid("the query has no entity")
            case other:
                raise StatusError(Code.UNIMPLEMENTED, f"reading a {other} is not supported")

    def _read_entries(self, query: p4r.TableEntry) -> Iterator[p4r.Entity]:
        schemas = [self.schema.table(query.table_id)] if query.table_id else list(self.schema.tables.values())
        if query.table_id:
            _check_read(schemas[0], query)
        now = self.engine.clock()
        for schema in schemas:
            table = self.engine.tables[schema.name]
            counter = query.HasField("counter_data") and schema.counter
            meter = query.HasField("meter_config") and schema.meter
            since = query.HasField("time_since_last_hit") and schema.ageing
            for entry in self._matching(schema, table, query):
                entity = p4r.Entity()
                message = entity.table_entry
                message.ParseFromString(self._wire(schema, entry, entry is table.default))
                if counter and entry is not table.default:
                    message.counter_data.packet_count = entry.packets & INT64
                    message.counter_data.byte_count = entry.octets & INT64
                if meter and entry.meter is not None:
                    message.meter_config.CopyFrom(codec.encode_meter(entry.meter.config))
                if since and entry is not table.default:
                    message.time_since_last_hit.elapsed_ns = max(now - entry.stamp, 0)
                yield entity

    def _matching(self, schema: TableSchema, table: RuntimeTable, query: p4r.TableEntry) -> Iterator[Entry]:
        """The entries that a query means: the default one, one by its key, or all."""
        if query.is_default_action:
            yield table.default
        elif query.match:
            key, priority = self._identity(schema, query)
            entry = table.entries.get((key, priority))
            if entry is not None:
                yield entry
        else:
            for entry in table.all():
                if not query.priority or entry.priority == query.priority:
                    yield entry

    def _wire(self, schema: TableSchema, entry: Entry, default: bool) -> bytes:
        kept = entry.extra
        if not isinstance(kept, Kept):
            kept = entry.extra = Kept()
        if kept.wire is None:
            message = p4r.TableEntry(
                table_id=schema.id,
                priority=entry.priority,
                is_default_action=default,
                controller_metadata=kept.controller_metadata,
                metadata=kept.metadata,
                idle_timeout_ns=entry.timeout,
                is_const=schema.is_const and not default,
            )
            if not default:
                codec.encode_key(schema, entry.key, message)
            ref = schema.by_number.get(entry.action)
            if ref is not None:
                codec.encode_action(ref, entry.args, message)
            kept.wire = message.SerializeToString()
        return kept.wire

    def notification(self, schema: TableSchema, entry: Entry) -> p4r.TableEntry:
        """An entry as an idle notification shows it: key, timeout and the controller's own data."""
        message = p4r.TableEntry()
        message.ParseFromString(self._wire(schema, entry, False))
        message.ClearField("action")
        return message

    def _read_direct_counters(self, query: p4r.DirectCounterEntry) -> Iterator[p4r.Entity]:
        for schema, entry in self._direct_entries(query.table_entry, lambda schema: schema.counter):
            entity = p4r.Entity()
            message = entity.direct_counter_entry
            self._place(schema, entry, message.table_entry)
            message.data.packet_count, message.data.byte_count = entry.packets & INT64, entry.octets & INT64
            yield entity

    def _read_direct_meters(self, query: p4r.DirectMeterEntry) -> Iterator[p4r.Entity]:
        for schema, entry in self._direct_entries(query.table_entry, lambda schema: schema.meter):
            entity = p4r.Entity()
            message = entity.direct_meter_entry
            self._place(schema, entry, message.table_entry)
            if entry.meter is not None:
                message.config.CopyFrom(codec.encode_meter(entry.meter.config))
            yield entity

    def _place(self, schema: TableSchema, entry: Entry, message: p4r.TableEntry) -> None:
        message.table_id, message.priority = schema.id, entry.priority
        codec.encode_key(schema, entry.key, message)

    def _direct_entries(
        self, query: p4r.TableEntry, has: Callable[[TableSchema], bool]
    ) -> Iterator[tuple[TableSchema, Entry]]:
        if query.table_id and not has(self.schema.table(query.table_id)):
            raise invalid(f"table {self.schema.table(query.table_id).name} has no such direct resource")
        for schema in [self.schema.table(query.table_id)] if query.table_id else list(self.schema.tables.values()):
            if not has(schema):
                continue
            if query.match:
                yield schema, self._entry(schema, query)
            else:
                yield from ((schema, entry) for entry in self.engine.tables[schema.name].all())

    def _read_counters(self, query: p4r.CounterEntry) -> Iterator[p4r.Entity]:
        for array in _arrays(self.schema.counters, query.counter_id, "counter"):
            cells = self.engine.counters[array.name]
            for index in _indices(array, query):
                entity = p4r.Entity()
                message = entity.counter_entry
                message.counter_id = array.id
                message.index.index = index
                message.data.packet_count = cells.packets[index] & INT64
                message.data.byte_count = cells.octets[index] & INT64
                yield entity

    def _read_meters(self, query: p4r.MeterEntry) -> Iterator[p4r.Entity]:
        for array in _arrays(self.schema.meters, query.meter_id, "meter"):
            cells = self.engine.meters[array.name].cells
            for index in _indices(array, query):
                entity = p4r.Entity()
                message = entity.meter_entry
                message.meter_id = array.id
                message.index.index = index
                meter = cells.get(index)
                if meter is not None:
                    message.config.CopyFrom(codec.encode_meter(meter.config))
                yield entity

    # ------------------------------------------------------------------------------------------- identity

    def _identity(self, schema: TableSchema, message: p4r.TableEntry) -> tuple[tuple[tuple[int, ...], ...], int]:
        """(key, priority). Raises StatusError INVALID_ARGUMENT."""
        if schema.needs_priority and message.priority <= 0:
            raise invalid(f"an entry of table {schema.name} needs a priority above 0")
        if not schema.needs_priority and message.priority:
            raise invalid(f"an entry of table {schema.name} has no priority")
        return codec.decode_key(schema, message.match), message.priority

    def _entry(self, schema: TableSchema, message: p4r.TableEntry) -> Entry:
        key, priority = self._identity(schema, message)
        try:
            return self.engine.tables[schema.name].lookup(key, priority)
        except NoSuchEntry:
            raise _not_found(schema) from None

    def _direct_entry(self, message: p4r.TableEntry) -> tuple[TableSchema, Entry]:
        schema = self.schema.table(message.table_id)
        if message.is_default_action:
            raise StatusError(Code.UNIMPLEMENTED, "direct resources of default entries are not supported")
        return schema, self._entry(schema, message)


def _not_found(schema: TableSchema) -> StatusError:
    return StatusError(Code.NOT_FOUND, f"table {schema.name} has no such entry")


def _only_modify(update: p4r.Update) -> None:
    if update.type != Update.MODIFY:
        raise invalid(f"a {update.entity.WhichOneof('entity')} can only be modified")


def _check_timeout(schema: TableSchema, message: p4r.TableEntry) -> None:
    if message.idle_timeout_ns and not schema.ageing:
        raise invalid(f"table {schema.name} has no idle timeout")
    if message.idle_timeout_ns < 0:
        raise invalid("the idle timeout is negative")


def _check_read(schema: TableSchema, query: p4r.TableEntry) -> None:
    """A query may not ask one table for what it does not have."""
    if query.HasField("time_since_last_hit") and (not schema.ageing or query.is_default_action):
        raise invalid(f"table {schema.name} has no idle timeout here")
    if query.HasField("counter_data") and not schema.counter:
        raise invalid(f"table {schema.name} has no direct counter")
    if query.HasField("meter_config") and not schema.meter:
        raise invalid(f"table {schema.name} has no direct meter")


def _array(schemas: dict[int, ArraySchema], number: int, kind: str) -> ArraySchema:
    try:
        return schemas[number]
    except KeyError:
        raise invalid(f"there is no {kind} with id {number}") from None


def _arrays(schemas: dict[int, ArraySchema], number: int, kind: str) -> list[ArraySchema]:
    return [_array(schemas, number, kind)] if number else list(schemas.values())


def _indices(array: ArraySchema, message: p4r.CounterEntry | p4r.MeterEntry) -> range:
    """The cell that a message names, or all."""
    if not message.HasField("index"):
        return range(array.size)
    index = message.index.index
    if index < 0:
        raise invalid(f"{array.name}: index {index} is negative")
    if index >= array.size:
        raise StatusError(Code.OUT_OF_RANGE, f"{array.name}: index {index} is not below {array.size}")
    return range(index, index + 1)
