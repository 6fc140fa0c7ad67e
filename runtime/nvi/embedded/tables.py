"""Generate table lookups and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

from . import ir, reads
from .code import Flow, Raw, Src, Value, at, lit
from .graph import Graph, Needs, Walker
from .ir import FieldRef
from .statements import Externs, StatementWriter
from .symbolic import Evaluator, binary

WORTH_UNPACKING = 3
"""So many loads or more are done by one `Struct.unpack_from`."""


class TableWriter:
    """Generates the application of a table: key, lookup, accounting, the action that was found."""

    def __init__(
        self,
        evaluator: Evaluator,
        walker: Walker,
        statements: StatementWriter,
        externs: Externs,
        structs: dict[str, str],
    ) -> None:
        self.evaluator = evaluator
        self.walker = walker
        self.statements = statements
        self.externs = externs
        self.structs = structs
        self.program = evaluator.program

    def apply(self, flow: Flow, table: ir.Table, graph: Graph[str]) -> list[tuple[Flow, str | None]]:
        """The ways out of the table, with the next node of each."""
        if not table.keys or table.size == 0:
            return self._miss(flow, table, graph)
        name = self.externs.name("table", table.name)
        wanted = [key.ref for key in table.keys if key.ref.field != ir.VALID]
        actions = [action for action in table.actions if action != table.default.action]
        self.prefetch(
            flow, [*wanted, *(ref for a in actions for ref in sorted(reads.of_action(self.program, a).reads))]
        )
        key = ", ".join(self._key(flow, item).text for item in table.keys)
        entry = flow.name("entry")
        argument = key if len(table.keys) == 1 else f"({key})"
        flow.block.add(
            f"{entry} = {name}.get({argument})" if table.match == "exact" else f"{entry} = {name}.find({argument})"
        )
        miss, hit = flow.block.branch((f"{entry} is None", None))
        on_miss, on_hit = flow.fork(miss), flow.fork(hit)
        self._account(on_hit, table, entry)
        return [
            *self._dispatch(on_hit, table, entry, graph, True),
            *self._miss(on_miss, table, graph),
        ]

    def _key(self, flow: Flow, key: ir.Key) -> Src:
        """One element of the key: a field of an invalid header counts as 0."""
        value = self.evaluator.read(flow, key.ref)
        declaration = self.program.declaration(key.ref)
        if declaration.signed:
            value = binary("&", value, lit((1 << declaration.width) - 1))
        if key.mask is not None:
            value = binary("&", value, lit(key.mask))
        if key.ref.field != ir.VALID:
            valid = self.evaluator.validity(flow, key.ref.header)
            if valid.const == 0:
                return lit(0)
            if valid.const is None:
                return Src(f"({value.text} if {valid.text} else 0)", 0, value.high, False)
        return value

    def _account(self, flow: Flow, table: ir.Table, entry: str) -> None:
        if table.counters:
            flow.block.add(f"{entry}.packets += 1")
            flow.block.add(f"{entry}.octets += n")
        if table.ageing:
            flow.block.add(f"{entry}.stamp = {self.evaluator.now(flow)}")
        if table.meter is not None:
            target = self.program.meters[table.meter].target
            assert target is not None
            colour = flow.name("colour")
            by_bytes = self.program.meters[table.meter].bytes
            size = "n" if by_bytes else "1"
            flow.block.add(
                f"{colour} = 0 if {entry}.meter is None else {entry}.meter.execute({size}, {self.evaluator.now(flow)})"
            )
            self.evaluator.write(flow, target, Src(colour, 0, 2))

    def _miss(self, flow: Flow, table: ir.Table, graph: Graph[str]) -> list[tuple[Flow, str | None]]:
        if table.default_entry_const:
            args = [lit(value) for value in table.default.args]
            return self._run(flow, table, table.default.action, args, graph, False)
        entry = flow.name("default")
        flow.block.add(f"{entry} = {self.externs.name('table', table.name)}.default")
        return self._dispatch(flow, table, entry, graph, False)

    def _dispatch(
        self, flow: Flow, table: ir.Table, entry: str, graph: Graph[str], hit: bool
    ) -> list[tuple[Flow, str | None]]:
        """Run the action that an entry names."""
        candidates = list(table.actions)
        if not hit and table.default_action_const:
            candidates = [table.default.action]
        elif not hit and table.default.action not in candidates:
            candidates.append(table.default.action)
        if len(candidates) == 1:
            return self._entry(flow, table, candidates[0], entry, graph, hit)
        ways: list[tuple[Flow, str | None]] = []
        chosen = f"{entry}.action"
        if len(candidates) > 2:
            chosen = flow.name("action")
            flow.block.add(f"{chosen} = {entry}.action")
        blocks = flow.block.branch([*(f"{chosen} == {action}" for action in candidates[:-1]), None])
        for action, block in zip(candidates, blocks, strict=True):
            ways += self._entry(flow.fork(block), table, action, entry, graph, hit)
        return ways

    def _entry(
        self, flow: Flow, table: ir.Table, action: int, entry: str, graph: Graph[str], hit: bool
    ) -> list[tuple[Flow, str | None]]:
        declaration = self.program.actions[action]
        used = _params(declaration)
        args: list[Src] = []
        names = [flow.name(name) if i in used else "_" for i, (name, _) in enumerate(declaration.params)]
        if len(names) == 1 and used:
            flow.block.add(f"{names[0]}, = {entry}.args")
        elif used:
            flow.block.add(f"{', '.join(names)} = {entry}.args")
        for name, (_, width) in zip(names, declaration.params, strict=True):
            args.append(Src(name, 0, (1 << width) - 1))
        return self._run(flow, table, action, args, graph, hit)

    def _run(
        self, flow: Flow, table: ir.Table, action: int, args: Sequence[Src], graph: Graph[str], hit: bool
    ) -> list[tuple[Flow, str | None]]:
        on_hit = table.next_hit if hit else table.next_miss
        following = on_hit if table.by_hit else table.next_by_action.get(action)
        after: Needs = graph.live(following)
        return [(way, following) for way in self.statements.action(flow, self.program.actions[action], args, after)]

    # ------------------------------------------------------------------------------------------- prefetch

    def prefetch(self, flow: Flow, refs: Sequence[FieldRef]) -> None:
        """Load several fields of the packet at once, if they are still to be loaded."""
        wanted: dict[Raw, FieldRef] = {}
        for ref in refs:
            value: Value | None = flow.values.get(ref)
            valid = self.evaluator.validity(flow, ref.header).const
            if isinstance(value, Raw) and valid == 1 and value not in flow.loaded and value.width in _CODES:
                wanted.setdefault(value, ref)
        for base in dict.fromkeys(raw.base for raw in wanted):
            raws = sorted((raw for raw in wanted if raw.base == base and raw.bit % 8 == 0), key=lambda raw: raw.bit)
            if len(raws) >= WORTH_UNPACKING:
                self._unpack(flow, raws, wanted)

    def _unpack(self, flow: Flow, raws: Sequence[Raw], refs: dict[Raw, FieldRef]) -> None:
        codes, names, joins = ">", [], []
        start = position = raws[0].bit // 8
        for raw in raws:
            first = raw.bit // 8
            if first < position:
                continue  # overlaps what was just taken; loaded by itself if it is needed
            if first > position:
                codes += f"{first - position}x"
            code, low_bits = _CODES[raw.width]
            codes += code
            name = flow.name(str(refs[raw]))
            if low_bits:
                upper, lower = f"{name}_h", f"{name}_l"
                names += [upper, lower]
                joins.append(f"{name} = {upper} << {low_bits} | {lower}")
            else:
                names.append(name)
            flow.loaded[raw] = name
            position = first + raw.width // 8
        source = f'Struct("{codes}").unpack_from'
        function = self.structs.setdefault(source, f"unpack{len(self.structs)}")
        where = at(raws[0].base, start)
        flow.block.add(f"{', '.join(names)} = {function}(packet, {where})")
        for join in joins:
            flow.block.add(join)


_CODES = {8: ("B", 0), 16: ("H", 0), 32: ("I", 0), 48: ("HI", 32), 64: ("Q", 0), 128: ("QQ", 64)}
"""Width in bits -> format of `struct`, and how many bits of it the second number holds."""


def _params(action: ir.Action) -> set[int]:
    """Positions of the parameters that the action looks at."""
    found: set[int] = set()

    def visit(item: object) -> None:
        match item:
            case ir.Param(index):
                found.add(index)
            case ir.Unary(_, operand):
                visit(operand)
            case ir.Binary(_, left, right):
                visit(left)
                visit(right)
            case ir.Choice(condition, yes, no):
                for part in (condition, yes, no):
                    visit(part)
            case (
                ir.Assign()
                | ir.Count()
                | ir.ExecuteMeter()
                | ir.RegisterRead()
                | ir.RegisterWrite()
                | ir.Hash()
                | ir.Random()
                | ir.Jump()
            ):
                for attribute in type(item).__slots__:
                    visit(getattr(item, attribute))

    for statement in action.body:
        visit(statement)
    return found
