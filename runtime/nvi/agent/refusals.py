"""Refusals are state too: a flow that is refused gets a short-lived `drop` entry.

So it costs one punt and not one per packet, and its sender is told why, as a router or a firewall would tell it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..packets import Unreachable
from ..switch import ConnectionEntry, ConnectionKey, Drop, DropReason, SwitchError
from .connections import Attachment
from .explaining import Explainer
from .local import Local

PER_ENDPOINT = 64
"""`drop` entries that one endpoint may cause at a time; beyond them its refused packets go on being punted."""

LASTING = 5.0
"""Seconds after which a flow is judged anew that somebody must change something for."""

PASSING = 1.0
"""The same of a flow that may have a way or room soon."""

_LASTING = frozenset((DropReason.UNKNOWN, DropReason.DENIED, DropReason.FAMILY))


class Refusals:
    """The `drop` entries of one switch."""

    def __init__(self, local: Local, explainer: Explainer) -> None:
        """Start with none."""
        self._local = local
        self._explainer = explainer
        self._by_port: dict[int, dict[ConnectionKey, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return sum(map(len, self._by_port.values()))

    def count(self, port: int) -> int:
        """How many the endpoint at this port has caused."""
        return len(self._by_port.get(port, ()))

    def keys(self) -> Iterable[ConnectionKey]:
        """Of all of them."""
        return [key for refused in self._by_port.values() for key in refused]

    async def refuse(self, sender: Attachment, key: ConnectionKey, reason: DropReason, frame: bytes, text: str) -> None:
        """Refuse a flow of an endpoint: tell it why, and have the switch drop the rest of it for a while."""
        local = self._local
        local.events[f"refused {reason.name.lower()}"] += 1
        local.log.debug("refused", endpoint=sender.endpoint.name, reason=reason.name, why=text)
        if not local.is_here(sender):
            return
        if reason is DropReason.DENIED:
            self._explainer.denied(sender, frame)
        else:
            self._explainer.unreachable(sender, frame, Unreachable.HOST)
        refused = self._by_port.get(sender.port, {})
        if key in refused or len(refused) >= PER_ENDPOINT or local.connections.at(key) is not None:
            return
        lifetime = LASTING if reason in _LASTING else PASSING
        self._by_port.setdefault(sender.port, refused)[key] = asyncio.get_running_loop().call_later(
            lifetime, self._expire, sender.port, key
        )
        try:
            await local.put([ConnectionEntry(key, Drop(reason))])
        except SwitchError as error:
            self.forget(key)
            local.log.warning("refusal not written", error=str(error))

    def forget(self, key: ConnectionKey) -> None:
        """The entry with this key, if any, is somebody else's from now on."""
        refused = self._by_port.get(key.scope)
        if refused is not None and (timer := refused.pop(key, None)) is not None:
            timer.cancel()
            if not refused:
                del self._by_port[key.scope]

    def forget_all(self) -> None:
        """None of them is in the switch any more."""
        for key in self.keys():
            self.forget(key)

    async def flush(self, port: int) -> None:
        """Judge anew whatever the endpoint at this port was refused. Raises SwitchError."""
        keys = list(self._by_port.get(port, ()))
        for key in keys:
            self.forget(key)
        if keys:
            await self._local.take_away(keys)

    def _expire(self, port: int, key: ConnectionKey) -> None:
        if key in self._by_port.get(port, ()):
            self.forget(key)
            self._local.spawn(self._delete(key))

    async def _delete(self, key: ConnectionKey) -> None:
        try:
            await self._local.take_away([key])
        except SwitchError as error:
            self._local.log.warning("refusal not taken back", error=str(error))
