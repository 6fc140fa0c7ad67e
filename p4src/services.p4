// SPDX-License-Identifier: Apache-2.0

// What the host has published, or keeps for connections without ports: its agent is asked about packets of no known flow.
control Services(inout headers_t hdr, inout metadata_t meta) {

    @brief("Hand it to the agent.")
    @id(0x0100000d)
    action serve() {
        hdr.edge.punt_reason = PuntReason.SERVICE;
    }

    @brief("Nothing of the kind.")
    @id(0x0100000e)
    action unserved() {
    }

    @brief("Published services.")
    @description("Consulted for packets from a wire that no connection table holds.")
    @id(0x02000005)
    table services {
        key = {
            hdr.edge.address: exact @name("address") @brief("The packet's destination; IPv4 as ::ffff:a.b.c.d.");
            hdr.edge.protocol: exact @name("protocol");
            meta.l4_destination: exact @name("port") @brief("0 for protocols without ports.");
        }
        actions = {
            serve;
            @defaultonly unserved;
        }
        const default_action = unserved;
        size = SERVICES_SIZE;
    }

    apply {
        services.apply();
    }
}
