// SPDX-License-Identifier: Apache-2.0
//
// Checksums are updated, never computed anew: a packet that was corrupted on its way stays detectably corrupted.
// RFC 1624, equation 3: HC' = ~(~HC + ~m + m'), in one's complement.

control NviVerifyChecksum(inout headers_t hdr, inout metadata_t meta) {
    apply {
    }
}

// What the checksum controls cannot do, in the egress pipeline: they cannot tell a UDP checksum of 0, which means that
// there is none (RFC 768), from one that an update makes 0, which must be sent as 0xffff. They are quicker, though.
control UdpAndEcho(inout headers_t hdr, inout metadata_t meta) {

    @hidden
    action update(inout bit<16> checksum) {
        bit<17> sum = (bit<17>)~checksum + (bit<17>)hdr.l4_sum.delta;
        checksum = ~(sum[15:0] + (bit<16>)sum[16:16]);
    }

    apply {
        if (hdr.udp.isValid()) {
            if (hdr.udp.checksum != 0) {
                update(hdr.udp.checksum);
                if (hdr.udp.checksum == 0) {
                    hdr.udp.checksum = 0xffff;
                }
            }
        } else if (hdr.echo.isValid()) {
            if (hdr.echo.type_code == ECHO_REQUEST || hdr.echo.type_code == ECHO_REQUEST_V6) {
                hdr.echo.identifier = meta.l4_source;
            } else {
                hdr.echo.identifier = meta.l4_destination;
            }
            update(hdr.echo.checksum);
        }
    }
}

control NviComputeChecksum(inout headers_t hdr, inout metadata_t meta) {
    apply {
        update_checksum(meta.rewritten && hdr.ipv4_sum.isValid(), hdr.ipv4_sum, hdr.ipv4.checksum, HashAlgorithm.csum16);
        update_checksum(meta.rewritten && hdr.tcp.isValid(), hdr.l4_sum, hdr.tcp.checksum, HashAlgorithm.csum16);
    }
}
