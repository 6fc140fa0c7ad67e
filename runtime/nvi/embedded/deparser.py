"""Generate the packet that leaves: what was not touched is copied as it came, the rest is packed at once."""

from __future__ import annotations

from dataclasses import dataclass

from .code import Flow, Octets, Raw, Span, Src, Value, at, lit
from .ir import FieldRef
from .symbolic import Evaluator, binary, span_text, truncate

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(slots=True)
class _Slice:
    """Bytes of the packet as received; `end` None: to its end."""

    base: str
    start: int
    end: int | None
    fields: list[tuple[Raw, FieldRef]]


@dataclass(slots=True)
class _Number:
    value: Src
    size: int


@dataclass(slots=True)
class _Bytes:
    text: str


_Piece = _Slice | _Number | _Bytes


class DeparserWriter:
    """Generates the expression for the whole packet."""

    def __init__(self, evaluator: Evaluator, structs: dict[str, str]) -> None:
        self.evaluator = evaluator
        self.structs = structs
        self.program = evaluator.program

    def packet(self, flow: Flow) -> str:
        """Source of an expression of type `bytes`."""
        parts: list[str] = []
        pieces: list[_Piece] = []
        for name in self.program.deparser:
            valid = self.evaluator.validity(flow, name)
            if valid.const == 0:
                continue
            if valid.const is not None:
                self._append(pieces, self._header(flow, name))
                continue
            parts += self._join(flow, pieces)
            pieces = []
            inner = self._join(flow, self._header(flow, name))
            parts.append(f'({" + ".join(inner)} if {valid.text} else b"")')
        self._append(pieces, [_Slice(flow.base, flow.offset, None, [])])
        parts += self._join(flow, pieces)
        return " + ".join(parts)

    def _header(self, flow: Flow, name: str) -> list[_Piece]:
        """The header's fields as pieces of whole bytes."""
        pieces: list[_Piece] = []
        group: list[tuple[Value, int, FieldRef]] = []
        bits = 0
        for item in self.program.headers[name].fields:
            ref = FieldRef(name, item.name)
            if item.variable:
                value = flow.values.get(ref, Octets('b""'))
                text = span_text(value) if isinstance(value, Span) else self.evaluator.octets(flow, ref).text
                if text != 'b""':
                    pieces.append(_Bytes(text))
                continue
            value = flow.values.get(ref, lit(0))
            if isinstance(value, Src):
                value = self.evaluator.read(flow, ref)
                if item.signed:
                    value = binary("&", value, lit((1 << item.width) - 1))
            group.append((value, item.width, ref))
            bits += item.width
            if bits % 8 == 0:
                self._append(pieces, [self._group(flow, group, bits)])
                group, bits = [], 0
        return pieces

    def _group(self, flow: Flow, group: list[tuple[Value, int, FieldRef]], bits: int) -> _Piece:
        """Fields that together are whole bytes."""
        first = group[0][0]
        if isinstance(first, Raw) and first.bit % 8 == 0:
            position = first.bit
            for value, width, _ in group:
                if value != Raw(first.base, position, width):
                    break
                position += width
            else:
                fields = [(value, ref) for value, _, ref in group if isinstance(value, Raw)]
                return _Slice(first.base, first.bit // 8, position // 8, fields)
        total = lit(0)
        shift = bits
        for value, width, ref in group:
            shift -= width
            number = self.evaluator.load(flow, value, str(ref)) if isinstance(value, Raw) else value
            assert isinstance(number, Src)
            total = binary("|", total, binary("<<", number, lit(shift)))
        return _Number(total, bits // 8)

    @staticmethod
    def _append(pieces: list[_Piece], more: list[_Piece]) -> None:
        """Join slices that lie next to each other in the packet."""
        for piece in more:
            last = pieces[-1] if pieces else None
            if (
                isinstance(piece, _Slice)
                and isinstance(last, _Slice)
                and (last.base, last.end) == (piece.base, piece.start)
            ):
                last.end = piece.end
                last.fields += piece.fields
            else:
                pieces.append(piece)

    def _join(self, flow: Flow, pieces: list[_Piece]) -> list[str]:
        """Source of the pieces, as few as possible."""
        parts: list[str] = []
        codes = ""
        args: list[str] = []

        def flush() -> None:
            nonlocal codes, args
            if args:
                function = self.structs.setdefault(f'Struct(">{codes}").pack', f"pack{len(self.structs)}")
                parts.append(f"{function}({', '.join(args)})")
            codes, args = "", []

        for index, piece in enumerate(pieces):
            match piece:
                case _Bytes(text):
                    flush()
                    parts.append(text)
                case _Slice(base, start, None):
                    flush()
                    whole = not base and not start and not parts
                    parts.append("packet" if whole else f"packet[{at(base, start)}:]")
                case _Slice(base, start, end):
                    assert end is not None
                    source = f"packet[{at(base, start)}:{at(base, end)}]"
                    numbers = any(isinstance(other, _Number) for other in pieces[max(0, index - 1) : index + 2])
                    if not args and not numbers:
                        parts.append(source)
                        continue
                    more, values = self._loaded(flow, piece)
                    codes += more or f"{end - start}s"
                    args += values or [source]
                case _Number(value, size):
                    more, values = self._packed(flow, value, size)
                    codes += more
                    args += values
        flush()
        return parts

    def _loaded(self, flow: Flow, piece: _Slice) -> tuple[str, list[str]]:
        """If all fields of the slice are in variables anyway: pack those instead of cutting the packet."""
        codes, values = "", []
        for raw, _ in piece.fields:
            name = flow.loaded.get(raw)
            if name is None or raw.width // 8 not in _CODES or raw.width % 8:
                return "", []
            codes += _CODES[raw.width // 8]
            values.append(name)
        return codes, values

    def _packed(self, flow: Flow, value: Src, size: int) -> tuple[str, list[str]]:
        """Format codes and arguments for a number of `size` bytes."""
        if size in _CODES:
            return _CODES[size], [value.text]
        value = self.evaluator.keep(flow, value, "wide")
        codes, values = "", []
        remaining = size
        while remaining:
            part = max(width for width in _CODES if width <= remaining)
            remaining -= part
            shifted = binary(">>", value, lit(8 * remaining))
            chunk = truncate(shifted, (1 << 8 * part) - 1)
            codes += _CODES[part]
            values.append(chunk.text)
        return codes, values
