"""One gRPC channel to a P4Runtime server, and what its errors mean to people.

Requests and answers are bytes: what `codec` has serialized is not parsed to be serialized again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import grpc
import grpc.aio

from ..switch import NotPrimary, SwitchError
from .codec import decode_write_errors
from .messages import U128, p4r
from .writer import BatchFailed

DEADLINE = 10.0
"""Seconds for a Write, or a Read by keys. Measured: an update takes 0.4 ms."""
TABLE_DEADLINE = 60.0
"""Seconds for a Read of whole tables. Measured: 60,000 entries take BMv2 0.6 s, and us twice that to understand."""
PIPELINE_DEADLINE = 30.0
"""Seconds for a SetForwardingPipelineConfig. Measured: 0.05 s on BMv2."""

_OPTIONS = (
    # A switch may answer a read of a whole table with a single message (PI does): 72 bytes per entry.
    ("grpc.max_receive_message_length", 64 << 20),
    # The outcomes of a batch's updates are trailing metadata; the first limit alone is only a soft one.
    ("grpc.max_metadata_size", 128 << 10),
    ("grpc.absolute_max_metadata_size", 256 << 10),
    # A peer that vanished without closing its socket is noticed by a ping without answer. A gRPC server takes more
    # than one per five minutes on a silent connection for abuse, and hangs up.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Each attempt is to look for the socket anew, at once: the session has its own backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # An update that may have been done already must not be repeated behind our back.
    ("grpc.enable_retries", 0),
    # `http_proxy` in the environment is not for this.
    ("grpc.enable_http_proxy", 0),
)

_SERVICE = "/p4.v1.P4Runtime/"
_DETAILS = "grpc-status-details-bin"

Method = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Stream = grpc.aio.StreamStreamCall[bytes, p4r.StreamMessageResponse]


class Unsuitable(SwitchError):
    """What listens there will not do, however often one tries."""


class ElectionIdTaken(SwitchError):
    """A live controller has the election id."""


class Link:
    """A channel. Every method raises SwitchError, naming the address and the remedy."""

    def __init__(self, address: str, device_id: int) -> None:
        """`address`: a gRPC address, `unix:/path` or `host:port`. Nothing is sent yet; needs a running loop."""
        self._address = address
        self._device_id = device_id
        self._closed = False
        self._channel = channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._write = channel.unary_unary(_SERVICE + "Write", bytes, bytes)
        self._read = channel.unary_stream(_SERVICE + "Read", bytes, bytes)
        self._set_pipeline = channel.unary_unary(_SERVICE + "SetForwardingPipelineConfig", bytes, bytes)
        self._get_pipeline = channel.unary_unary(_SERVICE + "GetForwardingPipelineConfig", bytes, bytes)
        self._stream = channel.stream_stream(_SERVICE + "StreamChannel", bytes, p4r.StreamMessageResponse.FromString)
        self._read_header = p4r.ReadRequest(device_id=device_id).SerializeToString()
        self._write_header = b""

    async def close(self) -> None:
        """Cut everything off."""
        self._closed = True
        await self._channel.close(None)

    def bear(self, election_id: int) -> None:
        """What `write` and `push` show as the right to do so."""
        self._election_id = U128.encode(election_id)
        header = p4r.WriteRequest(device_id=self._device_id, election_id=self._election_id)
        self._write_header = header.SerializeToString()

    def stream(self) -> Stream:
        """A StreamChannel. Its errors are gRPC's own; `explain` them."""
        return self._stream(None)

    async def write(self, updates: Sequence[bytes]) -> None:
        """One Write RPC. Raises BatchFailed, NotPrimary."""
        request = self._write_header + b"".join(updates)
        try:
            await self._call(self._write, request)
        except grpc.aio.AioRpcError as error:
            for name, value in cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ()):
                if name == _DETAILS and len(outcomes := decode_write_errors(value)) == len(updates):
                    raise BatchFailed(outcomes) from None
            raise self.explain(error, "a write") from None

    async def read(self, entities: bytes, deadline: float = DEADLINE) -> AsyncIterator[Sequence[p4r.Entity]]:
        """One Read RPC, message by message: a switch may still be at the next one."""
        try:
            with self._cancellation_explained():
                async for message in self._read(self._read_header + entities, timeout=deadline):
                    yield p4r.ReadResponse.FromString(message).entities
        except grpc.aio.AioRpcError as error:
            raise self.explain(error, "a read") from None

    async def cookie(self) -> int | None:
        """The cookie of the switch's pipeline; None if it has no pipeline, or one without cookie."""
        request = p4r.GetForwardingPipelineConfigRequest(
            device_id=self._device_id, response_type=p4r.GetForwardingPipelineConfigRequest.COOKIE_ONLY
        )
        try:
            answer = await self._call(self._get_pipeline, request.SerializeToString())
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                return None
            raise self.explain(error, "to name its pipeline") from None
        config = p4r.GetForwardingPipelineConfigResponse.FromString(answer).config
        return config.cookie.cookie if config.HasField("cookie") else None

    async def push(self, config: p4r.ForwardingPipelineConfig) -> None:
        """Give the switch a pipeline. All its tables are empty then.

        RECONCILE_AND_COMMIT would keep the entries, but PI fails on it, and for good, with any indirect counter or
        meter. Raises Unsuitable if the switch does not want the pipeline.
        """
        request = p4r.SetForwardingPipelineConfigRequest(
            device_id=self._device_id,
            election_id=self._election_id,
            action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT,
            config=config,
        )
        try:
            await self._call(self._set_pipeline, request.SerializeToString(), PIPELINE_DEADLINE)
        except grpc.aio.AioRpcError as error:
            explained = self.explain(error, "the pipeline")
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED):
                raise explained from None
            # BMv2 lets anyone enter the election of any device, and notices only now.
            raise Unsuitable(f"{explained}; is {self._device_id} its device id (--device-id)?") from None

    def gone(self) -> SwitchError:
        """The end of the session, by the switch."""
        return SwitchError(f"the switch at {self._address} is gone: restart it if nobody does")

    def no_answer(self, seconds: float) -> SwitchError:
        """Silence."""
        return SwitchError(
            f"what listens at {self._address} did not answer within {seconds:g} s: it is not a P4Runtime server, or it "
            f"hangs (BMv2 does while a primary does not read its stream): correct the address, or restart it"
        )

    def explain(self, error: grpc.aio.AioRpcError, asked: str) -> SwitchError:
        """What the error means, to people. `asked`: what the switch did not do."""
        code, details = error.code(), error.details() or "no details"
        switch = f"the switch at {self._address}"
        if code == grpc.StatusCode.PERMISSION_DENIED:
            return NotPrimary(f"{switch} refused {asked}: another controller is its primary ({details})")
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return Unsuitable(f"what listens at {self._address} is not a P4Runtime server: correct the address")
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return SwitchError(f"no switch listens at {self._address}: start it or correct the address ({details})")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return SwitchError(f"{switch} did not do in time {asked}: it hangs or is overloaded; if so, restart it")
        return SwitchError(f"{switch} refused {asked}: {code.name} {details}")

    def explain_end(self, error: grpc.aio.AioRpcError) -> SwitchError:
        """What the end of the stream means (section 5.3)."""
        if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
            return ElectionIdTaken(f"the switch at {self._address} knows the election id already: {error.details()}")
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return Unsuitable(
                f"the switch at {self._address} has no device {self._device_id}: correct the device id, "
                f"or its own --device-id ({error.details()})"
            )
        return self.explain(error, "the session")

    async def _call(self, method: Method, request: bytes, deadline: float = DEADLINE) -> bytes:
        with self._cancellation_explained():
            return await method(request, timeout=deadline)

    @contextmanager
    def _cancellation_explained(self) -> Iterator[None]:
        """Closing a channel cancels its calls, which looks as if the waiting task had been cancelled."""
        if self._closed:
            raise self.gone()
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise self.gone() from None
            raise
