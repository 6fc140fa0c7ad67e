"""An agent's connection to NATS: kept up, whatever happens to the servers.

What keeps it from working is said once, with the servers' addresses and the remedy, and tried again with growing
pauses. Nobody who uses it has to care: subscriptions are made again at each connection, and a request that cannot be
made says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Subscribed
from nats.js import JetStreamContext

from .layout import API, DOMAIN, read_subject, within_domain, write_subject

_log = structlog.get_logger()

RETRY_FIRST, RETRY_LAST = 0.1, 2.0
"""Seconds between attempts, doubled each time. An agent is idle without NATS, so it does not wait for long."""

CONNECT_SECONDS = 2
"""That one server may take to let us in."""

PING_SECONDS, PINGS = 3, 2
"""A server that does not answer so many pings in a row, one every so many seconds, is taken to be away."""

_OPERATION = "KV-Operation"
"""The header that says, by ADR-8 of NATS, that a value was taken back."""

_NO_MESSAGE, _WRONG_SEQUENCE = 10037, 10071
"""Error codes of the JetStream API."""

_DENIED = re.compile(r'permissions violation for (?:publish|subscription) to "(?P<subject>[^"]*)"')

PATIENCE = 2.0
"""Seconds within which NATS, or an agent, must answer."""


class NatsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the NATS servers of a farm."""

    servers: tuple[str, ...]
    """`nats://10.0.0.1:4222`, or `tls://...`: any of them will do."""
    nkey: str | None = None
    """Path of the file with the seed that proves who we are."""
    ca: str | None = None
    """Path of the certificates (PEM) that the servers' must come from; None for those of the system, with `tls://`."""
    certificate: str | None = None
    """Path of our own certificate (PEM), if the servers want one."""
    key: str | None = None
    """Path of its key (PEM)."""

    def __post_init__(self) -> None:
        """Raises ValueError with a sentence."""
        if not self.servers:
            raise ValueError("servers: there is none; name at least one, such as nats://127.0.0.1:4222")
        for server in self.servers:
            try:
                url = urlsplit(server)
                ok = url.scheme in ("nats", "tls") and bool(url.hostname) and url.port is not None
            except ValueError:
                ok = False
                url = urlsplit("")
            if url.username is not None or url.password is not None:
                raise ValueError("servers: an address must not hold a password; put the seed of an nkey into a file")
            if not ok:
                raise ValueError(f"servers: {server!r} is not a server's address; write it like nats://10.0.0.1:4222")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: name both, or neither")


class Away(Exception):
    """NATS, or whom it should have asked, does not answer. The text says who, and what to do."""


class NobodyThere(Away):
    """NATS is there, but nobody listens to that subject."""


class Denied(Away):
    """NATS does not permit us to ask that."""


class NoBucket(Away):
    """NATS is there, but has no such bucket: it is not this farm's, or the farm has not been prepared."""


class Raced(Exception):
    """Somebody else has stored another value meanwhile."""


class Stored(Struct, frozen=True):
    """What a bucket holds."""

    subject: str
    sequence: int
    """The later it was stored, the greater."""
    value: bytes | None
    """None: it was taken back."""


def stored(message: Msg) -> Stored:
    """What a bucket says that it has stored, on one of its `watch` subjects."""
    headers = message.headers or {}
    return Stored(headers.get("Nats-Subject", ""), int(headers.get("Nats-Sequence", 0)), _value(headers, message.data))


def _value(headers: Mapping[str, str] | None, data: bytes) -> bytes | None:
    return None if headers is not None and headers.get(_OPERATION) in ("DEL", "PURGE") else data


class Subscription:
    """Has a function called with what comes on a subject, at this connection and at each that follows."""

    def __init__(self, connection: Connection, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> None:
        """See Connection.subscribe."""
        self.subject = subject
        self.callback = callback
        self.client: Client | None = None
        """Which client it was made with last."""
        self.made: Subscribed | None = None
        self._connection = connection

    async def end(self) -> None:
        """Hear no more."""
        self._connection.subscriptions.pop(self, None)
        if self.made is not None and self._connection.connected:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self.made.unsubscribe()

    def end_soon(self) -> None:
        """Like `end`, for those who cannot wait."""
        self._connection.background(self.end())


class _Question:
    """Something that is being asked."""

    __slots__ = ("denied", "limit", "tries")

    def __init__(self, limit: asyncio.Timeout, *, tries: bool) -> None:
        """`tries`: whether it is asked to see if it may be."""
        self.limit = limit
        self.tries = tries
        self.denied = False

    def deny(self) -> None:
        """There will be no answer: the server does not let it pass."""
        self.denied = True
        self.limit.reschedule(asyncio.get_running_loop().time())


class Connection:
    """One agent's way to NATS."""

    def __init__(self, config: NatsConfig, name: str, inbox: str) -> None:
        """`name`: as NATS's own monitoring shows us; `inbox`: prefix of the subjects on which answers come."""
        self.on_connect: list[Callable[[], None]] = []
        """Called at each connection, once the subscriptions are made."""
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_loss: list[Callable[[], None]] = []
        """Called if messages may have been lost."""
        self._config = config
        self._name = name
        self._inbox = inbox
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self.subscriptions: dict[Subscription, None] = {}
        """Those that are made again at each connection."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._questions: dict[str, list[_Question]] = {}
        """What is being asked, by subject in lower case, as nats-py has it in errors."""
        self._denied: set[str] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._said = ""
        self._state = f"connecting to {self._servers}"

    @property
    def _servers(self) -> str:
        return ", ".join(self._config.servers)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._up.is_set()

    @property
    def state(self) -> str:
        """For people: `connected to nats://...`, or why not."""
        return self._state

    def start(self) -> None:
        """Connect, now and whenever the connection is lost."""
        self._keeper = asyncio.create_task(self._keep(), name="connection to NATS")

    async def stop(self) -> None:
        """Disconnect, for good. What has been sent is on its way."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
            self._keeper = None

    async def ready(self, patience: float = PATIENCE) -> None:
        """Return once there is a connection. Raises Away."""
        if self.connected:
            return
        try:
            async with asyncio.timeout(patience):
                await self._up.wait()
        except TimeoutError:
            raise Away(self._state) from None

    async def request(self, subject: str, data: bytes, patience: float = PATIENCE) -> bytes:
        """Ask, and return the answer. Raises Away."""
        async with self._asking(subject, patience) as client:
            return (await client.request(subject, data, timeout=patience)).data

    async def read(self, stream: str, subject: str, after: int | None = None, *, leader: bool = True) -> Stored | None:
        """What a stream holds: of a subject, or the first of many (wildcards) with a sequence greater than `after`.

        None if there is nothing. `leader`: ask the server that leads the stream, not any that holds it. Raises Away,
        NoBucket.
        """
        async with self._asking(read_subject(stream, leader=leader)) as client:
            manager = client.jsm(prefix=API, timeout=PATIENCE)
            sequence = 1 if after is None else after + 1
            try:
                if leader and after is None:
                    message = await manager.get_msg(stream, subject=subject)
                else:
                    # Of a literal subject there is one value, so the first one is the last.
                    message = await manager.get_msg(stream, seq=sequence, subject=subject, next=True, direct=not leader)
            except nats.js.errors.NotFoundError as error:
                if not leader or error.err_code == _NO_MESSAGE:
                    return None
                raise
            assert message.subject is not None and message.seq is not None
            return Stored(message.subject, message.seq, _value(message.headers, message.data or b""))

    async def may_read(self, stream: str) -> bool:
        """Whether the server lets us read a stream, at this moment. Raises Away if it cannot be asked."""
        subject = read_subject(stream, leader=True)
        try:
            async with self._asking(subject, tries=True) as client:
                await client.request(subject, b"{}", timeout=PATIENCE)
        except Denied:
            return False
        return True

    async def write(self, subject: str, data: bytes | None, expected: int | None = None) -> int:
        """Store a value, or None in its place. Returns its sequence. Raises Away, NoBucket.

        `expected`: the sequence that the subject's value must have now, 0 if it must have none. Raises Raced if not.
        """
        headers = {} if data is not None else {_OPERATION: "DEL"}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        where = write_subject(subject)
        async with self._asking(where) as client:
            try:
                stored = await client.jetstream(timeout=PATIENCE).publish(where, data or b"", headers=headers or None)
            except nats.js.errors.APIError as error:
                if error.err_code == _WRONG_SEQUENCE:
                    raise Raced(str(error.description)) from None
                raise
            return stored.seq

    async def jetstream(self) -> JetStreamContext:
        """For those who manage streams. Raises Away."""
        await self.ready()
        assert self._client is not None
        return self._client.jetstream(domain=DOMAIN, timeout=PATIENCE)

    @contextlib.asynccontextmanager
    async def _asking(self, subject: str, patience: float = PATIENCE, *, tries: bool = False) -> AsyncIterator[Client]:
        """The client that asks at `subject`, as soon as there is one. Whatever goes wrong with it becomes Away."""
        await self.ready(patience)
        client = self._client
        assert client is not None
        question = _Question(asyncio.timeout(patience), tries=tries)
        asked = within_domain(subject).lower()
        self._questions.setdefault(asked, []).append(question)
        try:
            async with question.limit:
                yield client
        except nats.errors.NoRespondersError:
            raise NobodyThere(f"nobody answers at {subject} ({self._state})") from None
        except (nats.js.errors.NoStreamResponseError, nats.js.errors.NotFoundError):
            raise NoBucket(f"no bucket for {subject} ({self._state})") from None
        except (nats.errors.TimeoutError, TimeoutError):
            if question.denied:
                raise Denied(f"NATS does not permit us to publish at {subject} ({self._state})") from None
            raise Away(f"no answer at {subject} within {patience:g} s ({self._state})") from None
        except nats.js.errors.APIError as error:
            raise Away(f"NATS refuses {subject}: {error.description} ({self._state})") from None
        except (nats.errors.Error, OSError) as error:
            raise Away(f"{_sentence(error)} ({self._state})") from None
        finally:
            self._questions[asked].remove(question)
            if not self._questions[asked]:
                del self._questions[asked]

    async def subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Have `callback`, a coroutine function, called with what comes on a subject, one message after the other.

        Whatever is asked after this returns is answered after the subscription is made.
        """
        subscription = Subscription(self, subject, callback)
        self.subscriptions[subscription] = None
        if self.connected:
            await self._make(subscription)
        return subscription

    async def answer(self, message: Msg, data: bytes) -> None:
        """Answer a request. If that cannot be, whoever asked gives up by itself."""
        with contextlib.suppress(nats.errors.Error, OSError):
            await message.respond(data)

    async def _make(self, subscription: Subscription) -> None:
        client = subscription.client = self._client
        if client is not None:
            # It is made again at the next connection.
            with contextlib.suppress(nats.errors.ConnectionClosedError, OSError):
                subscription.made = await client.subscribe(subscription.subject, cb=subscription.callback)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something soon."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self) -> None:
        delay = RETRY_FIRST
        servers = itertools.cycle(self._config.servers)
        while True:
            for _ in self._config.servers:
                server = next(servers)
                try:
                    client = await self._connect(server)
                except (nats.errors.Error, OSError, ValueError) as error:
                    self._say(f"NATS at {server}: {_sentence(error)}; {_remedy(error, server)}; trying again")
                    continue
                try:
                    delay = RETRY_FIRST
                    await self._serve(client, server)
                finally:
                    await _close(client)
                self._say(f"NATS at {server}: the connection was lost; trying again")
            await asyncio.sleep(delay)
            delay = min(2 * delay, RETRY_LAST)

    async def _connect(self, server: str) -> Client:
        """A client that is connected to this server, and gives up when the connection is lost. Raises what it likes."""
        client, down = Client(), asyncio.Event()
        failures: list[Exception] = []

        async def closed() -> None:
            down.set()

        async def failed(error: Exception) -> None:
            failures.append(error)
            del failures[:-1]
            await self._heard(error)

        self._down = down
        try:
            await client.connect(
                servers=[server],
                name=self._name,
                inbox_prefix=self._inbox,
                nkeys_seed_str=_seed(self._config.nkey),
                tls=_tls(self._config, server),
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_SECONDS,
                ping_interval=PING_SECONDS,
                max_outstanding_pings=PINGS,
                closed_cb=closed,
                error_cb=failed,
            )
        except nats.errors.NoServersError:
            await _close(client)
            raise failures[-1] if failures else OSError("there is no answer") from None
        except BaseException:
            await _close(client)
            raise
        return client

    async def _serve(self, client: Client, server: str) -> None:
        """Let others use a client until its connection is lost."""
        self._client = client
        while to_make := [each for each in self.subscriptions if each.client is not client]:
            await self._make(to_make[0])
        self._state = f"connected to {server}"
        self._said = ""
        _log.info("NATS connected", server=server)
        self._up.set()
        try:
            for connected in self.on_connect:
                connected()
            await self._down.wait()
        finally:
            self._up.clear()
            self._client = None
            for disconnected in self.on_disconnect:
                disconnected()

    async def _heard(self, error: Exception) -> None:
        """What nats-py tells us of besides."""
        denied = _DENIED.search(str(error))
        if denied is not None:
            questions = self._questions.get(denied["subject"], ())
            for question in questions:
                question.deny()
            tried = any(question.tries for question in questions)
            if denied[0] not in self._denied and not tried:
                self._denied.add(denied[0])
                _log.error(f"NATS: {denied[0]}", remedy="give this user that permission, see docs/nats.md")
        elif isinstance(error, nats.errors.SlowConsumerError):
            for lost in self.on_loss:
                lost()

    def _say(self, text: str) -> None:
        self._state = text
        if text != self._said:
            self._said = text
            _log.warning(text)


def _seed(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise OSError(f"cannot read the nkey seed {path}: {error.strerror}") from None


def _tls(config: NatsConfig, server: str) -> ssl.SSLContext | None:
    if config.ca is None and config.certificate is None and not server.startswith("tls:"):
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca)
        if config.certificate is not None:
            context.load_cert_chain(config.certificate, config.key)
    except OSError as error:
        files = ", ".join(each for each in (config.ca, config.certificate, config.key) if each)
        raise OSError(f"cannot use the certificates ({files}): {error}") from None
    return context


def _sentence(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return str(error).removeprefix("nats: ").strip("' ") or type(error).__name__


def _remedy(error: Exception, server: str) -> str:
    text = str(error).lower()
    if "authorization" in text or "authentication" in text:
        return "check that the server's configuration has this host's user (its nkey or certificate)"
    # A server that does not like our certificate closes the connection, and says nothing.
    refused = server.startswith("tls:") and not isinstance(error, ConnectionRefusedError)
    if isinstance(error, ssl.SSLError) or refused or "tls" in text or "certificate" in text:
        return "check ca, certificate and key against the server's"
    if "nkey" in text or "seed" in text:
        return "check the nkey file"
    return "start that server, or correct nats.servers"


async def _close(client: Client) -> None:
    # It waits for a TLS connection that has failed half-way, for ever.
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.close()
