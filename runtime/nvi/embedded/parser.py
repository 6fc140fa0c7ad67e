"""Generate the parser."""

from __future__ import annotations

from collections import Counter

from . import ir, reads
from .code import Flow, Raw, Span, Src, at, lit
from .graph import Needs, in_order, strip
from .ir import FieldRef
from .statements import StatementWriter
from .symbolic import Evaluator, binary, unary

PARSER_ERROR = FieldRef("standard_metadata", "parser_error")


class _Stop(Exception):
    """The rest of this state cannot be reached: an error occurs on every way."""


class ParserWriter:
    """Generates parser states; a parser error ends the parser and goes on to ingress like anything else."""

    def __init__(self, evaluator: Evaluator, statements: StatementWriter) -> None:
        self.evaluator = evaluator
        self.statements = statements
        self.program = evaluator.program
        self._has_error_field = any(
            item.name == "parser_error" for item in self.program.headers["standard_metadata"].fields
        )

        states = self.program.parser.states
        followers = {
            name: [*(case.next_state for case in state.cases), state.default] for name, state in states.items()
        }
        in_order(followers, "parser")
        ways_in = Counter(follower for those in followers.values() for follower in those)
        self._junctions = {
            name for name, those in followers.items() if ways_in[name] > 1 and (len(those) > 1 or those == [None])
        }

    def is_junction(self, name: str) -> bool:
        """Whether several ways meet in this state and go on differently: not to be generated once for each of them."""
        return name in self._junctions

    def state(self, flow: Flow, name: str) -> tuple[list[tuple[Flow, str | None]], list[Flow]]:
        """Generate a state. Returns the ways out of it, and those on which it fails: the parser ends there."""
        state = self.program.parser.states[name]
        failed: list[Flow] = []
        try:
            for step in state.steps:
                flow = self._step(flow, step, failed)
            return self._select(flow, state, failed), failed
        except _Stop:
            return [], failed

    # ---------------------------------------------------------------------------------------------- steps

    def _step(self, flow: Flow, step: ir.ParserStep, failed: list[Flow]) -> Flow:
        match step:
            case ir.Extract(header, None):
                return self._extract(flow, self.program.headers[header], failed)
            case ir.Extract(header, bits):
                assert bits is not None
                return self._extract_variable(flow, self.program.headers[header], bits, failed)
            case ir.Verify(condition, error):
                holds = self.evaluator.evaluate(flow, condition)
                return self._unless(flow, unary("not", holds), self.evaluator.evaluate(flow, error), failed)
            case ir.Advance(bits):
                return self._advance(flow, self.evaluator.evaluate(flow, bits), failed)
            case ir.Assign(_, ir.Lookahead(offset, width)):
                flow = self._require(flow, lit((offset + width + 7) // 8), failed)
        # Everything may still be looked at after a statement of the parser.
        everything = Needs(reads=reads.fields(self.program, self.program.headers))
        assert not isinstance(step, ir.Extract | ir.Verify | ir.Advance)
        return self.statements.statement(flow, step, (), everything)

    def _unless(self, flow: Flow, condition: Src, error: Src, failed: list[Flow]) -> Flow:
        """Stop parsing with this error if the condition holds."""
        if condition.const == 0:
            return flow
        if condition.const is not None:
            failed.append(self._failed(flow, error))
            raise _Stop
        bad, good = flow.block.branch((strip(condition.text), None))
        failed.append(self._failed(flow.fork(bad), error))
        flow.block = good
        return flow

    def _failed(self, flow: Flow, error: Src) -> Flow:
        if self._has_error_field:
            self.evaluator.write(flow, PARSER_ERROR, error)
        return flow

    def _error(self, name: str) -> Src:
        return lit(self.program.errors[name])

    def _require(self, flow: Flow, size: Src, failed: list[Flow]) -> Flow:
        """PacketTooShort unless so many bytes are left."""
        if size.const is not None:
            if flow.known.get(flow.base, 0) >= flow.offset + size.const:
                return flow
            flow = self._unless(
                flow,
                Src(f"n < {at(flow.base, flow.offset + size.const)}", 0, 1, False),
                self._error("PacketTooShort"),
                failed,
            )
            flow.known[flow.base] = flow.offset + size.const
            return flow
        text = f"n < {at(flow.base, flow.offset)} + {size.text}"
        return self._unless(flow, Src(text, 0, 1, False), self._error("PacketTooShort"), failed)

    def _extract(self, flow: Flow, header: ir.Header, failed: list[Flow]) -> Flow:
        flow = self._require(flow, lit(header.bits // 8), failed)
        bit = 8 * flow.offset
        for item in header.fields:
            self._place(flow, FieldRef(header.name, item.name), item, Raw(flow.base, bit, item.width))
            bit += item.width
        flow.valid[header.name] = lit(1)
        flow.offset = bit // 8
        return flow

    def _place(self, flow: Flow, ref: FieldRef, item: ir.Field, raw: Raw) -> None:
        flow.values[ref] = raw
        if item.signed:
            # A signed value differs from its bits, so it cannot stay lazy.
            flow.values[ref] = self.evaluator.read(flow, ref)

    def _extract_variable(self, flow: Flow, header: ir.Header, bits: ir.Expr, failed: list[Flow]) -> Flow:
        width = self.evaluator.keep(flow, self.evaluator.evaluate(flow, bits), "variable_bits")
        # BMv2 reads the width as an int: what does not fit becomes 2**31 - 1, which is no multiple of 8.
        bad = binary("or", binary("!=", binary("&", width, lit(7)), lit(0)), binary(">", width, lit(0x7FFFFFFF)))
        flow = self._unless(flow, bad, self._error("ParserInvalidArgument"), failed)
        octets = self.evaluator.keep(flow, binary(">>", width, lit(3)), "variable_bytes")
        fixed = header.bits // 8
        flow = self._require(flow, binary("+", octets, lit(fixed)), failed)
        if header.max_bytes:
            too_long = binary(">", octets, lit(header.max_bytes - fixed))
            flow = self._unless(flow, too_long, self._error("HeaderTooShort"), failed)
        bit = 8 * flow.offset
        for item in header.fields:
            ref = FieldRef(header.name, item.name)
            if item.variable:
                end = flow.name("position")
                flow.block.add(f"{end} = {at(flow.base, bit // 8)} + {octets.text}")
                flow.values[ref] = Span(flow.base, bit // 8, end)
                flow.base, bit = end, 0
            else:
                self._place(flow, ref, item, Raw(flow.base, bit, item.width))
                bit += item.width
        flow.offset = bit // 8
        flow.known[flow.base] = flow.offset
        flow.valid[header.name] = lit(1)
        return flow

    def _advance(self, flow: Flow, bits: Src, failed: list[Flow]) -> Flow:
        bits = self.evaluator.keep(flow, bits, "advance_bits")
        odd = binary("!=", binary("&", bits, lit(7)), lit(0))
        flow = self._unless(flow, odd, self._error("ParserInvalidArgument"), failed)
        octets = self.evaluator.keep(flow, binary(">>", bits, lit(3)), "advance_bytes")
        flow = self._require(flow, octets, failed)
        if octets.const is not None:
            flow.offset += octets.const
        else:
            position = flow.name("position")
            flow.block.add(f"{position} = {at(flow.base, flow.offset)} + {octets.text}")
            flow.base, flow.offset = position, 0
        return flow

    # --------------------------------------------------------------------------------------------- select

    def _select(self, flow: Flow, state: ir.ParserState, failed: list[Flow]) -> list[tuple[Flow, str | None]]:
        elements: list[tuple[Src, int]] = []
        for part in state.key:
            if isinstance(part, ir.Lookahead):
                # BMv2 would read behind the packet's end; the language says PacketTooShort.
                flow = self._require(flow, lit((part.offset + part.width + 7) // 8), failed)
                width = part.width
            else:
                width = self.program.declaration(part.ref).width
            value = self.evaluator.evaluate(flow, part)
            elements.append((binary("&", value, lit((1 << width) - 1)), width))
        tests: list[tuple[Src, ir.Case]] = []
        fallback: tuple[str | None] = (state.default,)
        for case in state.cases:
            condition = _matches(elements, case)
            if condition.const == 0:
                continue
            if condition.const is not None:
                fallback = (case.next_state,)
                break
            tests.append((condition, case))
        if not tests:
            return [(flow, fallback[0])]
        blocks = flow.block.branch([*(strip(condition.text) for condition, _ in tests), None])
        ways: list[tuple[Flow, str | None]] = []
        for block, (_, case) in zip(blocks, tests, strict=False):
            way = flow.fork(block)
            for part, (value, exact) in zip(state.key, _exact(elements, case), strict=True):
                if exact is not None and isinstance(part, ir.Get) and value.atom:
                    way.assume(part.ref, exact)
            ways.append((way, case.next_state))
        ways.append((flow.fork(blocks[-1]), fallback[0]))
        return ways


def _split(elements: list[tuple[Src, int]], number: int) -> list[int]:
    """Cut a byte-padded concatenation into the parts of its elements."""
    parts = []
    for _, width in reversed(elements):
        size = 8 * ((width + 7) // 8)
        parts.append(number & (1 << size) - 1)
        number >>= size
    return parts[::-1]


def _masks(elements: list[tuple[Src, int]], case: ir.Case) -> list[tuple[int, int]]:
    """(value, mask) for each element."""
    full = [(1 << 8 * ((width + 7) // 8)) - 1 for _, width in elements]
    masks = full if case.mask is None else _split(elements, case.mask)
    return [(value & mask, mask) for value, mask in zip(_split(elements, case.value), masks, strict=True)]


def _matches(elements: list[tuple[Src, int]], case: ir.Case) -> Src:
    result = lit(1)
    for (value, _), (wanted, mask) in zip(elements, _masks(elements, case), strict=True):
        masked = (
            value
            if value.high is not None
            and mask & (1 << value.high.bit_length()) - 1 == (1 << value.high.bit_length()) - 1
            else binary("&", value, lit(mask))
        )
        result = binary("and", result, binary("==", masked, lit(wanted)))
    return result


def _exact(elements: list[tuple[Src, int]], case: ir.Case) -> list[tuple[Src, int | None]]:
    """For each element the value that it must have, if the case leaves no choice."""
    result: list[tuple[Src, int | None]] = []
    for (value, width), (wanted, mask) in zip(elements, _masks(elements, case), strict=True):
        whole = (1 << width) - 1
        result.append((value, wanted if mask & whole == whole else None))
    return result
