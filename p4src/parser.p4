// SPDX-License-Identifier: Apache-2.0
//
// From bytes to headers, and to the key of `connections`. What has no key (ARP, fragments, options, other protocols)
// leaves the parser without `has_flow`, and the edge decides. The host stack's own packets are not looked into at all.

parser NviParser(packet_in packet, out headers_t hdr, inout metadata_t meta,
                 inout standard_metadata_t standard_metadata) {

    state start {
        meta.scope = standard_metadata.ingress_port;
        transition select(standard_metadata.ingress_port) {
            PORT_CPU: from_agent;
            PORT_UNDERLAY: ethernet;
            PORT_HOST_STACK: accept;
            default: endpoint;
        }
    }

    state from_agent {
        packet.extract(hdr.packet_out);
        meta.scope = hdr.packet_out.port;
        transition select(hdr.packet_out.order, hdr.packet_out.port) {
            (PacketOutOrder.SEND, _): accept;
            (PacketOutOrder.REINJECT, PORT_UNDERLAY): ethernet;
            (PacketOutOrder.REINJECT, PORT_HOST_STACK): accept;
            default: endpoint;
        }
    }

    state endpoint {
        packet.extract(hdr.ethernet);
        meta.source_mac = hdr.ethernet.source;
        transition network_layer;
    }

    state ethernet {
        packet.extract(hdr.ethernet);
        transition network_layer;
    }

    state network_layer {
        transition select(hdr.ethernet.ether_type) {
            ETHERTYPE_IPV4: ipv4;
            ETHERTYPE_ARP: arp;
            default: accept;
        }
    }

    state arp {
        packet.extract(hdr.arp);
        transition accept;
    }

    state ipv4 {
        packet.extract(hdr.ipv4);
        transition select(hdr.ipv4.version_ihl, hdr.ipv4.flags_fragment, hdr.ipv4.protocol) {
            (0x45, 0 &&& 0x3fff, PROTOCOL_TCP): tcp;
            (0x45, 0 &&& 0x3fff, PROTOCOL_UDP): udp;
            (0x45, 0 &&& 0x3fff, PROTOCOL_ICMP): icmp;
            default: accept;
        }
    }

    state tcp {
        packet.extract(hdr.ports);
        packet.extract(hdr.tcp);
        meta.old_tcp_checksum = ~hdr.tcp.checksum;
        meta.l4_source = hdr.ports.source;
        meta.l4_destination = hdr.ports.destination;
        meta.has_flow = true;
        transition accept;
    }

    state udp {
        packet.extract(hdr.ports);
        packet.extract(hdr.udp);
        meta.l4_source = hdr.ports.source;
        meta.l4_destination = hdr.ports.destination;
        meta.has_flow = true;
        transition accept;
    }

    state icmp {
        transition select(packet.lookahead<bit<16>>()) {
            ECHO_REQUEST: echo_request;
            ECHO_REPLY: echo_reply;
            default: accept;
        }
    }

    state echo_request {
        packet.extract(hdr.echo);
        meta.l4_source = hdr.echo.identifier;
        meta.l4_destination = ECHO_PORT;
        meta.has_flow = true;
        transition select(hdr.echo.identifier) {
            ECHO_PORT &&& ECHO_PORT_MASK: echo_request_successor;
            default: accept;
        }
    }

    state echo_request_successor {
        meta.l4_destination = hdr.echo.identifier + 1;
        transition accept;
    }

    state echo_reply {
        packet.extract(hdr.echo);
        meta.l4_source = ECHO_PORT;
        meta.l4_destination = hdr.echo.identifier;
        meta.has_flow = true;
        transition select(hdr.echo.identifier) {
            ECHO_PORT &&& ECHO_PORT_MASK: echo_reply_successor;
            default: accept;
        }
    }

    state echo_reply_successor {
        meta.l4_source = hdr.echo.identifier + 1;
        transition accept;
    }
}

control NviDeparser(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.packet_in);
        packet.emit(hdr.ethernet);
        packet.emit(hdr.arp);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.ports);
        packet.emit(hdr.tcp);
        packet.emit(hdr.udp);
        packet.emit(hdr.echo);
    }
}
