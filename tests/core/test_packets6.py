"""IPv6, ICMP errors and neighbour discovery, as the agent reads and writes them, against scapy."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Ether

from nvi.model import Flow, Subnet, read_address, read_mac
from nvi.packets import (
    MalformedPacket,
    RouterSolicitation,
    Unreachable,
    destination_unreachable,
    may_be_answered,
    neighbour_advertisement,
    parse,
    parse_arp_request,
    parse_error,
    parse_neighbour_solicitation,
    parse_router_solicitation,
    router_advertisement,
    time_exceeded,
    too_big,
)

A, B, ROUTER = "fd00:1::1", "fd00:1::2", "fd00:1::ffff"
A4, B4 = "10.0.1.1", "10.0.1.2"
MAC, ROUTER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:fe"
ETHER = Ether(src=MAC, dst=ROUTER_MAC)
PACKED_MAC, PACKED_ROUTER_MAC = read_mac(MAC), read_mac(ROUTER_MAC)


def frame(packet) -> bytes:
    return bytes(ETHER / packet)


def flow(protocol: int, source: int = 0, destination: int = 0) -> Flow:
    return Flow(read_address(A), read_address(B), protocol, source, destination)


def sums_up(data: bytes) -> bool:
    """Whether the words of something with its checksum in place add up to minus zero (RFC 1071)."""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0")) for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def is_right(packet: bytes) -> bool:
    """Whether lengths and checksums of a frame with ICMP or ICMPv6 are right."""
    if packet[14] == 0x45:
        right_length = int.from_bytes(packet[16:18]) == len(packet) - 14
        return right_length and sums_up(packet[14:34]) and sums_up(packet[34:])
    size = int.from_bytes(packet[18:20])
    pseudo = packet[22:54] + size.to_bytes(4) + bytes([0, 0, 0, 58])
    return size == len(packet) - 54 and sums_up(pseudo + packet[54:])


@pytest.mark.parametrize(
    ("packet", "expected", "opens"),
    [
        (TCP(sport=1000, dport=80, flags="S"), flow(6, 1000, 80), True),
        (TCP(sport=80, dport=1000, flags="SA"), flow(6, 80, 1000), False),
        (UDP(sport=0, dport=53) / b"x", flow(17, 0, 53), True),
        (ICMPv6EchoRequest(id=7), flow(58, 7, 0x0800), True),
        (ICMPv6EchoReply(id=7), flow(58, 0x0800, 7), False),
        (ICMPv6EchoRequest(id=0x0801), flow(58, 0x0801, 0x0802), True),
        (IPv6ExtHdrFragment(m=1, id=9) / UDP(sport=5, dport=53, len=2000) / (b"x" * 16), flow(17, 5, 53), True),
        (IPv6ExtHdrFragment(m=0, id=9) / UDP(sport=5, dport=53) / b"atomic", flow(17, 5, 53), True),
        (IPv6ExtHdrFragment(offset=3, nh=132) / b"a later one", flow(132), True),
        (IPv6ExtHdrDestOpt() / TCP(), flow(60), True),
        (IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(), flow(0), True),
    ],
)
def test_reads_flows(packet, expected, opens):
    read = parse(frame(IPv6(src=A, dst=B, fl=0x12345, hlim=7) / packet))
    assert (read.flow, read.opens, read.ttl, read.flow_label) == (expected, opens, 7, 0x12345)


def test_an_unknown_protocol_has_no_ports_whatever_follows():
    assert parse(frame(IPv6(src=A, dst=B, nh=253) / b"")).flow == flow(253)


@pytest.mark.parametrize(
    "packet",
    [
        IPv6(src=A, dst=B, plen=100) / UDP(dport=53),
        IPv6(src=A, dst=B, plen=4) / UDP(dport=53),
        IPv6(src=A, dst=B, version=5) / UDP(dport=53),
        IPv6(src=A, dst=B, nh=1) / b"\x08\0\0\0\0\0\0\0",
        IPv6(src=A, dst=B) / ICMPv6EchoRequest(code=1),
        IPv6(src=A, dst=B) / ICMPv6ND_NS(tgt=B),
        IPv6(src=A, dst=B) / ICMPv6ND_Redirect(),
        IPv6(src=A, dst=B) / IPv6ExtHdrRouting(type=0, addresses=["fd00:1::3"]) / UDP(),
        IPv6(src=A, dst=B) / IPv6ExtHdrRouting(type=4) / UDP(),
        IPv6(src=A, dst=B) / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / UDP(),
        IPv6(src=A, dst=B, nh=60) / b"\x11\x05\0\0\0\0\0\0",
        IPv6(src=A, dst=B, nh=60) / b"\x11",
        IPv6(src=A, dst=B, nh=60) / (b"\x3c\0\0\0\0\0\0\0" * 9),
        IPv6(src=A, dst=B, nh=44) / b"\x11\0\0",
        IPv6(src=A, dst=B) / IPv6ExtHdrFragment(offset=2) / UDP(),
        IPv6(src=A, dst=B) / IPv6ExtHdrFragment(m=1, nh=47) / b"not eight",
        IPv6(src=A, dst=B) / IPv6ExtHdrFragment(offset=8191, nh=47) / (b"x" * 64),
    ],
)
def test_refuses_what_no_careful_stack_sends(packet):
    with pytest.raises(MalformedPacket):
        parse(frame(packet))


def test_defect_21_a_later_fragment_is_never_read_as_if_it_had_ports():
    with pytest.raises(MalformedPacket, match="later fragment"):
        parse(frame(IP(src=A4, dst=B4, frag=1, proto=17) / b"\x03\xe8\0\x35 data that looks like ports"))


# ---- errors ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1400))
@settings(max_examples=40)
def test_errors_quote_what_they_are_about(size):
    offending = frame(IPv6(src=A, dst=B, hlim=1) / UDP(sport=1000, dport=53) / (b"x" * size))
    router, mac = read_address(ROUTER), PACKED_ROUTER_MAC
    for error, layer, code in (
        (destination_unreachable(offending, Unreachable.ADMINISTRATIVELY_PROHIBITED, router, mac), 1, 1),
        (destination_unreachable(offending, Unreachable.HOST, router, mac), 1, 3),
        (destination_unreachable(offending, Unreachable.NETWORK, router, mac), 1, 0),
        (destination_unreachable(offending, Unreachable.PORT, router, mac), 1, 4),
        (too_big(offending, 1400, router, mac), 2, 0),
        (time_exceeded(offending, router, mac), 3, 0),
    ):
        read = Ether(error)
        assert (read.src, read.dst, read[IPv6].src, read[IPv6].dst) == (ROUTER_MAC, MAC, ROUTER, A)
        body = bytes(read[IPv6].payload)
        assert (body[0], body[1]) == (layer, code)
        assert len(error) - 14 == min(40 + 8 + 40 + 8 + size, 1280)
        assert is_right(error)
        again = parse_error(error)
        assert (again.flow, again.kind, again.parameter) == (flow(17, 1000, 53), layer, 1400 if layer == 2 else 0)


def test_too_big_tells_the_mtu():
    error = too_big(frame(IP(src=A4, dst=B4, flags="DF") / UDP() / (b"x" * 1400)), 1400, b"\x0a\0\1\xfe", bytes(6))
    read = Ether(error)
    assert (read[ICMP].type, read[ICMP].code, read[ICMP].nexthopmtu) == (3, 4, 1400)
    assert is_right(error)


@pytest.mark.parametrize(
    ("packet", "answered"),
    [
        (IP(src=A4, dst=B4) / UDP(), True),
        (IP(src=A4, dst=B4) / ICMP(), True),
        (IP(src=A4, dst=B4) / ICMP(type=3), False),
        (IP(src=A4, dst=B4) / ICMP(type=11), False),
        (IP(src=A4, dst=B4) / ICMP(type=5), False),
        (IP(src=A4, dst=B4, proto=17, frag=2) / b"later", False),
        (IP(src=A4, dst="224.0.0.5") / UDP(), False),
        (IP(src=A4, dst="255.255.255.255") / UDP(), False),
        (IP(src="0.0.0.0", dst=B4) / UDP(), False),
        (IP(src="127.0.0.1", dst=B4) / UDP(), False),
        (IP(src="224.0.0.5", dst=B4) / UDP(), False),
        (IPv6(src=A, dst=B) / UDP(), True),
        (IPv6(src=A, dst=B) / ICMPv6EchoRequest(), True),
        (IPv6(src=A, dst=B) / ICMPv6DestUnreach(), False),
        (IPv6(src=A, dst=B) / ICMPv6ParamProblem(), False),
        (IPv6(src=A, dst=B) / ICMPv6ND_Redirect(), False),
        (IPv6(src=A, dst="ff02::1") / UDP(), False),
        (IPv6(src="::", dst=B) / UDP(), False),
        (IPv6(src=A, dst=B) / IPv6ExtHdrFragment(offset=2, nh=58) / b"later", False),
        (ARP(), False),
    ],
)
def test_errors_are_left_unsaid_where_they_must_be(packet, answered):
    assert may_be_answered(frame(packet)) == answered


def test_errors_are_left_unsaid_to_broadcasts_of_the_link():
    packet = IP(src=A4, dst=B4) / UDP()
    assert not may_be_answered(bytes(Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / packet))


def test_packet_too_big_is_said_even_about_multicast():
    packet = frame(IPv6(src=A, dst="ff0e::1") / UDP())
    assert may_be_answered(packet, too_big=True) and not may_be_answered(packet)


QUOTED = IP(src=A4, dst=B4) / UDP(sport=5, dport=53) / b"x"
QUOTED6 = IPv6(src=A, dst=B) / UDP(sport=5, dport=53) / b"x"


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=B4, dst=A4) / ICMP(type=5, code=1) / QUOTED,
        IP(src=B4, dst=A4) / ICMP(type=4) / QUOTED,
        IP(src=B4, dst=A4) / ICMP(type=8) / QUOTED,
        IP(src=B4, dst=A4) / ICMP(type=3, chksum=1) / QUOTED,
        IP(src=B4, dst=A4) / ICMP(type=3) / QUOTED6,
        IP(src=B4, dst=A4) / ICMP(type=3) / bytes(QUOTED)[:24],
        IP(src=B4, dst=A4) / ICMP(type=3) / IP(src=A4, dst=B4, proto=17, frag=3) / b"12345678",
        IP(src=B4, dst=A4) / ICMP(type=3) / b"",
        IP(src=B4, dst=A4, flags="MF") / ICMP(type=3) / (bytes(QUOTED)[:28] + b"1234"),
        IPv6(src=B, dst=A) / ICMPv6DestUnreach(cksum=1) / QUOTED6,
        IPv6(src=B, dst=A) / ICMPv6DestUnreach() / QUOTED,
        IPv6(src=B, dst=A) / ICMPv6ND_Redirect() / QUOTED6,
        IPv6(src=B, dst=A) / ICMPv6EchoRequest() / QUOTED6,
    ],
)
def test_errors_that_lie_are_refused(packet):
    with pytest.raises(MalformedPacket):
        parse_error(frame(packet))


def test_reads_errors_that_quote_no_more_than_they_must():
    error = parse_error(frame(IP(src=B4, dst=A4) / ICMP(type=3, code=3) / bytes(QUOTED)[:28]))
    assert error.flow == Flow(read_address(A4), read_address(B4), 17, 5, 53)
    assert (error.quoted_end - error.quoted.start, error.quoted.length) == (28, 29)


# ---- neighbour and router discovery ---------------------------------------------------------------------------------


def solicitation(**fields):
    return IPv6(**{"src": A, "dst": "ff02::1:ff00:2", "hlim": 255} | fields) / ICMPv6ND_NS(tgt=B)


def test_reads_and_answers_neighbour_solicitations():
    question = parse_neighbour_solicitation(frame(solicitation() / ICMPv6NDOptSrcLLAddr(lladdr=MAC)))
    assert (question.sender, question.target, question.is_probe) == (read_address(A), read_address(B), False)
    answer = neighbour_advertisement(question, PACKED_ROUTER_MAC, is_router=True)
    read = Ether(answer)
    advertisement = read[ICMPv6ND_NA]
    assert (read.dst, read[IPv6].src, read[IPv6].dst, read[IPv6].hlim) == (MAC, B, A, 255)
    assert (advertisement.R, advertisement.S, advertisement.O, advertisement.tgt) == (1, 1, 1, B)
    assert read[ICMPv6NDOptDstLLAddr].lladdr == ROUTER_MAC
    assert is_right(answer)


def test_a_probe_for_an_address_that_somebody_has_is_answered_to_all():
    question = parse_neighbour_solicitation(frame(solicitation(src="::")))
    assert question.is_probe
    read = Ether(neighbour_advertisement(question, PACKED_ROUTER_MAC, is_router=False))
    assert (read.dst, read[IPv6].dst, read[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)


@pytest.mark.parametrize(
    "packet",
    [
        solicitation(hlim=254),
        solicitation(src="::") / ICMPv6NDOptSrcLLAddr(lladdr=MAC),
        solicitation(src="::", dst=B),
        solicitation() / b"\1\0\0\0\0\0\0\0",
        solicitation() / b"\1\2\0\0\0\0\0\0",
        solicitation() / b"\1",
        IPv6(src=A, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt="ff02::1"),
        IPv6(src=A, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=B, code=1),
        IPv6(src=A, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=B, cksum=1),
        IPv6(src=A, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NA(tgt=B),
        IPv6(src=A, dst="ff02::1:ff00:2", hlim=255, plen=20) / ICMPv6ND_NS(tgt=B),
    ],
)
def test_solicitations_that_are_none_are_refused(packet):
    with pytest.raises(MalformedPacket):
        parse_neighbour_solicitation(frame(packet))


def test_reads_router_solicitations():
    packet = IPv6(src="fe80::1", dst="ff02::2", hlim=255) / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=MAC)
    assert parse_router_solicitation(frame(packet)).sender == read_address("fe80::1")
    for wrong in (
        IPv6(src="::", dst="ff02::2", hlim=255) / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=MAC),
        IPv6(src="fe80::1", dst="ff02::2", hlim=1) / ICMPv6ND_RS(),
        IPv6(src="fe80::1", dst="ff02::2", hlim=255) / ICMPv6ND_RA(),
    ):
        with pytest.raises(MalformedPacket):
            parse_router_solicitation(frame(wrong))


@pytest.mark.parametrize("autonomous", [True, False])
def test_router_advertisements_tell_prefix_mtu_and_resolvers(autonomous):
    subnet = Subnet(read_address("fd00:1::"), 64, read_address(ROUTER))
    dns = (read_address("fd00:1::53"), read_address("fd00:2::53"))
    for sender, receiver, mac in (("fe80::1", "fe80::1", MAC), ("::", "ff02::1", "33:33:00:00:00:01")):
        question = RouterSolicitation(PACKED_MAC, read_address(sender))
        answer = router_advertisement(question, PACKED_ROUTER_MAC, subnet, dns, 1480, autonomous=autonomous)
        read = Ether(answer)
        assert (read.dst, read[IPv6].dst, read[IPv6].hlim) == (mac, receiver, 255)
        assert read[IPv6].src == "fe80::ff:fe00:fe"
        assert read[ICMPv6ND_RA].routerlifetime > 0
        prefix = read[ICMPv6NDOptPrefixInfo]
        assert (prefix.prefix, prefix.prefixlen, prefix.L, prefix.A) == ("fd00:1::", 64, 1, int(autonomous))
        assert read[ICMPv6NDOptMTU].mtu == 1480
        assert read[ICMPv6NDOptRDNSS].dns == ["fd00:1::53", "fd00:2::53"]
        assert read[ICMPv6NDOptSrcLLAddr].lladdr == ROUTER_MAC
        assert is_right(answer)


# ---- whatever comes -------------------------------------------------------------------------------------------------

SEEDS = [
    frame(packet)
    for packet in (
        IP(src=A4, dst=B4) / TCP(),
        IP(src=A4, dst=B4, flags="MF") / UDP(dport=53, len=2000) / (b"x" * 16),
        IP(src=B4, dst=A4) / ICMP(type=3, code=4) / QUOTED,
        IPv6(src=A, dst=B) / UDP(dport=53) / b"x",
        IPv6(src=A, dst=B) / IPv6ExtHdrFragment(m=1) / UDP(dport=53) / (b"x" * 16),
        IPv6(src=A, dst=B) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(),
        IPv6(src=B, dst=A) / ICMPv6PacketTooBig(mtu=1400) / QUOTED6,
        solicitation() / ICMPv6NDOptSrcLLAddr(lladdr=MAC),
        IPv6(src="fe80::1", dst="ff02::2", hlim=255) / ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=MAC),
    )
]
READERS = (parse, parse_arp_request, parse_error, parse_neighbour_solicitation, parse_router_solicitation)


def read_all(packet: bytes) -> None:
    for read in READERS:
        with contextlib.suppress(MalformedPacket):
            read(packet)
    may_be_answered(packet)


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6), st.data())
@settings(max_examples=1000)
def test_whatever_comes_is_read_or_refused(seed, changes, data):
    """Packets that somebody has changed, cut or lengthened."""
    packet = bytearray(seed)
    for at, value in changes:
        packet[at % len(packet)] = value
    cut = data.draw(st.integers(0, len(packet)))
    for candidate in (bytes(packet), bytes(packet[:cut]), bytes(packet) + bytes(cut)):
        read_all(candidate)


@given(st.binary(max_size=200), st.sampled_from([b"\x08\x00E", b"\x86\xdd`", b"\x08\x06", b""]))
@settings(max_examples=1000)
def test_noise_is_read_or_refused(noise, kind):
    read_all(bytes(12) + kind + noise)
