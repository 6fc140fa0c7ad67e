// SPDX-License-Identifier: Apache-2.0

// The forwarding formulation: a packet that carries the 5-tuple of one segment leaves with that of the next.
control Connections(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {

    @brief("Join two neighbouring segments.")
    @description("Every field is that of the next segment. As the match is exact, what the change adds to the one's complement sums under the checksums is known when the entry is written; the agent computes it once, and no packet pays for it (RFC 1624, equation 3).")
    @id(0x01000001)
    action rewrite(MacAddress ethernet_source,
                   MacAddress ethernet_destination,
                   Ipv4Address source,
                   Ipv4Address destination,
                   bit<16> l4_source,
                   bit<16> l4_destination,
                   bit<8> ttl,
                   @brief("Sum of the new addresses, the new TTL x 256 and the complements of the old addresses.")
                   bit<16> ipv4_delta,
                   @brief("The same of all that the transport checksum covers: addresses and ports, or the identifier.")
                   bit<16> l4_delta,
                   PortId egress_port) {
        meta.old_checksum = ~hdr.ipv4.checksum;
        meta.old_ttl = ~hdr.ipv4.ttl;
        meta.ipv4_delta = ipv4_delta;
        meta.l4_delta = l4_delta;
        hdr.ethernet.source = ethernet_source;
        hdr.ethernet.destination = ethernet_destination;
        hdr.ipv4.source = source;
        hdr.ipv4.destination = destination;
        hdr.ipv4.ttl = ttl;
        hdr.ports.source = l4_source;  // of TCP and UDP; where there are none, it changes nothing
        hdr.ports.destination = l4_destination;
        meta.l4_source = l4_source;
        meta.l4_destination = l4_destination;
        standard_metadata.egress_spec = egress_port;
        meta.rewritten = true;
    }

    @brief("Refuse the flow.")
    @description("The agent has said why to the sender; this spares it the rest of the flow's packets.")
    @id(0x01000002)
    action drop(@brief("A DropReason.") bit<5> reason) {
        meta.drop_reason = (DropReason)reason;
    }

    @brief("Not held here: the edge decides.")
    @id(0x01000003)
    action punt() {
    }

    @brief("Entries for the accounting of `connections`.")
    @id(0x13000001)
    direct_counter(CounterType.packets_and_bytes) connection_counter;

    @brief("What each flow becomes.")
    @description("Two entries join two segments of a connection, one for each direction.")
    @id(0x02000001)
    table connections {
        key = {
            meta.scope: exact @name("scope") @brief("The port at which the packet came in.");
            meta.source_mac: exact @name("source_mac") @brief("The endpoint's MAC; 0 where the scope is the underlay.");
            hdr.ipv4.source: exact @name("source");
            hdr.ipv4.destination: exact @name("destination");
            hdr.ipv4.protocol: exact @name("protocol");
            meta.l4_source: exact @name("l4_source") @brief("Port, or the echo identifier of a request.");
            meta.l4_destination: exact @name("l4_destination") @brief("Port, or what stands for it in an echo.");
        }
        actions = {
            rewrite;
            drop;
            @defaultonly punt;
        }
        const default_action = punt;
        size = CONNECTIONS_SIZE;
        counters = connection_counter;
        support_timeout = true;
    }

    apply {
        connections.apply();
    }
}
