"""The codec against protobuf itself, and its checksum deltas against checksums computed anew."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvi.checksum import fold, internet_checksum
from nvi.deltas import checksum_deltas
from nvi.model import Flow, Protocol
from nvi.p4rt.codec import Codec, decode_write_errors, elapsed, nvi_codec
from nvi.p4rt.messages import p4r, rpc_code, rpc_status
from nvi.p4rt.pipeline import nvi_pipeline
from nvi.p4rt.wire import hole, nested, varint
from nvi.packets import echo_port
from nvi.switch import (
    ConnectionEntry,
    ConnectionKey,
    Drop,
    DropReason,
    Entry,
    GuardEntry,
    NeighbourEntry,
    Operation,
    Punt,
    PuntReason,
    Rewrite,
    ServiceEntry,
    Update,
    Usage,
)

CODEC = nvi_codec()

addresses = st.binary(min_size=4, max_size=4)
macs = st.binary(min_size=6, max_size=6)
ports = st.integers(0, 511)
words = st.integers(0, 0xFFFF)
odd_words = st.one_of(words, st.integers(0x07FF, 0x0803))  # around the stand-ins of echo identifiers
addresses6 = st.binary(min_size=16, max_size=16).filter(lambda address: not address.startswith(bytes(10) + b"\xff\xff"))
both = st.one_of(addresses, addresses6)
protocols = st.integers(0, 255)
flows4 = st.builds(Flow, addresses, addresses, protocols, words, words)
flows = st.one_of(
    flows4,
    st.builds(Flow, addresses6, addresses6, protocols, words, words),
)
keys = st.builds(ConnectionKey, ports, macs, flows)
drops = st.builds(Drop, st.sampled_from(DropReason))
timeouts = st.one_of(st.just(0.0), st.integers(1, 10**9).map(lambda ms: ms / 1000))


OTHER = {Protocol.ICMP: Protocol.ICMPV6, Protocol.ICMPV6: Protocol.ICMP}


@st.composite
def rewrites(draw: st.DrawFn, old: Flow) -> Rewrite:
    """Any that the tables can hold: what has no meaning in an action stays at its default."""
    new = draw(flows)
    across = len(new.source) != len(old.source)
    protocol = OTHER.get(old.protocol, old.protocol) if across else old.protocol  # type: ignore[call-overload]
    new = Flow(new.source, new.destination, protocol, new.l4_source, new.l4_destination)
    router = draw(st.one_of(st.none(), addresses if len(new.source) == 4 else addresses6))
    return Rewrite(
        draw(macs),
        draw(macs),
        new,
        draw(st.integers(0, 255)),
        draw(ports),
        None if across or router == new.source else router,
        draw(st.booleans()),
        draw(st.integers(0, 0xFFFE)),
        draw(st.integers(0, 0xFFFFF)) if across and len(new.source) != 4 else 0,
        draw(st.booleans()) if across and len(new.source) == 4 else True,
    )


@st.composite
def connections(draw: st.DrawFn) -> ConnectionEntry:
    key = draw(keys)
    action = draw(st.one_of(drops, rewrites(key.flow)))
    return ConnectionEntry(key, action, draw(timeouts), draw(st.integers(0, 2**64 - 1)))


entries: st.SearchStrategy[Entry] = st.one_of(
    connections(),
    st.builds(GuardEntry, ports, macs, both, words),
    st.builds(NeighbourEntry, words, both, macs, st.booleans()),
    st.builds(ServiceEntry, both, protocols, words),
)


def canonical(entry: p4r.TableEntry) -> p4r.TableEntry:
    """As a server may return it: without leading zeros (section 8.3)."""
    short = p4r.TableEntry()
    short.CopyFrom(entry)
    for match in short.match:
        match.exact.value = match.exact.value.lstrip(b"\0") or b"\0"
    for param in short.action.action.params:
        param.value = param.value.lstrip(b"\0") or b"\0"
    return short


def decode(entry: p4r.TableEntry) -> Entry:
    tables = nvi_pipeline()
    if entry.table_id in (tables.table("connections").id, tables.table("connections6").id):
        return CODEC.decode_connection(entry)
    if entry.table_id == tables.table("guard").id:
        return CODEC.decode_guard(entry)
    if entry.table_id == tables.table("services").id:
        return CODEC.decode_service(entry)
    return CODEC.decode_neighbour(entry)


@given(entries, st.sampled_from([Operation.INSERT, Operation.MODIFY]))
def test_entries_come_back_as_they_were_written(entry: Entry, operation: Operation) -> None:
    request = p4r.WriteRequest.FromString(CODEC.encode(Update(operation, entry)).message)
    (update,) = request.updates
    assert update.type == operation.value
    assert decode(update.entity.table_entry) == entry
    assert decode(canonical(update.entity.table_entry)) == entry


@given(entries)
def test_updates_are_what_protobuf_makes_of_them(entry: Entry) -> None:
    for operation in Operation:
        message = CODEC.encode(Update(operation, entry)).message
        assert p4r.WriteRequest.FromString(message).SerializeToString() == message


@given(entries)
def test_deleting_sends_only_the_key(entry: Entry) -> None:
    (update,) = p4r.WriteRequest.FromString(CODEC.encode(Update(Operation.DELETE, entry)).message).updates
    assert {field.name for field, _ in update.entity.table_entry.ListFields()} == {"table_id", "match"}


@given(entries, entries)
def test_changes_of_the_same_entry_have_the_same_key(one: Entry, other: Entry) -> None:
    def key(entry: Entry) -> bytes:
        return CODEC.encode(Update(Operation.DELETE, entry)).message

    for entry in one, other:
        assert CODEC.encode(Update(Operation.INSERT, entry)).key == CODEC.encode(Update(Operation.DELETE, entry)).key
    same = CODEC.encode(Update(Operation.INSERT, one)).key == CODEC.encode(Update(Operation.INSERT, other)).key
    assert same == (key(one) == key(other))


def test_updates_concatenate() -> None:
    updates = [Update(Operation.INSERT, NeighbourEntry(1, bytes([10, 0, 0, i]), bytes(6))) for i in range(3)]
    request = p4r.WriteRequest(device_id=7).SerializeToString() + b"".join(CODEC.encode(u).message for u in updates)
    parsed = p4r.WriteRequest.FromString(request)
    assert parsed.device_id == 7
    assert [CODEC.decode_neighbour(u.entity.table_entry) for u in parsed.updates] == [u.entry for u in updates]


def test_a_value_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes too few"):
        CODEC.encode(Update(Operation.INSERT, NeighbourEntry(1, b"\x0a", bytes(6))))


def test_a_foreign_action_is_refused() -> None:
    entry = ConnectionEntry(ConnectionKey(1, bytes(6), Flow(bytes(4), bytes(4), 6, 1, 2)), Drop(DropReason.DENIED))
    message = p4r.WriteRequest.FromString(CODEC.encode(Update(Operation.INSERT, entry)).message)
    table_entry = message.updates[0].entity.table_entry
    table_entry.action.action.action_id = 0x01FFFFFF
    with pytest.raises(ValueError, match="0x1ffffff"):
        CODEC.decode_connection(table_entry)


# Checksums.


ends = st.one_of(st.tuples(addresses, addresses), st.tuples(addresses6, addresses6))


def transport(flow: Flow, is_request: bool, payload: bytes) -> tuple[bytes, int]:
    """What the transport checksum covers of a packet of this flow, and where in it the checksum is."""
    pseudo = flow.source + flow.destination + struct.pack(">HH", flow.protocol, len(payload))
    if flow.protocol == Protocol.TCP:
        return pseudo + struct.pack(">HHQI2xH", flow.l4_source, flow.l4_destination, 1, 2, 3) + payload, 12 + 16
    if flow.protocol == Protocol.UDP:
        return pseudo + struct.pack(">HHH2x", flow.l4_source, flow.l4_destination, 8) + payload, 12 + 6
    identifier = flow.l4_source if is_request else flow.l4_destination
    if flow.protocol == Protocol.ICMPV6:
        return pseudo + struct.pack(">H2xHH", 0x8000 if is_request else 0x8100, identifier, 1) + payload, len(
            pseudo
        ) + 2
    return struct.pack(">H2xHH", 0x0800 if is_request else 0, identifier, 1) + payload, 2


def ipv4_header(flow: Flow, ttl: int) -> bytes:
    return struct.pack(">BBHHHBB2x4s4s", 0x45, 0, 60, 1, 0, ttl, flow.protocol, flow.source, flow.destination)


@given(
    st.sampled_from((Protocol.ICMP, Protocol.TCP, Protocol.UDP)),
    ends, ends, st.lists(odd_words, min_size=4, max_size=4),
    st.integers(0, 255), st.integers(0, 255), st.booleans(), st.binary(max_size=64),
)  # fmt: skip
def test_adding_the_deltas_equals_computing_anew(
    protocol: Protocol, ends: tuple[bytes, bytes], new_ends: tuple[bytes, bytes],
    numbers: list[int], ttl: int, new_ttl: int, is_request: bool, payload: bytes,
) -> None:  # fmt: skip
    if protocol == Protocol.ICMP:
        # An identifier that the agent chooses is in the key range: never one of the stand-ins.
        before, after = numbers[0], 20000 + numbers[1] % 12768
        old_ports, new_ports = (before, echo_port(before)), (after, echo_port(after))
        if not is_request:
            old_ports, new_ports = old_ports[::-1], new_ports[::-1]
    else:
        old_ports, new_ports = (numbers[0], numbers[1]), (numbers[2], numbers[3])
    old, new = (
        Flow(
            *addresses, OTHER[protocol] if protocol == Protocol.ICMP and len(addresses[0]) != 4 else protocol, *numbers
        )
        for addresses, numbers in ((ends, old_ports), (new_ends, new_ports))
    )
    for one, two, two_ttl in ((old, new, new_ttl), (new, old, ttl)):
        one_ttl = ttl if one is old else new_ttl
        ipv4_delta, l4_delta = checksum_deltas(one, two, two_ttl)
        # As the pipeline does it (UpdateChecksum): the complements of the old checksum and of the old TTL, the delta.
        if len(one.source) == len(two.source) == 4:
            checksum = internet_checksum(ipv4_header(one, one_ttl))
            updated = 0xFFFF - fold((0xFFFF - checksum) + (0xFFFF - (one_ttl << 8)) + ipv4_delta)
            assert updated == internet_checksum(ipv4_header(two, two_ttl))
        else:
            assert ipv4_delta == 0
        covered, _ = transport(one, is_request, payload)
        rewritten, _ = transport(two, is_request, payload)
        # The length in the pseudo header of an echo that gains or loses one is the pipeline's to add (families.p4).
        if one.protocol != two.protocol:
            l4_delta += len(payload) if two.protocol == Protocol.ICMPV6 else 0xFFFF - len(payload)
        updated = 0xFFFF - fold((0xFFFF - internet_checksum(covered)) + l4_delta)
        # 0 and 0xffff are the same number in one's complement; UDP's 0 the pipeline itself makes 0xffff.
        assert updated % 0xFFFF == internet_checksum(rewritten) % 0xFFFF


@given(flows4, st.integers(0, 255))
def test_deltas_are_the_sums_that_the_pipeline_defines(flow: Flow, ttl: int) -> None:
    """Word by word, with carries added back at the end."""
    new = Flow(flow.destination[::-1], flow.source, Protocol.TCP, flow.l4_destination, 443)
    old = Flow(flow.source, flow.destination, Protocol.TCP, flow.l4_source, flow.l4_destination)

    def total(addresses: bytes) -> int:
        return sum(struct.unpack(">4H", addresses))

    removed = sum(0xFFFF - word for word in struct.unpack(">4H", old.source + old.destination))
    added = total(new.source + new.destination)
    ports_change = new.l4_source + new.l4_destination + (0xFFFF - old.l4_source) + (0xFFFF - old.l4_destination)
    expected = added + (ttl << 8) + removed, added + removed + ports_change
    for value, delta in zip(expected, checksum_deltas(old, new, ttl), strict=True):
        while value >> 16:
            value = (value & 0xFFFF) + (value >> 16)
        assert delta == value


# Age.


@given(st.integers(1, 3_600_000), st.data())
def test_bmv2s_overflow_is_undone(timeout_ms: int, data: st.DataObject) -> None:
    idle_ms = data.draw(st.integers(0, timeout_ms))
    timeout = timeout_ms * 1_000_000
    reported = timeout - (timeout_ms - idle_ms) * 1_000_000 % 2**32
    assert elapsed(reported, timeout) == idle_ms * 1_000_000


@pytest.mark.parametrize("idle", [0, 1, 999_999_999, 29_999_999_937, 30_000_000_000, 31_000_000_000])
def test_a_switch_that_is_right_is_believed(idle: int) -> None:
    assert elapsed(idle, 30_000_000_000) == idle


@given(keys, st.integers(0, 2**40), st.integers(0, 2**40))
def test_usage(key: ConnectionKey, packets: int, octets: int) -> None:
    (entity,) = p4r.ReadRequest.FromString(CODEC.encode_usage_request([key])).entities
    entry = entity.table_entry
    assert entry.HasField("counter_data")
    assert entry.HasField("time_since_last_hit")
    entry.counter_data.packet_count, entry.counter_data.byte_count = packets, octets
    entry.time_since_last_hit.elapsed_ns, entry.idle_timeout_ns = 1_500_000_000, 30_000_000_000
    assert CODEC.decode_usage(canonical(entry)) == (key, Usage(1.5, packets, octets))


# Packets, counters, meters, errors.


@given(ports, st.sampled_from(["REINJECT", "SEND"]), st.binary(max_size=300))
def test_packet_out(port: int, order: str, packet: bytes) -> None:
    value = nvi_pipeline().enum("PacketOutOrder")[order]
    message = p4r.StreamMessageRequest.FromString(CODEC.encode_packet_out(value, port, packet)).packet
    assert message.payload == packet
    header = nvi_pipeline().header("packet_out")
    assert {m.metadata_id: int.from_bytes(m.value) for m in message.metadata} == {
        header["port"].id: port,
        header["order"].id: value,
    }
    assert [m.metadata_id for m in message.metadata] == [field.id for field in header.fields]


@given(ports, st.sampled_from(PuntReason), st.binary(max_size=300), st.booleans())
def test_packet_in(port: int, reason: PuntReason, packet: bytes, reverse: bool) -> None:
    header = nvi_pipeline().header("packet_in")
    metadata = [
        p4r.PacketMetadata(metadata_id=header["ingress_port"].id, value=port.to_bytes(2).lstrip(b"\0") or b"\0"),
        p4r.PacketMetadata(metadata_id=header["reason"].id, value=reason.to_bytes(1)),
    ]
    message = p4r.PacketIn(payload=packet, metadata=metadata[::-1] if reverse else metadata)
    assert CODEC.decode_packet_in(message) == Punt(port, reason, packet)


def test_a_packet_without_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="0 is not a valid PuntReason"):
        CODEC.decode_packet_in(p4r.PacketIn(payload=b"x"))


def test_enums_are_those_of_the_p4info() -> None:
    assert nvi_pipeline().enum("PuntReason") == {"NONE": 0} | {reason.name: reason.value for reason in PuntReason}


def test_drop_counters_are_at_32_times_port_plus_reason() -> None:
    request = p4r.ReadRequest.FromString(CODEC.encode_drops_request([16]))
    indexes = [entity.counter_entry.index.index for entity in request.entities]
    assert indexes == [32 * 16 + reason for reason in DropReason]
    entry = request.entities[0].counter_entry
    entry.data.packet_count = 9
    assert CODEC.decode_drops(entry) == (16, DropReason.SPOOFED, 9)


def test_punt_limit() -> None:
    (update,) = p4r.WriteRequest.FromString(CODEC.encode_punt_limit(16, 500, 50).message).updates
    assert update.type == p4r.Update.MODIFY
    meter = update.entity.meter_entry
    assert (meter.meter_id, meter.index.index) == (nvi_pipeline().meter_id("punts"), 16)
    assert (meter.config.cir, meter.config.cburst, meter.config.pir, meter.config.pburst) == (500, 50, 500, 50)


def test_write_errors() -> None:
    status = rpc_status.Status(code=rpc_code.UNKNOWN)
    for code, message in ((0, ""), (6, "exists"), (99, "?")):
        status.details.add().Pack(p4r.Error(canonical_code=code, message=message))
    assert decode_write_errors(status.SerializeToString()) == [
        ("OK", ""),
        ("ALREADY_EXISTS", "exists"),
        ("UNKNOWN", "?"),
    ]
    assert decode_write_errors(b"\xff\xff\xff") == []


@given(st.integers(0, 2**64 - 1))
def test_varint(number: int) -> None:
    assert varint(number) == p4r.Uint128(high=number).SerializeToString()[1:] or number == 0


def test_percent_signs_are_not_holes() -> None:
    assert nested(4, hole(2)).fill((b"%b",)) == b'"\x02%b'  # field 4 and 37 bytes are the characters " and %
    assert nested(4, hole(37)).fill((bytes(37),)) == b'"%' + bytes(37)


def test_a_pipeline_with_other_fields_is_refused() -> None:
    pipeline = nvi_pipeline()
    text = str(pipeline.p4info).replace('"l4_source"', '"l4_origin"').encode()
    with pytest.raises(ValueError, match="other fields"):
        Codec(type(pipeline)(b"{}", text))
