// SPDX-License-Identifier: Apache-2.0

// Counts every dropped packet by the port it came in at and the reason. The packet itself is already marked.
control Drops(inout headers_t hdr, in metadata_t meta) {
    @brief("Dropped packets, at index 32 x port + reason.")
    @id(0x12000001)
    counter(DROPS_SIZE, CounterType.packets) drops;

    apply {
        hdr.index.value = (bit<32>)(meta.scope ++ (bit<5>)meta.drop_reason);
        drops.count(hdr.index.value);
    }
}
