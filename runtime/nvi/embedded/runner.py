"""Put engine, service and ports together, and run them until told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

import structlog

from .device import Device
from .forwarder import Forwarder
from .ports import PortPlan
from .service import P4RuntimeService, start_server

log = structlog.get_logger()

SWITCH_INTERVAL = 0.0005
"""Seconds for which the data plane may keep the interpreter from the control plane, and the other way round."""


def run(
    device_id: int,
    p4runtime: str,
    ports: Mapping[int, str],
    port_prefix: str | None = None,
    first_prefixed_port: int = 16,
    cpu_port: int = 510,
) -> None:
    """Run a switch until SIGTERM or SIGINT.

    `p4runtime`: where to listen, "unix:/path" or "127.0.0.1:9559". `ports`: port number -> interface; one that is not
    there yet is attached when it appears. `port_prefix`: every interface PREFIXn, from n = `first_prefixed_port` on,
    is port n, whenever it appears. Raises PortError, OSError.
    """
    asyncio.run(serve(device_id, p4runtime, PortPlan(dict(ports), port_prefix, first_prefixed_port), cpu_port))


async def serve(
    device_id: int,
    p4runtime: str,
    plan: PortPlan,
    cpu_port: int = 510,
    stop: asyncio.Event | None = None,
    ready: asyncio.Event | None = None,
) -> None:
    """`run`, within an event loop. `stop` ends it besides the signals; `ready` is set when it listens."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(ValueError, NotImplementedError):  # not in the main thread
            loop.add_signal_handler(number, stop.set)
    sys.setswitchinterval(SWITCH_INTERVAL)
    forwarder = Forwarder(plan, cpu_port)
    device = Device(device_id, forwarder, time.monotonic_ns)
    service = P4RuntimeService(device)
    server, _ = await start_server(service, p4runtime)
    idle = asyncio.create_task(service.notify_idle())
    try:
        forwarder.start()
        log.info("switch is up", device=device_id, p4runtime=p4runtime, ports=sorted(forwarder.ports))
        if ready is not None:
            ready.set()
        await stop.wait()
    finally:
        idle.cancel()
        forwarder.stop()
        service.close()
        await server.stop(0.5)
        log.info(
            "switch is down",
            no_such_port=forwarder.no_such_port,
            failures=forwarder.failures,
            dropped_to_cpu=service.dropped_packets,
        )
