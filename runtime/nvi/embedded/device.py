"""One P4Runtime device: its pipeline configuration and everything that depends on it. No gRPC here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finsy.proto import p4r

from . import ir
from .codec import invalid
from .dataplane import DataPlane
from .engine import Clock, Engine
from .entities import Entities, Kept
from .program import load
from .schema import Schema
from .status import Code, StatusError

API_VERSION = "1.4.1"
"""The P4Runtime version that this server follows."""

Request = p4r.SetForwardingPipelineConfigRequest
Response = p4r.GetForwardingPipelineConfigRequest


@dataclass(frozen=True, slots=True)
class Configured:
    """A forwarding pipeline configuration with the engine that runs it."""

    config: p4r.ForwardingPipelineConfig
    engine: Engine
    schema: Schema
    entities: Entities


class Device:
    """A device. Not thread safe: one thread calls it; the data plane has its own."""

    def __init__(self, device_id: int, dataplane: DataPlane, clock: Clock) -> None:
        self.device_id = device_id
        self.dataplane = dataplane
        self.clock = clock
        self.running: Configured | None = None
        self._saved: Configured | None = None

    def check_id(self, device_id: int) -> None:
        """Raises StatusError NOT_FOUND."""
        if device_id != self.device_id:
            raise StatusError(Code.NOT_FOUND, f"there is no device {device_id}, only {self.device_id}")

    @property
    def configured(self) -> Configured:
        """What Read and Write refer to. Raises StatusError FAILED_PRECONDITION before the first configuration."""
        current = self._saved or self.running
        if current is None:
            raise StatusError(Code.FAILED_PRECONDITION, "no forwarding pipeline config has been set")
        return current

    # --------------------------------------------------------------------------------------------- config

    def set_config(self, request: p4r.SetForwardingPipelineConfigRequest) -> None:
        """Do what the request's action says. Raises StatusError."""
        match request.action:
            case Request.VERIFY:
                self._realise(request)
            case Request.VERIFY_AND_SAVE:
                self._saved = self._realise(request)
            case Request.VERIFY_AND_COMMIT:
                self._saved = self._realise(request)
                self._commit()
            case Request.COMMIT:
                if request.HasField("config"):
                    raise invalid("COMMIT takes no config")
                if self._saved is None:
                    raise StatusError(Code.NOT_FOUND, "no config has been saved")
                self._commit()
            case Request.RECONCILE_AND_COMMIT:
                raise StatusError(Code.UNIMPLEMENTED, "RECONCILE_AND_COMMIT is not supported")
            case _:
                raise invalid("the action is not set")

    def _realise(self, request: p4r.SetForwardingPipelineConfigRequest) -> Configured:
        if not request.HasField("config"):
            raise invalid("the config is missing")
        config = p4r.ForwardingPipelineConfig()
        config.CopyFrom(request.config)
        if not config.p4_device_config:
            raise invalid("the device config (p4c's BMv2 JSON) is missing")
        try:
            program = load(config.p4_device_config)
            schema = Schema(config.p4info, program)
            engine = Engine(program, self.clock)
        except ir.ProgramError as error:
            raise invalid(f"this program cannot be realised: {error}") from error
        return Configured(config, engine, schema, Entities(engine, schema))

    def _commit(self) -> None:
        assert self._saved is not None
        # What was written since the config was saved is in its engine already.
        self.running, self._saved = self._saved, None
        self.dataplane.set_process(self.running.engine.process)

    def get_config(self, kind: int) -> p4r.GetForwardingPipelineConfigResponse:
        """The running configuration, or as much of it as is asked for."""
        response = p4r.GetForwardingPipelineConfigResponse()
        current = self.running
        if current is None:
            return response
        config = response.config
        # Reading the field sets it, even if everything in it is left at its default.
        config.SetInParent()
        if current.config.HasField("cookie"):
            config.cookie.CopyFrom(current.config.cookie)
        if kind in (Response.ALL, Response.P4INFO_AND_COOKIE):
            config.p4info.CopyFrom(current.config.p4info)
        if kind in (Response.ALL, Response.DEVICE_CONFIG_AND_COOKIE):
            config.p4_device_config = current.config.p4_device_config
        return response

    # ---------------------------------------------------------------------------------------------- idle

    def idle(self) -> Iterator[p4r.IdleTimeoutNotification | None]:
        """Notifications for entries that are idle now; None now and then, so that the caller can do other things."""
        current = self.running
        if current is None:
            return
        now = self.clock()
        for schema in current.schema.tables.values():
            if not schema.ageing:
                continue
            message = p4r.IdleTimeoutNotification()
            for count, entry in enumerate(current.engine.tables[schema.name].all(), 1):
                kept = entry.extra
                if entry.timeout and isinstance(kept, Kept) and now - max(entry.stamp, kept.notified) >= entry.timeout:
                    kept.notified = now
                    message.table_entry.append(current.entities.notification(schema, entry))
                if len(message.table_entry) == 500:
                    yield message
                    message = p4r.IdleTimeoutNotification()
                elif count % 2000 == 0:
                    yield None
            if message.table_entry:
                yield message
