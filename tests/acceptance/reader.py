"""Another P4Runtime client: it reads what the switches hold, and it can be an intruder."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from finsy.proto import U128, p4r, p4r_grpc

CONNECTIONS = 0x02000001
DEVICE_ID = 1


def address(host: str) -> str:
    """Where a host's switch serves P4Runtime."""
    return f"unix:/run/nvi/{host}/p4rt.sock"


def _channel(host: str) -> grpc.Channel:
    return grpc.insecure_channel(address(host), options=[("grpc.max_receive_message_length", 64 << 20)])


def _read(stub: p4r_grpc.P4RuntimeStub, device_id: int) -> list[p4r.TableEntry]:
    request = p4r.ReadRequest(device_id=device_id)
    request.entities.add().table_entry.table_id = CONNECTIONS
    return [entity.table_entry for answer in stub.Read(request, timeout=30) for entity in answer.entities]


def connections(host: str, device_id: int) -> list[p4r.TableEntry]:
    """All entries of the table in a host's switch."""
    with _channel(host) as channel:
        return _read(p4r_grpc.P4RuntimeStub(channel), device_id)


@contextmanager
def primary(host: str, device_id: int) -> Iterator[tuple[p4r_grpc.P4RuntimeStub, p4r.Uint128]]:
    """Be the primary of a host's switch for a while, whoever was, and leave without a word. Gives the election id."""
    orders: queue.Queue[p4r.StreamMessageRequest | None] = queue.Queue()
    with _channel(host) as channel:
        stub = p4r_grpc.P4RuntimeStub(channel)
        stream = stub.StreamChannel(iter(orders.get, None))
        election_id = U128.encode(1 << 120)
        for _ in range(2):
            request = p4r.StreamMessageRequest()
            request.arbitration.device_id = device_id
            request.arbitration.election_id.CopyFrom(election_id)
            orders.put(request)
            answer = next(stream).arbitration
            if answer.status.code == 0:
                break
            # The agent has outbid an earlier intruder: so does this one.
            election_id = U128.encode(U128.decode(answer.election_id) + (1 << 64))
        assert answer.status.code == 0, answer
        yield stub, election_id
        orders.put(None)
        stream.cancel()


def delete(host: str, device_id: int, doomed: Callable[[p4r.TableEntry], bool] = lambda _: True) -> int:
    """Take the primary role, delete entries of `connections`, and leave. Returns how many were deleted."""
    with primary(host, device_id) as (stub, election_id):
        entries = [entry for entry in _read(stub, device_id) if doomed(entry)]
        for start in range(0, len(entries), 100):
            write = p4r.WriteRequest(device_id=device_id, election_id=election_id)
            for entry in entries[start : start + 100]:
                update = write.updates.add(type=p4r.Update.DELETE)
                update.entity.table_entry.table_id = entry.table_id
                update.entity.table_entry.match.extend(entry.match)
            stub.Write(write, timeout=10)
        return len(entries)


def mentions_port(entry: p4r.TableEntry, port: int) -> bool:
    """Whether an entry matches packets with this L4 port, or makes packets with it."""
    wanted = port.to_bytes(2)
    values = [match.exact.value for match in entry.match] + [param.value for param in entry.action.action.params]
    return wanted in values
