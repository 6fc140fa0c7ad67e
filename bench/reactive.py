"""A reactive OpenFlow controller for two Open vSwitches: what NVI's set-up is compared with. Runs on os-ken, alone.

It does for a first packet what the original system's controller did (one controller for all switches): a packet in,
two flows at each of the two switches, which rewrite the headers at both ends with a key in place of the source port,
then the packet goes out at the first switch. There are no barriers, as there were none: a packet may overtake the flows
that the far switch is to forward it by, and is lost then.

    reactive.py PORT DESCRIPTION

DESCRIPTION is JSON, see bench/openflow.py; it prints "ready" when both switches are there.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from itertools import cycle
from types import SimpleNamespace

# Greenlets, as in Ryu: with threads it is slower, and more packets overtake their flows.
os.environ["OSKEN_HUB_TYPE"] = "eventlet"
from os_ken.lib import hub

hub.patch()

from os_ken import cfg  # noqa: E402
from os_ken.base.app_manager import AppManager, OSKenApp  # noqa: E402
from os_ken.controller import ofp_event  # noqa: E402
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls  # noqa: E402
from os_ken.ofproto import ofproto_v1_3 as of  # noqa: E402
from os_ken.ofproto import ofproto_v1_3_parser as parser  # noqa: E402

IPV4, UDP = 0x0800, 17
FIRST_KEY, LAST_KEY = 1025, 49999


class Reactive(OSKenApp):
    """Connects whoever sends a first packet."""

    OFP_VERSIONS = (of.OFP_VERSION,)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        described = json.loads(sys.argv[2])
        self.wire, self.port = described["wire"], described["port"]
        self.hosts = [SimpleNamespace(**each) for each in described["hosts"]]
        self.by_address = {host.endpoint_address: host for host in self.hosts}
        self.switches = {}
        self.keys = cycle(range(FIRST_KEY, LAST_KEY + 1))
        self.taken = set()

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def connected(self, event):
        """A switch is there: what it has no flow for, it sends whole."""
        switch = event.msg.datapath
        self.switches[switch.id] = switch
        to_us = [parser.OFPActionOutput(of.OFPP_CONTROLLER, of.OFPCML_NO_BUFFER)]
        self.flow(switch, parser.OFPMatch(), to_us, priority=0, idle_timeout=0)
        if len(self.switches) == len(self.hosts):
            print("ready", flush=True)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event):
        """A packet that no flow matches."""
        message = event.msg
        frame = message.data
        if message.match["in_port"] != self.port or frame[12:14] != b"\x08\0" or frame[23] != UDP:
            return  # from the wire: it was there before its flows
        here = self.hosts[message.datapath.id - 1]
        source, destination = address(frame[26:30]), address(frame[30:34])
        there = self.by_address.get(destination)
        if source != here.endpoint_address or there is None or there is here:
            return
        source_port, destination_port = int.from_bytes(frame[34:36]), int.from_bytes(frame[36:38])
        key = next(each for each in self.keys if each not in self.taken)
        self.taken.add(key)
        near, far = message.datapath, self.switches[there.id]
        ports = {"udp_src": source_port, "udp_dst": destination_port}
        answer_ports = {"udp_src": destination_port, "udp_dst": source_port}
        self.flow(far, self.on_wire(here, there, udp_src=key), self.restore(here, there, ports))
        self.flow(far, self.at_endpoint(there, here, answer_ports), self.send(there, here, udp_dst=key))
        self.flow(near, self.on_wire(there, here, udp_dst=key), self.restore(there, here, answer_ports))
        outward = self.send(here, there, udp_src=key)
        self.flow(near, self.at_endpoint(here, there, ports), outward)
        near.send_msg(parser.OFPPacketOut(near, of.OFP_NO_BUFFER, self.port, outward, frame))

    def at_endpoint(self, source, destination, ports):
        """What an endpoint sends."""
        return parser.OFPMatch(
            in_port=self.port,
            eth_src=source.endpoint_mac,
            eth_type=IPV4,
            ip_proto=UDP,
            ipv4_src=source.endpoint_address,
            ipv4_dst=destination.endpoint_address,
            **ports,
        )

    def on_wire(self, source, destination, **key):
        """What a host sends to another."""
        return parser.OFPMatch(
            in_port=self.wire,
            eth_dst=destination.mac,
            eth_type=IPV4,
            ip_proto=UDP,
            ipv4_src=source.address,
            ipv4_dst=destination.address,
            **key,
        )

    def send(self, source, destination, **key):
        """To the other host."""
        return [
            parser.OFPActionSetField(eth_src=source.mac),
            parser.OFPActionSetField(eth_dst=destination.mac),
            parser.OFPActionSetField(ipv4_src=source.address),
            parser.OFPActionSetField(ipv4_dst=destination.address),
            parser.OFPActionSetField(**key),
            parser.OFPActionOutput(self.wire),
        ]

    def restore(self, source, destination, ports):
        """To the endpoint, as it was sent."""
        return [
            parser.OFPActionSetField(eth_src=source.endpoint_mac),
            parser.OFPActionSetField(eth_dst=destination.endpoint_mac),
            parser.OFPActionSetField(ipv4_src=source.endpoint_address),
            parser.OFPActionSetField(ipv4_dst=destination.endpoint_address),
            *(parser.OFPActionSetField(**{field: value}) for field, value in ports.items()),
            parser.OFPActionOutput(self.port),
        ]

    def flow(self, switch, match, actions, priority=10, idle_timeout=300):
        """Add a flow."""
        instructions = [parser.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, actions)]
        switch.send_msg(
            parser.OFPFlowMod(
                switch, priority=priority, idle_timeout=idle_timeout, match=match, instructions=instructions
            )
        )


def address(packed):
    """In the usual notation."""
    return socket.inet_ntoa(packed)


if __name__ == "__main__":
    cfg.CONF(["--ofp-listen-host", "0.0.0.0", "--ofp-tcp-listen-port", sys.argv[1]], project="os_ken")
    AppManager.run_apps(["reactive"])
