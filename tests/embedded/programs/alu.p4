// SPDX-License-Identifier: Apache-2.0
//
// Arithmetic and hashes: `a`, `b`, `s` in, one result per field out.

#include <core.p4>
#include <v1model.p4>

header values_t {
    bit<8> op;
    bit<32> a;
    bit<32> b;
    int<16> s;
    bit<5> small;
    bit<3> tiny;
    bit<64> wide;
    bit<128> huge;
}

header results_t {
    bit<32> r0;
    bit<32> r1;
    bit<32> r2;
    bit<16> r3;
    int<16> r4;
    bit<64> r5;
    bit<128> r6;
    bit<7> r7;
    bit<1> r8;
    bit<48> r9;
}

struct headers_t {
    values_t v;
    results_t r;
}

struct metadata_t {
    bit<1> flag;
    bool test;
    int<8> narrow;
}

parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start {
        packet.extract(hdr.v);
        transition accept;
    }
}

control NoVerify(inout headers_t hdr, inout metadata_t meta) { apply { } }
control NoUpdate(inout headers_t hdr, inout metadata_t meta) { apply { } }
control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) { apply { } }

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    action plain() {
        hdr.r.r0 = hdr.v.a + hdr.v.b;
        hdr.r.r1 = hdr.v.a - hdr.v.b;
        hdr.r.r2 = hdr.v.a * hdr.v.b;
        hdr.r.r3 = (bit<16>)(hdr.v.a & ~hdr.v.b);
        hdr.r.r4 = hdr.v.s + 1;
        hdr.r.r5 = hdr.v.wide ^ (bit<64>)hdr.v.a;
        hdr.r.r6 = hdr.v.huge | (bit<128>)hdr.v.wide;
        hdr.r.r7 = (bit<7>)hdr.v.small + (bit<7>)hdr.v.tiny;
        hdr.r.r8 = (bit<1>)(hdr.v.a > hdr.v.b);
        hdr.r.r9 = hdr.v.a[31:8] ++ hdr.v.b[23:0];
    }
    action shifts() {
        hdr.r.r0 = hdr.v.a << hdr.v.small;
        hdr.r.r1 = hdr.v.a >> hdr.v.small;
        hdr.r.r2 = hdr.v.b << 7;
        hdr.r.r3 = (bit<16>)(hdr.v.b >> 9);
        hdr.r.r4 = hdr.v.s >> hdr.v.tiny;
        hdr.r.r5 = hdr.v.wide << hdr.v.op;
        hdr.r.r6 = hdr.v.huge << (bit<8>)hdr.v.small;
        hdr.r.r7 = (bit<7>)(hdr.v.huge >> 100);
        hdr.r.r8 = hdr.v.small[2:2];
        hdr.r.r9 = (bit<48>)hdr.v.wide;
        hdr.r.r9[15:8] = hdr.v.a[7:0];
    }
    action saturating() {
        hdr.r.r0 = hdr.v.a |+| hdr.v.b;
        hdr.r.r1 = hdr.v.a |-| hdr.v.b;
        hdr.r.r4 = hdr.v.s |+| hdr.v.s;
        hdr.r.r3 = (bit<16>)(hdr.v.s |-| 16s1000);
        meta.narrow = (int<8>)hdr.v.s;
        hdr.r.r5 = (bit<64>)(bit<8>)meta.narrow;
        hdr.r.r2 = (bit<32>)(int<32>)hdr.v.s;
        hdr.r.r8 = hdr.v.s < 0 ? 1w1 : 1w0;
        hdr.r.r7 = hdr.v.a == hdr.v.b ? 7w1 : (hdr.v.a < hdr.v.b ? 7w2 : 7w3);
        hdr.r.r9 = (bit<48>)(bit<16>)(-hdr.v.s);
    }
    action conditions() {
        meta.flag = (bit<1>)(hdr.v.a != 0);
        meta.test = hdr.v.a == hdr.v.b || (hdr.v.small == 3 && !(hdr.v.tiny > 2));
        hdr.r.r8 = meta.test ? meta.flag : 0;
        if (meta.test) {
            hdr.r.r0 = 1;
            if (hdr.v.s > 5) {
                hdr.r.r1 = 2;
            } else {
                hdr.r.r1 = 3;
                return;
            }
            hdr.r.r2 = 4;
        } else if (hdr.v.a[0:0] == 1) {
            hdr.r.r0 = 5;
        }
        hdr.r.r3 = 6;
    }
    action hashes() {
        hash(hdr.r.r0, HashAlgorithm.crc32, 32w0, { hdr.v.a, hdr.v.b, hdr.v.op }, 64w0x100000000);
        hash(hdr.r.r1, HashAlgorithm.crc16, 32w10, { hdr.v.a, hdr.v.small, hdr.v.tiny }, 32w1000);
        hash(hdr.r.r2, HashAlgorithm.xor16, 32w0, { hdr.v.wide, hdr.v.op }, 32w0x10000);
        hash(hdr.r.r3, HashAlgorithm.csum16, 16w0, { hdr.v.huge, hdr.v.op }, 32w0x10000);
        hash(hdr.r.r5, HashAlgorithm.identity, 64w0, { hdr.v.huge }, 64w0xffffffffffffffff);
        hash(hdr.r.r9, HashAlgorithm.csum16, 48w5, { hdr.v.a }, hdr.v.b);
        hash(hdr.r.r7, HashAlgorithm.crc16, 7w3, { hdr.v.small, 3w5, hdr.v.s }, 32w50);
    }
    table ops {
        key = { hdr.v.op: exact; }
        actions = { plain; shifts; saturating; conditions; hashes; }
        const entries = {
            0: plain();
            1: shifts();
            2: saturating();
            3: conditions();
            4: hashes();
        }
        const default_action = plain();
    }
    apply {
        hdr.r.setValid();
        ops.apply();
        sm.egress_spec = sm.ingress_port;
    }
}

control D(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.v);
        packet.emit(hdr.r);
    }
}

V1Switch(P(), NoVerify(), I(), E(), NoUpdate(), D()) main;
