// SPDX-License-Identifier: Apache-2.0

// Takes a rewrite back, if the way cannot take the packet: the agent gets it as it came.
control Limits(inout headers_t hdr, inout metadata_t meta) {

    @hidden
    action restore() {
        hdr.ethernet = hdr.before_ethernet;
        hdr.ipv4 = hdr.before_ipv4;
        hdr.ipv6 = hdr.before_ipv6;
        hdr.ports = hdr.before_ports;
        meta.rewritten = false;
    }

    apply {
        if (hdr.limits.routed == 1 && (hdr.before_ipv4.isValid() && hdr.before_ipv4.ttl <= 1
                                       || hdr.before_ipv6.isValid() && hdr.before_ipv6.hop_limit <= 1)) {
            hdr.edge.punt_reason = PuntReason.TTL;
        } else if (hdr.before_ipv4.isValid() && hdr.before_ipv4.total_length > hdr.limits.max_length
                   // In IPv6 a fragment has a header of its own.
                   || hdr.before_ipv4.isValid() && hdr.limits.translated == 1
                      && hdr.before_ipv4.flags_fragment & 0x3fff != 0
                      && (bit<17>)hdr.before_ipv4.total_length + 8 > (bit<17>)hdr.limits.max_length
                   || hdr.before_ipv6.isValid()
                      && (bit<17>)hdr.before_ipv6.payload_length + 40 > (bit<17>)hdr.limits.max_length) {
            hdr.edge.punt_reason = PuntReason.TOO_BIG;
        } else if (hdr.icmp_error.isValid() && hdr.limits.translated == 1) {
            hdr.edge.punt_reason = PuntReason.ERROR;
        }
        if (hdr.edge.punt_reason != PuntReason.NONE) {
            restore();
        }
    }
}
