"""What other agents say is not believed: each lie is refused with its reason, counted, and leaves nothing behind.

Lies about the way between sites are in `test_gateways`.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agent.farm import ENDPOINTS, HOSTS, start
from nvi.model import ConnectionId, End, FirstPacket, Flow, SegmentEnd
from nvi.offers import VERSION, Accept, Ask, Garbled, Offer, Reason, Refuse, Release, Stamp
from nvi.offers.wire import LARGEST, NotUnderstood, decode_request, encode_request

WEB1, WEB2, WEB3, LAB1, GLOBEX1 = (
    ENDPOINTS[name][0] for name in ("acme-web1", "acme-web2", "acme-web3", "acme-lab1", "globex-web1")
)
NOBODY = replace(WEB1, addresses=(bytes([10, 0, 1, 99]),))
H1, H2, H3 = (host.addresses[0] for host in HOSTS)


def identity(one=WEB1, other=WEB2, port=1000, tenant="acme", protocol=6):
    return ConnectionId.of(tenant, Flow(one.address, other.address, protocol, port, 80))


def end(**fields):
    return SegmentEnd(**({"host": "h1", "site": "here", "address": H1, "seen_address": H1, "port": 20001} | fields))


TRUE = Offer(VERSION, Stamp(9, 9), identity(), End(WEB1.address, 1000), FirstPacket(64), end())
"""From h1 to h2."""
OUTSIDE = End(b"\xcb\x00\x71\x07", 443)
TO_OUTSIDE = ConnectionId("acme", 6, min(End(WEB2.address, 80), OUTSIDE), max(End(WEB2.address, 80), OUTSIDE))

LIES = {
    "version": (replace(TRUE, version=VERSION + 9), Reason.VERSION),
    "a tenant that is not": (replace(TRUE, connection=identity(tenant="nobody")), Reason.UNKNOWN),
    "another tenant's endpoints by address": (
        replace(TRUE, connection=identity(tenant="globex", other=WEB3)),
        Reason.UNKNOWN,
    ),
    "an endpoint of another host": (
        replace(TRUE, connection=identity(other=LAB1)),
        Reason.UNKNOWN,
    ),
    "both ends are the receiver's": (replace(TRUE, connection=identity(WEB2, WEB2)), Reason.UNKNOWN),
    "an initiator that is no end": (replace(TRUE, initiator=End(WEB3.address, 1000)), Reason.UNKNOWN),
    "somebody else's endpoint": (
        replace(TRUE, connection=identity(LAB1), initiator=End(LAB1.address, 1000)),
        Reason.FORGED,
    ),
    "an endpoint that is nowhere": (
        replace(TRUE, connection=identity(NOBODY), initiator=End(NOBODY.address, 1000)),
        Reason.FORGED,
    ),
    "the address of another host": (replace(TRUE, end=end(address=H3, seen_address=H3)), Reason.FORGED),
    "the receiver's own address": (replace(TRUE, end=end(address=H2, seen_address=H2)), Reason.FORGED),
    "the name of another host": (replace(TRUE, end=end(host="h3")), Reason.FORGED),
    "another site": (replace(TRUE, end=end(site="there")), Reason.FORGED),
    "to be seen elsewhere": (replace(TRUE, end=end(seen_address=H3)), Reason.FORGED),
    "the role of a gateway": (
        replace(TRUE, connection=TO_OUTSIDE, initiator=End(WEB2.address, 80), exit="h1"),
        Reason.FORGED,
    ),
    "a gateway that is not": (
        replace(TRUE, connection=TO_OUTSIDE, initiator=OUTSIDE, exit="h7"),
        Reason.FORGED,
    ),
    "an oversized tenant": (replace(TRUE, connection=identity(tenant="x" * 10_000)), Reason.FORGED),
    "an oversized exit": (replace(TRUE, connection=TO_OUTSIDE, initiator=OUTSIDE, exit="x" * 10_000), Reason.FORGED),
    "an oversized address": (
        replace(TRUE, connection=ConnectionId("acme", 6, End(b"x" * 10_000, 1), End(WEB2.address, 80))),
        Reason.FORGED,
    ),
    "a key below the range": (replace(TRUE, end=end(port=22)), Reason.DENIED),
    "a key above the range": (replace(TRUE, end=end(port=40000)), Reason.DENIED),
    "a key that is no port": (replace(TRUE, end=end(port=70000)), Reason.FORGED),
    "a port of the receiver's stack": (replace(TRUE, peer_port=22), Reason.DENIED),
    "a port that stands for echoes": (replace(TRUE, peer_port=0x0800), Reason.DENIED),
    "an end that is no port": (
        replace(TRUE, connection=identity(port=70000), initiator=End(WEB1.address, 70000)),
        Reason.FORGED,
    ),
    "a protocol that is none": (replace(TRUE, connection=identity(protocol=300)), Reason.FORGED),
    "a TTL that is none": (replace(TRUE, first=FirstPacket(256)), Reason.FORGED),
    "no TTL": (replace(TRUE, first=FirstPacket(0)), Reason.FORGED),
    "a flow label that is none": (replace(TRUE, first=FirstPacket(64, 1 << 20)), Reason.FORGED),
    "a key of a protocol without ports": (
        replace(
            TRUE,
            connection=ConnectionId.of("acme", Flow(WEB1.address, WEB2.address, 47, 0, 0)),
            initiator=End(WEB1.address, 0),
        ),
        Reason.DENIED,
    ),
    "what the policy forbids": (
        replace(TRUE, connection=identity(WEB1, LAB1), initiator=End(WEB1.address, 1000)),
        Reason.DENIED,
    ),
    "an answer to what nobody remembers": (
        replace(TRUE, connection=identity(protocol=17), resumes=True),
        Reason.DENIED,
    ),
}


@pytest.fixture
async def farm():
    farm = await start()
    yield farm
    await farm.stop()


def held(farm):
    return {
        name: (
            sum(len(table.entries) for name, table in host.switch.engine.tables.items() if "connections" in name),
            len(host.agent._local.connections),
            len(host.agent._local.keys),
        )
        for name, host in farm.hosts.items()
    }


NOTHING = dict.fromkeys(("h1", "h2", "h3"), (0, 0, 0))


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_refused_with_its_reason_and_leaves_nothing(farm, lie):
    offer, reason = LIES[lie]
    receiver = "h3" if lie == "what the policy forbids" else "h2"
    reply = await farm.offers.request("h1", receiver, offer)
    assert isinstance(reply, Refuse), reply
    assert (reply.reason, bool(reply.text)) == (reason, True)
    assert held(farm) == NOTHING
    assert farm.hosts[receiver].agent._local.events[f"offers refused {reason}"] == 1


async def test_what_is_not_understood_is_counted(farm):
    """Oversized messages among it: `nvi.offers.wire` says what is none."""
    with pytest.raises(NotUnderstood) as wrong:
        decode_request(encode_request(replace(TRUE, exit="x" * LARGEST), VERSION))
    reply = await farm.offers.request("h1", "h2", Garbled(str(wrong.value)))
    assert isinstance(reply, Refuse) and reply.reason is Reason.VERSION and "at most 16384 make sense" in reply.text
    assert farm.hosts["h2"].agent._local.events["offers refused version"] == 1
    assert held(farm) == NOTHING


async def test_the_truth_is_believed_and_what_is_older_is_not(farm):
    """Or the lies above would be refused for another reason."""
    assert isinstance(await farm.offers.request("h1", "h2", TRUE), Accept)
    before = held(farm)
    replayed = await farm.offers.request("h1", "h2", replace(TRUE, stamp=Stamp(9, 8), end=end(port=20002)))
    assert isinstance(replayed, Refuse) and replayed.reason is Reason.STALE
    assert held(farm) == before


async def test_nobody_offers_to_itself(farm):
    for connection, reason in ((identity(), Reason.FORGED), (identity(WEB1, WEB3), Reason.UNKNOWN)):
        reply = await farm.offers.request("h1", "h1", replace(TRUE, connection=connection))
        assert isinstance(reply, Refuse) and reply.reason is reason
    assert held(farm) == NOTHING


async def test_only_the_other_end_of_a_segment_is_told_of_it_or_may_end_it(farm):
    accept = await farm.offers.request("h1", "h2", TRUE)
    before = held(farm)
    mine = end(host="h3", address=H3, seen_address=H3)
    for lie in (mine, TRUE.end):
        asked = await farm.offers.request("h3", "h2", Ask(VERSION, 6, accept.end, lie))
        assert isinstance(asked, Refuse) and asked.reason is Reason.UNKNOWN
    for lie, kind in ((mine, "Released"), (TRUE.end, "Refuse")):
        told = await farm.offers.request("h3", "h2", Release(VERSION, TRUE.connection, accept.end, lie))
        assert type(told).__name__ == kind
    assert held(farm) == before
    assert isinstance(await farm.offers.request("h1", "h2", Ask(VERSION, 6, accept.end, TRUE.end)), Offer)
