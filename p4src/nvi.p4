// SPDX-License-Identifier: Apache-2.0
//
// NVI: connect workloads by rewriting headers at both ends, never by encapsulating.
//
// One switch runs on every host. Each side of it has one kind of port:
//
//       endpoints                                 the underlay
//   16, 17, 18 ... ────┐                     ┌──── 1  underlay0, the wire
//                      │                     ├──── 2  nvi0, the host's own IP stack
//                      │      the switch     │
//            CPU 510 ──┤                     │    the external side, of a gateway
//       (the agent)    │                     ├──── 3  external0, the wire
//                      └─────────────────────┴──── 4  nvi1, the host's own IP stack
//
// A packet of a connection carries, on each segment of its way, that segment's own 5-tuple. The switch joins two
// neighbouring segments with two entries of one table, one for each direction. So the way of nearly every packet is:
//
//   parser ──> connections ──hit──> rewrite (or a counted drop) ──> checksums ──> out
//                   │
//                  miss
//                   └──> edge: an endpoint's packet:  source guard ──> ARP, solicitations: neighbours ──> reply
//                              │                          │                                └── miss ──> punt
//                              │                          └──> anything else of a flow ──> punt, metered by port
//                              └ a wire's packet:     services, NVI's key range ──> punt;  the rest is the host's own
//                                a host stack's packet: to its wire
//
// Few packets need more: fragments, which find the ports of their datagram before the lookup; ICMP errors, whose quoted
// packet is translated after it; those for which the way may be too long or too narrow; those that change their family.
//
// The guard costs nothing on a hit, since the key of `connections` already holds the port, MAC and address of the sender.

#include <core.p4>
#include <v1model.p4>

#include "ids.p4"
#include "headers.p4"
#include "parser.p4"
#include "drops.p4"
#include "punt.p4"
#include "fragments.p4"
#include "connections.p4"
#include "limits.p4"
#include "families.p4"
#include "errors.p4"
#include "guard.p4"
#include "neighbours.p4"
#include "endpoint.p4"
#include "services.p4"
#include "wire.p4"
#include "edge.p4"
#include "checksums.p4"

control NviIngress(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    Identifications() identifications;
    Fragments() fragments;
    Connections() connections;
    Limits() limits;
    Families() families;
    Errors() errors;
    Renumber() renumber;
    Keys() keys;
    Edge() edge;
    Punt() punt;
    Drops() drops;

    apply {
        if (hdr.limits.isValid()) {
            if (hdr.datagram.isValid()) {
                identifications.apply(hdr);
                fragments.apply(hdr, meta, standard_metadata);
            }
            // An error goes to who has sent what it is about.
            if (hdr.outer4.isValid() && hdr.outer4.destination != hdr.ipv4.destination
                || hdr.outer6.isValid() && hdr.outer6.destination != hdr.ipv6.destination) {
                meta.has_flow = false;
            }
        }
        if (meta.has_flow) {
            connections.apply(hdr, meta, standard_metadata);
        }
        if (hdr.limits.isValid() || !meta.rewritten) {
            hdr.edge.setValid();
            hdr.edge.punt_reason = PuntReason.NONE;
            if (meta.rewritten && hdr.before_ethernet.isValid()) {
                limits.apply(hdr, meta);
            }
            if (meta.rewritten) {
                if (hdr.before_ethernet.isValid() && hdr.limits.translated == 1) {
                    if (!hdr.datagram.isValid()) {
                        identifications.apply(hdr);
                    }
                    families.apply(hdr, meta);
                } else {
                    if (hdr.icmp_error.isValid()) {
                        errors.apply(hdr, meta);
                    }
                    if (hdr.datagram.isValid()) {
                        renumber.apply(hdr, meta, standard_metadata);
                    }
                }
            }
            if (!meta.rewritten) {
                mark_to_drop(standard_metadata);
                keys.apply(hdr);
                if (hdr.packet_out.isValid() && hdr.packet_out.order == PacketOutOrder.SEND) {
                    standard_metadata.egress_spec = meta.scope;
                } else if (meta.drop_reason == DropReason.NONE && hdr.edge.punt_reason == PuntReason.NONE) {
                    edge.apply(hdr, meta, standard_metadata);
                }
                if (hdr.edge.punt_reason != PuntReason.NONE) {
                    punt.apply(hdr, meta, standard_metadata);
                }
                if (meta.drop_reason != DropReason.NONE) {
                    drops.apply(hdr, meta);
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
