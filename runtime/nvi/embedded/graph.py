"""Directed acyclic graphs of program nodes, and how the generator walks them.

The generator follows every way through tables and conditions. Where ways meet again it either *merges* them
(what differs goes into variables that all ways assign) or keeps them *split* and generates the rest once for each,
with what that way knows: after `ipv4` and `tcp` were extracted, `hdr.udp.isValid()` is no longer a question.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .code import Block, Flow, Octets, Src, Value, at, lit, new_name
from .ir import FieldRef, ProgramError, UnsupportedConstruct
from .symbolic import Evaluator

N = TypeVar("N", bound=Hashable)

SPLIT_BUDGET = 80
"""So many nodes may be generated for each function before ways that meet are merged whatever they know.
Bounds the size of the code."""
NODE_LIMIT = 30_000
"""So many nodes in one function make a program too entangled to be compiled at all."""


@dataclass(frozen=True)
class Needs:
    """What the rest of the program may look at."""

    reads: frozenset[FieldRef] = frozenset()
    """Fields that it may read."""
    tests: frozenset[FieldRef] = frozenset()
    """Fields that decide which way it takes."""
    valid: frozenset[str] = frozenset()
    """Headers whose validity decides which way it takes."""

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.reads | other.reads, self.tests | other.tests, self.valid | other.valid)


class Graph(Generic[N]):
    """Nodes, their successors (None: the end), and what can be said about the ways from each to the end."""

    def __init__(
        self,
        successors: Mapping[N, Sequence[N | None]],
        needs: Mapping[N, Needs],
        after: Needs,
        what: str,
    ) -> None:
        """`needs`: of each node itself; `after`: of what follows the end. Raises UnsupportedConstruct for a cycle."""
        self.after = after
        self.join: dict[N, N | None] = {}
        """Where all ways from a node meet again first."""
        self._live: dict[N | None, Needs] = {None: after}
        ways: dict[N | None, list[N | None]] = {None: [None]}
        for node in in_order(successors, what):
            followers = list(dict.fromkeys(successors[node]))
            live = needs[node]
            for follower in followers:
                live = live | self._live[follower]
            self._live[node] = live
            # The nodes on all ways, nearest first: those common to the followers' lists.
            common = [item for item in ways[followers[0]] if all(item in ways[other] for other in followers[1:])]
            self.join[node] = common[0]
            ways[node] = [node, *common]

    def live(self, node: N | None) -> Needs:
        """What may be looked at from this node on."""
        return self._live[node]


def in_order(successors: Mapping[N, Sequence[N | None]], what: str) -> list[N]:
    """Every node after all of its successors. Raises UnsupportedConstruct if there is a loop."""
    done: dict[N, bool] = {}
    order: list[N] = []
    for root in successors:
        stack: list[tuple[N, bool]] = [(root, False)]
        while stack:
            node, leave = stack.pop()
            if leave:
                done[node] = True
                order.append(node)
                continue
            if node in done:
                continue
            done[node] = False
            stack.append((node, True))
            for follower in successors[node]:
                if follower is None:
                    continue
                if follower not in successors:
                    raise ProgramError(f"{what}: there is no node {follower}")
                if follower not in done:
                    stack.append((follower, False))
                elif not done[follower]:
                    raise UnsupportedConstruct(f"a loop through {follower}", what)
    return order


Expand = Callable[[N, Flow], list[tuple[Flow, N | None]]]
"""Generates one node and says where each way goes on."""


class Walker:
    """Walks graphs; decides about splitting and merging."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.visited = 0

    def walk(self, graph: Graph[N], node: N | None, stop: N | None, flow: Flow, expand: Expand[N]) -> list[Flow]:
        """Generate from `node` up to `stop`. All returned flows are open: their code goes on."""
        while node is not None and node != stop:
            self.visited += 1
            if self.visited > NODE_LIMIT:
                raise UnsupportedConstruct("control flow with so many different ways", f"at {node}")
            parent = flow.block
            ways = expand(node, flow)
            if len(ways) == 1:
                flow, node = ways[0]
                continue
            join = graph.join[node]
            open_flows = [end for way, start in ways for end in self.walk(graph, start, join, way, expand)]
            if not open_flows:
                return []
            needs = graph.live(join)
            if len(open_flows) > 1 and self.worth_splitting(open_flows, needs):
                return [end for way in open_flows for end in self.walk(graph, join, stop, way, expand)]
            flow, node = self.merge(parent, open_flows, needs), join
        return [flow]

    def begin(self) -> None:
        """A new function."""
        self.visited = 0

    def worth_splitting(self, flows: Sequence[Flow], needs: Needs) -> bool:
        """Some of the flows know something that decides the way further on."""
        if any(flow.exited != flows[0].exited for flow in flows):
            return True
        if self.visited > SPLIT_BUDGET:
            return False
        validities = [[flow.valid.get(header, lit(0)) for flow in flows] for header in needs.valid]
        fields: list[list[Value]] = [[flow.values.get(ref, lit(0)) for flow in flows] for ref in needs.tests]
        columns: list[Sequence[Value]] = [*validities, *fields]
        for column in columns:
            if any(value != column[0] for value in column) and any(
                isinstance(value, Src) and value.const is not None for value in column
            ):
                return True
        return False

    def merge(self, parent: Block, flows: Sequence[Flow], needs: Needs) -> Flow:
        """One flow, in `parent`, that knows what all of these know. Their code must fall through to its end."""
        first = flows[0]
        if len(flows) == 1:
            # The others have ended; the code goes on in the block of the one that is left.
            return first
        result = first.fork(parent)
        result.values = {}
        for ref in dict.fromkeys(ref for flow in flows for ref in flow.values):
            column = [flow.values.get(ref, lit(0)) for flow in flows]
            if all(value == column[0] for value in column):
                result.values[ref] = column[0]
            elif ref in needs.reads:
                result.values[ref] = self._unite(flows, ref)
        for header in dict.fromkeys(header for flow in flows for header in flow.valid):
            states = [flow.valid.get(header, lit(0)) for flow in flows]
            result.valid[header] = self._unite_sources(flows, states, f"{header}_valid")
        result.growth = self._unite_sources(flows, [flow.growth for flow in flows], "growth")
        if any((flow.base, flow.offset) != (first.base, first.offset) for flow in flows):
            result.base, result.offset = new_name(flows, "position"), 0
            for flow in flows:
                flow.block.add(f"{result.base} = {at(flow.base, flow.offset)}")
        result.facts = {
            raw: value for raw, value in first.facts.items() if all(f.facts.get(raw) == value for f in flows)
        }
        result.loaded = {
            raw: name for raw, name in first.loaded.items() if all(f.loaded.get(raw) == name for f in flows)
        }
        result.known = {
            base: min(flow.known[base] for flow in flows)
            for base in first.known
            if all(base in flow.known for flow in flows)
        }
        result.clock_read = all(flow.clock_read for flow in flows)
        result.names = set().union(*(flow.names for flow in flows))
        return result

    def _unite(self, flows: Sequence[Flow], ref: FieldRef) -> Value:
        if self.evaluator.program.declaration(ref).variable:
            name = new_name(flows, str(ref))
            for flow in flows:
                flow.block.add(f"{name} = {self.evaluator.octets(flow, ref).text}")
            return Octets(name)
        # Not `read`, which would first store an expression in a variable of its own.
        sources = []
        for flow in flows:
            value = flow.values.get(ref, lit(0))
            plain = isinstance(value, Src) and value.text != "@now"
            sources.append(value if plain and isinstance(value, Src) else self.evaluator.read(flow, ref))
        return self._unite_sources(flows, sources, str(ref))

    def _unite_sources(self, flows: Sequence[Flow], sources: Sequence[Src], hint: str) -> Src:
        if all(source == sources[0] for source in sources):
            return sources[0]
        name = new_name(flows, hint)
        for flow, source in zip(flows, sources, strict=True):
            flow.block.add(f"{name} = {source.text}")
        lows = [source.low for source in sources if source.low is not None]
        highs = [source.high for source in sources if source.high is not None]
        return Src(
            name,
            min(lows) if len(lows) == len(sources) else None,
            max(highs) if len(highs) == len(sources) else None,
        )

    def fork(self, flow: Flow, condition: Src) -> tuple[Flow, Flow]:
        """An if/else on a condition that is not known: the flow where it holds, and the one where it does not."""
        yes, no = flow.block.branch((strip(condition.text), None))
        return flow.fork(yes), flow.fork(no)


def strip(text: str) -> str:
    """Without the parentheses around the whole text, which a statement does not need."""
    if text.startswith("(") and text.endswith(")"):
        depth = 0
        for position, character in enumerate(text):
            depth += (character == "(") - (character == ")")
            if depth == 0 and position < len(text) - 1:
                return text
        return text[1:-1]
    return text


def needs_of(items: Iterable[Needs]) -> Needs:
    """All of them together."""
    total = Needs()
    for item in items:
        total = total | item
    return total
