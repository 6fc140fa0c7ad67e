// SPDX-License-Identifier: Apache-2.0

// Undoes what the parser has put into headers for the key alone, in packets that leave with the headers they came with.
control Keys(inout headers_t hdr) {
    apply {
        if (hdr.outer4.isValid()) {
            hdr.ipv4.source = hdr.outer4.source;
            hdr.ipv4.destination = hdr.outer4.destination;
            hdr.ipv4.protocol = PROTOCOL_ICMP;
        } else if (hdr.outer6.isValid()) {
            hdr.ipv6.source = hdr.outer6.source;
            hdr.ipv6.destination = hdr.outer6.destination;
            hdr.ipv6.next_header = PROTOCOL_ICMPV6;
        } else if (hdr.fragment.isValid()) {
            hdr.ipv6.next_header = PROTOCOL_FRAGMENT;
        }
    }
}

// An ICMP error: itself and the packet that it quotes get the addresses and ports of the next segment. It has been looked
// up as what it is about, reversed; so the next segment's flow is in its own header now, and the reverse of that is quoted.
//
// Whose an error is, is to be seen at its source; but towards another switch that has to be the segment's own address. So
// what is not the far end's quotes a packet whose TTL has come to its end: it was under way.
//
// The quotation may end anywhere after the ports. Each checksum is updated for exactly what changes under it: so that of
// the error for the addresses (in ICMPv6), the ports, and the checksum of the quoted transport header, if that is there.
control Errors(inout headers_t hdr, inout metadata_t meta) {

    @hidden
    action sum(bit<16> a, bit<16> b, bit<16> c, bit<16> d, bit<16> e) {
        hdr.words.setValid();
        hdr.words.a = a;
        hdr.words.b = b;
        hdr.words.c = c;
        hdr.words.d = d;
        hdr.words.e = e;
        hash(hdr.sum.complement, HashAlgorithm.csum16, 16w0, hdr.words, 32w0x10000);
    }

    @hidden
    action sum_addresses(bit<128> a, bit<128> b, bit<128> c, bit<128> d, bit<128> e, bit<128> f, bit<128> g, bit<128> h) {
        hdr.addresses.setValid();
        hdr.addresses.a = a;
        hdr.addresses.b = b;
        hdr.addresses.c = c;
        hdr.addresses.d = d;
        hdr.addresses.e = e;
        hdr.addresses.f = f;
        hdr.addresses.g = g;
        hdr.addresses.h = h;
        hash(hdr.sum.complement, HashAlgorithm.csum16, 16w0, hdr.addresses, 32w0x10000);
    }

    @hidden
    action ports() {
        sum(~hdr.icmp_error.checksum, ~hdr.quoted_ports.source, ~hdr.quoted_ports.destination,
            meta.l4_source, meta.l4_destination);
        hdr.icmp_error.checksum = hdr.sum.complement;
        hdr.quoted_ports.source = meta.l4_destination;
        hdr.quoted_ports.destination = meta.l4_source;
    }

    @hidden
    action tcp() {
        sum(~hdr.quoted_tcp.checksum, hdr.l4_sum.delta, 0, 0, 0);
        sum(~hdr.icmp_error.checksum, ~hdr.quoted_tcp.checksum, hdr.sum.complement, 0, 0);
        hdr.quoted_tcp.checksum = hdr.words.c;
        hdr.icmp_error.checksum = hdr.sum.complement;
    }

    @hidden
    action udp() {
        sum(~hdr.quoted_udp.checksum, hdr.l4_sum.delta, 0, 0, 0);
    }

    @hidden
    action udp_with(bit<16> checksum) {
        sum(~hdr.icmp_error.checksum, ~hdr.quoted_udp.checksum, checksum, 0, 0);
        hdr.quoted_udp.checksum = hdr.words.c;
        hdr.icmp_error.checksum = hdr.sum.complement;
    }

    @hidden
    action echo(bit<16> identifier) {
        sum(~hdr.quoted_echo.checksum, hdr.l4_sum.delta, 0, 0, 0);
        sum(~hdr.icmp_error.checksum, ~hdr.quoted_echo.checksum, ~hdr.quoted_echo.identifier,
            hdr.sum.complement, identifier);
        hdr.quoted_echo.checksum = hdr.words.d;
        hdr.quoted_echo.identifier = identifier;
        hdr.icmp_error.checksum = hdr.sum.complement;
    }

    // What changes in a quoted IPv4 header and in its checksum adds up to nothing under the checksum of the error.
    @hidden
    action ipv4(bit<8> quoted_ttl) {
        sum(~hdr.quoted_ipv4.checksum, ~hdr.quoted_ipv4.ttl ++ 8w0xff, hdr.ipv4_sum.delta,
            ~hdr.ipv4.ttl ++ 8w0xff, quoted_ttl ++ 8w0);
        hdr.quoted_ipv4.checksum = hdr.sum.complement;
        hdr.quoted_ipv4.source = hdr.ipv4.destination;
        hdr.quoted_ipv4.destination = hdr.ipv4.source;
        hdr.quoted_ipv4.ttl = quoted_ttl;
        hdr.ipv4.protocol = PROTOCOL_ICMP;
        hdr.ipv4.source = hdr.outer4.router;
        sum_addresses((bit<128>)~hdr.outer4.source, (bit<128>)~hdr.outer4.destination, (bit<128>)hdr.ipv4.source,
                      (bit<128>)hdr.ipv4.destination, (bit<128>)(hdr.ipv4.ttl ++ 8w0), 0, 0, 0);
        hdr.ipv4_sum.delta = ~hdr.sum.complement;
    }

    @hidden
    action ipv6(bit<8> quoted_hop_limit) {
        sum_addresses(~hdr.outer6.source, ~hdr.outer6.destination, ~hdr.quoted_ipv6.source,
                      ~hdr.quoted_ipv6.destination, hdr.outer6.router, hdr.ipv6.destination,
                      hdr.ipv6.source, hdr.ipv6.destination);
        sum(~hdr.icmp_error.checksum, ~hdr.sum.complement, 8w0xff ++ ~hdr.quoted_ipv6.hop_limit,
            8w0 ++ quoted_hop_limit, 0);
        hdr.icmp_error.checksum = hdr.sum.complement;
        hdr.quoted_ipv6.source = hdr.ipv6.destination;
        hdr.quoted_ipv6.destination = hdr.ipv6.source;
        hdr.quoted_ipv6.hop_limit = quoted_hop_limit;
        hdr.ipv6.next_header = PROTOCOL_ICMPV6;
        hdr.ipv6.source = hdr.outer6.router;
    }

    apply {
        if (hdr.quoted_ports.isValid()) {
            ports();
            if (hdr.quoted_tcp.isValid()) {
                // Unless these bytes are not part of the packet any more, but behind it.
                if (hdr.ipv4.isValid() && hdr.ipv4.total_length >= 66
                    || hdr.ipv6.isValid() && (hdr.ipv6.payload_length >= 74
                                              || hdr.ipv6.payload_length >= 66 && !hdr.quoted_fragment.isValid())) {
                    tcp();
                }
            } else if (hdr.quoted_udp.isValid() && hdr.quoted_udp.checksum != 0) {
                udp();
                if (hdr.sum.complement == 0) {
                    udp_with(0xffff);
                } else {
                    udp_with(hdr.sum.complement);
                }
            }
        } else if (hdr.quoted_echo.isValid()) {
            if (hdr.quoted_echo.type_code == ECHO_REQUEST || hdr.quoted_echo.type_code == ECHO_REQUEST_V6) {
                echo(meta.l4_destination);
            } else {
                echo(meta.l4_source);
            }
        }
        if (hdr.outer4.isValid()) {
            if (hdr.outer4.source == hdr.quoted_ipv4.destination && hdr.quoted_ipv4.ttl != 0) {
                hdr.outer4.router = hdr.ipv4.source;  // the far end itself
                ipv4(hdr.ipv4.ttl);
            } else if (hdr.outer4.router == hdr.ipv4.source) {
                ipv4(0);  // and the next switch shall know
            } else {
                ipv4(hdr.ipv4.ttl);
            }
        } else {
            if (hdr.outer6.source == hdr.quoted_ipv6.destination && hdr.quoted_ipv6.hop_limit != 0) {
                hdr.outer6.router = hdr.ipv6.source;
                ipv6(hdr.ipv6.hop_limit);
            } else if (hdr.outer6.router == hdr.ipv6.source) {
                ipv6(0);
            } else {
                ipv6(hdr.ipv6.hop_limit);
            }
        }
    }
}
