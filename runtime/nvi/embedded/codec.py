"""P4Runtime's messages to the engine's integers, and back."""

from __future__ import annotations

from collections.abc import Iterable

from finsy.proto import p4r

from .matching import Key, Match
from .meters import MeterConfig
from .schema import ActionRef, MatchField, MatchKind, PacketHeader, TableSchema
from .status import Code, StatusError


def invalid(message: str) -> StatusError:
    """INVALID_ARGUMENT."""
    return StatusError(Code.INVALID_ARGUMENT, message)


def decode(value: bytes, width: int, what: str) -> int:
    """A bytestring, padded or not, as a number. Raises StatusError INVALID_ARGUMENT."""
    if not value:
        raise invalid(f"{what}: the bytestring is empty")
    result = int.from_bytes(value)
    if result >> width:
        raise invalid(f"{what}: {value.hex()} does not fit into {width} bits")
    return result


def encode(value: int) -> bytes:
    """A number as the shortest bytestring (P4Runtime's canonical form)."""
    return value.to_bytes(max((value.bit_length() + 7) // 8, 1))


# ----------------------------------------------------------------------------------------------------- keys


def decode_key(schema: TableSchema, matches: Iterable[p4r.FieldMatch]) -> Key:
    """The engine's key for a list of matches. Raises StatusError INVALID_ARGUMENT."""
    given: dict[int, p4r.FieldMatch] = {}
    for match in matches:
        if match.field_id in given:
            raise invalid(f"table {schema.name}: field {match.field_id} occurs twice")
        given[match.field_id] = match
    key = tuple(_decode_match(schema, field, given.pop(field.id, None)) for field in schema.fields)
    if given:
        raise invalid(f"table {schema.name} has no match field with id {next(iter(given))}")
    return key


def _decode_match(schema: TableSchema, field: MatchField, match: p4r.FieldMatch | None) -> Match:
    what, width = f"{schema.name}.{field.name}", field.width
    full = (1 << width) - 1
    if match is None:
        match field.kind:
            case MatchKind.EXACT:
                raise invalid(f"{what}: an exact match cannot be left out")
            case MatchKind.RANGE:
                return (0, full)
            case _:
                return (0, 0)
    kind = match.WhichOneof("field_match_type")
    if kind != field.kind.value:
        raise invalid(f"{what}: {kind or 'no'} match for a field that wants {field.kind.value}")
    match field.kind:
        case MatchKind.EXACT:
            return (decode(match.exact.value, width, what),)
        case MatchKind.OPTIONAL:
            return (decode(match.optional.value, width, what), full)
        case MatchKind.LPM:
            value, length = decode(match.lpm.value, width, what), match.lpm.prefix_len
            if not 0 < length <= width:
                raise invalid(f"{what}: prefix length {length} (leave the field out to match everything)")
            if value & (1 << (width - length)) - 1:
                raise invalid(f"{what}: bits behind the prefix are set")
            return (value, length)
        case MatchKind.TERNARY:
            value, mask = decode(match.ternary.value, width, what), decode(match.ternary.mask, width, what)
            if not mask:
                raise invalid(f"{what}: mask 0 (leave the field out to match everything)")
            if value & ~mask:
                raise invalid(f"{what}: bits outside the mask are set")
            return (value, mask)
        case MatchKind.RANGE:
            low, high = decode(match.range.low, width, what), decode(match.range.high, width, what)
            if low > high:
                raise invalid(f"{what}: the range is empty")
            if (low, high) == (0, full):
                raise invalid(f"{what}: a range of everything (leave the field out)")
            return (low, high)


def encode_key(schema: TableSchema, key: Key, entry: p4r.TableEntry) -> None:
    """Append the matches of a key; what matches everything is left out."""
    for field, match in zip(schema.fields, key, strict=True):
        match field.kind:
            case MatchKind.EXACT:
                entry.match.add(field_id=field.id).exact.value = encode(match[0])
            case MatchKind.LPM if match[1]:
                message = entry.match.add(field_id=field.id).lpm
                message.value, message.prefix_len = encode(match[0]), match[1]
            case MatchKind.OPTIONAL if match[1]:
                entry.match.add(field_id=field.id).optional.value = encode(match[0])
            case MatchKind.TERNARY if match[1]:
                ternary = entry.match.add(field_id=field.id).ternary
                ternary.value, ternary.mask = encode(match[0]), encode(match[1])
            case MatchKind.RANGE if match != (0, (1 << field.width) - 1):
                bounds = entry.match.add(field_id=field.id).range
                bounds.low, bounds.high = encode(match[0]), encode(match[1])


# -------------------------------------------------------------------------------------------------- actions


def decode_action(schema: TableSchema, entry: p4r.TableEntry) -> tuple[ActionRef, tuple[int, ...]]:
    """(action, arguments) of an entry. Raises StatusError."""
    kind = entry.action.WhichOneof("type") if entry.HasField("action") else None
    if kind != "action":
        raise invalid(f"table {schema.name} wants an action, not {kind or 'nothing'}")
    message = entry.action.action
    ref = schema.actions.get(message.action_id)
    if ref is None:
        raise invalid(f"table {schema.name} has no action with id {message.action_id}")
    if not (ref.as_default if entry.is_default_action else ref.in_entries):
        where = "the default action" if entry.is_default_action else "an entry"
        raise StatusError(Code.PERMISSION_DENIED, f"action {ref.schema.name} may not be used in {where}")
    given = {param.param_id: param.value for param in message.params}
    if len(given) != len(message.params):
        raise invalid(f"action {ref.schema.name}: a parameter occurs twice")
    args = []
    for number, name, width in ref.schema.params:
        if number not in given:
            raise invalid(f"action {ref.schema.name}: parameter {name} is missing")
        args.append(decode(given.pop(number), width, f"{ref.schema.name}.{name}"))
    if given:
        raise invalid(f"action {ref.schema.name} has no parameter with id {next(iter(given))}")
    return ref, tuple(args)


def encode_action(ref: ActionRef, args: tuple[int, ...], entry: p4r.TableEntry) -> None:
    """Set the action of an entry."""
    message = entry.action.action
    message.action_id = ref.schema.id
    for (number, _, _), value in zip(ref.schema.params, args, strict=True):
        message.params.add(param_id=number, value=encode(value))


# --------------------------------------------------------------------------------------------------- meters


def decode_meter(config: p4r.MeterConfig) -> MeterConfig:
    """Raises StatusError INVALID_ARGUMENT."""
    if config.eburst:
        raise invalid("a two-rate meter has no excess burst (eburst)")
    if min(config.cir, config.cburst, config.pir, config.pburst) < 0:
        raise invalid("a meter's rates and bursts cannot be negative")
    if config.cir > config.pir:
        raise invalid(f"committed rate {config.cir} is above the peak rate {config.pir}")
    return MeterConfig(config.cir, config.cburst, config.pir, config.pburst)


def encode_meter(config: MeterConfig) -> p4r.MeterConfig:
    """As a message."""
    return p4r.MeterConfig(cir=config.cir, cburst=config.cburst, pir=config.pir, pburst=config.pburst)


# --------------------------------------------------------------------------------------- packet-in, packet-out


def packet_in(header: PacketHeader, packet: bytes) -> p4r.PacketIn:
    """Split the controller header off a packet for the CPU."""
    size = header.size
    message = p4r.PacketIn(payload=packet[size:])
    bits = int.from_bytes(packet[:size])
    position = 8 * size
    for number, width in header.fields:
        position -= width
        message.metadata.add(metadata_id=number, value=encode(bits >> position & (1 << width) - 1))
    return message


def packet_out(header: PacketHeader, message: p4r.PacketOut) -> bytes:
    """The packet as the CPU port gives it to the parser. Raises StatusError INVALID_ARGUMENT."""
    given = {item.metadata_id: item.value for item in message.metadata}
    if len(given) != len(message.metadata):
        raise invalid("packet-out: a metadata field occurs twice")
    bits = 0
    position = 8 * header.size
    for number, width in header.fields:
        if number not in given:
            raise invalid(f"packet-out: metadata field {number} is missing")
        position -= width
        bits |= decode(given.pop(number), width, f"packet-out metadata {number}") << position
    if given:
        raise invalid(f"packet-out: there is no metadata field with id {next(iter(given))}")
    return bits.to_bytes(header.size) + message.payload
