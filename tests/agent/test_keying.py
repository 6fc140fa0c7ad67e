"""What a protocol has as its keys on a segment."""

import pytest

from nvi.agent.keying import NoKey, choose, propose, propose_path
from nvi.keys import Exhausted, Keys, Pair, Path
from nvi.model import Host
from nvi.route import addresses_on, is_end_of, own_end
from nvi.switch import PORT_EXTERNAL, PORT_UNDERLAY

A1, A2, B1, B2 = (bytes([172, 16, n, m]) for n in (1, 2) for m in (1, 65))
A6 = b"\xfd" + bytes(14) + b"\x01"
HOST = Host("h1", "here", (A1, A6), pool=(A2,))
GRE, TCP, ICMP = 47, 6, 1


def path(protocol: int, local: bytes = A1, peer: bytes = B1) -> Path:
    return Path(PORT_UNDERLAY, local, peer, protocol)


def test_ports_are_proposed_on_the_way_that_the_route_says():
    keys = Keys(60.0)
    assert propose_path(keys, path(TCP), [A1, A2], [B1, B2]) == path(TCP)
    assert 20000 <= propose(keys, path(TCP), True) <= 32767
    assert propose(keys, path(ICMP), False) == 0x0800


def test_defect_22_both_hosts_pools_together_say_how_many_flows_without_ports_fit():
    """The one who offers proposes its address, the one who accepts chooses its own: each only what it knows."""
    ours, theirs = Keys(60.0), Keys(60.0)
    used = set()
    for _ in range(4):
        proposed = propose_path(ours, path(GRE), [A1, A2], [B1, B2])
        assert propose(ours, proposed, True) == 0
        chosen = choose(theirs, Path(PORT_UNDERLAY, B1, proposed.local, GRE), 0, None, False, [B1, B2])
        assert theirs.take(chosen)
        agreed = Pair(path(GRE, proposed.local, chosen.path.local), 0, 0)
        assert ours.take(agreed)
        used.add(agreed)
    assert len(used) == 4
    with pytest.raises(Exhausted, match="protocol gre already; give one of the two hosts a pool"):
        propose_path(ours, path(GRE), [A1, A2], [B1, B2])
    with pytest.raises(Exhausted, match="protocol gre already"):
        choose(theirs, Path(PORT_UNDERLAY, B1, A1, GRE), 0, None, False, [B1, B2])
    assert propose_path(ours, path(50), [A1], [B1]).protocol == 50


def test_a_peer_that_remembers_gets_the_addresses_that_it_remembers():
    keys = Keys(60.0)
    assert choose(keys, path(GRE, A2), 0, 0, False, [A1, A2]) == Pair(path(GRE, A2), 0, 0)


@pytest.mark.parametrize(("theirs", "ours"), [(20000, None), (0, 20000)])
def test_a_port_is_no_key_of_a_protocol_without_ports(theirs, ours):
    with pytest.raises(NoKey):
        choose(Keys(60.0), path(GRE), theirs, ours, False, [A1])


def test_the_pool_is_lent_and_belongs_to_its_host():
    assert addresses_on(HOST, PORT_UNDERLAY, B1) == [A1, A2]
    assert addresses_on(HOST, PORT_UNDERLAY, A6) == [A6]
    assert addresses_on(HOST, PORT_EXTERNAL, B1) == []
    assert is_end_of(own_end(HOST, PORT_UNDERLAY, A2, 0), HOST, PORT_UNDERLAY)
    assert not is_end_of(own_end(HOST, PORT_UNDERLAY, B1, 0), HOST, PORT_UNDERLAY)
