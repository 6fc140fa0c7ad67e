"""Generate the statements of actions (and those that parsers share with them)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from . import ir, reads
from .code import EMPTY, Flow, Src, at, expr, lit
from .graph import Graph, Needs, Walker, strip
from .hashes import FUNCTIONS, WIDTHS
from .ir import FieldRef
from .symbolic import Evaluator, binary, truncate

EGRESS_SPEC = FieldRef("standard_metadata", "egress_spec")
MULTICAST_GROUP = FieldRef("standard_metadata", "mcast_grp")
DROP_PORT = 511
"""What `mark_to_drop` writes to egress_spec (BMv2's --drop-port)."""
MASK32 = 0xFFFFFFFF


@dataclass(slots=True)
class Externs:
    """Names by which generated code reaches the engine's objects; filled while generating."""

    names: dict[tuple[str, str], str] = field(default_factory=dict)
    """(kind, name in the program) -> Python name of the object. Unlike variables these do not end in _NUMBER."""

    def name(self, kind: str, of: str) -> str:
        return self.names.setdefault((kind, of), f"{kind.capitalize()}{len(self.names)}")


class StatementWriter:
    """Generates statements into flows."""

    def __init__(self, evaluator: Evaluator, walker: Walker, externs: Externs) -> None:
        self.evaluator = evaluator
        self.walker = walker
        self.externs = externs
        self.program = evaluator.program
        self._graphs: dict[tuple[int, Needs], Graph[int]] = {}

    # ------------------------------------------------------------------------------------------- actions

    def action(self, flow: Flow, action: ir.Action, args: Sequence[Src], after: Needs) -> list[Flow]:
        """Run an action; each way out of it. `exit` marks the flow, the rest of the action still runs, as in BMv2."""
        if not any(isinstance(item, ir.Jump) for item in action.body):
            for statement in action.body:
                flow = self.statement(flow, statement, args, after)
            return [flow]
        graph = self._graph(action, after)

        def expand(index: int, way: Flow) -> list[tuple[Flow, int | None]]:
            statement = action.body[index]
            following = self._following(action, index)
            if isinstance(statement, ir.Jump):
                if statement.unless is None:
                    return [(way, following[0])]
                condition = self.evaluator.evaluate(way, statement.unless, args)
                if condition.const is not None:
                    return [(way, following[0 if condition.const else 1])]
                yes, no = self.walker.fork(way, condition)
                return [(yes, following[0]), (no, following[1])]
            return [(self.statement(way, statement, args, graph.live(following[0])), following[0])]

        return self.walker.walk(graph, 0, None, flow, expand)

    @staticmethod
    def _following(action: ir.Action, index: int) -> list[int | None]:
        """Successors of a statement: the next one first, then the target of the jump."""
        size = len(action.body)
        statement = action.body[index]
        following = index + 1 if index + 1 < size else None
        if not isinstance(statement, ir.Jump):
            return [following]
        target = statement.to if statement.to < size else None
        return [target] if statement.unless is None else [following, target]

    def _graph(self, action: ir.Action, after: Needs) -> Graph[int]:
        key = (action.id, after)
        if key not in self._graphs:
            self._graphs[key] = Graph(
                {index: self._following(action, index) for index in range(len(action.body))},
                {index: reads.of_statement(self.program, item) for index, item in enumerate(action.body)},
                after,
                action.where,
            )
        return self._graphs[key]

    # ---------------------------------------------------------------------------------------- statements

    def statement(self, flow: Flow, item: ir.Statement, args: Sequence[Src], after: Needs) -> Flow:
        """Run one statement; the flow after it. `after` is what may be looked at later."""
        evaluator = self.evaluator
        match item:
            case ir.Assign(target, ir.Get(source)):
                evaluator.copy(flow, target, source)
            case ir.Assign(target, value):
                evaluator.write(flow, target, evaluator.evaluate(flow, value, args))
            case ir.AssignVariable(target, source):
                flow.values[target] = flow.values.get(source, EMPTY)
            case ir.CopyHeader(target_header, source_header):
                return self._copy_header(flow, target_header, source_header, after)
            case ir.SetValidity(header, valid):
                return self._set_validity(flow, header, valid, after)
            case ir.MarkToDrop():
                flow.values[EGRESS_SPEC] = lit(DROP_PORT)
                flow.values.pop(MULTICAST_GROUP, None)
            case ir.Exit():
                flow.exited = True
            case ir.Count(counter, index):
                self._count(flow, counter, evaluator.evaluate(flow, index, args))
            case ir.ExecuteMeter(meter, index, result):
                size = self.program.meters[meter].size
                name = self.externs.name("meter", meter)
                text = f"{name}.execute(%s, n, {evaluator.now(flow)})"
                self._guarded_read(flow, result, evaluator.evaluate(flow, index, args), size, text, 2)
            case ir.RegisterRead(register, index, result):
                array = self.program.registers[register]
                text = f"{self.externs.name('register', register)}[%s]"
                high = (1 << array.width) - 1
                self._guarded_read(flow, result, evaluator.evaluate(flow, index, args), array.size, text, high)
            case ir.RegisterWrite(register, index, value):
                array = self.program.registers[register]
                position = self._index(flow, evaluator.evaluate(flow, index, args))
                text = strip(truncate(evaluator.evaluate(flow, value, args), (1 << array.width) - 1).text)
                line = f"{self.externs.name('register', register)}[{position.text}] = {text}"
                self._guarded(flow, position, array.size, line)
            case ir.Hash():
                self._hash(flow, item, args)
            case ir.Random(target, low, high):
                self._random(flow, target, evaluator.evaluate(flow, low, args), evaluator.evaluate(flow, high, args))
            case ir.Jump():
                raise AssertionError("jumps are edges of the action's graph")
        return flow

    def _index(self, flow: Flow, index: Src) -> Src:
        """BMv2 takes indices as unsigned 32-bit numbers."""
        return self.evaluator.keep(flow, truncate(index, MASK32), "index")

    def _guarded(self, flow: Flow, index: Src, size: int, *lines: str) -> None:
        """Run these lines if the index is in range."""
        if index.high is not None and index.high < size:
            block = flow.block
        elif index.low is not None and index.low >= size:
            return
        else:
            (block,) = flow.block.branch((f"{index.text} < {size}",))
        for line in lines:
            block.add(line)

    def _guarded_read(self, flow: Flow, target: FieldRef, index: Src, size: int, source: str, high: int) -> None:
        """target = source % index, or unchanged if the index is out of range."""
        index = self._index(flow, index)
        text = source % index.text
        if index.high is None or index.high >= size:
            text = f"({text} if {index.text} < {size} else {self.evaluator.read(flow, target).text})"
            high = max(high, (1 << self.program.declaration(target).width) - 1)
        # Kept at once: the register or meter may be written before the value is used.
        value = self.evaluator.keep(flow, expr(text, 0, high), str(target))
        self.evaluator.write(flow, target, value)

    def _count(self, flow: Flow, counter: str, index: Src) -> None:
        index = self._index(flow, index)
        name = self.externs.name("counter", counter)
        lines = (f"{name}.packets[{index.text}] += 1", f"{name}.octets[{index.text}] += n")
        self._guarded(flow, index, self.program.counters[counter].size, *lines)

    def _hash(self, flow: Flow, item: ir.Hash, args: Sequence[Src]) -> None:
        evaluator = self.evaluator
        mask = (1 << 64) - 1
        base = truncate(evaluator.evaluate(flow, item.base, args), mask)
        size = evaluator.keep(flow, truncate(evaluator.evaluate(flow, item.size, args), mask), "size")
        value = self.hash_value(flow, item.calculation)
        if size.const is not None:
            rest = expr(f"({value.text} % {max(size.const, 1)})", 0, max(size.const, 1) - 1)
        else:
            rest = expr(f"({value.text} % ({size.text} or 1))", 0, size.high)
        # BMv2 adds with 64 bits.
        result = truncate(binary("+", rest, base), mask)
        evaluator.write(flow, item.target, evaluator.keep(flow, result, str(item.target)))

    def _random(self, flow: Flow, target: FieldRef, low: Src, high: Src) -> None:
        low, high = self.evaluator.keep(flow, low, "low"), self.evaluator.keep(flow, high, "high")
        old = self.evaluator.read(flow, target)
        text = f"(random_in({low.text}, {high.text}) if {low.text} <= {high.text} else {old.text})"
        value = self.evaluator.keep(flow, expr(text, 0, None), str(target))
        self.evaluator.write(flow, target, value)

    # ------------------------------------------------------------------------------------------- headers

    def _copy_header(self, flow: Flow, target: str, source: str, after: Needs) -> Flow:
        def copy(way: Flow) -> None:
            way.valid[target] = lit(1)
            for to, of in zip(self.program.headers[target].fields, self.program.headers[source].fields, strict=True):
                ref, other = FieldRef(target, to.name), FieldRef(source, of.name)
                if to.variable:
                    way.values[ref] = way.values.get(other, EMPTY)
                else:
                    self.evaluator.copy(way, ref, other)

        valid = self.evaluator.validity(flow, source)
        if valid.const == 0:
            flow.valid[target] = lit(0)
            return flow
        if valid.const == 1:
            copy(flow)
            return flow
        block = flow.block
        yes, no = self.walker.fork(flow, valid)
        copy(yes)
        no.valid[target] = lit(0)
        return self.walker.merge(block, [yes, no], after)

    def _set_validity(self, flow: Flow, header: str, valid: bool, after: Needs) -> Flow:
        declaration = self.program.headers[header]
        if declaration.metadata:
            return flow
        state = self.evaluator.validity(flow, header)
        if state.const == int(valid):
            return flow
        size = lit(declaration.bits // 8)
        if state.const is None:
            block = flow.block
            yes, no = self.walker.fork(flow, state)
            changed = self._set_validity_known(no if valid else yes, declaration, valid, size)
            return self.walker.merge(block, [yes, changed] if valid else [changed, no], after)
        return self._set_validity_known(flow, declaration, valid, size)

    def _set_validity_known(self, flow: Flow, header: ir.Header, valid: bool, size: Src) -> Flow:
        flow.valid[header.name] = lit(valid)
        for item in header.fields:
            ref = FieldRef(header.name, item.name)
            if item.variable and not valid:
                octets = self.evaluator.octets(flow, ref)
                if octets != EMPTY:
                    size = binary("+", size, expr(f"len({octets.text})", 0, None))
            elif valid:
                flow.values[ref] = EMPTY if item.variable else lit(0)
        flow.growth = binary("+" if valid else "-", flow.growth, size)
        return flow

    # -------------------------------------------------------------------------------------- calculations

    def hash_value(self, flow: Flow, calculation: str) -> Src:
        """The value of a calculation, in a variable."""
        item = self.program.calculations[calculation]
        parts = self._inputs(flow, item)
        if item.algorithm == "csum16" and all(condition.const == 1 and not octets for condition, _, _, octets in parts):
            return self._checksum16(flow, item, [(value, width) for _, value, width, _ in parts])
        pieces = []
        for condition, value, width, octets in parts:
            piece = (
                f"({value.text}, {8 if octets else 1} * len({value.text}))" if octets else f"({value.text}, {width})"
            )
            pieces.append(
                piece if condition.const == 1 else f"(({value.text}, {width}) if {condition.text} else nothing)"
            )
        tail = f"packet[{self._position(flow)}:]" if _with_payload(item) else 'b""'
        text = f"{item.algorithm}(concatenate(({', '.join(pieces)}{',' if pieces else ''}), {tail}))"
        high = (1 << WIDTHS[item.algorithm]) - 1
        return self.evaluator.keep(flow, expr(text, 0, high), item.algorithm)

    def _inputs(self, flow: Flow, item: ir.Calculation) -> list[tuple[Src, Src, int, bool]]:
        """(validity, value, width, it is a variable of type bytes) of each input that is not certainly left out."""
        evaluator = self.evaluator
        refs: list[FieldRef | ir.Literal] = []
        for part in item.inputs:
            if isinstance(part, ir.WholeHeader):
                refs += [FieldRef(part.header, field_.name) for field_ in self.program.headers[part.header].fields]
            elif not isinstance(part, ir.Payload):
                refs.append(part)
        parts: list[tuple[Src, Src, int, bool]] = []
        for ref in refs:
            if isinstance(ref, ir.Literal):
                parts.append((lit(1), lit(ref.value & (1 << ref.width) - 1), ref.width, False))
                continue
            condition = evaluator.validity(flow, ref.header)
            if condition.const == 0:
                continue
            declaration = self.program.declaration(ref)
            if declaration.variable:
                octets = evaluator.octets(flow, ref)
                if octets != EMPTY:
                    parts.append((condition, Src(octets.text, None, None), 0, True))
            else:
                value = truncate(evaluator.read(flow, ref), (1 << declaration.width) - 1)
                parts.append((condition, value, declaration.width, False))
        return parts

    def _position(self, flow: Flow) -> str:
        return at(flow.base, flow.offset)

    def _checksum16(self, flow: Flow, item: ir.Calculation, parts: Sequence[tuple[Src, int]]) -> Src:
        """RFC 1071 without bytes: 2**16 is 1 modulo 65535, so a field counts by its value, shifted to its place."""
        evaluator = self.evaluator
        constant, end = 0, 0
        terms: list[str] = []
        for value, width in parts:
            end += width
            shift = -end % 16
            if value.const is not None:
                constant += value.const << shift
            else:
                terms.append(f"({value.text} << {shift})" if shift else value.text)
        if _with_payload(item):
            # The payload starts at a whole byte, and is padded with a zero byte to a whole number of words.
            name = flow.name("payload")
            flow.block.add(f"{name} = packet[{self._position(flow)}:]")
            start = -(-end // 8)
            terms.append(f"(from_bytes({name}) << (len({name}) {'+ 1 ' if start % 2 else ''}& 1) * 8)")
        constant = constant % 65535 or (65535 if constant else 0)
        if constant or not terms:
            terms.append(str(constant))
        name = flow.name("sum")
        flow.block.add(f"{name} = {strip(' + '.join(terms))}")
        # The complement of the folded sum; of the two zeros, all ones can only come from a sum of nothing but zeros.
        return evaluator.keep(flow, expr(f"-{name} % 65535 if {name} else 65535", 0, 65535), "csum16")


def _with_payload(item: ir.Calculation) -> bool:
    return any(isinstance(part, ir.Payload) for part in item.inputs)


assert set(FUNCTIONS) == set(WIDTHS)
