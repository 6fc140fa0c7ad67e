// SPDX-License-Identifier: Apache-2.0

// The rest of a translation between IPv4 and IPv6: what `translate` and `translate6` cannot know of all packets of a flow.
// (RFC 7915 has the rules; but here both ends know the original, so nothing needs to be guessed.)
control Families(inout headers_t hdr, inout metadata_t meta) {

    @hidden
    action fragment_to_ipv6() {
        hdr.fragment.setValid();
        hdr.fragment.next_header = hdr.ipv6.next_header;
        hdr.fragment.reserved = 0;
        hdr.fragment.offset_more = hdr.datagram.offset << 3 | hdr.datagram.more >> 13;
        hdr.fragment.identification = hdr.datagram.identification;
        hdr.ipv6.next_header = PROTOCOL_FRAGMENT;
        hdr.ipv6.payload_length = hdr.ipv6.payload_length + 8;
    }

    @hidden
    action fragment_to_ipv4() {
        hdr.ipv4.flags_fragment = hdr.datagram.offset | hdr.datagram.more << 13;
        hdr.ipv4.total_length = hdr.ipv4.total_length - 8;
        hdr.fragment.setInvalid();
    }

    @hidden
    action add_to_l4_delta(bit<16> length) {
        hdr.words.setValid();
        hdr.words.a = hdr.l4_sum.delta;
        hdr.words.b = length;
        hdr.words.c = 0;
        hdr.words.d = 0;
        hdr.words.e = 0;
        hash(hdr.sum.complement, HashAlgorithm.csum16, 16w0, hdr.words, 32w0x10000);
        hdr.l4_sum.delta = ~hdr.sum.complement;
    }

    // ICMPv6 covers the length (RFC 4443 section 2.3), ICMP does not.
    @hidden
    action echo_to_ipv6() {
        hdr.echo.type_code = 0x8000 | (bit<16>)(hdr.echo.type_code[11:11] ^ 1) << 8;
        hdr.ipv6.next_header = PROTOCOL_ICMPV6;
        add_to_l4_delta(hdr.ipv6.payload_length);
    }

    @hidden
    action echo_to_ipv4() {
        hdr.echo.type_code = (bit<16>)(hdr.echo.type_code[8:8] ^ 1) << 11;
        hdr.ipv4.protocol = PROTOCOL_ICMP;
        add_to_l4_delta(~hdr.before_ipv6.payload_length);
    }

    // The new header's sum, and nothing of an old one.
    @hidden
    action checksum() {
        hdr.ipv4_sum.setValid();
        hdr.ipv4_sum.old_checksum = 0;
        hdr.ipv4_sum.old_ttl = 0;
        hash(hdr.sum.complement, HashAlgorithm.csum16, 16w0, hdr.ipv4, 32w0x10000);
        hdr.ipv4_sum.delta = ~hdr.sum.complement;
    }

    apply {
        if (hdr.ipv6.isValid()) {
            if (hdr.datagram.isValid() && (hdr.datagram.offset != 0 || hdr.datagram.more != 0)) {
                if (hdr.ipv6.next_header == PROTOCOL_ICMP) {
                    meta.drop_reason = DropReason.FAMILY;  // its checksum covers the length of the whole datagram
                }
                fragment_to_ipv6();
            } else if (hdr.echo.isValid()) {
                echo_to_ipv6();
            }
        } else {
            if (hdr.fragment.isValid()) {
                if (hdr.ipv4.protocol == PROTOCOL_ICMPV6) {
                    meta.drop_reason = DropReason.FAMILY;
                }
                fragment_to_ipv4();
            } else if (hdr.echo.isValid()) {
                echo_to_ipv4();
            }
            if (hdr.ipv4.flags_fragment != IPV4_DONT_FRAGMENT) {
                hdr.ipv4.identification = hdr.datagram.identification[15:0];
            }
            checksum();
        }
        if (meta.drop_reason != DropReason.NONE) {
            meta.rewritten = false;
        }
    }
}
