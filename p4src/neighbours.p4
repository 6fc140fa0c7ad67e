// SPDX-License-Identifier: Apache-2.0

// ARP (RFC 826) and neighbour solicitations (RFC 4861) answered at the port: none of an endpoint ever leaves its switch.
control Neighbours(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {

    @brief("Answer in the owner's name.")
    @id(0x01000006)
    action reply(@brief("The MAC of the owner.") MacAddress mac,
                 @brief("1 if the owner is the network's router.") bit<1> router) {
        hdr.edge.mac = mac;
        hdr.edge.router = router;
        hdr.edge.punt_reason = PuntReason.NONE;
    }

    @brief("Not known yet: ask the agent.")
    @id(0x01000007)
    action resolve() {
    }

    @brief("On-demand cache of the neighbours that endpoints have asked for.")
    @id(0x02000003)
    table neighbours {
        key = {
            hdr.edge.network: exact @name("network");
            hdr.edge.address: exact @name("address") @brief("IPv4 as ::ffff:a.b.c.d.");
        }
        actions = {
            reply;
            @defaultonly resolve;
        }
        const default_action = resolve;
        size = NEIGHBOURS_SIZE;
    }

    // Of all that the checksum covers, and of the pseudo header (RFC 8200 section 8.1).
    @hidden
    action sum(bit<16> checksum, bit<64> option) {
        hdr.addresses.setValid();
        hdr.addresses.a = hdr.ipv6.source;
        hdr.addresses.b = hdr.ipv6.destination;
        hdr.addresses.c = hdr.target.address;
        hdr.addresses.d = (bit<128>)(hdr.ipv6.payload_length ++ 8w0 ++ PROTOCOL_ICMPV6
                                     ++ hdr.discovery.type_code ++ checksum ++ hdr.discovery.flags);
        hdr.addresses.e = (bit<128>)option;
        hdr.addresses.f = 0;
        hdr.addresses.g = 0;
        hdr.addresses.h = 0;
        hash(hdr.sum.complement, HashAlgorithm.csum16, 16w0, hdr.addresses, 32w0x10000);
    }

    @hidden
    action answer_arp() {
        hdr.ethernet.destination = hdr.arp.sender_mac;
        hdr.arp.kind = ARP_REPLY;
        hdr.arp.target_mac = hdr.arp.sender_mac;
        hdr.arp.sender_mac = hdr.edge.mac;
        hdr.arp.sender_address = hdr.arp.target_address;
    }

    @hidden
    action advertise(bit<1> solicited) {
        hdr.ipv6.version_class_label = 0x60000000;
        hdr.ipv6.payload_length = 32;
        hdr.ipv6.source = hdr.target.address;
        hdr.discovery.type_code = NEIGHBOUR_ADVERTISEMENT;
        hdr.discovery.flags = hdr.edge.router ++ solicited ++ 1w1 ++ 29w0;  // override what is cached
        hdr.link_option.setValid();
        hdr.link_option.kind = TARGET_LINK_ADDRESS;
        hdr.link_option.length = 1;
        hdr.link_option.mac = hdr.edge.mac;
        sum(0, hdr.link_option.kind ++ hdr.link_option.length ++ hdr.link_option.mac);
        hdr.discovery.checksum = hdr.sum.complement;
    }

    apply {
        hdr.sum.complement = 0;
        if (hdr.link_option.isValid()) {
            sum(hdr.discovery.checksum, hdr.link_option.kind ++ hdr.link_option.length ++ hdr.link_option.mac);
        } else if (hdr.target.isValid() && hdr.ipv6.payload_length == 24) {
            sum(hdr.discovery.checksum, 0);
        }
        if (hdr.sum.complement != 0) {
            hdr.edge.punt_reason = PuntReason.NONE;
            meta.drop_reason = DropReason.MALFORMED;
        } else if (hdr.arp.isValid() || hdr.link_option.isValid() || hdr.ipv6.payload_length == 24) {
            // With other options, or more of them, the agent looks at it.
            neighbours.apply();
        }
        if (hdr.edge.punt_reason == PuntReason.NONE && meta.drop_reason == DropReason.NONE) {
            if (hdr.edge.mac == hdr.ethernet.source) {
                // The owner probes its address (RFC 5227, RFC 4862): an answer would tell it that it has a rival.
                meta.drop_reason = DropReason.NEIGHBOUR_SELF;
            } else {
                standard_metadata.egress_spec = meta.scope;
                if (hdr.arp.isValid()) {
                    hdr.edge.address[31:0] = hdr.arp.sender_address;
                    answer_arp();
                    hdr.arp.target_address = hdr.edge.address[31:0];
                } else if (hdr.ipv6.source == 0) {
                    hdr.ethernet.destination = 0x333300000001;  // all nodes, as nobody has the address yet
                    hdr.ipv6.destination = 0xff020000000000000000000000000001;
                    advertise(0);
                } else {
                    hdr.ethernet.destination = hdr.ethernet.source;
                    hdr.ipv6.destination = hdr.ipv6.source;
                    advertise(1);
                }
                hdr.ethernet.source = hdr.edge.mac;
            }
        }
    }
}
