// SPDX-License-Identifier: Apache-2.0

// IPv4 that its sender may send: does it begin a flow, or what is wrong with it?
control Ipv4FromEndpoint(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    apply {
        if (standard_metadata.parser_error != error.NoError && !hdr.icmp_error.isValid()
            || hdr.ipv4.version_ihl < 0x45 || hdr.ipv4.version_ihl > 0x4f || hdr.ipv4.ttl == 0
            || hdr.ipv4.total_length < 20 || (bit<32>)hdr.ipv4.total_length + 14 > standard_metadata.packet_length) {
            meta.drop_reason = DropReason.MALFORMED;
        } else if (hdr.udp.isValid() && hdr.ports.source == DHCP_CLIENT && hdr.ports.destination == DHCP_SERVER
                   && hdr.ipv4.destination == 0xffffffff
                   && (!hdr.datagram.isValid() || hdr.datagram.more == 0)) {
            hdr.edge.punt_reason = PuntReason.LOCAL;
        } else if (hdr.ipv4.source == 0) {
            meta.drop_reason = DropReason.MALFORMED;
        } else if (hdr.ethernet.destination[40:40] == 1 || hdr.ipv4.destination >= 0xe0000000) {
            meta.drop_reason = DropReason.GROUP;
        } else if (hdr.ipv4.version_ihl != 0x45) {
            meta.drop_reason = DropReason.OPTIONS;
        } else if (hdr.datagram.isValid() && hdr.datagram.sound == 0) {
            meta.drop_reason = DropReason.MALFORMED;
        } else if (hdr.datagram.isValid() && hdr.datagram.offset != 0) {
            hdr.edge.punt_reason = PuntReason.FRAGMENT;
        } else if (hdr.icmp_error.isValid()) {
            meta.drop_reason = DropReason.ERROR;
        } else if (meta.has_flow) {
            hdr.edge.punt_reason = PuntReason.MISS;
        } else if (hdr.datagram.isValid() && hdr.datagram.more != 0) {
            meta.drop_reason = DropReason.FRAGMENT;
        } else {
            meta.drop_reason = DropReason.UNSUPPORTED;
        }
    }
}

// The same of IPv6.
control Ipv6FromEndpoint(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    apply {
        if (standard_metadata.parser_error != error.NoError && !hdr.icmp_error.isValid()
            || hdr.ipv6.version_class_label[31:28] != 6 || hdr.ipv6.hop_limit == 0
            || (bit<32>)hdr.ipv6.payload_length + 54 > standard_metadata.packet_length) {
            meta.drop_reason = DropReason.MALFORMED;
        } else if (hdr.discovery.isValid()) {
            if (hdr.ipv6.hop_limit != 255) {
                meta.drop_reason = DropReason.NEIGHBOUR;  // it has crossed a router (RFC 4861 section 7.1)
            } else if (hdr.discovery.type_code == ROUTER_SOLICITATION) {
                hdr.edge.punt_reason = PuntReason.LOCAL;
            } else if (!hdr.target.isValid() || hdr.target.address[127:120] == 0xff) {
                meta.drop_reason = DropReason.NEIGHBOUR;
            } else if (hdr.target.address == hdr.ipv6.source) {
                meta.drop_reason = DropReason.NEIGHBOUR_SELF;
            } else {
                hdr.edge.address = hdr.target.address;
                hdr.edge.punt_reason = PuntReason.NEIGHBOUR;
            }
        } else if (hdr.ipv6.source == 0) {
            meta.drop_reason = DropReason.MALFORMED;
        } else if (hdr.ethernet.destination[40:40] == 1 || hdr.ipv6.destination[127:120] == 0xff) {
            meta.drop_reason = DropReason.GROUP;
        } else if (hdr.datagram.isValid() && hdr.datagram.sound == 0) {
            meta.drop_reason = DropReason.MALFORMED;
        } else if (hdr.datagram.isValid() && hdr.datagram.offset != 0) {
            hdr.edge.punt_reason = PuntReason.FRAGMENT;
        } else if (hdr.icmp_error.isValid()) {
            meta.drop_reason = DropReason.ERROR;
        } else if (meta.has_flow) {
            hdr.edge.punt_reason = PuntReason.MISS;
        } else if (hdr.ipv6.next_header == PROTOCOL_ICMPV6) {
            meta.drop_reason = DropReason.UNSUPPORTED;
        } else if (hdr.fragment.isValid() && hdr.fragment.next_header == PROTOCOL_ICMPV6) {
            meta.drop_reason = DropReason.FRAGMENT;
        } else {
            meta.drop_reason = DropReason.EXTENSION;
        }
    }
}

// An endpoint's packet is punted, if it begins a flow or asks for something, and else dropped and counted.
control FromEndpoint(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    Guard() guard;
    Ipv4FromEndpoint() ipv4;
    Ipv6FromEndpoint() ipv6;
    Neighbours() neighbours;

    apply {
        if (hdr.ipv4.isValid()) {
            hdr.edge.address = 80w0 ++ 16w0xffff ++ hdr.ipv4.source;
        } else if (hdr.ipv6.isValid()) {
            hdr.edge.address = hdr.ipv6.source;
            if (hdr.ipv6.source[127:32] == 96w0xffff  // as which the guard holds an IPv4 address
                || hdr.link_option.isValid() && hdr.link_option.kind == SOURCE_LINK_ADDRESS
                   && hdr.link_option.mac != hdr.ethernet.source) {
                meta.drop_reason = DropReason.SPOOFED;
            }
        } else if (hdr.arp.isValid()) {
            hdr.edge.address = 80w0 ++ 16w0xffff ++ hdr.arp.sender_address;
            if (hdr.arp.kind != ARP_REQUEST) {
                meta.drop_reason = DropReason.UNSUPPORTED;
            } else if (hdr.arp.sender_mac != hdr.ethernet.source) {
                meta.drop_reason = DropReason.SPOOFED;
            }
        } else if (standard_metadata.parser_error != error.NoError) {
            meta.drop_reason = DropReason.MALFORMED;
        } else {
            meta.drop_reason = DropReason.UNSUPPORTED;
        }

        if (meta.drop_reason == DropReason.NONE) {
            guard.apply(hdr, meta);
        }
        if (meta.drop_reason == DropReason.NONE) {
            if (hdr.ipv4.isValid()) {
                ipv4.apply(hdr, meta, standard_metadata);
            } else if (hdr.ipv6.isValid()) {
                ipv6.apply(hdr, meta, standard_metadata);
            } else if (hdr.arp.target_address == hdr.arp.sender_address) {
                meta.drop_reason = DropReason.NEIGHBOUR_SELF;
            } else {
                hdr.edge.address = 80w0 ++ 16w0xffff ++ hdr.arp.target_address;
                hdr.edge.punt_reason = PuntReason.NEIGHBOUR;
            }
        }
        if (hdr.edge.punt_reason == PuntReason.NEIGHBOUR) {
            neighbours.apply(hdr, meta, standard_metadata);
        }
    }
}
