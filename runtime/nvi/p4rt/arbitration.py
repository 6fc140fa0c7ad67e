"""Who may write: the controller's part in the election of a primary (sections 5 and 16.2). No I/O."""

from __future__ import annotations

from enum import Enum

from .messages import U128, p4r, rpc_code


class Standing(Enum):
    """What the last word of the switch makes of a controller."""

    PRIMARY = "primary"
    BACKUP = "backup"
    VACANT = "vacant"
    """There is no primary, and the switch waits for one with a higher election id than it has ever seen."""


class Arbitration:
    """One controller's election ids.

    A primary stays it until a higher election id appears. A backup never takes the role from a primary. When the
    primary goes, the specification has the others claim the role with a new id (section 5.4); PI instead appoints the
    next highest of those connected, which shows as an OK with that controller's own id.
    """

    def __init__(self, device_id: int, election_id: int) -> None:
        """`election_id`: 0 < id < 2**128. Leave room above it: an id that is taken is raised."""
        self._device_id = device_id
        self.election_id = election_id
        """What writes must bear."""
        self.rival = 0
        """The primary's election id, as long as it is another controller."""

    def claim(self) -> bytes:
        """The StreamMessageRequest that enters the election."""
        update = p4r.MasterArbitrationUpdate(device_id=self._device_id, election_id=U128.encode(self.election_id))
        return p4r.StreamMessageRequest(arbitration=update).SerializeToString()

    def receive(self, update: p4r.MasterArbitrationUpdate) -> Standing:
        """Take in the switch's word (section 5.4). After VACANT, `claim` again."""
        highest = U128.decode(update.election_id)
        if update.status.code == rpc_code.OK:
            self.rival = 0
            return Standing.PRIMARY
        if update.status.code == rpc_code.NOT_FOUND:
            self.rival = 0
            self.election_id = max(self.election_id, highest + 1)
            return Standing.VACANT
        self.rival = highest
        return Standing.BACKUP

    def taken(self) -> None:
        """The switch knows a live controller with this id (INVALID_ARGUMENT): most likely this one, before the stream
        to it broke without the switch noticing yet. A higher id takes over from it."""
        self.election_id += 1
