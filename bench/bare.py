"""What every controller must do for a first packet, and nothing else: a packet in, one write, a packet out.

A process of its own. It knows all connections beforehand, and has the requests ready.

    python -m bench.bare ADDRESS DEVICE_ID CONNECTIONS
"""

from __future__ import annotations

import sys

from nvi.bench.ends import CLIENT, SERVER, TENANT
from nvi.bench.traffic import frame
from nvi.formulation import endpoint_side, join
from nvi.model import FirstPacket
from nvi.p4rt.codec import nvi_codec
from nvi.p4rt.pipeline import nvi_pipeline
from nvi.packets import parse
from nvi.switch import PORT_FIRST_ENDPOINT, Entry, GuardEntry, Operation, Update

from .controller import Controller

NEAR, FAR = PORT_FIRST_ENDPOINT, PORT_FIRST_ENDPOINT + 1
_PORTS = slice(34, 38)
"""Where a frame has its UDP ports."""


def _main(address: str, device_id: str, connections: str) -> None:
    codec = nvi_codec()
    controller = Controller(address, int(device_id), nvi_pipeline())
    controller.write(controller.request([_insert(GuardEntry(NEAR, CLIENT.mac, CLIENT.address, network=1))]))
    requests = {}
    for packet in map(frame, range(int(connections))):
        flow, first = parse(packet).flow, FirstPacket(packet[22])
        one = endpoint_side(TENANT, CLIENT, NEAR, SERVER, flow, first)
        other = endpoint_side(TENANT, SERVER, FAR, CLIENT, flow.reversed(), first)
        entries = join(one, other, 300.0, (0, 0))
        requests[packet[_PORTS]] = controller.request([_insert(entry) for entry in entries])
    print("ready", flush=True)
    for punted in controller.packets():
        packet = punted.payload
        controller.write(requests[packet[_PORTS]])
        controller.send(codec.encode_packet_out(codec.reinject, NEAR, packet))


def _insert(entry: Entry) -> bytes:
    return nvi_codec().encode(Update(Operation.INSERT, entry)).message


if __name__ == "__main__":
    _main(*sys.argv[1:])
