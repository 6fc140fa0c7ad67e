"""What an agent answers in a gateway's, a firewall's or a DHCP server's name, and what it cuts and translates."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from core.test_packets6 import is_right, sums_up
from nvi.checksum import internet_checksum
from nvi.model import FirstPacket, Flow, Subnet, read_address, read_mac, show_address
from nvi.packets import (
    DhcpOffer,
    MalformedPacket,
    answer_dhcp,
    build_error,
    cut,
    echo_reply,
    ethernet,
    fragment_of,
    parse_dhcp,
    parse_error,
    reset,
    translate_error,
)

A4, B4, A6, B6 = "10.0.1.1", "10.0.1.254", "fd00:1::1", "fd00:1::2"
MAC, ROUTER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:fe"
ETHER = Ether(src=MAC, dst=ROUTER_MAC)


def frame(packet) -> bytes:
    return bytes(ETHER / packet)


# ---- echo, reset ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (IP(src=A4, dst=B4) / ICMP(id=7, seq=3) / b"payload", ICMP),
        (IPv6(src=A6, dst=B6) / ICMPv6EchoRequest(id=7, seq=3, data=b"payload"), ICMPv6EchoReply),
    ],
)
def test_an_echo_is_answered_with_what_it_carries(request_, reply):
    answer = echo_reply(frame(request_))
    read = Ether(answer)
    assert (read.src, read.dst) == (ROUTER_MAC, MAC)
    network = read.payload
    assert (network.src, network.dst) == (request_.dst, request_.src)
    assert (read[reply].id, read[reply].seq, read[reply].type) == (7, 3, 0 if reply is ICMP else 129)
    assert bytes(read[reply])[8:] == b"payload"
    assert is_right(answer)


@pytest.mark.parametrize("packet", [IP(src=A4, dst=B4) / ICMP(chksum=1), IP(src=A4, dst=B4, flags="MF") / ICMP()])
def test_no_echo_that_is_broken_or_in_parts_is_answered(packet):
    with pytest.raises(MalformedPacket):
        echo_reply(frame(packet))


@pytest.mark.parametrize("network", [IP(src=A4, dst=B4), IPv6(src=A6, dst=B6)])
@pytest.mark.parametrize(
    ("segment", "flags", "seq", "ack"),
    [
        (TCP(sport=5, dport=80, flags="A", seq=1000, ack=77) / b"data", "R", 77, 0),
        (TCP(sport=5, dport=80, flags="S", seq=1000), "RA", 0, 1001),
        (TCP(sport=5, dport=80, flags="S", seq=0xFFFFFFFF), "RA", 0, 0),
        (TCP(sport=5, dport=80, flags="F", seq=1000, options=[("NOP", None)] * 4) / b"data", "RA", 0, 1005),
    ],
)
def test_a_reset_is_one_that_its_receiver_believes(network, segment, flags, seq, ack):
    answer = reset(frame(network / segment))
    read = Ether(answer)
    assert (read.payload.src, read.payload.dst) == (network.dst, network.src)
    got = read[TCP]
    assert (got.sport, got.dport, got.flags, got.seq, got.ack) == (80, 5, flags, seq, ack)
    assert len(bytes(got)) == 20
    del got.chksum
    assert bytes(read) == answer


def test_no_reset_is_answered_with_one():
    assert reset(frame(IP(src=A4, dst=B4) / TCP(flags="R"))) is None
    assert reset(frame(IP(src=A4, dst=B4) / TCP(flags="RA"))) is None


# ---- DHCP -----------------------------------------------------------------------------------------------------------

SUBNET = Subnet(read_address("10.0.1.0"), 24, read_address(B4))
OFFER = DhcpOffer(read_address(A4), SUBNET, read_mac(ROUTER_MAC), (read_address("10.0.9.53"),), 1480)


def client(kind, *options, source="0.0.0.0", destination="255.255.255.255", **fields) -> bytes:
    bootp = BOOTP(**{"chaddr": read_mac(MAC), "xid": 0x1234} | fields)
    said = DHCP(options=[("message-type", kind), *options, "end"])
    return frame(IP(src=source, dst=destination) / UDP(sport=68, dport=67) / bootp / said)


def answered(packet: bytes) -> tuple[Ether, dict] | None:
    answer = answer_dhcp(parse_dhcp(packet), OFFER)
    if answer is None:
        return None
    read = Ether(answer)
    assert (read[UDP].sport, read[UDP].dport, read[IP].src, read.src) == (67, 68, B4, ROUTER_MAC)
    assert read[BOOTP].xid == 0x1234
    again = Ether(answer)
    del again[IP].chksum, again[UDP].chksum
    assert bytes(again) == answer
    return read, dict(option for option in read[DHCP].options if isinstance(option, tuple))


def test_defect_25_a_discovery_is_offered_its_own_address_with_mask_router_resolver_and_mtu():
    read, options = answered(client("discover", ("client_id", b"\1abc")))
    assert (read.dst, read[IP].dst, read[BOOTP].yiaddr) == (MAC, A4, A4)
    told = ["message-type", "subnet_mask", "router", "name_server", "interface-mtu", "server_id", "client_id"]
    assert [options[name] for name in told] == [2, "255.255.255.0", B4, "10.0.9.53", 1480, B4, b"\1abc"]
    assert (options["lease_time"], options["renewal_time"], options["rebinding_time"]) == (3600, 1800, 3150)
    read, _ = answered(client("discover", flags=0x8000))
    assert (read.dst, read[IP].dst) == ("ff:ff:ff:ff:ff:ff", "255.255.255.255")


REQUESTED, OTHER = ("requested_addr", A4), ("requested_addr", "10.0.1.9")
OURS, ANOTHERS = ("server_id", B4), ("server_id", "10.0.1.77")


@pytest.mark.parametrize(
    ("options", "fields", "kind"),
    [
        ((REQUESTED, OURS), {}, 5),
        ((OTHER, OURS), {}, 6),
        ((REQUESTED, ANOTHERS), {}, None),
        ((REQUESTED,), {}, 5),
        ((OTHER,), {}, 6),
        ((), {}, 6),
        ((), {"ciaddr": A4, "source": A4, "destination": B4}, 5),
        ((), {"ciaddr": "10.0.1.9"}, 6),
    ],
)
def test_a_request_is_acknowledged_for_its_own_address_only(options, fields, kind):
    got = answered(client("request", *options, **fields))
    if kind is None:
        assert got is None
        return
    read, told = got
    assert told["message-type"] == kind
    if kind == 5:
        assert (read[IP].dst, read[BOOTP].yiaddr, told["lease_time"]) == (A4, A4, 3600)
    else:
        assert (read[IP].dst, read[BOOTP].yiaddr, read[BOOTP].ciaddr) == ("255.255.255.255", "0.0.0.0", "0.0.0.0")
        assert "router" not in told and "lease_time" not in told


def test_who_has_its_address_already_is_told_the_rest():
    read, told = answered(client("inform", ciaddr=A4, source=A4))
    assert (told["message-type"], read[BOOTP].yiaddr, told["router"]) == (5, "0.0.0.0", B4)
    assert "lease_time" not in told
    assert answered(client("inform", ciaddr="10.0.1.9")) is None


@pytest.mark.parametrize("kind", ["release", "decline"])
def test_what_gives_an_address_back_needs_no_answer(kind):
    assert answered(client(kind, ciaddr=A4)) is None


@pytest.mark.parametrize(
    "packet",
    [
        client("offer"),
        client("discover", op=2),
        client("discover", giaddr="10.0.1.3"),
        client("discover", htype=6),
        client("discover", options=b"no cookie at all"),
        client("discover", ("requested_addr", A4))[:-7],
        frame(IP(src=A4, dst=B4) / UDP(sport=68, dport=67) / b"short"),
        frame(IP(src=A4, dst=B4) / UDP(sport=67, dport=68) / BOOTP() / DHCP(options=[("message-type", 1), "end"])),
    ],
)
def test_what_no_client_says_is_refused(packet):
    with pytest.raises(MalformedPacket):
        parse_dhcp(packet)


# ---- fragments ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 4000), st.integers(28, 2000), st.integers(28, 2000))
@settings(max_examples=100)
def test_what_is_cut_even_twice_is_put_together_again(size, first, second):
    whole = IP(src=A4, dst=B4, id=77, ttl=9, tos=8) / UDP(sport=5, dport=53) / (bytes(range(256)) * 16)[:size]
    pieces = [small for big in cut(frame(whole), first) for small in cut(big, second)]
    read = [Ether(piece) for piece in pieces]
    assert all(
        each[IP].len <= min(first, second) and len(piece) - 14 == each[IP].len
        for each, piece in zip(read, pieces, strict=True)
    )
    assert all(sums_up(piece[14:34]) for piece in pieces)
    if len(pieces) > 1:
        (identity, offset), *others = [fragment_of(piece) for piece in pieces]
        assert offset == 0
        assert {each for each, _ in others} == {identity}
    (again,) = defragment([each[IP] for each in read])
    assert bytes(again[UDP]) == bytes(IP(bytes(whole))[UDP])
    assert (again.id, again.ttl, again.tos) == (77, 9, 8)


def test_the_identity_of_a_datagram_is_read_in_both_families():
    six = frame(IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(offset=2, m=1, id=0x12345678, nh=17) / bytes(16))
    identity, offset = fragment_of(six)
    assert (identity.protocol, identity.identification, offset) == (17, 0x12345678, 16)
    assert fragment_of(frame(IP(src=A4, dst=B4) / UDP())) is None


# ---- errors for the other family -----------------------------------------------------------------------------------

HOST_A4, HOST_B4, HOST_A6, HOST_B6 = (
    read_address(text) for text in ("172.16.1.1", "172.16.2.1", "fd00:e::1", "fd00:e::2")
)
OVERLAY4 = (read_address(A4), read_address("10.0.1.2"))
OVERLAY6 = (read_address(A6), read_address(B6))


SHOWN = FirstPacket(33, 0x54321, False)


def told(kind, code, parameter, old, new, packet=None):
    """An error about a packet of the flow `old`, told as one about the flow `new`: (type, code, word, IP packet)."""
    family = IPv6 if len(old.source) == 16 else IP
    network = family(src=show_address(old.source), dst=show_address(old.destination))
    quoted = bytes(network / (packet or UDP(sport=old.l4_source, dport=old.l4_destination) / (b"x" * 60)))
    error = ethernet(bytes(6), bytes(6), build_error(kind, code, parameter, quoted, old.destination, old.source))
    translated = translate_error(parse_error(error), error, new, new.destination, new.source, SHOWN, 61)
    if translated is None:
        return None
    assert is_right(ethernet(bytes(6), bytes(6), translated))
    at = 40 if translated[0] >> 4 == 6 else 20
    return translated[at], translated[at + 1], int.from_bytes(translated[at + 4 : at + 8]), translated


TO_6 = (Flow(HOST_A4, HOST_B4, 17, 20001, 20002), Flow(*OVERLAY6, 17, 1000, 53))
TO_4 = (Flow(HOST_A6, HOST_B6, 17, 20001, 20002), Flow(*OVERLAY4, 17, 1000, 53))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ((3, 0, 0), (1, 0, 0)),
        ((3, 1, 0), (1, 0, 0)),
        ((3, 2, 0), (4, 1, 6)),
        ((3, 3, 0), (1, 4, 0)),
        ((3, 4, 1400), (2, 0, 1420)),
        ((3, 4, 0), (2, 0, 68 + 20)),
        ((3, 5, 0), (1, 0, 0)),
        ((3, 9, 0), (1, 1, 0)),
        ((3, 13, 0), (1, 1, 0)),
        ((3, 14, 0), None),
        ((3, 15, 0), (1, 1, 0)),
        ((3, 16, 0), None),
        ((11, 0, 0), (3, 0, 0)),
        ((11, 1, 0), (3, 1, 0)),
        ((12, 0, 9 << 24), (4, 0, 6)),
        ((12, 0, 16 << 24), (4, 0, 24)),
        ((12, 0, 5 << 24), None),
        ((12, 1, 0), None),
        ((12, 2, 2 << 24), (4, 0, 4)),
    ],
)
def test_errors_of_ipv4_as_rfc_7915_section_4_2_translates_them(error, expected):
    got = told(*error, *TO_6)
    assert (got and got[:3]) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ((1, 0, 0), (3, 1, 0)),
        ((1, 1, 0), (3, 10, 0)),
        ((1, 2, 0), (3, 1, 0)),
        ((1, 3, 0), (3, 1, 0)),
        ((1, 4, 0), (3, 3, 0)),
        ((1, 5, 0), None),
        ((2, 0, 1400), (3, 4, 1380)),
        ((2, 0, 0xFFFFFFFF), (3, 4, 0xFFFF)),
        ((2, 0, 0), (3, 4, 68)),
        ((3, 0, 0), (11, 0, 0)),
        ((3, 1, 0), (11, 1, 0)),
        ((4, 0, 7), (12, 0, 8 << 24)),
        ((4, 0, 23), (12, 0, 12 << 24)),
        ((4, 0, 39), (12, 0, 16 << 24)),
        ((4, 0, 40), None),
        ((4, 1, 6), (3, 2, 0)),
        ((4, 2, 0), None),
    ],
)
def test_errors_of_ipv6_as_rfc_7915_section_5_2_translates_them(error, expected):
    got = told(*error, *TO_4)
    assert (got and got[:3]) == expected


ECHOES = {
    1: lambda flow: ICMP(id=flow.l4_source) / b"payload!",
    58: lambda flow: ICMPv6EchoRequest(id=flow.l4_source, data=b"payload!"),
}


@pytest.mark.parametrize(
    ("protocol", "build"),
    [
        (17, lambda flow: UDP(sport=flow.l4_source, dport=flow.l4_destination) / b"payload!"),
        (6, lambda flow: TCP(sport=flow.l4_source, dport=flow.l4_destination) / b"payload!"),
        *ECHOES.items(),
    ],
)
@pytest.mark.parametrize("other", [4, 16])
def test_what_an_error_quotes_is_what_its_reader_has_sent(protocol, build, other):
    """Bit by bit behind the IP header, checksum included: as if the reader's own packet were quoted."""
    mine, family = (OVERLAY4, IP) if other == 4 else (OVERLAY6, IPv6)
    is_echo = protocol in (1, 58)
    hosts = (HOST_A6, HOST_B6) if protocol == 58 else (HOST_A4, HOST_B4)
    old = Flow(*hosts, protocol, 20001, 0x0800 if is_echo else 20002)
    new = Flow(*mine, (1 if other == 4 else 58) if is_echo else protocol, 7, 0x0800 if is_echo else 53)
    _, _, _, packet = told(3 if len(old.source) == 4 else 1, 1, 0, old, new, build(old))
    l4 = 20 if other == 4 else 40
    quoted = packet[l4 + 8 :]
    read = family(quoted)
    text = [show_address(address) for address in mine]
    assert [read.src, read.dst] == text
    sent = bytes(family(src=text[0], dst=text[1]) / ECHOES.get(new.protocol, build)(new))
    assert quoted[l4:] == sent[l4:]
    assert len(quoted) == len(sent) == (read.len if other == 4 else read.plen + 40)


# ---- whatever comes -------------------------------------------------------------------------------------------------

SEEDS = [
    client("request", REQUESTED, OURS, ("client_id", b"\1abc")),
    frame(IP(src=A4, dst=B4) / ICMP() / b"payload"),
    frame(IP(src=A4, dst=B4, flags="MF") / UDP(dport=53) / bytes(56)),
    frame(IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(m=1) / UDP(dport=53) / bytes(56)),
    ethernet(
        bytes(6), bytes(6), build_error(3, 3, 0, bytes(IP(src=A4, dst=B4) / ICMP() / Raw(b"x" * 20)), HOST_B4, HOST_A4)
    ),
    ethernet(bytes(6), bytes(6), build_error(1, 4, 0, bytes(IPv6(src=A6, dst=B6) / TCP()), HOST_B6, HOST_A6)),
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 340), st.integers(0, 255)), max_size=6),
    st.integers(0, 400),
)
@settings(max_examples=1500)
def test_whatever_comes_is_answered_or_refused(seed, changes, end):
    """Packets that somebody has changed or cut, with header checksums that are right nevertheless."""
    packet = bytearray(seed)
    for at, value in changes:
        packet[at % len(packet)] = value
    if packet[12:14] == b"\x08\x00":
        packet[24:26] = bytes(2)
        packet[24:26] = internet_checksum(bytes(packet[14:34])).to_bytes(2)
    changed = bytes(packet)
    for candidate in (changed, changed[:end]):
        with contextlib.suppress(MalformedPacket):
            answer_dhcp(parse_dhcp(candidate), OFFER)
        with contextlib.suppress(MalformedPacket):
            fragment_of(candidate)
        with contextlib.suppress(MalformedPacket):
            if candidate[12:14] == b"\x08\x00":
                assert cut(candidate, 28)
        with contextlib.suppress(MalformedPacket):
            error = parse_error(candidate)
            for ends in (OVERLAY4, OVERLAY6):
                echo = 1 if ends is OVERLAY4 else 58
                protocol = echo if error.flow.protocol in (1, 58) else error.flow.protocol
                translate_error(error, candidate, Flow(*ends, protocol, 7, 0x0800), ends[1], ends[0], SHOWN, 0)
