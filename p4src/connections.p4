// SPDX-License-Identifier: Apache-2.0

// The forwarding formulation: a packet that carries the 5-tuple of one segment leaves with that of the next.
//
// One table for each family, since a key of two IPv6 addresses costs an IPv4 packet more than a second table.
control Connections(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {

    // What is the same in both families.
    @hidden
    action readdress(MacAddress ethernet_source, MacAddress ethernet_destination, bit<16> l4_source,
                     bit<16> l4_destination, bit<16> l4_delta, PortId egress_port) {
        hdr.l4_sum.setValid();
        hdr.l4_sum.old_checksum = ~hdr.tcp.checksum;  // where there is none, nobody asks
        hdr.l4_sum.delta = l4_delta;
        hdr.ethernet.source = ethernet_source;
        hdr.ethernet.destination = ethernet_destination;
        hdr.ports.source = l4_source;  // of TCP and UDP; where there are none, it changes nothing
        hdr.ports.destination = l4_destination;
        meta.l4_source = l4_source;
        meta.l4_destination = l4_destination;
        standard_metadata.egress_spec = egress_port;
        meta.rewritten = true;
    }

    // The entry may not hold for this packet: keep what it changes.
    @hidden
    action limit(bit<1> routed, bit<16> max_length) {
        hdr.limits.setValid();
        hdr.limits.routed = routed;
        hdr.limits.translated = 0;
        hdr.limits.max_length = max_length;
        hdr.before_ethernet = hdr.ethernet;
        hdr.before_ipv4 = hdr.ipv4;
        hdr.before_ipv6 = hdr.ipv6;
        hdr.before_ports = hdr.ports;
    }

    @brief("Join two neighbouring segments of IPv4.")
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
                   PortId egress_port,
                   @brief("The source that an ICMP error shows, if it does not come from the flow's own.")
                   Ipv4Address router) {
        hdr.ipv4_sum.setValid();
        hdr.ipv4_sum.old_checksum = ~hdr.ipv4.checksum;
        hdr.ipv4_sum.old_ttl = ~hdr.ipv4.ttl ++ 8w0xff;
        hdr.ipv4_sum.delta = ipv4_delta;
        hdr.ipv4.source = source;
        hdr.ipv4.destination = destination;
        hdr.ipv4.ttl = ttl;
        hdr.outer4.router = router;
        readdress(ethernet_source, ethernet_destination, l4_source, l4_destination, l4_delta, egress_port);
    }

    @brief("Join two neighbouring segments of IPv4, for packets that the way can take.")
    @description("The others are punted.")
    @id(0x01000008)
    action rewrite_limited(MacAddress ethernet_source,
                           MacAddress ethernet_destination,
                           Ipv4Address source,
                           Ipv4Address destination,
                           bit<16> l4_source,
                           bit<16> l4_destination,
                           bit<8> ttl,
                           bit<16> ipv4_delta,
                           bit<16> l4_delta,
                           PortId egress_port,
                           Ipv4Address router,
                           @brief("1 if a router lies between: a TTL of 1 ends there.")
                           bit<1> routed,
                           @brief("The longest IP packet, as it comes in.")
                           bit<16> max_length) {
        limit(routed, max_length);
        rewrite(ethernet_source, ethernet_destination, source, destination, l4_source, l4_destination, ttl,
                ipv4_delta, l4_delta, egress_port, router);
    }

    @brief("Join two neighbouring segments of IPv6.")
    @description("As `rewrite`. IPv6 has no header checksum; ICMPv6's covers the addresses.")
    @id(0x01000009)
    action rewrite6(MacAddress ethernet_source,
                    MacAddress ethernet_destination,
                    Ipv6Address source,
                    Ipv6Address destination,
                    bit<16> l4_source,
                    bit<16> l4_destination,
                    bit<8> hop_limit,
                    bit<16> l4_delta,
                    PortId egress_port,
                    Ipv6Address router) {
        hdr.ipv6.source = source;
        hdr.ipv6.destination = destination;
        hdr.ipv6.hop_limit = hop_limit;
        hdr.outer6.router = router;
        readdress(ethernet_source, ethernet_destination, l4_source, l4_destination, l4_delta, egress_port);
    }

    @brief("Join two neighbouring segments of IPv6, for packets that the way can take.")
    @description("As `rewrite_limited`.")
    @id(0x0100000a)
    action rewrite6_limited(MacAddress ethernet_source,
                            MacAddress ethernet_destination,
                            Ipv6Address source,
                            Ipv6Address destination,
                            bit<16> l4_source,
                            bit<16> l4_destination,
                            bit<8> hop_limit,
                            bit<16> l4_delta,
                            PortId egress_port,
                            Ipv6Address router,
                            bit<1> routed,
                            bit<16> max_length) {
        limit(routed, max_length);
        rewrite6(ethernet_source, ethernet_destination, source, destination, l4_source, l4_destination, hop_limit,
                 l4_delta, egress_port, router);
    }

    @brief("Join a segment of IPv4 to one of IPv6: the header is translated.")
    @description("For what has no place in the header of the other family, each switch has a value in its entry.")
    @id(0x0100000b)
    action translate(MacAddress ethernet_source,
                     MacAddress ethernet_destination,
                     Ipv6Address source,
                     Ipv6Address destination,
                     bit<16> l4_source,
                     bit<16> l4_destination,
                     bit<8> hop_limit,
                     @brief("As of `rewrite`; of an echo also the change of its type, and the pseudo header but for the length.")
                     bit<16> l4_delta,
                     PortId egress_port,
                     bit<1> routed,
                     bit<16> max_length,
                     bit<20> flow_label) {
        limit(routed, max_length);
        readdress(ethernet_source, ethernet_destination, l4_source, l4_destination, l4_delta, egress_port);
        hdr.limits.translated = 1;
        hdr.ethernet.ether_type = ETHERTYPE_IPV6;
        hdr.ipv6.setValid();
        hdr.ipv6.version_class_label = 4w6 ++ hdr.ipv4.dscp_ecn ++ flow_label;
        hdr.ipv6.payload_length = hdr.ipv4.total_length - 20;
        hdr.ipv6.next_header = hdr.ipv4.protocol;
        hdr.ipv6.hop_limit = hop_limit;
        hdr.ipv6.source = source;
        hdr.ipv6.destination = destination;
        hdr.ipv4.setInvalid();
    }

    @brief("Join a segment of IPv6 to one of IPv4: the header is translated.")
    @description("As `translate`, the other way.")
    @id(0x0100000c)
    action translate6(MacAddress ethernet_source,
                      MacAddress ethernet_destination,
                      Ipv4Address source,
                      Ipv4Address destination,
                      bit<16> l4_source,
                      bit<16> l4_destination,
                      bit<8> ttl,
                      bit<16> l4_delta,
                      PortId egress_port,
                      bit<1> routed,
                      bit<16> max_length,
                      @brief("The header's flags: 0x4000 for don't fragment, or 0.")
                      bit<16> flags) {
        limit(routed, max_length);
        readdress(ethernet_source, ethernet_destination, l4_source, l4_destination, l4_delta, egress_port);
        hdr.limits.translated = 1;
        hdr.ethernet.ether_type = ETHERTYPE_IPV4;
        hdr.ipv4.setValid();
        hdr.ipv4.version_ihl = 0x45;
        hdr.ipv4.dscp_ecn = hdr.ipv6.version_class_label[27:20];
        hdr.ipv4.total_length = hdr.ipv6.payload_length + 20;
        hdr.ipv4.identification = 0;
        hdr.ipv4.flags_fragment = flags;
        hdr.ipv4.ttl = ttl;
        hdr.ipv4.protocol = hdr.ipv6.next_header;
        hdr.ipv4.checksum = 0;
        hdr.ipv4.source = source;
        hdr.ipv4.destination = destination;
        hdr.ipv6.setInvalid();
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

    @brief("Entries for the accounting of `connections6`.")
    @id(0x13000002)
    direct_counter(CounterType.packets_and_bytes) connection6_counter;

    @brief("What each flow of IPv4 becomes.")
    @description("Two entries join two segments of a connection, one for each direction.")
    @id(0x02000001)
    table connections {
        key = {
            meta.scope: exact @name("scope") @brief("The port at which the packet came in.");
            meta.source_mac: exact @name("source_mac") @brief("The endpoint's MAC; 0 where the scope is a wire.");
            hdr.ipv4.source: exact @name("source");
            hdr.ipv4.destination: exact @name("destination");
            hdr.ipv4.protocol: exact @name("protocol");
            meta.l4_source: exact @name("l4_source") @brief("Port, or the echo identifier of a request; 0 without.");
            meta.l4_destination: exact @name("l4_destination") @brief("Port, or what stands for it; 0 without.");
        }
        actions = {
            rewrite;
            rewrite_limited;
            translate;
            drop;
            @defaultonly punt;
        }
        const default_action = punt;
        size = CONNECTIONS_SIZE;
        counters = connection_counter;
        support_timeout = true;
    }

    @brief("What each flow of IPv6 becomes.")
    @description("As `connections`.")
    @id(0x02000004)
    table connections6 {
        key = {
            meta.scope: exact @name("scope");
            meta.source_mac: exact @name("source_mac");
            hdr.ipv6.source: exact @name("source");
            hdr.ipv6.destination: exact @name("destination");
            hdr.ipv6.next_header: exact @name("protocol");
            meta.l4_source: exact @name("l4_source");
            meta.l4_destination: exact @name("l4_destination");
        }
        actions = {
            rewrite6;
            rewrite6_limited;
            translate6;
            drop;
            @defaultonly punt;
        }
        const default_action = punt;
        size = CONNECTIONS_SIZE;
        counters = connection6_counter;
        support_timeout = true;
    }

    apply {
        if (hdr.ipv4.isValid()) {
            connections.apply();
        } else {
            connections6.apply();
        }
    }
}
