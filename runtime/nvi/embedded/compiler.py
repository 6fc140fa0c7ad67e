"""Compile a program to Python functions that take a packet from port to port.

A function ends where ways part or meet: at junctions of the parser, and behind tables. It calls another one, which goes
on from there with what is known of a packet that took this way: compiled when the first such packet comes, since of
the many ways most are never taken. `python -m nvi.embedded dump` shows the source.
"""

from __future__ import annotations

import random
import re
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from weakref import WeakKeyDictionary

from . import hashes, ir, reads
from .code import Block, Flow, Octets, Raw, Span, Src, expr, lit
from .deparser import DeparserWriter
from .graph import Graph, Needs, Walker, needs_of, strip
from .ir import FieldRef
from .parser import ParserWriter
from .statements import DROP_PORT, EGRESS_SPEC, MULTICAST_GROUP, Externs, StatementWriter
from .symbolic import Evaluator, binary
from .tables import TableWriter

Process = Callable[[int, bytes], list[tuple[int, bytes]]]
"""(ingress port, packet) -> [(egress port, packet)]."""


Objects = Mapping[str, Mapping[str, object]]
"""An engine's objects by kind and name; kinds: table, counter, meter, register."""


@dataclass(frozen=True)
class Function:
    """A function as code, still to be bound to an engine's objects."""

    source: str
    externs: Mapping[tuple[str, str], str]
    """(kind, name) -> name in the code of each object that it needs."""

    @cached_property
    def _make(self) -> Callable[..., Callable[..., list[tuple[int, bytes]]]]:
        """Makes the function, over the objects of one engine."""
        namespace: dict[str, object] = {
            **hashes.FUNCTIONS,
            "concatenate": hashes.concatenate,
            "nothing": (0, 0),
            "random_in": random.randint,
            "Struct": struct.Struct,
        }
        exec(compile(self.source, "<nvi.embedded>", "exec"), namespace)
        make = namespace["make"]
        assert callable(make)
        return make

    def bind(self, objects: Objects, **more: object) -> Callable[..., list[tuple[int, bytes]]]:
        """The function, over these objects and whatever else it is made of."""
        return self._make(**{name: objects[kind][key] for (kind, key), name in self.externs.items()}, **more)


class Compiled:
    """A program as code. `bind` makes it a function over an engine's objects."""

    def __init__(self, program: ir.Program) -> None:
        """Raises UnsupportedConstruct."""
        self._compiler = _Compiler(program)
        self._parser = self._compiler.parse()
        self._ways: dict[int, Function] = {}
        self._lock = threading.Lock()

    def taken(self) -> list[Function]:
        """What packets have needed so far, in the order in which they did."""
        return [self._parser, *self._ways.values()]

    def functions(self) -> list[Function]:
        """All of it: the parser, then every way."""
        functions = [self._parser]
        while len(functions) <= len(self._compiler.ways):
            functions.append(self._way(len(functions) - 1))
        return functions

    def _way(self, number: int) -> Function:
        with self._lock:
            if number not in self._ways:
                self._ways[number] = self._compiler.way(number)
            return self._ways[number]

    def bind(self, objects: Objects, clock: Callable[[], int], started: int) -> Process:
        """The function, over these objects. `clock` gives ns, `started` is its value when the switch started."""

        made: dict[str, object] = {"clock": clock, "started": started}
        made["ways"] = _Ways(lambda number: self._way(number).bind(objects, **made))
        return self._parser.bind(objects, **made)


class _Ways(dict[int, Callable[..., list[tuple[int, bytes]]]]):
    """The ways of an engine, by number; each is made when a packet takes it."""

    def __init__(self, make: Callable[[int], Callable[..., list[tuple[int, bytes]]]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, number: int) -> Callable[..., list[tuple[int, bytes]]]:
        way = self[number] = self._make(number)
        return way


_compiled: WeakKeyDictionary[ir.Program, Compiled] = WeakKeyDictionary()


def compile_program(program: ir.Program) -> Compiled:
    """Compile, once per program: a simulation has one engine per host. Raises UnsupportedConstruct."""
    if program not in _compiled:
        _compiled[program] = Compiled(program)
    return _compiled[program]


@dataclass(frozen=True)
class _Way:
    """A way that a packet may take, to be compiled when one does."""

    flow: Flow
    known: str
    """The parameters of its function."""
    go_on: Callable[[Flow], None]
    """Compiles what follows."""


_NO_MULTICAST = ir.Assign(MULTICAST_GROUP, ir.Const(0))


class _Compiler:
    def __init__(self, program: ir.Program) -> None:
        self.program = program
        self.ways: list[_Way] = []
        self._refuse_multicast()
        self.evaluator = Evaluator(program)
        self.walker = Walker(self.evaluator)
        self.externs = Externs()
        self.structs: dict[str, str] = {}
        self.statements = StatementWriter(self.evaluator, self.walker, self.externs)
        self.parser = ParserWriter(self.evaluator, self.statements)
        self.deparser = DeparserWriter(self.evaluator, self.structs)
        self.updates = [item for item in program.checksums if item.update]
        self.verifications = [item for item in program.checksums if item.verify]
        wire = Needs(reads.fields(program, program.deparser), valid=frozenset(program.deparser))
        self.after_egress = needs_of(
            (wire, Needs(reads=frozenset({EGRESS_SPEC}), tests=frozenset({EGRESS_SPEC})))
        ) | needs_of(reads.of_checksum(program, item) for item in self.updates)
        self.egress = self._graph(program.egress, self.after_egress)
        egress = self.egress.live(program.egress.start)
        # What the traffic manager sets anew is not read from ingress.
        fresh = {FieldRef("standard_metadata", name) for name in ("egress_port", "instance_type", "packet_length")}
        after_ingress = Needs(egress.reads - fresh, egress.tests - fresh, egress.valid)
        self.ingress = self._graph(program.ingress, after_ingress)
        self.tables = TableWriter(self.evaluator, self.walker, self.statements, self.externs, self.structs)
        self.reads_checksum_error = (
            FieldRef("standard_metadata", "checksum_error") in self.ingress.live(program.ingress.start).reads
        )

    def _refuse_multicast(self) -> None:
        for action in self.program.actions.values():
            for statement in action.body:
                if getattr(statement, "target", None) == MULTICAST_GROUP and statement != _NO_MULTICAST:
                    raise ir.UnsupportedConstruct("multicast (a value other than 0 in mcast_grp)", action.where)

    def _graph(self, pipeline: ir.Pipeline, after: Needs) -> Graph[str]:
        successors: dict[str, list[str | None]] = {}
        for name, node in pipeline.nodes.items():
            match node:
                case ir.Conditional():
                    successors[name] = [node.yes, node.no]
                case ir.ActionNode():
                    successors[name] = [node.next]
                case ir.Table():
                    following = [node.next_hit, node.next_miss] if node.by_hit else list(node.next_by_action.values())
                    successors[name] = following or [None]
        needs = {name: reads.of_node(self.program, node) for name, node in pipeline.nodes.items()}
        return Graph(successors, needs, after, f"pipeline {pipeline.name}")

    # --------------------------------------------------------------------------------------------- stages

    def parse(self) -> Function:
        """The parser."""
        body = Block()
        body.add("n = len(packet)")
        flow = Flow(body, {}, {})
        self._set(flow, "ingress_port", Src("port", 0, DROP_PORT))
        self._set(flow, "packet_length", Src("n", 0, 0xFFFFFFFF))
        self._set(flow, "ingress_global_timestamp", expr("@now", 0, (1 << 48) - 1))
        if self.program.parser.start is None:
            self._from_parser(flow)
        else:
            self._state(flow, self.program.parser.start)
        return self._function("process", "port, packet", body)

    def way(self, number: int) -> Function:
        """What follows one way. Each may be asked for once."""
        way = self.ways[number]
        body = way.flow.block
        self.walker.begin()
        way.go_on(way.flow)
        return self._function(f"way_{number}", way.known, body)

    def _leave(self, flow: Flow, go_on: Callable[[Flow], None]) -> None:
        """End the function here: another one goes on."""
        known = ", ".join(("port", "packet", "n", *_variables(flow)))
        flow.block.add(f"return ways[{len(self.ways)}]({known})")
        flow.block = Block()
        self.ways.append(_Way(flow, known, go_on))

    def _state(self, flow: Flow, name: str) -> None:
        """From a state of the parser on."""
        ways, failed = self.parser.state(flow, name)
        for way in failed:
            self._leave(way, self._from_parser)
        for way, following in ways:
            if following is None:
                if len(ways) == 1:
                    self._from_parser(way)
                else:
                    self._leave(way, self._from_parser)
            elif self.parser.is_junction(following):
                self._leave(way, partial(self._state, name=following))
            else:
                self._state(way, following)

    def _from_parser(self, flow: Flow) -> None:
        self._verify(flow)
        self._ingress(flow, self.program.ingress.start)

    def _ingress(self, flow: Flow, node: str | None) -> None:
        """From a node of the ingress pipeline to the end of everything."""
        for way in self.walker.walk(self.ingress, node, None, flow, self._expander(self.ingress, self._after_ingress)):
            self._after_ingress(way)

    def _expander(
        self, graph: Graph[str], leave: Callable[[Flow], None]
    ) -> Callable[[str, Flow], list[tuple[Flow, str | None]]]:
        nodes = self.program.ingress.nodes if graph is self.ingress else self.program.egress.nodes

        def expand(name: str, flow: Flow) -> list[tuple[Flow, str | None]]:
            node = nodes[name]
            ways: list[tuple[Flow, str | None]]
            match node:
                case ir.Conditional():
                    ways = self._condition(flow, node)
                case ir.ActionNode():
                    action = self.program.actions[node.action]
                    ways = [(way, node.next) for way in self.statements.action(flow, action, (), graph.live(node.next))]
                case ir.Table():
                    ways = self.tables.apply(flow, node, graph)
                    if graph is self.ingress and len(ways) > 1:
                        for way, following in ways:
                            self._leave(way, partial(self._after_table, following=following))
                        return []
            going_on = []
            for way, following in ways:
                if way.exited:
                    way.exited = False
                    leave(way)
                else:
                    going_on.append((way, following))
            return going_on

        return expand

    def _after_table(self, flow: Flow, following: str | None) -> None:
        if flow.exited:
            flow.exited = False
            self._after_ingress(flow)
        else:
            self._ingress(flow, following)

    def _condition(self, flow: Flow, node: ir.Conditional) -> list[tuple[Flow, str | None]]:
        condition = self.evaluator.evaluate(flow, node.condition)
        if condition.const is not None:
            return [(flow, node.yes if condition.const else node.no)]
        yes, no = self.walker.fork(flow, condition)
        assume(yes, node.condition, True)
        assume(no, node.condition, False)
        return [(yes, node.yes), (no, node.no)]

    def _verify(self, flow: Flow) -> None:
        """standard_metadata.checksum_error; not computed if nobody reads it."""
        if not self.reads_checksum_error or not self.verifications:
            return
        failures = []
        for item in self.verifications:
            condition = self.evaluator.validity(flow, item.target.header)
            if item.condition is not None:
                condition = binary("and", condition, self.evaluator.evaluate(flow, item.condition))
            if condition.const == 0:
                continue
            failed = flow.name("checksum_error")
            block = flow.block
            if condition.const is None:
                block.add(f"{failed} = 0")
                (block,) = block.branch((strip(condition.text),))
            way = flow if condition.const else flow.fork(block)
            value = self.statements.hash_value(way, item.calculation)
            test = binary("!=", value, self.evaluator.read(way, item.target))
            block.add(f"{failed} = {strip(test.text)}")
            failures.append(Src(failed, 0, 1))
        total = lit(0)
        for failure in failures:
            total = binary("or", total, failure)
        self._set(flow, "checksum_error", total)

    def _after_ingress(self, flow: Flow) -> None:
        """The traffic manager, then everything up to the wire."""
        port = self._drop_or_go_on(flow)
        if port is None:
            return
        self._set(flow, "egress_port", port)
        self._set(flow, "instance_type", lit(0))
        # BMv2 writes drop port + 1, of which 9 bits remain.
        flow.values[EGRESS_SPEC] = lit((DROP_PORT + 1) & 511)
        length = binary("+", Src("n", 0, 0xFFFF_FFFF), flow.growth)
        self._set(flow, "packet_length", length)
        for name in ("enq_timestamp", "egress_global_timestamp"):
            self._set(flow, name, expr("@now", 0, (1 << 48) - 1))
        for name in ("enq_qdepth", "deq_timedelta", "deq_qdepth"):
            self._set(flow, name, lit(0))

        def leave(way: Flow) -> None:
            self._after_egress(way, port)

        for way in self.walker.walk(
            self.egress, self.program.egress.start, None, flow, self._expander(self.egress, leave)
        ):
            leave(way)

    def _drop_or_go_on(self, flow: Flow) -> Src | None:
        """End the flow here if it must drop the packet; else the egress_spec with which it goes on."""
        port = self.evaluator.read(flow, EGRESS_SPEC)
        if port.const == DROP_PORT:
            flow.block.add("return []")
            return None
        if port.const is None and port.high is not None and port.high >= DROP_PORT:
            drop, stay = flow.block.branch((f"{port.text} == {DROP_PORT}", None))
            drop.add("return []")
            flow.block = stay
        return port

    def _after_egress(self, flow: Flow, port: Src) -> None:
        if self._drop_or_go_on(flow) is None:
            return
        for item in self.updates:
            flow = self._update(flow, item)
        flow.block.add(f"return [({port.text}, {strip(self.deparser.packet(flow))})]")

    def _update(self, flow: Flow, item: ir.Checksum) -> Flow:
        if self.evaluator.validity(flow, item.target.header).const == 0:
            return flow  # the result would not be sent
        condition = lit(1) if item.condition is None else self.evaluator.evaluate(flow, item.condition)
        if condition.const == 0:
            return flow

        def update(way: Flow) -> None:
            self.evaluator.write(way, item.target, self.statements.hash_value(way, item.calculation))

        if condition.const is not None:
            update(flow)
            return flow
        block = flow.block
        yes, no = self.walker.fork(flow, condition)
        update(yes)
        return self.walker.merge(block, [yes, no], self.after_egress)

    def _set(self, flow: Flow, name: str, value: Src) -> None:
        ref = FieldRef("standard_metadata", name)
        if any(item.name == name for item in self.program.headers["standard_metadata"].fields):
            if value.text == "@now":
                flow.values[ref] = value
            else:
                self.evaluator.write(flow, ref, value)

    # ------------------------------------------------------------------------------------------- assembly

    def _function(self, name: str, parameters: str, body: Block) -> Function:
        rendered = body.render(2)
        words = {word for line in rendered for word in re.findall(r"\w+", line)}
        externs = {key: each for key, each in self.externs.names.items() if each in words}
        lines = [
            "# Generated; a flow of packets takes one way through these branches.",
            f"def make({', '.join(['clock', 'started', 'ways', *externs.values()])}):",
            "    from_bytes = int.from_bytes",
        ]
        lines += [f"    {each} = {source}" for source, each in self.structs.items()]
        lines += [f"    def {name}({parameters}):", *rendered, f"    return {name}"]
        return Function("\n".join(lines) + "\n", externs)


def _variables(flow: Flow) -> list[str]:
    """Names of the variables in which a flow holds what it knows."""
    held = [*flow.values.values(), *flow.valid.values(), flow.growth]
    texts = [*flow.loaded.values(), *flow.known, flow.base]
    for value in held:
        match value:
            case Src() | Octets():
                texts.append(value.text)
            case Raw():
                texts.append(value.base)
            case Span():
                texts += [value.base, value.end]
    found = {word for text in texts for word in re.findall(r"[^\W\d]\w*", text)}
    return sorted(found & flow.names | ({"now"} if flow.clock_read else set()))


def assume(flow: Flow, condition: ir.Expr, holds: bool) -> None:
    """Record what a condition on a single field says about it."""
    match condition:
        case ir.Unary("not", operand):
            assume(flow, operand, not holds)
        case ir.Unary("d2b", ir.Get(ref)):
            if not holds:
                flow.assume(ref, 0)
            elif isinstance(value := flow.values.get(ref), Src) and value.within(1):
                flow.assume(ref, 1)
        case ir.Binary("==", ir.Get(ref), ir.Const(number)) if holds:
            flow.assume(ref, number)
        case ir.Binary("!=", ir.Get(ref), ir.Const(number)) if not holds:
            flow.assume(ref, number)
        case ir.Binary("and", left, right) if holds:
            assume(flow, left, True)
            assume(flow, right, True)
        case ir.Binary("or", left, right) if not holds:
            assume(flow, left, False)
            assume(flow, right, False)
