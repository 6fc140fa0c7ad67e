// SPDX-License-Identifier: Apache-2.0

// ARP (RFC 826) answered at the port: no request of an endpoint ever leaves its switch.
control Neighbours(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    @brief("Answer in the owner's name.")
    @id(0x01000006)
    action reply(@brief("The MAC of the owner.") MacAddress mac) {
        hdr.ethernet.destination = hdr.arp.sender_mac;
        hdr.ethernet.source = mac;
        hdr.arp.kind = ARP_REPLY;
        hdr.arp.target_mac = hdr.arp.sender_mac;
        hdr.arp.sender_mac = mac;
        hdr.arp.sender_address = hdr.arp.target_address;
        hdr.arp.target_address = meta.sender_address;
        standard_metadata.egress_spec = meta.scope;
    }

    @brief("Not known yet: ask the agent.")
    @id(0x01000007)
    action resolve() {
    }

    @brief("On-demand cache of the neighbours that endpoints have asked for.")
    @id(0x02000003)
    table neighbours {
        key = {
            meta.network: exact @name("network");
            hdr.arp.target_address: exact @name("address");
        }
        actions = {
            reply;
            @defaultonly resolve;
        }
        const default_action = resolve;
        size = NEIGHBOURS_SIZE;
    }

    apply {
        // The owner probes its address or announces it (RFC 5227): an answer would tell it that it has a rival.
        if (hdr.arp.target_address == hdr.arp.sender_address) {
            meta.drop_reason = DropReason.NEIGHBOUR_SELF;
        } else {
            if (!neighbours.apply().hit) {
                meta.punt_reason = PuntReason.NEIGHBOUR;
            } else if (hdr.arp.sender_mac == hdr.arp.target_mac) {
                mark_to_drop(standard_metadata);
                meta.drop_reason = DropReason.NEIGHBOUR_SELF;
            }
        }
    }
}
