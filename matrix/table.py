"""The matrix: tried, and as Markdown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from nvi.emulation.targets import Target
from nvi.simulation import Capture, Farm, VirtualClockLoop

from .conversation import Conversation, Refused, Wires, Wrong
from .kinds import KINDS
from .rack import Rack
from .ways import FAMILIES, WAYS, Families, Way, build, ports

PASSES = "yes"
WRONG = "WRONG: "

Cells = dict[tuple[Families, str, str], str]
"""By families, way and kind: PASSES, or why it does not."""


FarmMaker = Callable[[Capture], Awaitable[Farm]]
"""Makes an empty farm; `capture` as in Farm."""


def try_in_memory() -> Cells:
    """Every cell, each way in a farm of its own, with switches in memory on a virtual clock."""

    async def make(capture: Capture) -> Farm:
        return Farm(capture=capture)

    return _try_everything(make, VirtualClockLoop)


def try_on(target: Target) -> Cells:
    """The same with switches of a target, on the clock of this world."""
    with Rack(target, ports()) as rack:
        return _try_everything(rack.farm, asyncio.new_event_loop)


def _try_everything(make: FarmMaker, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> Cells:
    cells: Cells = {}
    for families in FAMILIES:
        for way in WAYS:
            with asyncio.Runner(loop_factory=make_loop) as runner:
                cells.update(runner.run(_try_way(make, way, families)))
    return cells


async def _try_way(make: FarmMaker, way: Way, families: Families) -> Cells:
    wires = Wires()
    farm = await make(wires)
    await build(farm, way, families)
    conversation = Conversation(farm, wires, way, families)
    cells: Cells = {}
    try:
        for kind in KINDS:
            try:
                await conversation.hold(kind)
                cells[families, way.name, kind.name] = PASSES
            except Refused as refused:
                cells[families, way.name, kind.name] = str(refused)
            except Wrong as wrong:
                cells[families, way.name, kind.name] = f"{WRONG}{wrong}"
    finally:
        await farm.stop()
    return cells


def as_markdown(cells: Cells) -> str:
    """The document."""
    notes: dict[str, int] = {}

    def show(cell: str) -> str:
        return cell if cell == PASSES else f"[{notes.setdefault(cell, len(notes) + 1)}]"

    parts = [_TITLE]
    for families in FAMILIES:
        titles = [kind.name for kind in KINDS]
        parts.append(f"\n## {families}\n\n| way | {' | '.join(titles)} |\n|---{'|---' * len(titles)}|\n")
        for way in WAYS:
            row = [show(cells[families, way.name, title]) for title in titles]
            parts.append(f"| {way.name} | {' | '.join(row)} |\n")
    if notes:
        parts.append("\n## Why not\n\n")
        parts += [f"{number}. {text}\n" for text, number in notes.items()]
    return "".join(parts)


_TITLE = """# Ways and kinds of traffic

Written by `make matrix WRITE=1`; `make matrix` tries every cell again and fails if one differs, on switches in memory
or on those of a target (`TARGET=bmv2|embedded`), reached as ever through P4Runtime and the interfaces at their ports.
`make test` does it on BMv2 where that is on PATH, and in memory. Each `yes` is a conversation of real packets between
two ends, by real agents and the real pipeline: what arrived
was what was sent, bit by bit but for what the [formulation](formulation.md) excepts; every packet on every wire between
had only addresses of its segment, right checksums and, within a family, the length of the overlay packet. Other cells
say in the words of the code why it refuses. External segments are of the family of what they carry.

Excepted besides, where a packet changes its family on the way: the identification of an IPv4 packet that must not be
fragmented, which means nothing (RFC 6864) and for which IPv6 has no room.
"""
