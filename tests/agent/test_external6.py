"""The outside in IPv6, from an underlay that has IPv4 only."""

from __future__ import annotations

import asyncio

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from nvi.model import Endpoint, External, Host, Network, Service, Subnet, Tenant, derive_mac, read_address, show_mac
from nvi.model import show_address as show
from nvi.simulation import Farm, VirtualClockLoop

PEER, PUBLIC = "2001:db8:ffff::7", "2001:db8::9"
WEB = Network("web", (Subnet(read_address("fd00:1::"), 64, read_address("fd00:1::fe")),), internet=True)
ACME = Tenant("acme", {"web": WEB})
HOSTS = [
    Host("e1", "east", (read_address("172.16.1.1"),)),
    Host("e9", "east", (read_address("172.16.1.9"),), external=External(read_address(PUBLIC), read_address(PUBLIC))),
]
ENDPOINTS = {
    name: Endpoint(name, "acme", "web", derive_mac("endpoint", name), (read_address(address),), where)
    for name, address, where in (("web1", "fd00:1::1", "e1"), ("gate", "fd00:1::2", "e9"))
}


def frame(name: str, packet: Packet) -> bytes:
    router = show_mac(ACME.gateway_mac("web"))
    return bytes(Ether(src=show_mac(ENDPOINTS[name].mac), dst=router) / packet)


def reply_to(seen: Packet) -> Packet:
    if TCP in seen:
        return TCP(sport=80, dport=seen[TCP].sport, flags="SA")
    if UDP in seen:
        return UDP(sport=53, dport=seen[UDP].sport) / b"y"
    return ICMPv6EchoReply(id=seen[ICMPv6EchoRequest].id, seq=1, data=b"p")


async def outward(farm: Farm, name: str, layer: Packet) -> None:
    own = show(ENDPOINTS[name].address)
    farm.emit(name, frame(name, IPv6(src=own, dst=PEER) / layer))
    await asyncio.sleep(1.0)
    (seen,) = [Ether(each)[IPv6] for each in farm.outside.pop(read_address(PEER), [])]
    assert (seen.src, seen.hlim) == (PUBLIC, 63)
    farm.emit_outside(bytes(Ether(dst=show_mac(bytes(6))) / IPv6(src=PEER, dst=seen.src) / reply_to(seen)))
    await asyncio.sleep(1.0)
    (got,) = [Ether(each)[IPv6] for each in farm.delivered(name)]
    assert (got.src, got.dst) == (PEER, own)
    if ICMPv6EchoReply in got:
        assert got[ICMPv6EchoReply].id == layer.id
    else:
        assert got.payload.dport == layer.sport


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_the_outside_in_ipv6(name):
    async def run() -> None:
        farm = Farm()
        await farm.start([ACME], HOSTS)
        for endpoint in ENDPOINTS.values():
            await farm.add_endpoint(endpoint, 16)
        await outward(farm, name, TCP(sport=40001, dport=80, flags="S"))
        await outward(farm, name, UDP(sport=5000, dport=53) / b"x")
        await outward(farm, name, ICMPv6EchoRequest(id=7, seq=1, data=b"p"))
        service = Service("acme", ENDPOINTS[name].address, 80, 6, "e9", 8080)
        await farm.hosts["e9"].agent.publish_service(service)
        await asyncio.sleep(1.0)
        syn = IPv6(src=PEER, dst=PUBLIC) / TCP(sport=51000, dport=8080, flags="S")
        farm.emit_outside(bytes(Ether(dst=show_mac(bytes(6))) / syn))
        await asyncio.sleep(1.0)
        (got,) = [Ether(each)[IPv6] for each in farm.delivered(name)]
        assert (got.src, got[TCP].sport, got.dst, got[TCP].dport) == (PEER, 51000, show(service.endpoint), 80)
        await farm.restart_agent("e9")
        assert len(farm.hosts["e9"].agent._local.connections) == 4, "entries of both families are adopted"
        await farm.stop()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(run())
