// SPDX-License-Identifier: Apache-2.0
//
// Every kind of match, counters, meters, registers, exit, hit and action_run, packet-in and packet-out.

#include <core.p4>
#include <v1model.p4>

const bit<9> CPU = 510;

header key_t {
    bit<8> stage;
    bit<32> a;
    bit<16> b;
    bit<8> c;
    bit<32> result;
    bit<8> trace;
}

header mark_t { bit<8> value; }

@controller_header("packet_in")
header packet_in_t { bit<9> ingress_port; bit<7> reason; }

@controller_header("packet_out")
header packet_out_t { bit<9> egress_port; bit<7> pad; }

struct headers_t {
    packet_in_t packet_in;
    packet_out_t packet_out;
    key_t k;
    mark_t m;
}

struct metadata_t {
    bit<2> colour;
    bit<32> state;
}

parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start {
        transition select(sm.ingress_port) {
            CPU: from_cpu;
            default: key;
        }
    }
    state from_cpu {
        packet.extract(hdr.packet_out);
        transition accept;
    }
    state key {
        packet.extract(hdr.k);
        transition select(hdr.k.stage) {
            9: mark;
            default: accept;
        }
    }
    state mark {
        packet.extract(hdr.m);
        transition accept;
    }
}

control NoVerify(inout headers_t hdr, inout metadata_t meta) { apply { } }
control NoUpdate(inout headers_t hdr, inout metadata_t meta) { apply { } }

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    counter(16, CounterType.packets_and_bytes) packets;
    meter(16, MeterType.packets) rates;
    register<bit<32>>(16) states;
    direct_counter(CounterType.packets_and_bytes) exact_counter;
    direct_meter<bit<2>>(MeterType.bytes) exact_meter;

    action set(bit<32> value) { hdr.k.result = value; }
    action add(bit<32> value, bit<8> trace) {
        hdr.k.result = hdr.k.result + value;
        hdr.k.trace = trace;
    }
    action metered(bit<32> value) {
        exact_meter.read(meta.colour);
        hdr.k.result = value;
    }
    action drop() { mark_to_drop(sm); }
    action punt() {
        sm.egress_spec = CPU;
        hdr.packet_in.setValid();
        hdr.packet_in.ingress_port = sm.ingress_port;
        hdr.packet_in.reason = 5;
    }
    action stop() { exit; }
    action maybe_stop() {
        if (hdr.k.c == 3) { exit; }
        hdr.k.trace = 99;
    }

    table t_exact {
        key = { hdr.k.a: exact @name("a"); hdr.k.b: exact @name("b"); }
        actions = { metered; drop; punt; @defaultonly NoAction; }
        default_action = NoAction();
        counters = exact_counter;
        meters = exact_meter;
        support_timeout = true;
        size = 8;
    }
    table t_lpm {
        key = { hdr.k.c: exact; hdr.k.a: lpm; }
        actions = { set; add; drop; }
        default_action = set(7);
        size = 64;
    }
    table t_ternary {
        key = { hdr.k.a: ternary; hdr.k.b: ternary; hdr.k.c: exact; }
        actions = { set; add; stop; maybe_stop; @tableonly drop; }
        default_action = add(1, 2);
        size = 64;
    }
    table t_range {
        key = { hdr.k.b: range; hdr.k.a: lpm; }
        actions = { set; add; }
        const default_action = set(0xdead);
        size = 64;
    }
    table t_optional {
        key = { hdr.k.a: optional; hdr.m.isValid(): exact @name("marked"); hdr.m.value: optional @name("mark"); }
        actions = { set; NoAction; }
        default_action = NoAction();
        size = 64;
    }
    table t_const {
        key = { hdr.k.a: ternary; hdr.k.b: range; }
        actions = { set; add; }
        const entries = {
            (1 &&& 1, 0 .. 99): set(1);
            (_, 50 .. 200): add(2, 3);
            (0x10 &&& 0xf0, _): set(4);
        }
        default_action = set(5);
    }

    apply {
        if (hdr.packet_out.isValid()) {
            sm.egress_spec = hdr.packet_out.egress_port;
            hdr.packet_out.setInvalid();
        } else if (!hdr.k.isValid()) {
            mark_to_drop(sm);
        } else {
            sm.egress_spec = 2;
            packets.count((bit<32>)hdr.k.c);
            switch (hdr.k.stage) {
                0: {
                    if (t_exact.apply().hit) { hdr.k.trace = 1; } else { hdr.k.trace = 2; }
                    hdr.k.c = 6w0 ++ meta.colour;
                }
                1: { t_lpm.apply(); }
                2: {
                    switch (t_ternary.apply().action_run) {
                        set: { hdr.k.trace = 10; }
                        add: { hdr.k.result = hdr.k.result + 1; }
                        default: { hdr.k.result = 3; }
                    }
                }
                3: { t_range.apply(); }
                4: { t_const.apply(); }
                5: {
                    rates.execute_meter((bit<32>)hdr.k.c, meta.colour);
                    hdr.k.trace = 6w0 ++ meta.colour;
                }
                6: {
                    states.read(meta.state, (bit<32>)hdr.k.c);
                    hdr.k.result = meta.state;
                    meta.state = meta.state + hdr.k.a;
                    states.write((bit<32>)hdr.k.c, meta.state);
                }
                default: { t_optional.apply(); }
            }
            sm.egress_spec = sm.egress_spec;
        }
    }
}

control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        if (hdr.k.isValid() && hdr.k.stage == 7) {
            if (hdr.k.c == 1) { mark_to_drop(sm); }
            hdr.k.result = (bit<32>)sm.egress_port;
            if (hdr.k.c == 2) { exit; }
            hdr.k.trace = 77;
        }
    }
}

control D(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.packet_in);
        packet.emit(hdr.packet_out);
        packet.emit(hdr.k);
        packet.emit(hdr.m);
    }
}

V1Switch(P(), NoVerify(), I(), E(), NoUpdate(), D()) main;
