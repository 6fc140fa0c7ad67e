// SPDX-License-Identifier: Apache-2.0
//
// Parsing and deparsing: variable length, lookahead, advance, verify, select with masks, checksums, validity.

#include <core.p4>
#include <v1model.p4>

error { BadVersion }

header ethernet_t {
    bit<48> destination;
    bit<48> source;
    bit<16> kind;
}

header tag_t {
    bit<3> priority;
    bit<1> drop;
    bit<12> id;
    bit<16> kind;
}

header ipv4_t {
    bit<4> version;
    bit<4> ihl;
    bit<8> tos;
    bit<16> length;
    bit<16> identification;
    bit<3> flags;
    bit<13> offset;
    bit<8> ttl;
    bit<8> protocol;
    bit<16> checksum;
    bit<32> source;
    bit<32> destination;
    varbit<320> options;
}

header udp_t {
    bit<16> source;
    bit<16> destination;
    bit<16> length;
    bit<16> checksum;
}

header trailer_t {
    bit<8> parser_error;
    bit<8> checksum_error;
    bit<16> length;
    bit<16> peek;
}

struct headers_t {
    trailer_t trailer;
    ethernet_t ethernet;
    tag_t tag;
    ipv4_t ipv4;
    udp_t udp;
    ethernet_t copy;
}

struct metadata_t {
    bit<16> peek;
    bit<16> udp_length;
}

parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.kind) {
            0x8100: tag;
            0x0800: ipv4;
            0x1200 &&& 0xff00: skip;
            0x1300 .. 0x1307: peek;
            default: accept;
        }
    }
    state tag {
        packet.extract(hdr.tag);
        transition select(hdr.tag.kind, hdr.tag.drop) {
            (0x0800, 0): ipv4;
            (_, 1): reject_it;
            default: accept;
        }
    }
    state reject_it {
        verify(false, error.NoMatch);
        transition accept;
    }
    state skip {
        packet.advance(16);
        packet.extract(hdr.udp);
        transition accept;
    }
    state peek {
        meta.peek = packet.lookahead<bit<16>>();
        transition select(packet.lookahead<bit<4>>()) {
            4: ipv4;
            default: accept;
        }
    }
    state ipv4 {
        packet.extract(hdr.ipv4, (bit<32>)(((bit<16>)packet.lookahead<bit<8>>()[3:0] - 5) * 32));
        verify(hdr.ipv4.version == 4, error.BadVersion);
        transition select(hdr.ipv4.protocol) {
            17: udp;
            default: accept;
        }
    }
    state udp {
        packet.extract(hdr.udp);
        meta.udp_length = hdr.udp.length;
        transition accept;
    }
}

control V(inout headers_t hdr, inout metadata_t meta) {
    apply {
        verify_checksum(hdr.ipv4.isValid() && hdr.ipv4.ihl > 4,
            { hdr.ipv4.version, hdr.ipv4.ihl, hdr.ipv4.tos, hdr.ipv4.length, hdr.ipv4.identification, hdr.ipv4.flags,
              hdr.ipv4.offset, hdr.ipv4.ttl, hdr.ipv4.protocol, hdr.ipv4.source, hdr.ipv4.destination,
              hdr.ipv4.options }, hdr.ipv4.checksum, HashAlgorithm.csum16);
    }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        hdr.trailer.setValid();
        if (sm.parser_error == error.NoError) {
            hdr.trailer.parser_error = 0;
        } else if (sm.parser_error == error.PacketTooShort) {
            hdr.trailer.parser_error = 1;
        } else if (sm.parser_error == error.BadVersion) {
            hdr.trailer.parser_error = 2;
        } else if (sm.parser_error == error.NoMatch) {
            hdr.trailer.parser_error = 3;
        } else if (sm.parser_error == error.HeaderTooShort) {
            hdr.trailer.parser_error = 4;
        } else if (sm.parser_error == error.ParserInvalidArgument) {
            hdr.trailer.parser_error = 5;
        } else {
            hdr.trailer.parser_error = 255;
        }
        hdr.trailer.checksum_error = 7w0 ++ sm.checksum_error;
        hdr.trailer.peek = meta.peek;
        if (hdr.tag.isValid()) {
            hdr.ethernet.kind = hdr.tag.kind;
            hdr.tag.setInvalid();
        } else if (hdr.ipv4.isValid() && hdr.ipv4.tos == 1) {
            hdr.tag.setValid();
            hdr.tag.id = 7;
            hdr.tag.kind = hdr.ethernet.kind;
            hdr.ethernet.kind = 0x8100;
        }
        if (hdr.ipv4.isValid()) {
            if (hdr.ipv4.ttl == 0) {
                mark_to_drop(sm);
            } else {
                hdr.ipv4.ttl = hdr.ipv4.ttl - 1;
            }
            if (hdr.ipv4.tos == 2) {
                hdr.copy = hdr.ethernet;
                hdr.copy.source = 0;
            }
            if (hdr.copy == hdr.ethernet) {
                hdr.ipv4.identification = 0xffff;
            }
        }
    }
}

control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        hdr.trailer.length = (bit<16>)sm.packet_length;
        if (hdr.udp.isValid() && hdr.udp.source == 666) {
            mark_to_drop(sm);
        }
    }
}

control U(inout headers_t hdr, inout metadata_t meta) {
    apply {
        update_checksum(hdr.ipv4.isValid(),
            { hdr.ipv4.version, hdr.ipv4.ihl, hdr.ipv4.tos, hdr.ipv4.length, hdr.ipv4.identification, hdr.ipv4.flags,
              hdr.ipv4.offset, hdr.ipv4.ttl, hdr.ipv4.protocol, hdr.ipv4.source, hdr.ipv4.destination,
              hdr.ipv4.options }, hdr.ipv4.checksum, HashAlgorithm.csum16);
        update_checksum_with_payload(hdr.udp.isValid() && hdr.udp.checksum != 0,
            { hdr.ipv4.source, hdr.ipv4.destination, 8w0, hdr.ipv4.protocol, meta.udp_length, hdr.udp.source,
              hdr.udp.destination, hdr.udp.length }, hdr.udp.checksum, HashAlgorithm.csum16);
    }
}

control D(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.trailer);
        packet.emit(hdr.ethernet);
        packet.emit(hdr.tag);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.udp);
        packet.emit(hdr.copy);
    }
}

V1Switch(P(), V(), I(), E(), U(), D()) main;
