// SPDX-License-Identifier: Apache-2.0

// One sequence for all that goes to a wire, since on a wire all endpoints share the host's address (RFC 6864).
control Identifications(inout headers_t hdr) {
    register<bit<32>>(1) identifications;

    apply {
        identifications.read(hdr.datagram.identification, 0);
        hdr.datagram.identification = hdr.datagram.identification + 1;
        identifications.write(0, hdr.datagram.identification);
    }
}

// Fragments without the control plane (RFC 791, RFC 8200 section 4.5). A datagram's first fragment leaves its ports in
// a register, where the later ones find them, and then take the same lookup. The identity of the datagram is kept and
// compared as a whole; each port has cells of its own. So whatever is sent at one port, no fragment of another is affected.
control Fragments(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    // identity (368 bits), when it was (48), ports (32), identification on the wire (32)
    register<bit<480>>(DATAGRAMS_SIZE) datagrams;

    @hidden
    action identify4() {
        hdr.datagram.offset = hdr.ipv4.flags_fragment & 0x1fff;
        hdr.datagram.more = hdr.ipv4.flags_fragment & IPV4_MORE_FRAGMENTS;
        hdr.datagram.length = hdr.ipv4.total_length - 20;
        hdr.datagram_identity.identity = 7w0 ++ meta.scope ++ meta.source_mac ++ 8w4 ++ hdr.ipv4.protocol
                                ++ 96w0 ++ hdr.ipv4.source ++ 96w0 ++ hdr.ipv4.destination
                                ++ 16w0 ++ hdr.ipv4.identification;
    }

    @hidden
    action identify6() {
        hdr.datagram.offset = hdr.fragment.offset_more >> 3;
        hdr.datagram.more = hdr.fragment.offset_more & 1;
        hdr.datagram.length = hdr.ipv6.payload_length - 8;
        hdr.datagram_identity.identity = 7w0 ++ meta.scope ++ meta.source_mac ++ 8w6 ++ hdr.fragment.next_header
                                ++ hdr.ipv6.source ++ hdr.ipv6.destination ++ hdr.fragment.identification;
    }

    @hidden
    action found() {
        meta.l4_source = hdr.datagram.cell[63:48];
        meta.l4_destination = hdr.datagram.cell[47:32];
        hdr.datagram.identification = hdr.datagram.cell[31:0];
        meta.has_flow = true;
    }

    apply {
        hdr.datagram_identity.setValid();
        if (hdr.ipv4.isValid()) {
            identify4();
        } else {
            identify6();
        }
        hdr.datagram.sound = 1;
        if (hdr.datagram.offset != 0 || hdr.datagram.more != 0) {
            if (meta.scope < PORT_FIRST_ENDPOINT) {
                hdr.datagram.base = ((bit<32>)meta.scope >> 1) * DATAGRAMS_OF_WIRE;  // 1 and 3
                hdr.datagram.cells = DATAGRAMS_OF_WIRE;
            } else {
                hdr.datagram.base = 2 * DATAGRAMS_OF_WIRE + (bit<32>)meta.scope * DATAGRAMS_OF_PORT;
                hdr.datagram.cells = DATAGRAMS_OF_PORT;
            }
            hash(hdr.index.value, HashAlgorithm.crc32, hdr.datagram.base, hdr.datagram_identity, hdr.datagram.cells);
            if (hdr.datagram.offset == 0) {
                if (meta.has_flow) {
                    if (hdr.packet_out.isValid()) {
                        // The agent has cut it, or kept it waiting: others of its datagram may be on their way already.
                        datagrams.read(hdr.datagram.cell, hdr.index.value);
                        hdr.datagram.age = standard_metadata.ingress_global_timestamp - hdr.datagram.cell[111:64];
                        if (hdr.datagram.cell[479:112] == hdr.datagram_identity.identity
                            && hdr.datagram.age < FRAGMENT_LIFETIME) {
                            hdr.datagram.identification = hdr.datagram.cell[31:0];
                        }
                    }
                    hdr.datagram.cell = hdr.datagram_identity.identity ++ standard_metadata.ingress_global_timestamp
                                        ++ meta.l4_source ++ meta.l4_destination ++ hdr.datagram.identification;
                    datagrams.write(hdr.index.value, hdr.datagram.cell);
                }
            } else if (((bit<32>)hdr.datagram.offset << 3) + (bit<32>)hdr.datagram.length > 0xffff - 20
                       || hdr.datagram_identity.identity[295:288] == PROTOCOL_TCP && hdr.datagram.offset < 3) {
                // Beyond the largest datagram; or over a TCP header, whose checksum is in its third unit (RFC 3128).
                hdr.datagram.sound = 0;
            } else {
                datagrams.read(hdr.datagram.cell, hdr.index.value);
                hdr.datagram.age = standard_metadata.ingress_global_timestamp - hdr.datagram.cell[111:64];
                if (hdr.datagram.cell[479:112] == hdr.datagram_identity.identity && hdr.datagram.age < FRAGMENT_LIFETIME) {
                    found();
                }
            }
        }
    }
}

// Towards a wire a datagram has an identification of the host's, lest those of two endpoints meet there (RFC 6864).
control Renumber(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    @hidden
    action sum(bit<16> a, bit<16> b, bit<16> c) {
        hdr.words.setValid();
        hdr.words.a = a;
        hdr.words.b = b;
        hdr.words.c = c;
        hdr.words.d = 0;
        hdr.words.e = 0;
        hash(hdr.sum.complement, HashAlgorithm.csum16, 16w0, hdr.words, 32w0x10000);
    }

    @hidden
    action renew4() {
        sum(hdr.ipv4_sum.delta, ~hdr.ipv4.identification, hdr.datagram.identification[15:0]);
        hdr.ipv4_sum.delta = ~hdr.sum.complement;
        hdr.ipv4.identification = hdr.datagram.identification[15:0];
    }

    apply {
        if (hdr.fragment.isValid()) {
            hdr.ipv6.next_header = PROTOCOL_FRAGMENT;
        }
        if (standard_metadata.egress_spec < PORT_FIRST_ENDPOINT) {
            if (hdr.ipv4.isValid()) {
                renew4();
            } else {
                hdr.fragment.identification = hdr.datagram.identification;
            }
        }
    }
}
