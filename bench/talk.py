"""Traffic between two endpoints that notices everything: what `bench.chaos` runs inside them. Standard library only.

talk.py serve PORT              answers whatever comes, by TCP and UDP
talk.py talk ADDRESS PORT PAUSE until SIGTERM: one UDP flow and one TCP connection with a message every PAUSE seconds,
                                and new connections, four each second; says so when they are there, and at the end as
                                JSON what became of each message (monotonic times)
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time

DIAL_INTERVAL, DIAL_PATIENCE = 0.25, 2.0
"""Seconds between two new connections, and for each to be there: a first packet that is lost goes again after one."""


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, sender: object) -> None:
        self.transport.sendto(data, sender)  # type: ignore[attr-defined]


class _Flow(asyncio.DatagramProtocol):
    def __init__(self, sent: list[list[float | bool]]) -> None:
        self.sent = sent

    def datagram_received(self, data: bytes, sender: object) -> None:  # noqa: ARG002
        self.sent[int(data)][1] = True

    def error_received(self, error: Exception) -> None:
        """An ICMP error: the datagram counts as lost anyway."""


async def _serve(port: int) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "0.0.0.0", port)
    await asyncio.get_running_loop().create_datagram_endpoint(_Echo, ("0.0.0.0", port))
    print("ready", flush=True)
    await server.serve_forever()


async def _datagrams(address: str, port: int, pause: float, sent: list[list[float | bool]]) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Flow(sent), remote_addr=(address, port))
    while True:
        sent.append([time.monotonic(), False])
        transport.sendto(str(len(sent) - 1).encode())
        await asyncio.sleep(pause)


async def _stream(address: str, port: int, pause: float, answered: list[float]) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(address, port)
            break
        except OSError:  # what counts is what happens to it once it is there
            await asyncio.sleep(pause)
    while True:
        message = f"{len(answered):015d}\n".encode()
        writer.write(message)
        if await reader.readexactly(len(message)) != message:
            raise OSError("another answer than what was sent")
        answered.append(time.monotonic())
        await asyncio.sleep(pause)


async def _dial(address: str, port: int, dialled: list[tuple[float, float | None]]) -> None:
    began = time.monotonic()
    try:
        async with asyncio.timeout(DIAL_PATIENCE):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        dialled.append((began, None))
    else:
        dialled.append((began, time.monotonic()))
        writer.close()


async def _keep_dialling(address: str, port: int, dialled: list[tuple[float, float | None]]) -> None:
    async with asyncio.TaskGroup() as dials:
        while True:
            dials.create_task(_dial(address, port, dialled))
            await asyncio.sleep(DIAL_INTERVAL)


async def _talk(address: str, port: int, pause: float) -> None:
    sent: list[list[float | bool]] = []
    answered: list[float] = []
    dialled: list[tuple[float, float | None]] = []
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    stream = asyncio.create_task(_stream(address, port, pause, answered))
    datagrams = asyncio.create_task(_datagrams(address, port, pause, sent))
    dialling = asyncio.create_task(_keep_dialling(address, port, dialled))
    while len(answered) < 10 or not any(arrived for _, arrived in sent[-10:]):
        await asyncio.sleep(pause)
        if stream.done():
            raise SystemExit(f"there is no connection to {address}: {stream.exception()!r}")
    print("talking", flush=True)
    await stop.wait()
    broken = repr(stream.exception()) if stream.done() else None
    datagrams.cancel()
    await asyncio.sleep(0.5)  # the last answers are on their way
    print(json.dumps({"datagrams": sent, "stream": answered, "broken": broken, "dialled": dialled}), flush=True)
    for task in (stream, dialling):
        task.cancel()
    await asyncio.gather(stream, datagrams, dialling, return_exceptions=True)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    asyncio.run(_serve(int(rest[0])) if what == "serve" else _talk(rest[0], int(rest[1]), float(rest[2])))
