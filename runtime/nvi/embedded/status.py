"""Errors as P4Runtime reports them."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from finsy.proto import p4r, rpc_status

Code = grpc.StatusCode

ERROR_SPACE = "nvi-embedded"
"""Who defines the vendor codes of p4.v1.Error (there are none so far)."""


class StatusError(Exception):
    """An RPC, an update or a stream fails with this code and text."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def number(code: grpc.StatusCode) -> int:
    """The canonical number of a code, e.g. 5 for NOT_FOUND."""
    value: int = code.value[0]
    return value


def status(code: grpc.StatusCode, message: str = "") -> rpc_status.Status:
    """As a google.rpc.Status."""
    return rpc_status.Status(code=number(code), message=message)


DETAILS_WITH_TEXT = 4096
"""Details up to this size (bytes) carry texts. They travel in trailers, of which clients refuse 8 to 16 kB by default;
with codes alone 200 updates fit."""


def write_failure(results: Sequence[StatusError | None]) -> rpc_status.Status:
    """The details of a Write of which some updates failed: one p4.v1.Error for each update, in order."""
    failure = _write_failure(results, True)
    return failure if failure.ByteSize() <= DETAILS_WITH_TEXT else _write_failure(results, False)


def _write_failure(results: Sequence[StatusError | None], texts: bool) -> rpc_status.Status:
    failure = rpc_status.Status(code=number(Code.UNKNOWN), message="Write failure.")
    for result in results:
        if result is None:
            error = p4r.Error(canonical_code=0)
        else:
            error = p4r.Error(canonical_code=number(result.code))
            if texts:
                error.message, error.space = result.message, ERROR_SPACE
        failure.details.add().Pack(error)
    return failure
