// SPDX-License-Identifier: Apache-2.0

// A wire's packet is the host's own, unless it may be NVI's: then the host's stack must not see it, as its RST, say, would
// travel back through a live entry.
control FromWire(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    Services() services;

    @hidden
    action to_stack() {
        standard_metadata.egress_spec = meta.scope + 1;
    }

    apply {
        if (hdr.ipv4.isValid()) {
            hdr.edge.address = 80w0 ++ 16w0xffff ++ hdr.ipv4.destination;
            hdr.edge.protocol = hdr.ipv4.protocol;
        } else {
            hdr.edge.address = hdr.ipv6.destination;
            hdr.edge.protocol = hdr.ipv6.next_header;
            if (hdr.fragment.isValid()) {
                hdr.edge.protocol = hdr.fragment.next_header;
            }
        }
        if (hdr.icmp_error.isValid()) {
            to_stack();
        } else if (!meta.has_flow) {
            if (hdr.datagram.isValid() && hdr.datagram.offset != 0 && hdr.datagram.sound == 1) {
                hdr.edge.punt_reason = PuntReason.FRAGMENT;  // whose it is, its first fragment will tell
            } else {
                to_stack();
            }
        } else {
            services.apply(hdr, meta);
            if (hdr.edge.punt_reason == PuntReason.NONE) {
                if (meta.l4_destination >= KEY_FIRST && meta.l4_destination <= KEY_LAST
                    || (hdr.edge.protocol == PROTOCOL_ICMP || hdr.edge.protocol == PROTOCOL_ICMPV6)
                       && meta.l4_source >= KEY_FIRST && meta.l4_source <= KEY_LAST) {
                    hdr.edge.punt_reason = PuntReason.STRAY;
                } else {
                    to_stack();
                }
            }
            if (hdr.edge.punt_reason != PuntReason.NONE && hdr.datagram.isValid() && hdr.datagram.offset != 0) {
                hdr.edge.punt_reason = PuntReason.FRAGMENT;
            }
        }
    }
}
