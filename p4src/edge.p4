// SPDX-License-Identifier: Apache-2.0

// What becomes of a packet that no connection claims.
control Edge(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    Guard() guard;
    Neighbours() neighbours;

    apply {
        if (meta.scope == PORT_HOST_STACK) {
            standard_metadata.egress_spec = PORT_UNDERLAY;
        } else if (meta.scope == PORT_UNDERLAY) {
            // A stray of NVI's must not reach the host's stack: its RST would travel back through a live entry.
            if (meta.has_flow && (meta.l4_destination >= KEY_FIRST && meta.l4_destination <= KEY_LAST
                                  || hdr.echo.isValid() && meta.l4_source >= KEY_FIRST && meta.l4_source <= KEY_LAST)) {
                meta.punt_reason = PuntReason.STRAY;
            } else {
                standard_metadata.egress_spec = PORT_HOST_STACK;
            }
        } else if (hdr.arp.isValid()) {
            if (hdr.arp.kind != ARP_REQUEST) {
                meta.drop_reason = DropReason.UNSUPPORTED;
            } else if (hdr.arp.sender_mac != hdr.ethernet.source) {
                meta.drop_reason = DropReason.SPOOFED;
            } else {
                meta.sender_address = hdr.arp.sender_address;
            }
        } else if (hdr.ipv4.isValid()) {
            meta.sender_address = hdr.ipv4.source;
        } else if (standard_metadata.parser_error != error.NoError) {
            meta.drop_reason = DropReason.MALFORMED;
        } else {
            meta.drop_reason = DropReason.UNSUPPORTED;
        }

        if (meta.scope >= PORT_FIRST_ENDPOINT && meta.drop_reason == DropReason.NONE) {
            guard.apply(hdr, meta);
            if (meta.drop_reason == DropReason.NONE) {
                if (hdr.arp.isValid()) {
                    neighbours.apply(hdr, meta, standard_metadata);
                } else if (standard_metadata.parser_error != error.NoError
                           || hdr.ipv4.version_ihl < 0x45 || hdr.ipv4.version_ihl > 0x4f
                           || hdr.ipv4.source == 0 || hdr.ipv4.ttl == 0
                           || (bit<32>)hdr.ipv4.total_length + 14 > standard_metadata.packet_length) {
                    meta.drop_reason = DropReason.MALFORMED;
                } else if (hdr.ethernet.destination[40:40] == 1 || hdr.ipv4.destination >= 0xe0000000) {
                    meta.drop_reason = DropReason.GROUP;
                } else if (hdr.ipv4.version_ihl != 0x45) {
                    meta.drop_reason = DropReason.OPTIONS;
                } else if (hdr.ipv4.flags_fragment & 0x3fff != 0) {
                    meta.drop_reason = DropReason.FRAGMENT;
                } else if (!meta.has_flow) {
                    meta.drop_reason = DropReason.UNSUPPORTED;
                } else {
                    meta.punt_reason = PuntReason.MISS;
                }
            }
        }
    }
}
