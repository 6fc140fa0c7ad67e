"""Read the JSON of p4c's BMv2 back end into `ir.Program`, or refuse it.

The rule: a construct is either executed exactly as BMv2 would, or refused here with `UnsupportedConstruct` that
names it and where it is. Unknown keys are refused too, since they may change the meaning of what surrounds them.
Format: behavioral-model `docs/JSON_format.md`, version 2.x (p4c emits 2.18 to 2.24).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from . import ir
from .expression import ExpressionReader, hex_to_int
from .ir import FieldRef, ProgramError, UnsupportedConstruct
from .json_form import (
    ALGORITHMS,
    CORE_ERRORS,
    EMPTY_ROOT_KEYS,
    IGNORED_ROOT_KEYS,
    MAJOR_VERSION,
    NOT_SUPPORTED_PRIMITIVES,
    READ_ROOT_KEYS,
    Json,
    only_keys,
    where,
)


def load(text: str | bytes) -> ir.Program:
    """The program that this JSON text describes. Raises ProgramError (UnsupportedConstruct if it is only that)."""
    try:
        root = json.loads(text)
    except ValueError as error:
        raise ProgramError(f"not JSON: {error}") from error
    if not isinstance(root, dict):
        raise ProgramError("the JSON is not an object")
    try:
        return _Loader(root).program()
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ProgramError(f"malformed JSON: {type(error).__name__} {error}") from error


class _Loader:
    def __init__(self, root: Json) -> None:
        self.root = root
        version = root.get("__meta__", {}).get("version", [MAJOR_VERSION, 0])
        if version[0] != MAJOR_VERSION:
            raise ProgramError(f"JSON version {version[0]}.{version[1]}: this switch reads version {MAJOR_VERSION}.x")
        for key, what in EMPTY_ROOT_KEYS.items():
            if root.get(key):
                raise UnsupportedConstruct(f"a {what}", where(what, root[key][0]))
        only_keys(root, IGNORED_ROOT_KEYS | READ_ROOT_KEYS | set(EMPTY_ROOT_KEYS), "the program")
        self.headers = self._headers()
        self.errors = self._errors()
        self.expressions = ExpressionReader(self.headers)

    def program(self) -> ir.Program:
        calculations = {item["name"]: self._calculation(item) for item in self.root.get("calculations", ())}
        actions = {item["id"]: self._action(item) for item in self.root.get("actions", ())}
        pipelines = {item["name"]: self._pipeline(item, actions) for item in self.root.get("pipelines", ())}
        parsers = {item["name"]: item for item in self.root.get("parsers", ())}
        deparsers = {item["name"]: item for item in self.root.get("deparsers", ())}
        for kind, found, needed in (
            ("pipeline", pipelines, {"ingress", "egress"}),
            ("parser", parsers, {"parser"}),
            ("deparser", deparsers, {"deparser"}),
        ):
            if set(found) != needed:
                raise ProgramError(f"v1model needs {kind} {sorted(needed)}, the JSON has {sorted(found)}")
        nodes = [*pipelines["ingress"].nodes.values(), *pipelines["egress"].nodes.values()]
        return ir.Program(
            headers=self.headers,
            errors=self.errors,
            parser=self._parser(parsers["parser"]),
            deparser=self._deparser(deparsers["deparser"]),
            ingress=pipelines["ingress"],
            egress=pipelines["egress"],
            actions=actions,
            calculations=calculations,
            checksums=tuple(self._checksum(item, calculations) for item in self.root.get("checksums", ())),
            counters={item["name"]: self._counter(item) for item in self.root.get("counter_arrays", ())},
            meters={item["name"]: self._meter(item) for item in self.root.get("meter_arrays", ())},
            registers={item["name"]: self._register(item) for item in self.root.get("register_arrays", ())},
            tables={node.name: node for node in nodes if isinstance(node, ir.Table)},
        )

    # ------------------------------------------------------------------------------------------ headers

    def _headers(self) -> dict[str, ir.Header]:
        types: dict[str, tuple[tuple[ir.Field, ...], int]] = {}
        for item in self.root.get("header_types", ()):
            place = where("header type", item)
            only_keys(item, ("fields", "max_length"), place)
            fields = []
            for name, width, *flags in item["fields"]:
                signed, saturating = (*(bool(flag) for flag in flags), False, False)[:2]
                if len(flags) > 2:
                    raise UnsupportedConstruct(f"field {name} with {len(flags)} flags", place)
                variable = width == "*"
                fields.append(ir.Field(name, 0 if variable else int(width), signed, saturating, variable))
            if sum(item.variable for item in fields) > 1:
                raise UnsupportedConstruct("a header with two variable-length fields", place)
            types[item["name"]] = (tuple(fields), int(item.get("max_length", 0)))
        headers = {}
        for item in self.root.get("headers", ()):
            place = where("header", item)
            only_keys(item, ("header_type", "metadata", "pi_omit"), place)
            fields_, max_bytes = types[item["header_type"]]
            header = ir.Header(item["name"], fields_, bool(item["metadata"]), max_bytes)
            if not header.metadata and header.bits % 8:
                raise ProgramError(f"{place}: {header.bits} bits are not whole bytes")
            headers[header.name] = header
        if "standard_metadata" not in headers:
            raise ProgramError("v1model needs standard_metadata, the JSON has none")
        return headers

    def _errors(self) -> dict[str, int]:
        errors = {name: int(value) for name, value in self.root.get("errors", ())}
        following = max(errors.values(), default=-1) + 1
        for name in CORE_ERRORS:
            if name not in errors:
                errors[name] = following
                following += 1
        return errors

    # ------------------------------------------------------------------------------------------- parser

    def _parser(self, item: Json) -> ir.Parser:
        only_keys(item, ("init_state", "parse_states"), where("parser", item))
        states = {state["name"]: self._parser_state(state) for state in item["parse_states"]}
        for state in states.values():
            for target in (state.default, *(case.next_state for case in state.cases)):
                if target is not None and target not in states:
                    raise ProgramError(f"{state.where}: there is no state {target}")
        if item["init_state"] not in states:
            raise ProgramError(f"the parser starts in state {item['init_state']}, which does not exist")
        return ir.Parser(item["init_state"], states)

    def _parser_state(self, item: Json) -> ir.ParserState:
        place = where("parser state", item)
        only_keys(item, ("parser_ops", "transitions", "transition_key"), place)
        steps = tuple(step for op in item["parser_ops"] for step in self._parser_steps(op, place))
        key: list[ir.Get | ir.Lookahead] = []
        for element in item["transition_key"]:
            part = self.expressions.read(element, place)
            if not isinstance(part, ir.Get | ir.Lookahead):
                raise UnsupportedConstruct(f"a transition key of type {element['type']!r}", place)
            key.append(part)
        cases: list[ir.Case] = []
        default: str | None = None
        for transition in item["transitions"]:
            only_keys(transition, ("type", "value", "mask", "next_state"), place)
            kind = transition.get("type", "hexstr")
            if kind == "default" or transition["value"] == "default":
                default = transition["next_state"]
            elif kind == "hexstr":
                mask = transition.get("mask")
                cases.append(
                    ir.Case(
                        hex_to_int(transition["value"]),
                        None if mask is None else hex_to_int(mask),
                        transition["next_state"],
                    )
                )
            else:
                raise UnsupportedConstruct(f"a transition of type {kind!r}", place)
        return ir.ParserState(item["name"], steps, tuple(key), tuple(cases), default, place)

    def _parser_steps(self, item: Json, place: str) -> Iterable[ir.ParserStep]:
        only_keys(item, ("op", "parameters"), place)
        op, args = item["op"], item["parameters"]
        if op in ("extract", "extract_VL"):
            if args[0]["type"] != "regular":
                raise UnsupportedConstruct(f"extract to a {args[0]['type']}", place)
            header = self._header(args[0]["value"])
            bits = self.expressions.read(args[1], place) if op == "extract_VL" else None
            if (bits is None) == self.headers[header].variable:
                raise ProgramError(f"{place}: extract of {header} with the wrong number of arguments")
            yield ir.Extract(header, bits)
        elif op == "set":
            target = self._field(args[0]["value"])
            if self._declaration(target).variable:
                yield ir.AssignVariable(target, self._field(args[1]["value"]))
            else:
                yield ir.Assign(target, self.expressions.read(args[1], place))
        elif op == "verify":
            yield ir.Verify(self.expressions.read(args[0], place), self._error(args[1], place))
        elif op == "advance":
            yield ir.Advance(self.expressions.read(args[0], place))
        elif op == "shift":
            yield ir.Advance(ir.Const(8 * int(args[0])))
        elif op == "primitive":
            inner = where("parser state", {"name": place.removeprefix("parser state ")}, args[0])
            for statement in self._primitive(args[0], inner):
                if not isinstance(statement, ir.CopyHeader | ir.SetValidity | ir.AssignVariable | ir.Assign):
                    raise UnsupportedConstruct(f"primitive {args[0]['op']!r} in a parser", inner)
                yield statement
        else:
            raise UnsupportedConstruct(f"parser operation {op!r}", place)

    def _error(self, item: Any, place: str) -> ir.Expr:
        return ir.Const(item) if isinstance(item, int) else self.expressions.read(item, place)

    def _deparser(self, item: Json) -> tuple[str, ...]:
        place = where("deparser", item)
        only_keys(item, ("order", "primitives"), place)
        if item.get("primitives"):
            raise UnsupportedConstruct(f"primitive {item['primitives'][0].get('op')!r} in a deparser", place)
        return tuple(self._header(name) for name in item["order"])

    # ------------------------------------------------------------------------------------------ actions

    def _action(self, item: Json) -> ir.Action:
        place = where("action", item)
        only_keys(item, ("runtime_data", "primitives"), place)
        params = tuple((param["name"], int(param["bitwidth"])) for param in item["runtime_data"])
        body: list[ir.Statement] = []
        # A primitive that does nothing yields no statement: jumps, which count primitives, need the new numbers.
        starts = []
        for primitive in item["primitives"]:
            starts.append(len(body))
            body += self._primitive(primitive, where("action", item, primitive))
        starts.append(len(body))
        for index, statement in enumerate(body):
            if isinstance(statement, ir.Jump):
                target = starts[statement.to]
                if target <= index:
                    raise UnsupportedConstruct("a loop", place)
                body[index] = ir.Jump(target, statement.unless)
        return ir.Action(item["id"], item["name"], params, tuple(body), place)

    def _primitive(self, item: Json, place: str) -> list[ir.Statement]:
        only_keys(item, ("op", "parameters"), place)
        op, args = item["op"], item.get("parameters", [])
        read = self.expressions.read
        match op:
            case "assign" | "modify_field":
                return [ir.Assign(self._target(args[0], place), read(args[1], place))]
            case "assign_VL":
                return [ir.AssignVariable(self._target(args[0], place), self._target(args[1], place))]
            case "assign_header" | "copy_header":
                return [ir.CopyHeader(self._header_arg(args[0], place), self._header_arg(args[1], place))]
            case "add_header" | "remove_header":
                return [ir.SetValidity(self._header_arg(args[0], place), op == "add_header")]
            case "mark_to_drop" | "drop":
                return [ir.MarkToDrop()]
            case "no_op" | "log_msg":
                return []
            case "exit":
                return [ir.Exit()]
            case "count":
                return [ir.Count(args[0]["value"], read(args[1], place))]
            case "execute_meter":
                return [ir.ExecuteMeter(args[0]["value"], read(args[1], place), self._target(args[2], place))]
            case "register_read":
                return [ir.RegisterRead(args[1]["value"], read(args[2], place), self._target(args[0], place))]
            case "register_write":
                return [ir.RegisterWrite(args[0]["value"], read(args[1], place), read(args[2], place))]
            case "modify_field_with_hash_based_offset":
                target, base = self._target(args[0], place), read(args[1], place)
                return [ir.Hash(target, base, args[2]["value"], read(args[3], place))]
            case "modify_field_rng_uniform":
                return [ir.Random(self._target(args[0], place), read(args[1], place), read(args[2], place))]
            case "_jump":
                return [ir.Jump(self._jump_target(args[0], place))]
            case "_jump_if_zero":
                return [ir.Jump(self._jump_target(args[1], place), read(args[0], place))]
            case _:
                what = NOT_SUPPORTED_PRIMITIVES.get(op)
                raise UnsupportedConstruct(
                    f"primitive {op!r}" + (f" ({what})" if what not in (None, op) else ""), place
                )

    def _jump_target(self, item: Json, place: str) -> int:
        target = self.expressions.read(item, place)
        if not isinstance(target, ir.Const):
            raise UnsupportedConstruct("a computed jump", place)
        return target.value

    def _target(self, item: Json, place: str) -> FieldRef:
        """What an assignment writes: a field, perhaps wrapped into an expression."""
        while item["type"] == "expression":
            item = item["value"]
            if "type" not in item:
                raise UnsupportedConstruct(f"assignment to an expression ({item.get('op')})", place)
        if item["type"] != "field":
            raise UnsupportedConstruct(f"assignment to a {item['type']}", place)
        ref = self._field(item["value"])
        if ref.field == ir.VALID:
            raise UnsupportedConstruct("assignment to a validity bit", place)
        return ref

    def _header_arg(self, item: Json, place: str) -> str:
        if item["type"] != "header":
            raise UnsupportedConstruct(f"a header operation on a {item['type']}", place)
        return self._header(item["value"])

    def _header(self, name: str) -> str:
        if name not in self.headers:
            raise ProgramError(f"there is no header {name}")
        return name

    def _field(self, value: Any) -> FieldRef:
        ref = FieldRef(value[0], value[1])
        self._declaration(ref)
        return ref

    def _declaration(self, ref: FieldRef) -> ir.Field:
        return self.expressions.declaration(ref)

    # ---------------------------------------------------------------------------------------- pipelines

    def _pipeline(self, item: Json, actions: Mapping[int, ir.Action]) -> ir.Pipeline:
        place = where("pipeline", item)
        only_keys(item, ("init_table", "tables", "action_profiles", "conditionals", "action_calls"), place)
        if item.get("action_profiles"):
            raise UnsupportedConstruct("an action profile", where("action profile", item["action_profiles"][0]))
        nodes: dict[str, ir.Node] = {}
        for table in item["tables"]:
            nodes[table["name"]] = self._table(table, actions)
        for condition in item["conditionals"]:
            inner = where("condition", condition)
            only_keys(condition, ("expression", "true_next", "false_next"), inner)
            nodes[condition["name"]] = ir.Conditional(
                condition["name"],
                self.expressions.read(condition["expression"], inner),
                condition.get("true_next"),
                condition.get("false_next"),
                inner,
            )
        for call in item.get("action_calls", ()):
            only_keys(call, ("action_id", "next_node"), where("action call", call))
            nodes[call["name"]] = ir.ActionNode(call["name"], call["action_id"], call.get("next_node"))
        start = item.get("init_table")
        if start is not None and start not in nodes:
            raise ProgramError(f"{place}: there is no node {start}")
        return ir.Pipeline(item["name"], start, nodes)

    def _table(self, item: Json, actions: Mapping[int, ir.Action]) -> ir.Table:
        place = where("table", item)
        known = ("key", "match_type", "type", "max_size", "with_counters", "support_timeout", "direct_meters")
        more = ("action_ids", "actions", "base_default_next", "next_tables", "default_entry", "entries")
        only_keys(item, (*known, *more), place)
        if item["type"] != "simple":
            raise UnsupportedConstruct(f"table type {item['type']!r}", place)
        if item["match_type"] not in ("exact", "lpm", "ternary", "range"):
            raise UnsupportedConstruct(f"match type {item['match_type']!r}", place)
        keys = tuple(self._key(key, place) for key in item["key"])
        ids = tuple(item["action_ids"])
        following = item["next_tables"]
        by_hit = "__HIT__" in following
        default = item["default_entry"]
        call = ir.ActionCall(default["action_id"], tuple(hex_to_int(value) for value in default["action_data"]))
        base = item.get("base_default_next")
        entries = item.get("entries")
        return ir.Table(
            name=item["name"],
            match=item["match_type"],
            keys=keys,
            size=len(entries) if entries is not None else int(item["max_size"]),
            actions=ids,
            next_by_action={} if by_hit else {i: following.get(actions[i].name, base) for i in ids},
            next_hit=following.get("__HIT__"),
            next_miss=following.get("__MISS__"),
            by_hit=by_hit,
            default=call,
            default_action_const=bool(default.get("action_const")),
            default_entry_const=bool(default.get("action_entry_const")),
            counters=bool(item.get("with_counters")),
            ageing=bool(item.get("support_timeout")),
            meter=item.get("direct_meters"),
            entries=None if entries is None else tuple(self._const_entry(entry, keys, place) for entry in entries),
            where=place,
        )

    def _key(self, item: Json, place: str) -> ir.Key:
        only_keys(item, ("match_type", "target", "mask"), place)
        if item["match_type"] not in ("exact", "lpm", "ternary", "range"):
            raise UnsupportedConstruct(f"match type {item['match_type']!r} of a key", place)
        ref = self._field(item["target"])
        declaration = self._declaration(ref)
        if declaration.variable:
            raise UnsupportedConstruct(f"a match on the variable-length field {ref}", place)
        mask = item.get("mask")
        return ir.Key(
            item.get("name", str(ref)),
            ref,
            item["match_type"],
            declaration.width,
            None if mask is None else hex_to_int(mask),
        )

    def _const_entry(self, item: Json, keys: tuple[ir.Key, ...], place: str) -> ir.ConstEntry:
        only_keys(item, ("match_key", "action_entry", "priority"), place)
        matches: list[tuple[int, ...]] = []
        for key, part in zip(keys, item["match_key"], strict=True):
            if part["match_type"] != key.match:
                raise ProgramError(f"{place}: entry with a {part['match_type']} match for key {key.name}")
            match key.match:
                case "exact":
                    matches.append((hex_to_int(part["key"]),))
                case "lpm":
                    matches.append((hex_to_int(part["key"]), int(part["prefix_length"])))
                case "ternary":
                    mask = hex_to_int(part["mask"])
                    matches.append((hex_to_int(part["key"]) & mask, mask))
                case _:
                    matches.append((hex_to_int(part["start"]), hex_to_int(part["end"])))
        action = item["action_entry"]
        call = ir.ActionCall(action["action_id"], tuple(hex_to_int(value) for value in action["action_data"]))
        return ir.ConstEntry(tuple(matches), call, int(item["priority"]))

    # ------------------------------------------------------------------------------------------ externs

    def _calculation(self, item: Json) -> ir.Calculation:
        place = where("calculation", item)
        only_keys(item, ("algo", "input"), place)
        if item["algo"] not in ALGORITHMS:
            raise UnsupportedConstruct(f"hash algorithm {item['algo']!r}", place)
        inputs: list[ir.CalculationInput] = []
        for part in item["input"]:
            match part["type"]:
                case "field":
                    inputs.append(self._field(part["value"]))
                case "hexstr":
                    inputs.append(ir.Literal(hex_to_int(part["value"]), int(part["bitwidth"])))
                case "header":
                    inputs.append(ir.WholeHeader(self._header(part["value"])))
                case "payload":
                    inputs.append(ir.Payload())
                case other:
                    raise UnsupportedConstruct(f"input of type {other!r}", place)
        # BMv2 appends the payload last, wherever it stands in the list.
        inputs.sort(key=lambda part: isinstance(part, ir.Payload))
        return ir.Calculation(item["name"], item["algo"], tuple(inputs))

    def _checksum(self, item: Json, calculations: Mapping[str, ir.Calculation]) -> ir.Checksum:
        place = where("checksum", item)
        only_keys(item, ("target", "type", "calculation", "if_cond", "update", "verify"), place)
        if item["type"] != "generic":
            raise UnsupportedConstruct(f"checksum type {item['type']!r}", place)
        if item["calculation"] not in calculations:
            raise ProgramError(f"{place}: there is no calculation {item['calculation']}")
        condition = item.get("if_cond")
        return ir.Checksum(
            item["name"],
            self._field(item["target"]),
            item["calculation"],
            None if condition is None else self.expressions.read(condition, place),
            bool(item.get("update", True)),
            bool(item.get("verify", True)),
        )

    def _counter(self, item: Json) -> ir.CounterArray:
        only_keys(item, ("is_direct", "binding", "size"), where("counter", item))
        return ir.CounterArray(
            item["name"], int(item.get("size", 0)), item["binding"] if item.get("is_direct") else None
        )

    def _meter(self, item: Json) -> ir.MeterArray:
        place = where("meter", item)
        only_keys(item, ("is_direct", "rate_count", "type", "size", "binding", "result_target"), place)
        if item["type"] not in ("bytes", "packets"):
            raise UnsupportedConstruct(f"meter type {item['type']!r}", place)
        if item["rate_count"] != 2:
            raise UnsupportedConstruct(f"a meter with {item['rate_count']} rates", place)
        direct = bool(item.get("is_direct"))
        target = self._field(item["result_target"]) if direct else None
        return ir.MeterArray(
            item["name"], int(item["size"]), item["type"] == "bytes", item["binding"] if direct else None, target
        )

    def _register(self, item: Json) -> ir.RegisterArray:
        only_keys(item, ("size", "bitwidth"), where("register", item))
        return ir.RegisterArray(item["name"], int(item["size"]), int(item["bitwidth"]))
