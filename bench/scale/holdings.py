"""What one host stores: everything that its agent and its switch hold, object by object.

For its size, and for whom it names. What is found by following references is all that there is: an attribute that is
added to the agent tomorrow is seen, too.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType

from nvi.embedded import ir
from nvi.embedded.compiler import Compiled
from nvi.embedded.matching import Entry
from nvi.embedded.meters import Meter
from nvi.model import Endpoint, Host
from nvi.simulation import SimulatedHost

_SHARED = (type, ModuleType, CodeType, BuiltinFunctionType, Compiled, asyncio.AbstractEventLoop)
"""The same for all hosts of a process: code, and what runs it. So is all of the program (`ir`)."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Holdings:
    """What is to be known of a host's memory."""

    octets: int
    """Bytes of all objects."""
    objects: int
    names: frozenset[str]
    """The hosts that are named in it: by name, or by an address, MAC or endpoint of theirs."""


class Owners:
    """Whose every name and address is."""

    def __init__(self) -> None:
        """Nobody's, at first."""
        self._owners: dict[object, str] = {}

    def add(self, host: Host, endpoints: Iterable[Endpoint], macs: Iterable[bytes]) -> None:
        """A host, and what stands for it."""
        owned = list(endpoints)
        octets = [*host.addresses, *macs, *(each.mac for each in owned), *(a for each in owned for a in each.addresses)]
        names = [host.name, *(each.name for each in owned)]
        for each in (*names, *octets, *map(int.from_bytes, octets)):
            self._owners[each] = host.name

    def named(self, item: object) -> Iterable[str]:
        """The hosts that a string, bytes or a number names."""
        if isinstance(item, str):
            return (self._owners[word] for word in _WORD.findall(item) if word in self._owners)
        if isinstance(item, bytes) and len(item) > 16:  # a frame, or something else that may have addresses in it
            parts = (item[at : at + size] for size in (4, 6) for at in range(len(item) - size + 1))
            return (self._owners[part] for part in parts if part in self._owners)
        return (self._owners[item],) if item in self._owners else ()


def holdings(host: SimulatedHost, owners: Owners, shared: Iterable[object]) -> Holdings:
    """Follow every reference from the agent and the switch of a host. `shared`: what is not the host's own."""
    seen = {id(each) for each in (*shared, host)}
    waiting: list[object] = [host.agent, host.switch, host.state, host.journal]
    names: set[str] = set()
    octets = objects = 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _SHARED) or type(item).__module__ == ir.__name__:
            continue
        seen.add(id(item))
        octets += sys.getsizeof(item)
        objects += 1
        if isinstance(item, str | bytes | int):
            names.update(owners.named(item))
            continue
        within = _within(item)
        waiting += within
        if type(item).__dictoffset__:
            octets += 8 * len(within)  # attributes, which getsizeof leaves out as long as they are in no dictionary
    return Holdings(octets, objects, frozenset(names))


def _within(item: object) -> list[object]:
    """What an object refers to, but for what it shares with all of its kind.

    Times and counts are left out: as numbers, some look like addresses.
    """
    match item:
        case Entry():
            return [item.key, item.action, item.args, item.extra]
        case Meter():
            return [item.config]
        case FunctionType():
            return [*(item.__closure__ or ()), item.__defaults__, item.__kwdefaults__]
        case FrameType():
            return []
        case _:
            return gc.get_referents(item)
