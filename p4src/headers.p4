// SPDX-License-Identifier: Apache-2.0
//
// What the switch reads of a packet. It splits only what it matches or changes: each field costs time on every packet.

const bit<16> ETHERTYPE_IPV4 = 0x0800;
const bit<16> ETHERTYPE_ARP = 0x0806;
const bit<16> ETHERTYPE_IPV6 = 0x86dd;
const bit<8> PROTOCOL_HOP_BY_HOP = 0;
const bit<8> PROTOCOL_ICMP = 1;
const bit<8> PROTOCOL_TCP = 6;
const bit<8> PROTOCOL_UDP = 17;
const bit<8> PROTOCOL_ROUTING = 43;
const bit<8> PROTOCOL_FRAGMENT = 44;
const bit<8> PROTOCOL_ICMPV6 = 58;

header ethernet_t {
    MacAddress destination;
    MacAddress source;
    bit<16> ether_type;
}

// RFC 826, for Ethernet and IPv4.
header arp_t {
    bit<64> kind;  // hardware and protocol type, their lengths, and the operation, which are checked as one
    MacAddress sender_mac;
    Ipv4Address sender_address;
    MacAddress target_mac;
    Ipv4Address target_address;
}

const bit<64> ARP_REQUEST = 0x0001080006040001;
const bit<64> ARP_REPLY = 0x0001080006040002;

// RFC 791.
header ipv4_t {
    bit<8> version_ihl;
    bit<8> dscp_ecn;
    bit<16> total_length;
    bit<16> identification;
    bit<16> flags_fragment;  // reserved, don't fragment, more fragments; offset
    bit<8> ttl;
    bit<8> protocol;
    bit<16> checksum;
    Ipv4Address source;
    Ipv4Address destination;
}

const bit<16> IPV4_DONT_FRAGMENT = 0x4000;
const bit<16> IPV4_MORE_FRAGMENTS = 0x2000;

// RFC 8200.
header ipv6_t {
    bit<32> version_class_label;  // version, traffic class, flow label
    bit<16> payload_length;
    bit<8> next_header;
    bit<8> hop_limit;
    Ipv6Address source;
    Ipv6Address destination;
}

// RFC 8200 section 4.5.
header fragment_t {
    bit<8> next_header;
    bit<8> reserved;
    bit<16> offset_more;  // 13 bits offset, 2 reserved, more fragments
    bit<32> identification;
}

// The first four bytes of TCP (RFC 9293) and UDP (RFC 768).
header ports_t {
    bit<16> source;
    bit<16> destination;
}

const bit<16> DHCP_SERVER = 67;
const bit<16> DHCP_CLIENT = 68;

// TCP after its ports, as far as the checksum.
header tcp_t {
    bit<96> sequence_to_window;  // sequence, acknowledgement, offset, flags, window
    bit<16> checksum;
}

// UDP after its ports.
header udp_t {
    bit<16> length;
    bit<16> checksum;
}

// An echo request or reply (RFC 792, RFC 4443 section 4).
header echo_t {
    bit<16> type_code;
    bit<16> checksum;
    bit<16> identifier;
}

const bit<16> ECHO_REQUEST = 0x0800;
const bit<16> ECHO_REPLY = 0x0000;
const bit<16> ECHO_REQUEST_V6 = 0x8000;
const bit<16> ECHO_REPLY_V6 = 0x8100;

// An ICMP error; what follows is the packet that it is about (RFC 792, RFC 4443 section 3).
header icmp_error_t {
    bit<16> type_code;
    bit<16> checksum;
    bit<32> rest;
}

// Neighbour discovery (RFC 4861): the beginning of each message.
header discovery_t {
    bit<16> type_code;
    bit<16> checksum;
    bit<32> flags;
}

const bit<16> ROUTER_SOLICITATION = 0x8500;
const bit<16> NEIGHBOUR_SOLICITATION = 0x8700;
const bit<16> NEIGHBOUR_ADVERTISEMENT = 0x8800;

// What follows in a neighbour solicitation or advertisement, and the one option that it may have.
header target_t {
    Ipv6Address address;
}

header link_option_t {
    bit<8> kind;
    bit<8> length;  // in units of 8 bytes
    MacAddress mac;
}

const bit<8> SOURCE_LINK_ADDRESS = 1;
const bit<8> TARGET_LINK_ADDRESS = 2;

@controller_header("packet_in")
@brief("A packet that the agent must decide about.")
header packet_in_t {
    PortId ingress_port;  // where it came in
    PuntReason reason;
}

@controller_header("packet_out")
@brief("A packet from the agent.")
header packet_out_t {
    PortId port;
    PacketOutOrder order;
}

// What follows is never sent. The state of packets that need more than a lookup is kept in headers, since every field of
// metadata costs every packet: it is reset for each of them.

// What a rewrite leaves for the checksums (RFC 1624): complements of what it replaces, and what it adds to the sums.
header ipv4_sum_t {
    bit<16> old_checksum;
    bit<16> old_ttl;  // in its half of the word; the other is 0
    bit<16> delta;    // of all but the old TTL
}

header l4_sum_t {
    bit<16> old_checksum;
    bit<16> delta;
}

// Valid in a packet that needs a look besides its lookup. What is in it is the entry's, if that has changed `before` headers.
header limits_t {
    bit<1> routed;       // a router lies between: TTL 1 ends here
    bit<1> translated;   // into the other family
    bit<6> reserved;
    bit<16> max_length;  // longer IP packets are too big
}

// Of a datagram that may be, or is, in fragments.
header datagram_t {
    bit<16> offset;          // in units of 8 bytes
    bit<16> more;            // not 0 if more fragments follow
    bit<16> length;          // of the data in this packet
    bit<8> sound;            // 1 if a careful host would take it for a part of its datagram
    bit<32> identification;  // with which it goes to a wire
    bit<32> base;            // its port's cells in the register,
    bit<32> cells;           // how many they are,
    bit<480> cell;           // what is in there; see fragments.p4
    bit<48> age;
}

header identity_t {
    bit<368> identity;
}

// An ICMP error's own addresses, while the key is that of the quoted packet, reversed.
header outer4_t {
    Ipv4Address source;
    Ipv4Address destination;
    Ipv4Address router;  // whom the error shows as its source, if that is not the far end
}

header outer6_t {
    Ipv6Address source;
    Ipv6Address destination;
    Ipv6Address router;
}

// What is added up in one's complement, by hashes: a list of fields would be copied to metadata first.
header words_t {
    bit<16> a;
    bit<16> b;
    bit<16> c;
    bit<16> d;
    bit<16> e;
}

header addresses_t {
    bit<128> a;
    bit<128> b;
    bit<128> c;
    bit<128> d;
    bit<128> e;
    bit<128> f;
    bit<128> g;
    bit<128> h;
}

// Where something is in a register, a meter or a counter.
header index_t {
    bit<32> value;
}

// The complement of that sum.
header sum_t {
    bit<16> complement;
}

// What the edge finds out.
header edge_t {
    PuntReason punt_reason;
    bit<1> router;     // of the neighbour that is asked for
    bit<2> colour;     // of the meter of punts
    bit<6> reserved;
    bit<8> protocol;
    NetworkId network; // of the endpoint that sent the packet
    Address address;   // the one that is looked up
    MacAddress mac;    // of the neighbour that is asked for
}

struct headers_t {
    packet_in_t packet_in;
    packet_out_t packet_out;
    ethernet_t ethernet;
    arp_t arp;
    ipv4_t ipv4;
    ipv6_t ipv6;
    fragment_t fragment;
    ports_t ports;
    tcp_t tcp;
    udp_t udp;
    echo_t echo;
    icmp_error_t icmp_error;
    ipv4_t quoted_ipv4;
    ipv6_t quoted_ipv6;
    fragment_t quoted_fragment;
    ports_t quoted_ports;
    tcp_t quoted_tcp;
    udp_t quoted_udp;
    echo_t quoted_echo;
    discovery_t discovery;
    target_t target;
    link_option_t link_option;

    ipv4_sum_t ipv4_sum;
    l4_sum_t l4_sum;
    limits_t limits;
    datagram_t datagram;
    identity_t datagram_identity;
    outer4_t outer4;
    outer6_t outer6;
    index_t index;
    words_t words;
    addresses_t addresses;
    sum_t sum;
    edge_t edge;
    ethernet_t before_ethernet;  // what an entry with limits has changed
    ipv4_t before_ipv4;
    ipv6_t before_ipv6;
    ports_t before_ports;
}

struct metadata_t {
    PortId scope;               // where the packet came in, or is to be treated as having come in
    bool has_flow;              // l4_source and l4_destination hold what they should
    MacAddress source_mac;      // of an endpoint's packet; 0 for a wire's, whose routers may change
    bit<16> l4_source;          // the port, or what stands for it
    bit<16> l4_destination;
    bool rewritten;
    DropReason drop_reason;
}
