// SPDX-License-Identifier: Apache-2.0
//
// What the switch reads of a packet. It splits only what it matches or changes: each field costs time on every packet.

const bit<16> ETHERTYPE_IPV4 = 0x0800;
const bit<16> ETHERTYPE_ARP = 0x0806;
const bit<8> PROTOCOL_ICMP = 1;
const bit<8> PROTOCOL_TCP = 6;
const bit<8> PROTOCOL_UDP = 17;

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

// The first four bytes of TCP (RFC 9293) and UDP (RFC 768).
header ports_t {
    bit<16> source;
    bit<16> destination;
}

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

// An ICMP echo request or reply (RFC 792).
header echo_t {
    bit<16> type_code;
    bit<16> checksum;
    bit<16> identifier;
}

const bit<16> ECHO_REQUEST = 0x0800;
const bit<16> ECHO_REPLY = 0x0000;

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

struct headers_t {
    packet_in_t packet_in;
    packet_out_t packet_out;
    ethernet_t ethernet;
    arp_t arp;
    ipv4_t ipv4;
    ports_t ports;
    tcp_t tcp;
    udp_t udp;
    echo_t echo;
}

struct metadata_t {
    PortId scope;               // where the packet came in, or is to be treated as having come in
    bool has_flow;              // l4_source and l4_destination hold what they should
    MacAddress source_mac;      // of an endpoint's packet; 0 for the underlay's, whose routers may change
    bit<16> l4_source;          // the port, or what stands for it
    bit<16> l4_destination;
    bool rewritten;
    bit<16> l4_delta;           // what the rewrite adds to the sum under the transport checksum
    bit<16> ipv4_delta;         // what it adds to the sum under the header checksum, but for the old TTL
    bit<16> old_checksum;       // complements of what is replaced, for RFC 1624
    bit<8> old_ttl;
    bit<16> old_tcp_checksum;
    NetworkId network;          // of the endpoint that sent the packet
    Ipv4Address sender_address; // what the endpoint says that its address is
    PuntReason punt_reason;
    DropReason drop_reason;
}
