"""The embedded switch without interfaces or sockets: its P4Runtime device, and its engine."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from nvi.embedded.dataplane import MemoryDataPlane
from nvi.embedded.device import Device
from nvi.p4rt.codec import nvi_codec
from nvi.p4rt.messages import p4r
from nvi.p4rt.pipeline import nvi_pipeline
from nvi.switch import ConnectionKey, Entry, Operation, Update, Usage


class Embedded:
    """With the verbs of `ptf_tests.client.Client` that the comparison needs."""

    def __init__(self) -> None:
        self._device = Device(1, MemoryDataPlane(), time.monotonic_ns)
        self._device.set_config(
            p4r.SetForwardingPipelineConfigRequest(
                device_id=1,
                action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT,
                config=nvi_pipeline().forwarding_config(),
            )
        )
        self._configured = self._device.configured

    def insert(self, entries: Iterable[Entry]) -> None:
        """Add entries."""
        for entry in entries:
            message = nvi_codec().encode(Update(Operation.INSERT, entry)).message
            for update in p4r.WriteRequest.FromString(message).updates:
                self._configured.entities.write(update)

    def run(self, packets: Sequence[tuple[int, bytes]]) -> dict[int, list[bytes]]:
        """What leaves by each port."""
        outputs: dict[int, list[bytes]] = defaultdict(list)
        for port, packet in packets:
            for egress, out in self._configured.engine.process(port, packet):
                outputs[egress].append(out)
        return dict(outputs)

    def usage(self, keys: Sequence[ConnectionKey]) -> dict[ConnectionKey, Usage]:
        """Counters of these entries."""
        entities = self._read(nvi_codec().encode_usage_request(keys))
        return dict(nvi_codec().decode_usage(entity.table_entry) for entity in entities)

    def drops(self) -> dict[int, int]:
        """The counter `drops` by index, without zeros."""
        counter = p4r.CounterEntry(counter_id=nvi_pipeline().counter_id("drops"))
        query = p4r.ReadRequest(entities=[p4r.Entity(counter_entry=counter)])
        read = (entity.counter_entry for entity in self._read(query.SerializeToString()))
        return {entry.index.index: entry.data.packet_count for entry in read if entry.data.packet_count}

    def _read(self, entities: bytes) -> Iterable[p4r.Entity]:
        for query in p4r.ReadRequest.FromString(entities).entities:
            yield from self._configured.entities.read(query)
