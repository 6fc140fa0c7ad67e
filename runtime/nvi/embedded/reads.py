"""Which fields a piece of the program looks at: what need not be kept, and what is worth knowing."""

from __future__ import annotations

from collections.abc import Iterable

from . import ir
from .graph import Needs
from .ir import VALID, FieldRef


def of_expression(program: ir.Program, item: ir.Expr | None, decides: bool = False) -> Needs:
    """`decides`: the value of the expression decides the way."""
    match item:
        case ir.Get(ref):
            return Needs(reads=frozenset({ref}), tests=frozenset({ref}) if decides else frozenset())
        case ir.IsValid(header):
            return Needs(valid=frozenset({header}))
        case ir.Unary(_, operand):
            return of_expression(program, operand, decides)
        case ir.Binary(_, left, right):
            return of_expression(program, left, decides) | of_expression(program, right, decides)
        case ir.Choice(condition, yes, no):
            parts = (of_expression(program, part, decides) for part in (yes, no))
            return _all(parts) | of_expression(program, condition, True)
        case ir.HeadersEqual(left_header, right_header, _):
            both = frozenset({left_header, right_header})
            return Needs(reads=fields(program, both), valid=both)
        case _:
            return Needs()


def of_statement(program: ir.Program, item: ir.ParserStep) -> Needs:
    """What one statement of an action or one step of a parser reads."""
    match item:
        case ir.Assign(_, value):
            return of_expression(program, value)
        case ir.AssignVariable(_, source):
            return Needs(reads=frozenset({source}))
        case ir.CopyHeader(_, source):
            return Needs(reads=fields(program, {source}), valid=frozenset({source}))
        case ir.SetValidity(header, _):
            return Needs(valid=frozenset({header}))
        case ir.Count(_, index):
            return of_expression(program, index)
        case ir.ExecuteMeter(_, index, target) | ir.RegisterRead(_, index, target):
            # An index out of range leaves the target as it was.
            return of_expression(program, index) | Needs(reads=frozenset({target}))
        case ir.RegisterWrite(_, index, value):
            return of_expression(program, index) | of_expression(program, value)
        case ir.Hash(_, base, calculation, size):
            parts = of_expression(program, base) | of_expression(program, size)
            return parts | of_calculation(program, calculation)
        case ir.Random(target, low, high):
            parts = of_expression(program, low) | of_expression(program, high)
            return parts | Needs(reads=frozenset({target}))
        case ir.Jump(_, unless):
            return of_expression(program, unless, True)
        case ir.Extract(_, bits):
            return of_expression(program, bits)
        case ir.Verify(condition, error):
            return of_expression(program, condition, True) | of_expression(program, error)
        case ir.Advance(bits):
            return of_expression(program, bits)
        case _:
            return Needs()


def of_calculation(program: ir.Program, name: str) -> Needs:
    """What a hash or checksum covers."""
    total = Needs()
    for part in program.calculations[name].inputs:
        if isinstance(part, FieldRef):
            total |= Needs(reads=frozenset({part}), valid=_headers(program, part.header))
        elif isinstance(part, ir.WholeHeader):
            total |= Needs(reads=fields(program, {part.header}), valid=frozenset({part.header}))
    return total


def of_checksum(program: ir.Program, item: ir.Checksum) -> Needs:
    """What updating or verifying it reads."""
    return (
        of_expression(program, item.condition, True)
        | of_calculation(program, item.calculation)
        | Needs(reads=frozenset({item.target}), valid=frozenset({item.target.header}))
    )


def of_action(program: ir.Program, action: int) -> Needs:
    return _all(of_statement(program, statement) for statement in program.actions[action].body)


def of_node(program: ir.Program, node: ir.Node) -> Needs:
    """What a table with its actions, a condition or a call reads."""
    match node:
        case ir.Conditional():
            return of_expression(program, node.condition, True)
        case ir.ActionNode():
            return of_action(program, node.action)
        case ir.Table():
            total = _all(of_action(program, action) for action in node.actions)
            for key in node.keys:
                if key.ref.field == VALID:
                    total |= Needs(valid=frozenset({key.ref.header}))
                else:
                    total |= Needs(reads=frozenset({key.ref}), valid=_headers(program, key.ref.header))
            return total


def fields(program: ir.Program, headers: Iterable[str]) -> frozenset[FieldRef]:
    """All fields of these headers."""
    return frozenset(FieldRef(name, item.name) for name in headers for item in program.headers[name].fields)


def _headers(program: ir.Program, name: str) -> frozenset[str]:
    return frozenset() if program.headers[name].metadata else frozenset({name})


def _all(items: Iterable[Needs]) -> Needs:
    total = Needs()
    for item in items:
        total |= item
    return total
