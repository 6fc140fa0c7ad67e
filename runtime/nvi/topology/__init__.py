"""Topologies: farms as YAML (`topologies/*.yaml`), read strictly and reported on completely."""

from __future__ import annotations

from pathlib import Path

from .checks import SPARE_PORTS, check
from .document import parse
from .model import Topology, TopologyHost
from .problems import Problem, Report, TopologyError
from .reader import Reader

__all__ = ["SPARE_PORTS", "Problem", "Topology", "TopologyError", "TopologyHost", "load", "loads"]


def load(path: Path) -> Topology:
    """Read a topology file. Raises TopologyError (all that is wrong with it), or OSError if it cannot be read."""
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TopologyError(path, [Problem(line, "not text in UTF-8", "save the file as UTF-8")]) from None
    return loads(text, path)


def loads(text: str, path: Path) -> Topology:
    """Like `load`, of a text; `path` is only for messages."""
    report = Report()
    root = parse(text, report)
    if root is None:
        empty = Problem(1, "the file is empty", "start with a copy of topologies/two-hosts.yaml")
        raise TopologyError(path, report.problems or [empty])
    reader = Reader(report, root)
    topology = reader.read()
    check(topology, reader.lines, report)
    if report.problems:
        raise TopologyError(path, report.problems)
    return topology
