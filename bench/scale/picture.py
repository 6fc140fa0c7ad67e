"""The picture of docs/scale.md: what one host takes in a farm of any size, ours beside one in which all is pushed.

What was measured is drawn solid, what is extrapolated from it (linearly: each endpoint is one more message and one more
record) dashed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measuring import Measured

RULE_OF_THUMB = 1_000
"""Servers of one orchestrator, by VMware's rule of thumb."""

_OURS, _PUSHING, _MUTED = "#0b6e4f", "#c8553d", "#6b7280"
_SIZES = {1_000: "1,000", 10_000: "10,000", 100_000: "100,000", 100: "100"}


@dataclass(frozen=True)
class _Panel:
    title: str
    of_one: Callable[[Measured], float]
    """Of one host."""
    in_all: bool
    """Whether what is shown is that of all hosts together."""
    write: Callable[[float], str]

    def value(self, of_one: float, hosts: float) -> float:
        return of_one * hosts if self.in_all else of_one


def _bytes(octets: float) -> str:
    for unit in ("B", "KB"):
        if octets < 1000:
            return f"{octets:.3g} {unit}"
        octets /= 1000
    return f"{octets:.3g} MB"


def _count(number: float) -> str:
    for word in ("", " thousand", " million"):
        if number < 1000:
            return f"{number:.3g}{word}"
        number /= 1000
    return f"{number:.3g} billion"


_PANELS = (
    _Panel("Memory of one host", lambda each: each.stored, False, _bytes),
    _Panel("Messages to one host", lambda each: each.messages, False, lambda count: f"{count:,.0f}"),
    _Panel("Messages in the whole farm", lambda each: each.messages, True, _count),
)


def draw(measured: Sequence[Measured], path: Path) -> None:
    """Write the picture, in the format that the path's ending names. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    settings = {"font.family": "DejaVu Sans", "font.size": 11, "svg.hashsalt": "nvi", "axes.edgecolor": "#9ca3af"}
    with pyplot.rc_context(settings):
        figure, panels = pyplot.subplots(1, len(_PANELS), figsize=(14, 5.4))
        for axes, panel in zip(panels, _PANELS, strict=True):
            _draw(axes, panel, measured)
            axes.set_title(panel.title, loc="left", fontsize=13, fontweight="bold", pad=12)
            axes.set_xlabel("hosts in the farm")
            axes.xaxis.set_major_locator(FixedLocator(list(_SIZES)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _SIZES.get(round(value), "")))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _, write=panel.write: write(value)))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_locator(NullLocator())
            axes.grid(True, color="#e5e7eb", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(length=0, colors="#374151")
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="lower center", ncols=len(handles), frameon=False, bbox_to_anchor=(0.5, -0.005)
        )
        figure.suptitle(
            "The same traffic on every host, ten peers each: what one host takes as the farm grows",
            x=0.012, ha="left", fontsize=15,
        )  # fmt: skip
        figure.tight_layout(rect=(0, 0.06, 1, 0.97), w_pad=2.5)
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def _draw(axes: Any, panel: _Panel, measured: Sequence[Measured]) -> None:
    ours, theirs = (
        sorted((each.hosts, panel.of_one(each)) for each in measured if each.way == way) for way in ("ours", "pushing")
    )
    (before, less), (largest, most) = theirs[-2:]
    slope = (most - less) / (largest - before)
    last = max(_SIZES)
    sizes = [largest * (last / largest) ** (step / 40) for step in range(41)]
    ahead = [(size, most + slope * (size - largest)) for size in sizes]
    ours, theirs, ahead = (
        [(size, panel.value(of_one, size)) for size, of_one in points] for points in (ours, theirs, ahead)
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    line = {"marker": "o", "markersize": 7, "linewidth": 2.6, "clip_on": False, "zorder": 3}
    dashed = {"linewidth": 2.2, "linestyle": "--", "clip_on": False}
    axes.plot(*zip(*theirs, strict=True), color=_PUSHING, label="told of everything, measured", **line)
    axes.plot(*zip(*ahead, strict=True), color=_PUSHING, label="told of everything, extrapolated", **dashed)
    axes.plot(*zip(*ours, strict=True), color=_OURS, label="NVI, measured", **line)
    rule = "1,000 servers: VMware's rule of thumb for one orchestrator"
    axes.axvline(RULE_OF_THUMB, color=_MUTED, linewidth=1.6, linestyle=(0, (1, 1.5)), label=rule)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, high * 2)
    for points, colour in ((ahead, _PUSHING), (ours, _OURS)):
        size, value = points[-1]
        place = {"textcoords": "offset points", "ha": "right", "va": "bottom"}
        axes.annotate(panel.write(value), (size, value), (-2, 7), color=colour, fontweight="bold", **place)
