// SPDX-License-Identifier: Apache-2.0
//
// From bytes to headers, and to the key of the connection tables. What has no key (ARP, neighbour discovery, options ...)
// leaves the parser without `has_flow`, and the edge decides. The host stacks' own packets are not looked into at all.
//
// `limits` is valid in what needs a look besides its lookup: datagrams in fragments, or that may be, and ICMP errors.

parser NviParser(packet_in packet, out headers_t hdr, inout metadata_t meta,
                 inout standard_metadata_t standard_metadata) {

    state start {
        meta.scope = standard_metadata.ingress_port;
        transition select(standard_metadata.ingress_port) {
            PORT_CPU: from_agent;
            PORT_UNDERLAY: ethernet;
            PORT_HOST_STACK: accept;
            PORT_EXTERNAL: ethernet;
            PORT_EXTERNAL_STACK: accept;
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
            (PacketOutOrder.REINJECT, PORT_EXTERNAL): ethernet;
            (PacketOutOrder.REINJECT, PORT_EXTERNAL_STACK): accept;
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
            ETHERTYPE_IPV6: ipv6;
            ETHERTYPE_ARP: arp;
            default: accept;
        }
    }

    state arp {
        packet.extract(hdr.arp);
        transition accept;
    }

    // IPv4.

    state ipv4 {
        packet.extract(hdr.ipv4);
        transition select(hdr.ipv4.version_ihl, hdr.ipv4.flags_fragment, hdr.ipv4.protocol) {
            (0x45, IPV4_DONT_FRAGMENT &&& 0x7fff, PROTOCOL_TCP): tcp;
            (0x45, IPV4_DONT_FRAGMENT &&& 0x7fff, PROTOCOL_UDP): udp;
            (0x45, IPV4_DONT_FRAGMENT &&& 0x7fff, PROTOCOL_ICMP): icmp;
            (0x45, IPV4_DONT_FRAGMENT &&& 0x7fff, _): portless;
            (0x45, 0 &&& 0x1fff, _): first_fragment;
            (0x45, _, _): later_fragment;
            default: accept;
        }
    }

    // Or a whole datagram that may be cut into fragments.
    state first_fragment {
        hdr.datagram.setValid();
        hdr.limits.setValid();
        transition select(hdr.ipv4.flags_fragment, hdr.ipv4.protocol) {
            (_, PROTOCOL_TCP): tcp;
            (_, PROTOCOL_UDP): udp;
            (0 &&& IPV4_MORE_FRAGMENTS, PROTOCOL_ICMP): icmp;
            (_, PROTOCOL_ICMP): cut_icmp;
            default: portless;
        }
    }

    state later_fragment {
        hdr.datagram.setValid();
        hdr.limits.setValid();
        transition accept;
    }

    state icmp {
        transition select(packet.lookahead<bit<16>>()) {
            ECHO_REQUEST: echo_request;
            ECHO_REPLY: echo_reply;
            0x0300 &&& 0xff00: icmp_error;  // destination unreachable
            0x0b00 &&& 0xff00: icmp_error;  // time exceeded
            0x0c00 &&& 0xff00: icmp_error;  // parameter problem
            default: accept;
        }
    }

    state cut_icmp {
        transition select(packet.lookahead<bit<16>>()) {
            ECHO_REQUEST: echo_request;
            ECHO_REPLY: echo_reply;
            ECHO_REQUEST_V6: echo_request;
            ECHO_REPLY_V6: echo_reply;
            default: accept;
        }
    }

    state icmp_error {
        packet.extract(hdr.icmp_error);
        packet.extract(hdr.quoted_ipv4);
        hdr.limits.setValid();
        hdr.outer4.setValid();
        hdr.outer4.source = hdr.ipv4.source;
        hdr.outer4.destination = hdr.ipv4.destination;
        hdr.ipv4.source = hdr.quoted_ipv4.destination;  // for the key, which is that of the reverse; see `Keys`
        hdr.ipv4.destination = hdr.quoted_ipv4.source;
        hdr.ipv4.protocol = hdr.quoted_ipv4.protocol;
        transition select(hdr.quoted_ipv4.version_ihl, hdr.quoted_ipv4.flags_fragment, hdr.quoted_ipv4.protocol) {
            (0x45, 0 &&& 0x1fff, PROTOCOL_TCP): quoted_tcp;
            (0x45, 0 &&& 0x1fff, PROTOCOL_UDP): quoted_udp;
            (0x45, 0 &&& 0x1fff, PROTOCOL_ICMP): quoted_echo;
            (0x45, 0 &&& 0x1fff, _): portless;
            default: accept;
        }
    }

    // IPv6.

    state ipv6 {
        packet.extract(hdr.ipv6);
        transition select(hdr.ipv6.version_class_label, hdr.ipv6.next_header) {
            (0x60000000 &&& 0xf0000000, PROTOCOL_TCP): tcp;
            (0x60000000 &&& 0xf0000000, PROTOCOL_UDP): udp;
            (0x60000000 &&& 0xf0000000, PROTOCOL_ICMPV6): icmp6;
            (0x60000000 &&& 0xf0000000, PROTOCOL_FRAGMENT): fragment;
            (_, PROTOCOL_HOP_BY_HOP): accept;
            (_, PROTOCOL_ROUTING): accept;
            (0x60000000 &&& 0xf0000000, _): portless;
            default: accept;
        }
    }

    state fragment {
        packet.extract(hdr.fragment);
        hdr.datagram.setValid();
        hdr.limits.setValid();
        hdr.ipv6.next_header = hdr.fragment.next_header;  // for the key; see `Keys`
        transition select(hdr.fragment.offset_more, hdr.fragment.next_header) {
            (0 &&& 0xfff8, PROTOCOL_TCP): tcp;
            (0 &&& 0xfff8, PROTOCOL_UDP): udp;
            (0 &&& 0xfff8, PROTOCOL_ICMPV6): cut_icmp;
            (0 &&& 0xfff8, PROTOCOL_HOP_BY_HOP): accept;
            (0 &&& 0xfff8, PROTOCOL_ROUTING): accept;
            (0 &&& 0xfff8, PROTOCOL_FRAGMENT): accept;
            (0 &&& 0xfff8, _): portless;
            default: accept;
        }
    }

    state icmp6 {
        transition select(packet.lookahead<bit<16>>()) {
            ECHO_REQUEST_V6: echo_request;
            ECHO_REPLY_V6: echo_reply;
            0x0100 &&& 0xff00: icmp6_error;  // destination unreachable
            0x0200 &&& 0xff00: icmp6_error;  // packet too big
            0x0300 &&& 0xff00: icmp6_error;  // time exceeded
            0x0400 &&& 0xff00: icmp6_error;  // parameter problem
            NEIGHBOUR_SOLICITATION: neighbour_solicitation;
            0x8400 &&& 0xfc00: discovery;  // router solicitation and advertisement, the rest, redirect
            0x8800 &&& 0xfe00: discovery;
            default: accept;
        }
    }

    state neighbour_solicitation {
        packet.extract(hdr.discovery);
        packet.extract(hdr.target);
        transition select(hdr.ipv6.payload_length) {
            32: link_option;
            default: accept;
        }
    }

    state link_option {
        packet.extract(hdr.link_option);
        transition accept;
    }

    state discovery {
        packet.extract(hdr.discovery);
        transition accept;
    }

    state icmp6_error {
        packet.extract(hdr.icmp_error);
        packet.extract(hdr.quoted_ipv6);
        hdr.limits.setValid();
        hdr.outer6.setValid();
        hdr.outer6.source = hdr.ipv6.source;
        hdr.outer6.destination = hdr.ipv6.destination;
        hdr.ipv6.source = hdr.quoted_ipv6.destination;
        hdr.ipv6.destination = hdr.quoted_ipv6.source;
        hdr.ipv6.next_header = hdr.quoted_ipv6.next_header;
        transition select(hdr.quoted_ipv6.version_class_label, hdr.quoted_ipv6.next_header) {
            (0x60000000 &&& 0xf0000000, PROTOCOL_TCP): quoted_tcp;
            (0x60000000 &&& 0xf0000000, PROTOCOL_UDP): quoted_udp;
            (0x60000000 &&& 0xf0000000, PROTOCOL_ICMPV6): quoted_echo;
            (0x60000000 &&& 0xf0000000, PROTOCOL_FRAGMENT): quoted_fragment;
            (0x60000000 &&& 0xf0000000, _): portless;
            default: accept;
        }
    }

    state quoted_fragment {
        packet.extract(hdr.quoted_fragment);
        hdr.ipv6.next_header = hdr.quoted_fragment.next_header;
        transition select(hdr.quoted_fragment.offset_more, hdr.quoted_fragment.next_header) {
            (0 &&& 0xfff8, PROTOCOL_TCP): quoted_tcp;
            (0 &&& 0xfff8, PROTOCOL_UDP): quoted_udp;
            (0 &&& 0xfff8, PROTOCOL_ICMPV6): quoted_echo;
            (0 &&& 0xfff8, _): portless;
            default: accept;
        }
    }

    // Both families.

    state tcp {
        packet.extract(hdr.ports);
        packet.extract(hdr.tcp);
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

    state portless {
        meta.has_flow = true;
        transition accept;
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

    // The quoted packet of an ICMP error. Its reverse is the flow of the error.

    state quoted_tcp {
        packet.extract(hdr.quoted_ports);
        meta.l4_source = hdr.quoted_ports.destination;
        meta.l4_destination = hdr.quoted_ports.source;
        meta.has_flow = true;
        // If the quotation is too short for a checksum, the parser ends here, with all that the lookup needs.
        packet.extract(hdr.quoted_tcp);
        transition accept;
    }

    state quoted_udp {
        packet.extract(hdr.quoted_ports);
        packet.extract(hdr.quoted_udp);
        meta.l4_source = hdr.quoted_ports.destination;
        meta.l4_destination = hdr.quoted_ports.source;
        meta.has_flow = true;
        transition accept;
    }

    state quoted_echo {
        packet.extract(hdr.quoted_echo);
        transition select(hdr.quoted_echo.type_code) {
            ECHO_REQUEST: quoted_request;
            ECHO_REQUEST_V6: quoted_request;
            ECHO_REPLY: quoted_reply;
            ECHO_REPLY_V6: quoted_reply;
            default: accept;
        }
    }

    state quoted_request {
        meta.l4_source = ECHO_PORT;
        meta.l4_destination = hdr.quoted_echo.identifier;
        meta.has_flow = true;
        transition select(hdr.quoted_echo.identifier) {
            ECHO_PORT &&& ECHO_PORT_MASK: quoted_request_successor;
            default: accept;
        }
    }

    state quoted_request_successor {
        meta.l4_source = hdr.quoted_echo.identifier + 1;
        transition accept;
    }

    state quoted_reply {
        meta.l4_source = hdr.quoted_echo.identifier;
        meta.l4_destination = ECHO_PORT;
        meta.has_flow = true;
        transition select(hdr.quoted_echo.identifier) {
            ECHO_PORT &&& ECHO_PORT_MASK: quoted_reply_successor;
            default: accept;
        }
    }

    state quoted_reply_successor {
        meta.l4_destination = hdr.quoted_echo.identifier + 1;
        transition accept;
    }
}

control NviDeparser(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.packet_in);
        packet.emit(hdr.ethernet);
        packet.emit(hdr.arp);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.ipv6);
        packet.emit(hdr.fragment);
        packet.emit(hdr.ports);
        packet.emit(hdr.tcp);
        packet.emit(hdr.udp);
        packet.emit(hdr.echo);
        packet.emit(hdr.icmp_error);
        packet.emit(hdr.quoted_ipv4);
        packet.emit(hdr.quoted_ipv6);
        packet.emit(hdr.quoted_fragment);
        packet.emit(hdr.quoted_ports);
        packet.emit(hdr.quoted_tcp);
        packet.emit(hdr.quoted_udp);
        packet.emit(hdr.quoted_echo);
        packet.emit(hdr.discovery);
        packet.emit(hdr.target);
        packet.emit(hdr.link_option);
    }
}
