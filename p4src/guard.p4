// SPDX-License-Identifier: Apache-2.0

// Who an endpoint may say that it is.
control Guard(inout headers_t hdr, inout metadata_t meta) {

    @brief("The sender is who it says.")
    @id(0x01000004)
    action admit(@brief("The network in which the endpoint is.") NetworkId network) {
        hdr.edge.network = network;
    }

    @brief("It is not.")
    @id(0x01000005)
    action spoofed() {
        meta.drop_reason = DropReason.SPOOFED;
    }

    @brief("The (port, MAC, address) of every endpoint of this host.")
    @description("Consulted for packets that no connection table holds; those that one holds were admitted when it learnt them.")
    @id(0x02000002)
    table guard {
        key = {
            meta.scope: exact @name("port");
            hdr.ethernet.source: exact @name("mac");
            hdr.edge.address: exact @name("address") @brief("IPv4 as ::ffff:a.b.c.d.");
        }
        actions = {
            admit;
            @defaultonly spoofed;
        }
        const default_action = spoofed;
        size = GUARD_SIZE;
    }

    apply {
        guard.apply();
    }
}
