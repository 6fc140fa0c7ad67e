// SPDX-License-Identifier: Apache-2.0

// Hands the packet to the agent, as long as its port stays within the rate that the agent has set: no endpoint can
// keep the agent from the others' packets. A meter that nobody has set lets everything pass.
control Punt(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    const bit<2> METER_RED = 2;

    @brief("Punted packets of each port.")
    @id(0x14000001)
    meter(PORTS_SIZE, MeterType.packets) punts;

    apply {
        if (hdr.packet_out.isValid() && hdr.edge.punt_reason != PuntReason.TOO_BIG) {
            meta.drop_reason = DropReason.REINJECTED;  // the agent has seen it: never twice, but to cut it
        } else {
            hdr.index.value = (bit<32>)meta.scope;
            punts.execute_meter(hdr.index.value, hdr.edge.colour);
            if (hdr.edge.colour == METER_RED) {
                meta.drop_reason = DropReason.PUNT_LIMIT;
            } else {
                hdr.packet_in.setValid();
                hdr.packet_in.ingress_port = meta.scope;
                hdr.packet_in.reason = hdr.edge.punt_reason;
                standard_metadata.egress_spec = PORT_CPU;
            }
        }
    }
}
