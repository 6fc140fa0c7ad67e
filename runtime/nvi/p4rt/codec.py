"""Entries, packets and errors <-> P4Runtime messages. No I/O.

Values are sent padded to whole bytes, which every server must accept (section 8.3, Bytestrings): so they have a known
size, and fill the holes of a pattern that is serialized once. What comes back may be canonical, that is without
leading zeros, and is padded again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from .. import rows
from ..rows import Value
from ..switch import (
    ConnectionEntry,
    ConnectionKey,
    DropReason,
    GuardEntry,
    NeighbourEntry,
    Operation,
    Punt,
    PuntReason,
    ServiceEntry,
    Update,
    Usage,
)
from .messages import p4r, rpc_code, rpc_status
from .pipeline import Field, Group, Pipeline, nvi_pipeline
from .wire import Pattern, hole, nested, number, varint

NANOSECONDS = 1_000_000_000

_STATUS_NAMES: dict[int, str] = {value: name for name, value in rpc_code.Code.items()}
_INVERSE_15625 = pow(15625, -1, 1 << 26)


class Change(NamedTuple):
    """An update, ready to be sent."""

    key: Hashable
    """What it changes. Of two updates with the same key the order matters."""
    message: bytes
    """One `updates` field of a WriteRequest. Serializations of a repeated field are concatenated freely."""


class UpdateError(NamedTuple):
    """The outcome of one update of a batch (p4.v1.Error)."""

    status: str
    """Name of a gRPC status; "OK" if it was done."""
    message: str


class Codec:
    """Translates for one compiled pipeline.

    Raises KeyError or ValueError when made for a pipeline whose tables and actions are not those of `nvi.switch`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        tables = {table: pipeline.table(table) for table in rows.KEYS}
        actions = {action: pipeline.action(action) for action in rows.PARAMETERS}
        self._tables = {group.id: table for table, group in tables.items()}
        self._actions = {group.id: action for action, group in actions.items()}
        self._keys = {table: _in_order(group, *rows.KEYS[table]) for table, group in tables.items()}
        self._numbers = {table: _numbers(fields) for table, fields in self._keys.items()}
        self._parameters = {action: _in_order(group, *rows.PARAMETERS[action]) for action, group in actions.items()}
        self._key_sizes = {group.id: _sizes(self._keys[table]) for table, group in tables.items()}
        self._parameter_sizes = {action: _sizes(fields) for action, fields in self._parameters.items()}
        self._entries = {
            (table, action): _Entries(tables[table].id, self._keys[table], actions[action].id, self._parameters[action])
            for table, names in rows.ACTIONS.items()
            for action in names
        }
        self._usage_requests = {
            table: nested(
                p4r.ReadRequest.ENTITIES_FIELD_NUMBER,
                nested(
                    p4r.Entity.TABLE_ENTRY_FIELD_NUMBER,
                    _key_pattern(tables[table].id, self._keys[table]),
                    nested(p4r.TableEntry.COUNTER_DATA_FIELD_NUMBER),
                    nested(p4r.TableEntry.TIME_SINCE_LAST_HIT_FIELD_NUMBER),
                ),
            )
            for table in (rows.CONNECTIONS, rows.CONNECTIONS6)
        }

        self._drops_id = pipeline.counter_id("drops")
        self._reasons = 1 << actions["drop"]["reason"].bits
        self._punts_id = pipeline.meter_id("punts")

        self._in_port, self._in_reason = (
            f.id for f in _in_order(pipeline.header("packet_in"), "ingress_port", "reason")
        )
        self._out_port, self._out_order = _in_order(pipeline.header("packet_out"), "port", "order")
        orders = pipeline.enum("PacketOutOrder")
        self.reinject, self.send = orders["REINJECT"], orders["SEND"]
        """Values of packet_out.order."""
        self._out_metadata: dict[tuple[int, int], bytes] = {}

    # Writing.

    def encode(self, update: Update) -> Change:
        """An update of any table."""
        entry = update.entry
        operation = update.operation
        table, key, action, parameters = rows.row(entry)
        entries = self._entries[table, action]
        identity: Hashable = (table, key)
        tail = b""
        if type(entry) is ConnectionEntry:
            identity = entry.key
            if operation is not Operation.DELETE:
                if entry.action is None:
                    raise TypeError(f"an entry without an action can only be deleted: {entry}")
                tail = _tail(entry.idle_timeout, entry.tag)
        return Change(identity, entries.fill(operation, key, parameters, tail))

    def encode_punt_limit(self, port: int, rate: int, burst: int) -> Change:
        """The meter of the port's punts: `rate` packets per second, up to `burst` at once.

        A two-rate meter (RFC 2698) marks red what exceeds the peak rate, and the pipeline looks for red only; so both
        rates are the same. A meter is modified, never inserted (section 9.4.2).
        """
        config = p4r.MeterConfig(cir=rate, cburst=burst, pir=rate, pburst=burst)
        meter = p4r.MeterEntry(meter_id=self._punts_id, index=p4r.Index(index=port), config=config)
        update = p4r.Update(type=p4r.Update.MODIFY, entity=p4r.Entity(meter_entry=meter))
        return Change(("punts", port), p4r.WriteRequest(updates=[update]).SerializeToString())

    # Reading.

    def encode_usage_request(self, keys: Iterable[ConnectionKey]) -> bytes:
        """`entities` of a ReadRequest that asks for the counters and the age of these entries."""
        requests = []
        for key in keys:
            table = rows.table_of(key)
            values = _octets(rows.connection_key(key), self._numbers[table])
            requests.append(self._usage_requests[table].fill(values))
        return b"".join(requests)

    def encode_drops_request(self, ports: Iterable[int]) -> bytes:
        """`entities` of a ReadRequest that asks for all drop counters of these ports."""
        request = p4r.ReadRequest()
        for port in ports:
            for reason in DropReason:
                counter = request.entities.add().counter_entry
                counter.counter_id = self._drops_id
                counter.index.index = self._reasons * port + reason
        return request.SerializeToString()

    def all_entries(self, *tables: str) -> bytes:
        """`entities` of a ReadRequest for all of these tables."""
        return b"".join([_wildcard(id_) for id_, table in self._tables.items() if table in tables])

    def decode_connection(self, entry: p4r.TableEntry) -> ConnectionEntry:
        """An entry of `connections` or `connections6`. Raises ValueError if it is not one that `encode` makes."""
        action = self._actions.get(entry.action.action.action_id)
        table = self._tables[entry.table_id]
        if action not in rows.ACTIONS[table]:
            raise ValueError(f"an entry of {table} has the action {entry.action.action.action_id:#x}, not NVI's")
        timeout = entry.idle_timeout_ns / NANOSECONDS
        return rows.connection(
            self._match(entry), action, self._values(entry, action), timeout, entry.controller_metadata
        )

    def decode_guard(self, entry: p4r.TableEntry) -> GuardEntry:
        """An entry of `guard`."""
        return rows.guard(self._match(entry), self._values(entry, "admit"))

    def decode_neighbour(self, entry: p4r.TableEntry) -> NeighbourEntry:
        """An entry of `neighbours`."""
        return rows.neighbour(self._match(entry), self._values(entry, "reply"))

    def decode_service(self, entry: p4r.TableEntry) -> ServiceEntry:
        """An entry of `services`."""
        return rows.service(self._match(entry))

    def decode_usage(self, entry: p4r.TableEntry) -> tuple[ConnectionKey, Usage]:
        """An answer to `encode_usage_request`."""
        counted = entry.counter_data
        idle = elapsed(entry.time_since_last_hit.elapsed_ns, entry.idle_timeout_ns) / NANOSECONDS
        return rows.connection_key_of(self._match(entry)), Usage(idle, counted.packet_count, counted.byte_count)

    def decode_drops(self, entry: p4r.CounterEntry) -> tuple[int, DropReason, int]:
        """Port, reason, packets."""
        port, reason = divmod(entry.index.index, self._reasons)
        return port, DropReason(reason), entry.data.packet_count

    def _match(self, entry: p4r.TableEntry) -> list[Value]:
        """The key, in the order of `rows.KEYS`."""
        values = {match.field_id: match.exact.value for match in entry.match}
        return _values(values, self._key_sizes[entry.table_id])

    def _values(self, entry: p4r.TableEntry, action: str) -> list[Value]:
        """The action's parameters, in the order of `rows.PARAMETERS`."""
        values = {param.param_id: param.value for param in entry.action.action.params}
        return _values(values, self._parameter_sizes[action])

    # Packets.

    def encode_packet_out(self, order: int, port: int, packet: bytes) -> bytes:
        """A StreamMessageRequest."""
        metadata = self._out_metadata.get((order, port))
        if metadata is None:
            values = ((self._out_port, port), (self._out_order, order))
            metadata = self._out_metadata[order, port] = p4r.PacketOut(
                metadata=[p4r.PacketMetadata(metadata_id=f.id, value=v.to_bytes(f.size)) for f, v in values]
            ).SerializeToString()
        payload = b"%b%b%b" % (_PAYLOAD_TAG, varint(len(packet)), packet)
        return b"%b%b%b%b" % (_PACKET_TAG, varint(len(payload) + len(metadata)), payload, metadata)

    def decode_packet_in(self, message: p4r.PacketIn) -> Punt:
        """A packet from the switch. Raises ValueError if its metadata make no sense."""
        port = reason = 0
        for metadata in message.metadata:
            if metadata.metadata_id == self._in_port:
                port = int.from_bytes(metadata.value)
            elif metadata.metadata_id == self._in_reason:
                reason = int.from_bytes(metadata.value)
        return Punt(port, PuntReason(reason), message.payload)


@cache
def nvi_codec() -> Codec:
    """For the pipeline that this package comes with."""
    return Codec(nvi_pipeline())


def elapsed(reported: int, timeout: int) -> int:
    """What `time_since_last_hit.elapsed_ns` should have been, given the entry's `idle_timeout_ns`.

    BMv2 has milliseconds, and PI makes `timeout - remaining milliseconds * 1000000` of them, with a product of 32 bits
    (`_pi_table_entry_get_remaining_ttl`, PI/src/pi_tables_imp.cpp): timeouts above 4.29 s come out wrong. As 1000000 is
    64 * 15625, and 15625 is odd, the product still tells the milliseconds modulo 2**26, which is 18 hours. One number
    in a hundred thousand looks like such a product by chance, if the timeout is 30 s; there it is wrong once.
    """
    remaining = timeout - reported
    if 0 < remaining < 1 << 32 and not remaining % 64:
        unwrapped = remaining // 64 * _INVERSE_15625 % (1 << 26) * 1_000_000
        if unwrapped <= timeout:
            return timeout - unwrapped
    return reported


def decode_write_errors(details: bytes) -> list[UpdateError]:
    """The outcome of each update of a failed batch, in order (section 12.3), from `grpc-status-details-bin`.

    Empty if `details` are not what the specification says.
    """
    try:
        errors = [p4r.Error.FromString(detail.value) for detail in rpc_status.Status.FromString(details).details]
    except DecodeError:
        return []
    return [UpdateError(_STATUS_NAMES.get(error.canonical_code, "UNKNOWN"), error.message) for error in errors]


_PACKET_TAG = nested(p4r.StreamMessageRequest.PACKET_FIELD_NUMBER).fill(())[:-1]
_PAYLOAD_TAG = nested(p4r.PacketOut.PAYLOAD_FIELD_NUMBER).fill(())[:-1]


class _Entries:
    """Patterns of updates of one table with one action."""

    __slots__ = ("_action", "_key", "_key_numbers", "_numbers", "_patterns")

    def __init__(self, table: int, key: Sequence[Field], action: int, parameters: Sequence[Field]) -> None:
        self._key = _key_pattern(table, key)
        self._action = _action_pattern(action, parameters)
        self._key_numbers = _numbers(key)
        self._numbers = _numbers((*key, *parameters))
        self._patterns: tuple[dict[int, Pattern], ...] = tuple({} for _ in range(max(Operation) + 1))
        """By operation and size of the tail."""

    def fill(
        self, operation: Operation, key: tuple[Value, ...], parameters: tuple[Value, ...], tail: bytes = b""
    ) -> bytes:
        """An `updates` field of a WriteRequest. `tail`: further fields of the TableEntry, serialized.

        Deleting looks only at the key (section 12).
        """
        if operation is Operation.DELETE:
            return self._pattern(operation, 0).fill(_octets(key, self._key_numbers))
        return self._pattern(operation, len(tail)).fill((*_octets(key + parameters, self._numbers), tail))

    def _pattern(self, operation: Operation, tail: int) -> Pattern:
        pattern = self._patterns[operation].get(tail)
        if pattern is None:
            entry = self._key if operation is Operation.DELETE else self._key + self._action + hole(tail)
            pattern = self._patterns[operation][tail] = nested(
                p4r.WriteRequest.UPDATES_FIELD_NUMBER,
                number(p4r.Update.TYPE_FIELD_NUMBER, operation),
                nested(p4r.Update.ENTITY_FIELD_NUMBER, nested(p4r.Entity.TABLE_ENTRY_FIELD_NUMBER, entry)),
            )
        return pattern


def _key_pattern(table: int, key: Sequence[Field]) -> Pattern:
    pattern = number(p4r.TableEntry.TABLE_ID_FIELD_NUMBER, table)
    for field in key:
        value = nested(p4r.FieldMatch.Exact.VALUE_FIELD_NUMBER, hole(field.size))
        pattern += nested(
            p4r.TableEntry.MATCH_FIELD_NUMBER,
            number(p4r.FieldMatch.FIELD_ID_FIELD_NUMBER, field.id),
            nested(p4r.FieldMatch.EXACT_FIELD_NUMBER, value),
        )
    return pattern


def _action_pattern(action: int, parameters: Sequence[Field]) -> Pattern:
    pattern = number(p4r.Action.ACTION_ID_FIELD_NUMBER, action)
    for field in parameters:
        pattern += nested(
            p4r.Action.PARAMS_FIELD_NUMBER,
            number(p4r.Action.Param.PARAM_ID_FIELD_NUMBER, field.id),
            nested(p4r.Action.Param.VALUE_FIELD_NUMBER, hole(field.size)),
        )
    return nested(p4r.TableEntry.ACTION_FIELD_NUMBER, nested(p4r.TableAction.ACTION_FIELD_NUMBER, pattern))


def _wildcard(table: int) -> bytes:
    return p4r.ReadRequest(entities=[p4r.Entity(table_entry=p4r.TableEntry(table_id=table))]).SerializeToString()


def _numbers(fields: Iterable[Field]) -> tuple[tuple[int, int], ...]:
    """(place, bytes) of the fields whose values are numbers."""
    return tuple([(place, field.size) for place, field in enumerate(fields) if not rows.is_bytes(field.bits)])


def _octets(values: Sequence[Value], numbers: tuple[tuple[int, int], ...]) -> tuple[bytes, ...]:
    """Values as P4Runtime has them."""
    octets: list[Any] = list(values)
    for place, size in numbers:
        octets[place] = octets[place].to_bytes(size)
    return tuple(octets)


def _sizes(fields: Iterable[Field]) -> tuple[tuple[int, int], ...]:
    """Of each field its id, and how many bytes its values have; 0 if they are numbers."""
    return tuple((field.id, field.size if rows.is_bytes(field.bits) else 0) for field in fields)


def _values(found: dict[int, bytes], sizes: Iterable[tuple[int, int]]) -> list[Value]:
    """The opposite of `_octets`, of values by id that may lack leading zeros."""
    return [found[id_].rjust(size, b"\0") if size else int.from_bytes(found[id_]) for id_, size in sizes]


@lru_cache(4096)
def _tail(idle_timeout: float, tag: int) -> bytes:
    """The fields of a TableEntry that are not strings of a fixed size. Most entries have one of few tags."""
    entry = p4r.TableEntry(idle_timeout_ns=round(idle_timeout * NANOSECONDS), controller_metadata=tag)
    return entry.SerializeToString()


def _in_order(group: Group, *names: str) -> tuple[Field, ...]:
    """All fields of the group, in the order of `names`, which is that of the code here."""
    if sorted(names) != sorted(field.name for field in group.fields):
        raise ValueError(f"the P4Info's {group.name} has other fields than {names}")
    return tuple(group[name] for name in names)
