"""What the agent reads of packets and writes into them, against scapy."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.l2 import ARP, Ether

from nvi.model import Flow, read_address
from nvi.packets import (
    MalformedPacket,
    Unreachable,
    destination_unreachable,
    echo_port,
    parse,
    parse_arp_request,
    time_exceeded,
)

A, B = "10.0.1.1", "10.0.1.2"
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ROUTER, ROUTER_MAC = read_address("10.0.1.254"), b"\x02\0\0\0\0\xfe"


def frame(packet) -> bytes:
    return bytes(ETHER / packet)


def flow(protocol: int, source: int, destination: int) -> Flow:
    return Flow(read_address(A), read_address(B), protocol, source, destination)


@pytest.mark.parametrize(
    ("packet", "expected", "opens"),
    [
        (IP(src=A, dst=B) / TCP(sport=1000, dport=80, flags="S"), flow(6, 1000, 80), True),
        (IP(src=A, dst=B) / TCP(sport=1000, dport=80, flags="SEC"), flow(6, 1000, 80), True),
        (IP(src=A, dst=B) / TCP(sport=80, dport=1000, flags="SA"), flow(6, 80, 1000), False),
        (IP(src=A, dst=B) / TCP(sport=80, dport=1000, flags="A") / b"x", flow(6, 80, 1000), False),
        (IP(src=A, dst=B) / TCP(sport=80, dport=1000, flags="R"), flow(6, 80, 1000), False),
        (IP(src=A, dst=B) / UDP(sport=0, dport=53) / b"x", flow(17, 0, 53), True),
        (IP(src=A, dst=B, flags="MF") / UDP(sport=5, dport=53, len=2000) / (b"x" * 16), flow(17, 5, 53), True),
        (IP(src=A, dst=B, proto=47) / b"gre", flow(47, 0, 0), True),
        (IP(src=A, dst=B, proto=50, frag=3) / b"a later fragment", flow(50, 0, 0), True),
        (IP(src=A, dst=B) / ICMP(id=7), flow(1, 7, 0x0800), True),
        (IP(src=A, dst=B) / ICMP(type=0, id=7), flow(1, 0x0800, 7), False),
        (IP(src=A, dst=B) / ICMP(id=0x0800), flow(1, 0x0800, 0x0801), True),
        (IP(src=A, dst=B) / ICMP(type=0, id=0x0800), flow(1, 0x0801, 0x0800), False),
        (IP(src=A, dst=B) / ICMP(id=0x0801), flow(1, 0x0801, 0x0802), True),
        (IP(src=A, dst=B) / ICMP(type=0, id=0x0801), flow(1, 0x0802, 0x0801), False),
    ],
)
def test_reads_flows(packet, expected, opens):
    read = parse(frame(packet))
    assert (read.flow, read.opens, read.ttl) == (expected, opens, 64)


def test_no_request_has_the_flow_of_a_reply():
    """Of whatever identifiers: else a request could pass through an entry made for replies."""
    requests = {(identifier, echo_port(identifier)) for identifier in range(0x10000)}
    replies = {(echo_port(identifier), identifier) for identifier in range(0x10000)}
    assert len(requests) == len(replies) == 0x10000
    assert not requests & replies


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=A, dst=B) / TCP(flags=""),
        IP(src=A, dst=B) / TCP(flags="SF"),
        IP(src=A, dst=B) / TCP(flags="SR"),
        IP(src=A, dst=B) / TCP(sport=0),
        IP(src=A, dst=B) / TCP(dport=0),
        IP(src=A, dst=B) / TCP(dataofs=4),
        IP(src=A, dst=B) / TCP(dataofs=15),
        IP(src=A, dst=B) / UDP(dport=0),
        IP(src=A, dst=B) / UDP(len=7),
        IP(src=A, dst=B) / UDP(len=9),
        IP(src=A, dst=B) / ICMP(type=8, code=1),
        IP(src=A, dst=B) / ICMP(type=13),
        IP(src=A, dst=B, chksum=1) / TCP(),
        IP(src=A, dst=B, len=19) / TCP(),
        IP(src=A, dst=B, len=41) / TCP(),
        IP(src=A, dst=B, frag=1) / TCP(),
        IP(src=A, dst=B, flags="MF") / ICMP(type=13),
        IP(src=A, dst=B, version=6) / TCP(),
        IP(src=A, dst=B, options=b"\x07\x04\x00\x00") / TCP(),
        IP(src=A, dst=B, flags="MF") / UDP(dport=53, len=20) / (b"x" * 16),
        IP(src=A, dst=B, flags="MF", proto=47) / b"no whole number of 8 bytes",
        IP(src=A, dst=B, frag=8191, proto=47) / (b"x" * 64),
        IP(src=A, dst=B, proto=58) / b"\x80\0\0\0\0\0\0\0",
        IP(src=A, dst=B, proto=6) / bytes(12),
        IP(src=A, dst=B, proto=1) / b"\x08",
    ],
)
def test_refuses_what_no_careful_stack_sends(packet):
    with pytest.raises(MalformedPacket):
        parse(frame(packet))


@given(st.binary(max_size=120), st.integers(0, 120))
def test_whatever_comes_is_read_or_refused(noise, cut):
    packet = frame(IP(src=A, dst=B) / TCP() / noise)
    for candidate in (noise, packet[:cut], packet[:cut] + noise):
        for read in (parse, parse_arp_request):
            with contextlib.suppress(MalformedPacket):
                read(candidate)


def test_reads_arp_requests():
    request = parse_arp_request(bytes(ETHER / ARP(psrc=A, pdst=B, hwsrc="02:00:00:00:00:01")))
    assert (request.sender, request.target) == (read_address(A), read_address(B))
    for wrong in (ARP(op=2), ARP(hwtype=6), ARP(ptype=0x86DD), ARP(plen=16)):
        with pytest.raises(MalformedPacket):
            parse_arp_request(bytes(ETHER / wrong))


@given(st.integers(0, 1400))
def test_errors_quote_what_they_are_about(size):
    offending = frame(IP(src=A, dst=B, ttl=1) / UDP(sport=1000, dport=53) / (b"x" * size))
    for error, kind, code in (
        (destination_unreachable(offending, Unreachable.ADMINISTRATIVELY_PROHIBITED, ROUTER, ROUTER_MAC), 3, 13),
        (time_exceeded(offending, ROUTER, ROUTER_MAC), 11, 0),
    ):
        read = Ether(error)
        assert (read.src, read.dst) == ("02:00:00:00:00:fe", "02:00:00:00:00:01")
        assert (read[IP].src, read[IP].dst) == ("10.0.1.254", A)
        assert (read[ICMP].type, read[ICMP].code) == (kind, code)
        assert (read[IPerror].src, read[IPerror].dst) == (A, B)
        assert len(error) - 14 == read[IP].len == min(20 + 8 + 20 + 8 + size, 576)
        again = Ether(error)
        del again[IP].chksum, again[ICMP].chksum
        assert bytes(again) == error, "a checksum is wrong"
