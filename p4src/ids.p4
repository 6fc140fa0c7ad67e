// SPDX-License-Identifier: Apache-2.0
//
// Every number that the switch and its agent must agree on. Ids are never reused: a retired one stays as a comment.

typedef bit<9> PortId;
typedef bit<16> NetworkId;
typedef bit<48> MacAddress;
typedef bit<32> Ipv4Address;
typedef bit<128> Ipv6Address;
// Of either family: an IPv4 address is ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2), which no packet may carry.
typedef bit<128> Address;

// Ports. BMv2's drop port is 511.
const PortId PORT_UNDERLAY = 1;         // `underlay0`, the wire to the other hosts
const PortId PORT_HOST_STACK = 2;       // `nvi0`, which carries the host's underlay addresses
const PortId PORT_EXTERNAL = 3;         // `external0`, the wire of a gateway's external side
const PortId PORT_EXTERNAL_STACK = 4;   // `nvi1`, which carries the host's external addresses
const PortId PORT_FIRST_ENDPOINT = 16;  // 5 to 15 are spare
const PortId PORT_CPU = 510;

// The range from which agents take keys. Hosts keep their own sockets out of it (`ip_local_reserved_ports`).
const bit<16> KEY_FIRST = 20000;
const bit<16> KEY_LAST = 32767;

// What stands for the responder's port in the flow of an ICMP echo: the type and code of a request. For the identifiers
// 0x0800 and 0x0801 it is the identifier plus one. So no request ever has the key of a reply: with s(x) for x's stand-in,
// (a, s(a)) = (s(b), b) would mean s(s(b)) = b, and no number is its stand-in's stand-in. Two of them would not do.
const bit<16> ECHO_PORT = 0x0800;
const bit<16> ECHO_PORT_MASK = 0xfffe;

// Why a packet was punted (packet_in.reason).
enum bit<7> PuntReason {
    NONE = 0,
    MISS = 1,      // an endpoint's packet of a flow that `connections` does not hold
    STRAY = 2,     // a packet from a wire, in NVI's key range, that `connections` does not hold
    NEIGHBOUR = 3, // an ARP request or neighbour solicitation that `neighbours` does not hold
    TTL = 4,       // a packet of a connection across a router, whose TTL or hop limit ends there
    TOO_BIG = 5,   // a packet of a connection that is longer than its entry allows
    FRAGMENT = 6,  // a later fragment of a datagram whose first fragment has not been seen
    ERROR = 7,     // an ICMP error about a packet of a connection, that the switch does not translate itself
    LOCAL = 8,     // an endpoint's broadcast or multicast that its agent answers: DHCP, router solicitation
    SERVICE = 9    // a packet for a published service, of a flow that `connections` does not hold
}

// What the agent wants done with a packet-out (packet_out.order).
enum bit<7> PacketOutOrder {
    REINJECT = 0,  // process it as if it had just arrived on `port`
    SEND = 1       // send it out of `port` as it is
}

// Why a packet was dropped: the low bits of the index of the counter `drops`.
enum bit<5> DropReason {
    NONE = 0,
    SPOOFED = 1,        // an endpoint's (port, MAC, address) is not one that it was given
    MALFORMED = 2,      // headers are cut short, contradict each other or cannot come from an endpoint
    UNSUPPORTED = 3,    // an EtherType or IP protocol that NVI does not carry
    GROUP = 4,          // broadcast or multicast
    OPTIONS = 5,        // an IPv4 header with options
    FRAGMENT = 6,       // a fragment that cannot be carried: of an ICMP message that is not an echo
    PUNT_LIMIT = 7,     // the port punts more than its meter allows
    NEIGHBOUR_SELF = 8, // an address probe or announcement by the owner of the address: silence is the answer
    REINJECTED = 9,     // the entry that the agent wrote for this packet was gone when the packet came back
    UNKNOWN = 10,       // refused by the agent: the destination does not exist
    DENIED = 11,        // refused by the agent: policy
    UNREACHABLE = 12,   // refused by the agent: the far host or the way to it does not answer
    EXHAUSTED = 13,     // refused by the agent: no key or entry is left
    ERROR = 14,         // an endpoint's ICMP error about nothing that it was sent
    NEIGHBOUR = 15,     // neighbour discovery or ARP that no endpoint may send
    EXTENSION = 16,     // IPv6 extension headers that NVI does not carry
    FAMILY = 17,        // what the other family has no header for, in a connection across families
    QUOTA = 18,         // refused by the agent: the endpoint has all that it may have
    FILTERED = 19       // refused by the agent: no mapping of the external side admits it
}

// For so long a datagram's later fragments find the ports of its first one, in microseconds. No switch passes so many
// datagrams in that time that a 16-bit identification comes again.
const bit<48> FRAGMENT_LIFETIME = 2000000;

// Sizes.
#define CONNECTIONS_SIZE 65536  // of each family
#define GUARD_SIZE 4096
#define NEIGHBOURS_SIZE 16384
#define SERVICES_SIZE 4096
#define DATAGRAMS_OF_WIRE 4096  // datagrams in fragments that are remembered at once, of each wire,
#define DATAGRAMS_OF_PORT 16    // and of each port, after those of the wires
#define DATAGRAMS_SIZE 16384
#define PORTS_SIZE 512
#define DROPS_SIZE 16384  // PORTS_SIZE ports times 32 reasons
