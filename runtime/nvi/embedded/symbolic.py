"""Symbolic execution of expressions: `ir.Expr` to Python source with bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import ir
from .code import EMPTY, Flow, Octets, Raw, Span, Src, Value, at, expr, lit
from .ir import VALID, FieldRef

LONGEST_SHIFT = 4096
"""Shifting left by more than any field is wide leaves zero after truncation; without a bound it would fill memory."""


class Evaluator:
    """Evaluates expressions in a flow; emits into its block what has to be loaded."""

    def __init__(self, program: ir.Program) -> None:
        self.program = program

    # ----------------------------------------------------------------------------------- loads and stores

    def read(self, flow: Flow, ref: FieldRef) -> Src:
        """The value of a field (not one of variable length), as a name or a literal."""
        if ref.field == VALID:
            return self.validity(flow, ref.header)
        value = flow.values.get(ref)
        if value is None:
            return lit(0)
        if isinstance(value, Src):
            if value.text == "@now":
                value = self.timestamp(flow)
            if not value.atom:
                value = self.keep(flow, value, str(ref))
            flow.values[ref] = value
            return value
        if isinstance(value, Raw):
            if value in flow.facts:
                return lit(flow.facts[value])
            source = self.load(flow, value, str(ref))
            declaration = self.program.declaration(ref)
            if declaration.signed:
                source = self.keep(flow, signed(source, declaration.width), str(ref))
                flow.values[ref] = source
            return source
        raise AssertionError(f"{ref} has variable length")

    def keep(self, flow: Flow, source: Src, hint: str) -> Src:
        """Store an expression in a variable."""
        if source.atom:
            return source
        name = flow.name(hint)
        flow.block.add(f"{name} = {source.text}")
        return Src(name, source.low, source.high)

    def load(self, flow: Flow, raw: Raw, hint: str) -> Src:
        """Bits of the packet, as a variable."""
        name = flow.loaded.get(raw)
        if name is None:
            name = flow.name(hint)
            flow.block.add(f"{name} = {raw_text(raw)}")
            flow.loaded[raw] = name
        return Src(name, 0, (1 << raw.width) - 1)

    def now(self, flow: Flow) -> str:
        """A variable with the time in ns, read once per packet."""
        if not flow.clock_read:
            flow.block.add("now = clock()")
            flow.clock_read = True
        return "now"

    def timestamp(self, flow: Flow) -> Src:
        """Microseconds since the switch started, as BMv2 gives them."""
        source = f"({self.now(flow)} - started) // 1000"
        return self.keep(flow, expr(f"{source} & 0xffffffffffff", 0, (1 << 48) - 1), "timestamp")

    def validity(self, flow: Flow, header: str) -> Src:
        """Whether a header is valid: 0 or 1."""
        if self.program.headers[header].metadata:
            return lit(1)
        return flow.valid.get(header, lit(0))

    def octets(self, flow: Flow, ref: FieldRef) -> Octets:
        """A field of variable length, as a variable."""
        value = flow.values.get(ref, EMPTY)
        if isinstance(value, Octets):
            return value
        assert isinstance(value, Span)
        name = flow.name(str(ref))
        flow.block.add(f"{name} = {span_text(value)}")
        result = Octets(name)
        for other, held in flow.values.items():
            if held == value:
                flow.values[other] = result
        return result

    def write(self, flow: Flow, ref: FieldRef, value: Src) -> None:
        """Assign to a field: truncate or saturate to its width."""
        flow.values[ref] = fit(value, self.program.declaration(ref))

    def copy(self, flow: Flow, target: FieldRef, source: FieldRef) -> None:
        """Assign a field to a field."""
        value: Value = flow.values.get(source, lit(0))
        to, of = self.program.declaration(target), self.program.declaration(source)
        if source.field != VALID and (to.width, to.signed, of.saturating) == (of.width, of.signed, to.saturating):
            flow.values[target] = value
        else:
            self.write(flow, target, self.read(flow, source))

    # ---------------------------------------------------------------------------------------- expressions

    def evaluate(self, flow: Flow, item: ir.Expr, params: Sequence[Src] = ()) -> Src:
        """The value of an expression; its text is parenthesised or an atom."""
        match item:
            case ir.Const(value):
                return lit(value)
            case ir.Bool(flag):
                return lit(flag)
            case ir.Get(ref):
                return self.read(flow, ref)
            case ir.Param(index):
                return params[index]
            case ir.IsValid(header):
                return self.validity(flow, header)
            case ir.Lookahead(offset, width):
                return self.load(flow, Raw(flow.base, 8 * flow.offset + offset, width), "lookahead")
            case ir.HeadersEqual(left, right, negated):
                return self._headers_equal(flow, left, right, negated)
            case ir.Unary(op, operand):
                return unary(op, self.evaluate(flow, operand, params))
            case ir.Binary(op, left_item, right_item):
                first = self.evaluate(flow, left_item, params)
                if op in ("and", "or") and first.const is not None and bool(first.const) == (op == "or"):
                    return first
                return binary(op, first, self.evaluate(flow, right_item, params))
            case ir.Choice(condition, yes, no):
                chosen = self.evaluate(flow, condition, params)
                if chosen.const is not None:
                    return self.evaluate(flow, yes if chosen.const else no, params)
                a, b = self.evaluate(flow, yes, params), self.evaluate(flow, no, params)
                if a == b:
                    return a
                return Src(f"({a.text} if {chosen.text} else {b.text})", _min(a, b), _max(a, b), atom=False)

    def _headers_equal(self, flow: Flow, left: str, right: str, negated: bool) -> Src:
        if [f.width for f in self.program.headers[left].fields] != [
            f.width for f in self.program.headers[right].fields
        ]:
            return lit(negated)
        result = binary("and", self.validity(flow, left), self.validity(flow, right))
        for item, other in zip(self.program.headers[left].fields, self.program.headers[right].fields, strict=True):
            a, b = FieldRef(left, item.name), FieldRef(right, other.name)
            if item.variable:
                same = expr(f"({self.octets(flow, a).text} == {self.octets(flow, b).text})", 0, 1)
            else:
                same = binary("==", self.read(flow, a), self.read(flow, b))
            result = binary("and", result, same)
        return unary("not", result) if negated else result


def raw_text(raw: Raw) -> str:
    """Python source that takes these bits out of `packet`."""
    first, last = raw.bit // 8, (raw.bit + raw.width - 1) // 8
    shift = 7 - (raw.bit + raw.width - 1) % 8
    if first == last:
        text = f"packet[{at(raw.base, first)}]"
    elif last == first + 1:
        text = f"packet[{at(raw.base, first)}] << 8 | packet[{at(raw.base, last)}]"
    else:
        text = f"from_bytes(packet[{at(raw.base, first)}:{at(raw.base, last + 1)}])"
    if shift:
        text = f"({text}) >> {shift}"
    if raw.bit % 8:
        text = f"({text}) & {hex((1 << raw.width) - 1)}"
    return text


def span_text(span: Span) -> str:
    """Python source of the bytes of a variable-length field."""
    return f"packet[{at(span.base, span.byte)}:{span.end}]"


def fit(value: Src, declaration: ir.Field) -> Src:
    """Make a value fit into a field, as BMv2's Field::export_bytes does."""
    width = declaration.width
    mask = (1 << width) - 1
    if declaration.saturating:
        return binary("sat_cast" if declaration.signed else "usat_cast", value, lit(width))
    if declaration.signed:
        return signed(value, width)
    return truncate(value, mask)


def truncate(value: Src, mask: int) -> Src:
    """value & mask, where mask is 2**n - 1."""
    if value.const is not None:
        return lit(value.const & mask)
    if value.within(mask):
        return value
    if value.complement is not None and value.low is not None and value.low >= -mask - 1:
        return expr(f"({value.complement} ^ {hex(mask)})", 0, mask)
    return expr(f"({value.text} & {hex(mask)})", 0, mask)


def signed(value: Src, width: int) -> Src:
    """Two's complement: the value of the lowest `width` bits as a signed number."""
    return binary("two_comp_mod", value, lit(width))


def unary(op: str, operand: Src) -> Src:
    """``~``, ``not``, ``d2b``, ``b2d``."""
    value = operand.const
    match op:
        case "~":
            if value is not None:
                return lit(~value)
            low = None if operand.high is None else ~operand.high
            high = None if operand.low is None else ~operand.low
            return Src(f"(~{operand.text})", low, high, False, operand.text if operand.natural else None)
        case "not":
            return lit(not value) if value is not None else expr(f"(not {operand.text})", 0, 1)
        case "d2b":
            if value is not None:
                return lit(value != 0)
            return operand if operand.within(1) else expr(f"({operand.text} != 0)", 0, 1)
        case _:
            return operand  # b2d: a Python bool is an int


def binary(op: str, a: Src, b: Src) -> Src:
    """Any binary operator of the JSON, with constants folded and bounds kept."""
    x, y = a.const, b.const
    match op:
        case "and" | "or":
            return _logical(op, a, b)
        case "==" | "!=" | "==b" | "!=b" | "<" | "<=" | ">" | ">=":
            return _compare(op.rstrip("b"), a, b)
        case "two_comp_mod" | "usat_cast" | "sat_cast":
            return _cast(op, a, b)
        case _ if x is not None and y is not None and (y > 0 or op not in ("/", "%")):
            return lit(_FOLD[op](x, y))
        case "+":
            if y == 0 or x == 0:
                return a if y == 0 else b
            return expr(f"({a.text} + {b.text})", _add(a.low, b.low), _add(a.high, b.high))
        case "-" if y == 0:
            return a
        case "-":
            return expr(f"({a.text} - {b.text})", _subtract(a.low, b.high), _subtract(a.high, b.low))
        case "*":
            natural = a.natural and b.natural
            high = a.high * b.high if natural and a.high is not None and b.high is not None else None
            return expr(f"({a.text} * {b.text})", 0 if natural else None, high)
        case "&":
            return _bit_and(a, b)
        case "|" | "^" if x == 0 or y == 0:
            return a if y == 0 else b
        case "|" | "^":
            high = None
            if a.natural and b.natural and a.high is not None and b.high is not None:
                high = (1 << max(a.high.bit_length(), b.high.bit_length())) - 1
            return expr(f"({a.text} {op} {b.text})", 0 if a.natural and b.natural else None, high)
        case "<<" | ">>" if y == 0:
            return a
        case "<<":
            if y is not None:
                high = None if a.high is None else a.high << y
                return expr(f"({a.text} << {b.text})", 0 if a.natural else None, high) if y < LONGEST_SHIFT else lit(0)
            if b.within(LONGEST_SHIFT):
                return expr(f"({a.text} << {b.text})", 0 if a.natural else None, None)
            return expr(f"({a.text} << {b.text} if {b.text} < {LONGEST_SHIFT} else 0)", 0 if a.natural else None, None)
        case ">>":
            high = a.high if a.natural else None
            if y is not None and high is not None:
                high >>= y
            return expr(f"({a.text} >> {b.text})", 0 if a.natural else None, high)
        case "/" | "%":
            # BMv2 requires a positive divisor; a packet must not be able to stop the switch with another one.
            python = "//" if op == "/" else "%"
            high = a.high if op == "/" or b.high is None else b.high
            return expr(f"({a.text} {python} {b.text} if {b.text} > 0 else 0)", 0 if a.natural else None, high)
    raise AssertionError(op)


_FOLD: dict[str, Callable[[int, int], int]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x // y,
    "%": lambda x, y: x % y,
    "&": lambda x, y: x & y,
    "|": lambda x, y: x | y,
    "^": lambda x, y: x ^ y,
    "<<": lambda x, y: x << y if y < LONGEST_SHIFT else 0,
    ">>": lambda x, y: x >> y,
}


def _logical(op: str, a: Src, b: Src) -> Src:
    for first, second in ((a, b), (b, a)):
        if first.const is not None:
            return second if bool(first.const) == (op == "and") else first
    return a if a == b else expr(f"({a.text} {op} {b.text})", 0, 1)


def _compare(op: str, a: Src, b: Src) -> Src:
    if a.low is not None and a.high is not None and b.low is not None and b.high is not None:
        if a.const is not None and b.const is not None:
            x, y = a.const, b.const
            return lit({"==": x == y, "!=": x != y, "<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[op])
        apart = a.high < b.low or b.high < a.low
        if apart:
            return lit(op == "!=" or (op in ("<", "<=") if a.high < b.low else op in (">", ">=")))
        if (op == "<=" and a.high <= b.low) or (op == ">=" and a.low >= b.high):
            return lit(1)
    if b.const == 0 and a.within(1) and op in ("==", "!="):
        return unary("not", a) if op == "==" else a
    if b.const == 1 and a.within(1) and op in ("==", "!="):
        return a if op == "==" else unary("not", a)
    return expr(f"({a.text} {op} {b.text})", 0, 1)


def _cast(op: str, a: Src, b: Src) -> Src:
    width = b.const
    assert width is not None
    if op == "usat_cast":
        low, high = 0, (1 << width) - 1
    else:
        low, high = -(1 << width - 1), (1 << width - 1) - 1
    if a.low is not None and a.high is not None and a.low >= low and a.high <= high:
        return a
    if op == "two_comp_mod":
        half = 1 << width - 1
        if a.const is not None:
            return lit((a.const + half) % (2 * half) - half)
        return expr(f"(({a.text} + {hex(half)} & {hex(2 * half - 1)}) - {hex(half)})", low, high)
    if a.const is not None:
        return lit(min(max(a.const, low), high))
    return expr(f"min(max({a.text}, {low}), {high})", low, high)


def _bit_and(a: Src, b: Src) -> Src:
    for value, mask in ((a, b.const), (b, a.const)):
        if mask is not None and mask >= 0 and mask & (mask + 1) == 0:
            return truncate(value, mask)
    bounds = [side.high for side in (a, b) if side.natural and side.high is not None]
    natural = a.natural or b.natural
    return expr(f"({a.text} & {b.text})", 0 if natural else None, min(bounds) if bounds else None)


def _add(x: int | None, y: int | None) -> int | None:
    return None if x is None or y is None else x + y


def _subtract(x: int | None, y: int | None) -> int | None:
    return None if x is None or y is None else x - y


def _min(a: Src, b: Src) -> int | None:
    return None if a.low is None or b.low is None else min(a.low, b.low)


def _max(a: Src, b: Src) -> int | None:
    return None if a.high is None or b.high is None else max(a.high, b.high)
