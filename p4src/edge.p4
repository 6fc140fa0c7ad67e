// SPDX-License-Identifier: Apache-2.0

// What becomes of a packet that no connection claims.
control Edge(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    FromEndpoint() from_endpoint;
    FromWire() from_wire;

    apply {
        if (meta.scope >= PORT_FIRST_ENDPOINT) {
            from_endpoint.apply(hdr, meta, standard_metadata);
        } else if (meta.scope == PORT_UNDERLAY || meta.scope == PORT_EXTERNAL) {
            from_wire.apply(hdr, meta, standard_metadata);
        } else if (meta.scope == PORT_HOST_STACK || meta.scope == PORT_EXTERNAL_STACK) {
            standard_metadata.egress_spec = meta.scope - 1;  // its wire
        }
    }
}
