"""Which keys a protocol takes on a segment: what the one who offers proposes, and the one who accepts chooses.

Ports, where there are ports; the identifier of an echo; and for protocols without ports the addresses themselves, of
which a host may have a pool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..keys import KEY_FIRST, KEY_LAST, Keys, Pair, Path
from ..model import Address, Protocol, is_portless
from ..packets import ECHO_PORT

_ECHO = (Protocol.ICMP, Protocol.ICMPV6)


class NoKey(Exception):
    """What a peer has sent as its key cannot be one. The text says what it was."""


def propose(keys: Keys, path: Path, opened_here: bool) -> int:
    """Our key for a segment that we offer. `opened_here`: the initiator is on our side of it. Raises Exhausted."""
    if is_portless(path.protocol):
        return 0
    if path.protocol not in _ECHO:
        return keys.pick(path, None)
    # Both directions of an echo carry the one identifier, which is the initiator's key.
    return keys.pick(path, ECHO_PORT) if opened_here else ECHO_PORT


def propose_path(
    keys: Keys, path: Path, ours: Iterable[Address], theirs: Iterable[Address], refused: Collection[Path] = ()
) -> Path:
    """Between which addresses to offer a segment. `path`: between those that the route says. Raises Exhausted.

    `refused`: by the peer, which has other flows there.
    """
    if not is_portless(path.protocol):
        return path
    peers = list(theirs)
    paths = (Path(path.wire, local, peer, path.protocol) for local in ours for peer in peers)
    return keys.pick_path(each for each in paths if each not in refused)


def choose(
    keys: Keys, path: Path, theirs: int, ours: int | None, opened_here: bool, own: Iterable[Address] = ()
) -> Pair:
    """The keys of a segment that a peer offers with its key `theirs`.

    `ours`: what it remembers of us, if it does; `own`: the addresses of which we may choose one for a protocol without
    ports. Raises Exhausted, NoKey.
    """
    if is_portless(path.protocol):
        if theirs or ours:
            raise NoKey(f"{theirs or ours} is not a key of a protocol without ports")
        if ours is None:
            path = keys.pick_path(Path(path.wire, local, path.peer, path.protocol) for local in own)
        return Pair(path, 0, 0)
    if path.protocol in _ECHO and not opened_here:
        ours = ECHO_PORT
    theirs_right = theirs == ECHO_PORT if path.protocol in _ECHO and opened_here else _is_key(theirs)
    if not theirs_right:
        raise NoKey(f"{theirs} is not a key")
    if ours is not None and not _is_key(ours) and (ours != ECHO_PORT or path.protocol not in _ECHO):
        raise NoKey(f"{ours} is not a key")
    return Pair(path, keys.pick(path, theirs) if ours is None else ours, theirs)


def _is_key(port: int) -> bool:
    return KEY_FIRST <= port <= KEY_LAST
