"""Who may write: primary and backups, as section 5 of the P4Runtime specification says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from finsy.proto import U128, p4r

from .status import Code, StatusError, status

MAX_STREAMS = 64
"""Streams per role; one more is refused with RESOURCE_EXHAUSTED."""


@dataclass(eq=False, slots=True)
class Controller:
    """A client with an open stream."""

    send: Callable[[p4r.StreamMessageResponse], None]
    role: str | None = None
    """None until its first arbitration message."""
    election_id: int | None = None
    """128 bits; None if it does not want to become primary."""


@dataclass(slots=True)
class _Role:
    live: list[Controller] = field(default_factory=list)
    primary: Controller | None = None
    highest: int | None = None
    """The highest election id that any primary has had."""


class Arbiter:
    """Decides about the primary of each role of one device, and tells everybody."""

    def __init__(self, device_id: int) -> None:
        self.device_id = device_id
        self._roles: dict[str, _Role] = {}

    def update(self, controller: Controller, message: p4r.MasterArbitrationUpdate) -> None:
        """A controller announces itself. A StatusError ends its stream."""
        name = message.role.name
        election_id = U128.decode(message.election_id) if message.HasField("election_id") else None
        role = self._admit(controller, message, name, election_id)
        was_primary = role.primary is controller
        controller.election_id = election_id
        if election_id is not None and (role.highest is None or election_id >= role.highest):
            role.primary, role.highest = controller, election_id
            # The new primary is told last: then nobody else believes to be primary any more.
            for other in [*(item for item in role.live if item is not controller), controller]:
                self._notify(other, name, role)
        elif was_primary:
            role.primary = None
            for other in role.live:
                self._notify(other, name, role)
        else:
            self._notify(controller, name, role)

    def _admit(
        self, controller: Controller, message: p4r.MasterArbitrationUpdate, name: str, election_id: int | None
    ) -> _Role:
        if controller.role is None:
            if message.device_id != self.device_id:
                raise StatusError(Code.NOT_FOUND, f"there is no device {message.device_id}, only {self.device_id}")
        elif message.device_id != self.device_id:
            raise StatusError(Code.FAILED_PRECONDITION, "the device id of a stream cannot change")
        elif controller.role != name:
            raise StatusError(Code.FAILED_PRECONDITION, "the role of a stream cannot change")
        if message.role.HasField("config"):
            raise StatusError(Code.INVALID_ARGUMENT, "role configurations are not supported: every role may do all")
        role = self._roles.setdefault(name, _Role())
        if election_id is not None and any(
            other.election_id == election_id for other in role.live if other is not controller
        ):
            raise StatusError(Code.INVALID_ARGUMENT, f"election id {election_id} is in use")
        if controller.role is None:
            if len(role.live) >= MAX_STREAMS:
                raise StatusError(Code.RESOURCE_EXHAUSTED, f"there are {MAX_STREAMS} streams already")
            role.live.append(controller)
            controller.role = name
        return role

    def leave(self, controller: Controller) -> None:
        """The stream of a controller has ended."""
        if controller.role is None:
            return
        role = self._roles[controller.role]
        role.live.remove(controller)
        if role.primary is controller:
            role.primary = None
            for other in role.live:
                self._notify(other, controller.role, role)

    def check(self, role: str, election_id: p4r.Uint128 | None) -> None:
        """Raises StatusError PERMISSION_DENIED unless this is the election id of the primary."""
        state = self._roles.get(role)
        primary = state.primary if state is not None else None
        if primary is None or election_id is None or primary.election_id != U128.decode(election_id):
            raise StatusError(Code.PERMISSION_DENIED, "Not primary")

    def is_primary(self, controller: Controller) -> bool:
        """It may write."""
        return controller.role is not None and self._roles[controller.role].primary is controller

    def primaries(self) -> list[Controller]:
        """The primary of each role."""
        return [role.primary for role in self._roles.values() if role.primary is not None]

    def _notify(self, controller: Controller, name: str, role: _Role) -> None:
        response = p4r.StreamMessageResponse()
        update = response.arbitration
        update.device_id = self.device_id
        if name:
            update.role.name = name
        if role.highest is not None:
            update.election_id.CopyFrom(U128.encode(role.highest))
        if role.primary is controller:
            update.status.CopyFrom(status(Code.OK))
        elif role.primary is not None:
            update.status.CopyFrom(status(Code.ALREADY_EXISTS, "You are backup"))
        else:
            update.status.CopyFrom(status(Code.NOT_FOUND, "There is no primary"))
        controller.send(response)
