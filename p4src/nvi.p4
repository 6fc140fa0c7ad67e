// SPDX-License-Identifier: Apache-2.0
//
// NVI: connect workloads by rewriting headers at both ends, never by encapsulating.
//
// One switch runs on every host. Each side of it has one kind of port:
//
//       endpoints                                 the underlay
//   16, 17, 18 ... ────┐                     ┌──── 1  underlay0, the wire
//                      │      the switch     │
//            CPU 510 ──┤                     ├──── 2  nvi0, the host's own IP stack
//       (the agent)    └─────────────────────┘
//
// A packet of a connection carries, on each segment of its way, that segment's own 5-tuple. The switch joins two
// neighbouring segments with two entries of one table, one for each direction. So the way of nearly every packet is:
//
//   parser ──> connections ──hit──> rewrite (or a counted drop) ──> checksums ──> out
//                   │
//                  miss
//                   └──> edge: an endpoint's packet:  source guard ──> ARP: neighbours ──> reply
//                              │                          │                    └── miss ──> punt
//                              │                          └──> anything else of a flow ──> punt, metered by port
//                              └ the underlay's packet:   NVI's key range ──> punt;  the rest is the host's own
//                                the host stack's packet: to the wire
//
// The guard costs nothing on a hit, since the key of `connections` already holds the port, MAC and address of the sender.

#include <core.p4>
#include <v1model.p4>

#include "ids.p4"
#include "headers.p4"
#include "parser.p4"
#include "drops.p4"
#include "punt.p4"
#include "connections.p4"
#include "guard.p4"
#include "neighbours.p4"
#include "edge.p4"
#include "checksums.p4"

control NviIngress(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    Connections() connections;
    Edge() edge;
    Punt() punt;
    Drops() drops;

    apply {
        if (hdr.packet_out.isValid() && hdr.packet_out.order == PacketOutOrder.SEND) {
            standard_metadata.egress_spec = meta.scope;
        } else {
            if (meta.has_flow) {
                connections.apply(hdr, meta, standard_metadata);
            }
            if (!meta.rewritten) {
                mark_to_drop(standard_metadata);
                if (meta.drop_reason == DropReason.NONE) {
                    edge.apply(hdr, meta, standard_metadata);
                }
                if (meta.punt_reason != PuntReason.NONE) {
                    punt.apply(hdr, meta, standard_metadata);
                }
                if (meta.drop_reason != DropReason.NONE) {
                    drops.apply(meta);
                }
            }
        }
    }
}

control NviEgress(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    UdpAndEcho() udp_and_echo;

    apply {
        if (meta.rewritten && !hdr.tcp.isValid()) {
            udp_and_echo.apply(hdr, meta);
        }
    }
}

V1Switch(NviParser(), NviVerifyChecksum(), NviIngress(), NviEgress(), NviComputeChecksum(), NviDeparser()) main;
