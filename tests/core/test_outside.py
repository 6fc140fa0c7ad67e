"""What endpoints never reach through a gateway, and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvi.model import External, Host, read_address
from nvi.outside import not_outside, not_reached

EXTERNAL = External(read_address("10.99.0.2"), read_address("198.51.100.2"))
HOST = Host("e2", "east", (read_address("172.16.2.1"),))
GATEWAY = Host("w9", "west", (read_address("172.16.1.9"),), external=External(*[read_address("198.51.100.9")] * 2))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("0.0.0.0", "of this host"),
        ("127.0.0.53", "loopback"),
        ("169.254.169.254", "link-local"),
        ("224.0.0.251", "multicast"),
        ("239.255.255.250", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("ff02::fb", "multicast"),
        ("::ffff:127.0.0.1", "clothes of IPv6"),
    ],
)
def test_defect_23_what_is_not_outside_is_refused_with_its_reason(address, reason):
    """The original carried broadcast and multicast to its Internet gateway."""
    assert reason in (not_outside(read_address(address)) or "")
    assert reason in (not_reached(read_address(address), EXTERNAL, None, None) or "")


@pytest.mark.parametrize("address", ["203.0.113.7", "8.8.8.8", "10.7.0.1", "192.168.1.1", "2001:db8::7", "fd00::7"])
def test_what_may_be_outside(address):
    assert not_outside(read_address(address)) is None


def test_gateways_do_not_carry_to_themselves_nor_to_other_hosts():
    for own in (EXTERNAL.address, EXTERNAL.public):
        assert "the gateway's own" in (not_reached(own, EXTERNAL, None, None) or "")
    assert "underlay address of host e2" in (not_reached(HOST.addresses[0], EXTERNAL, HOST, None) or "")
    public = read_address("198.51.100.9")
    assert "public address of host w9" in (not_reached(public, EXTERNAL, None, GATEWAY) or "")
    assert "another family" in (not_reached(read_address("2001:db8::7"), EXTERNAL, None, None) or "")
    assert not_reached(read_address("203.0.113.7"), EXTERNAL, None, None) is None


@given(st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)))
def test_every_address_has_an_answer(address):
    reason = not_reached(address, EXTERNAL, None, None)
    assert reason is None or reason
