"""A farm's buckets: made by whoever runs the farm, never by an agent."""

from __future__ import annotations

from collections.abc import Iterable

import nats.errors
import nats.js.errors
from nats.js.api import DiscardPolicy, RePublish, StorageType, StreamConfig

from .connection import Away, Connection
from .layout import Bucket, Layout

VALUE_BYTES = 16_384
"""Of a host, an endpoint or a claim, at most."""

POLICY_BYTES = 1_048_576
"""Of a tenant's networks and policy, at most: what NATS itself lets pass."""


async def prepare(
    connection: Connection, layout: Layout, tenants: Iterable[str], *, lease: float, replicas: int = 1
) -> None:
    """Make what is missing of a farm's buckets. `lease`: seconds. Raises Away, also if one is there but differs."""
    wanted = [
        _stream(layout.leases, VALUE_BYTES, replicas, lease),
        _stream(layout.hosts, VALUE_BYTES, replicas),
        *(_stream(layout.tenant(name), POLICY_BYTES, replicas) for name in tenants),
    ]
    jetstream = await connection.jetstream()
    for stream in wanted:
        try:
            await jetstream.add_stream(stream)
        except (nats.errors.Error, nats.js.errors.APIError) as error:
            raise Away(f"bucket {stream.name}: {error} ({connection.state})") from None


def _stream(bucket: Bucket, largest: int, replicas: int, lease: float | None = None) -> StreamConfig:
    """A key-value bucket, but for two things.

    What it has stored is published once more, so that a watch costs the server a subscription and not a consumer. And
    roll-ups are not allowed: with them, whoever may write one key could empty the bucket.
    """
    return StreamConfig(
        name=bucket.stream,
        subjects=[bucket.subject(">")],
        max_msgs_per_subject=1,
        max_age=lease,
        max_msg_size=largest,
        # In seconds; NATS wants it no longer than what it is about.
        duplicate_window=min(lease or 120.0, 120.0),
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        num_replicas=replicas,
        deny_delete=True,
        allow_direct=True,
        allow_rollup_hdrs=False,
        republish=RePublish(src=bucket.subject(">"), dest=bucket.watch_subject(">")),
    )
