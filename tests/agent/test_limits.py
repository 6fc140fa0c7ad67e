"""What is limited, what happens when it is used up, and that others do not notice."""

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from agent.farm import ENDPOINTS, frame, ip, start
from nvi.agent import connecting, joining, strays
from nvi.switch import PORT_UNDERLAY, Punt, PuntReason


@pytest.fixture
async def farm():
    farm = await start()
    yield farm
    await farm.stop()


def udp(sender: str, receiver: str, port: int) -> bytes:
    return frame(sender, receiver, IP(src=ip(sender), dst=ip(receiver), flags="DF") / UDP(sport=port, dport=53) / b"x")


async def send(farm, *packets: tuple[str, bytes]) -> dict[str, list[bytes]]:
    for sender, packet in packets:
        farm.emit(sender, packet)
    await farm.settle()
    return {name: got for name in ENDPOINTS if (got := farm.delivered(name))}


def agent(farm, host: str = "h1"):
    return farm.hosts[host].agent


async def test_defect_4_an_endpoint_uses_up_its_own_connections_and_nobody_elses(farm, monkeypatch):
    monkeypatch.setattr(joining, "PER_ENDPOINT", 4)
    for port in (1000, 1001):
        packet = udp("acme-web1", "acme-web2", port)
        assert await send(farm, ("acme-web1", packet)) == {"acme-web2": [packet]}
    (error,) = (await send(farm, ("acme-web1", udp("acme-web1", "acme-web2", 1002))))["acme-web1"]
    assert (Ether(error)[ICMP].type, Ether(error)[ICMP].code) == (3, 1)
    assert agent(farm)._local.events["refused quota"] == 1
    fullness = (await agent(farm).status())["limits"]
    assert fullness["endpoints"]["acme-web1"]["connections"] == {"used": 4, "limit": 4}
    assert fullness["endpoints"]["acme-web1"]["refusals"]["used"] == 1
    assert fullness["endpoints"]["acme-web3"]["connections"] == {"used": 0, "limit": 4}
    others = udp("acme-web3", "acme-web1", 1003), udp("globex-web1", "globex-web2", 1000)
    assert await send(farm, ("globex-web1", others[1])) == {"globex-web2": [others[1]]}
    held = await send(farm, ("acme-web1", udp("acme-web1", "acme-web2", 1000)))
    assert set(held) == {"acme-web2"}, "what there is goes on"
    drops = (await farm.hosts["h1"].switch.read_drops([16])).get(16, {})
    await send(farm, ("acme-web1", udp("acme-web1", "acme-web2", 1002)))
    after = (await farm.hosts["h1"].switch.read_drops([16]))[16]
    assert {reason.name for reason in after.keys() - drops.keys()} == {"QUOTA"}, "the switch counts what it drops of it"


async def test_a_far_endpoints_quota_is_a_refusal_with_a_reason(farm, monkeypatch):
    await send(farm, ("acme-web2", udp("acme-web2", "acme-web1", 2000)))
    await send(farm, ("acme-web2", udp("acme-web2", "acme-web3", 2001)))
    monkeypatch.setattr(joining, "PER_ENDPOINT", 4)
    (error,) = (await send(farm, ("acme-web1", udp("acme-web1", "acme-web2", 1000))))["acme-web1"]
    assert Ether(error)[ICMP].type == 3
    assert agent(farm, "h2")._local.events["offers refused exhausted"] == 1
    assert agent(farm)._local.events["refused exhausted"] == 1


async def test_a_full_host_refuses_what_is_new_and_keeps_what_there_is(farm, monkeypatch):
    first = udp("acme-web1", "acme-web2", 1000)
    await send(farm, ("acme-web1", first))
    monkeypatch.setattr(joining, "CONNECTIONS_SIZE", 2)
    received = await send(farm, ("acme-web3", udp("acme-web3", "acme-web2", 1000)))
    assert set(received) == {"acme-web3"}
    assert agent(farm)._local.events["refused exhausted"] == 1
    assert await send(farm, ("acme-web1", first)) == {"acme-web2": [first]}


async def test_one_endpoints_connections_in_the_making_leave_the_others_their_turn(farm, monkeypatch):
    monkeypatch.setattr(connecting, "IN_FLIGHT", 2)
    for port in range(1000, 1005):
        farm.emit("acme-web1", udp("acme-web1", "acme-web2", port))
    other = udp("acme-web3", "acme-web2", 1000)
    farm.emit("acme-web3", other)
    await farm.settle()
    got = farm.delivered("acme-web2")
    assert other in got
    assert len(got) == 3
    assert agent(farm)._local.events["overflow in flight"] == 3
    assert (await agent(farm).status())["limits"]["endpoints"]["acme-web1"]["waiting"] == {"used": 0, "limit": 256}


async def test_strays_that_wait_for_an_answer_are_bounded(farm, monkeypatch):
    monkeypatch.setattr(strays, "MOST_STRAYS", 3)
    for port in range(20000, 20005):
        packet = IP(src="172.16.2.1", dst="172.16.1.1") / UDP(sport=port, dport=20000)
        farm.hosts["h1"].switch.on_punt(Punt(PORT_UNDERLAY, PuntReason.STRAY, bytes(Ether() / packet)))
    assert agent(farm)._local.events["overflow strays"] == 2
    await farm.settle()
    assert agent(farm)._local.events["strays"] == 3
