"""Emission of tables of bytes, by what the target has (`compiler/kernel/byte_lookup.py`)."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ....compiler.ir.types import DType
from ....compiler.kernel.byte_lookup import LOOKUPS, lookup_for
from .builder import I32, Emitter, is_vector
from .constants import lanes_from, undefined
from .target_module import has_instruction

_NIBBLES = 16
_HIGH = 0x70  # added with saturation: the highest bit stays clear for bytes below 16 alone


def looked_up(e: Emitter, x: ir.Value, table: ir.Value) -> ir.Value:
    """The value for each byte of a vector, or for one. table: where the 256 values lie."""
    names = [item.name for item in LOOKUPS if has_instruction(e.module, item.name)]
    chosen = lookup_for(names)
    if not chosen.name or not is_vector(x):
        return _loaded(e, x, table)
    lanes = x.type.count
    if lanes > chosen.width:
        parts = e.parts(x, lanes // chosen.width)
        return e.joined([looked_up(e, part, table) for part in parts])
    return _first(e, _EMITTED[chosen.name](e, _filled(e, x, chosen.width), table), lanes)


def lookup_width(e: Emitter) -> int:
    """Bytes that are looked up at once."""
    return lookup_for([item.name for item in LOOKUPS if has_instruction(e.module, item.name)]).width


def _filled(e: Emitter, x: ir.Value, width: int) -> ir.Value:
    """The vector with lanes behind it that nothing reads."""
    lanes = x.type.count
    if lanes == width:
        return x
    picks = [*range(lanes), *[lanes] * (width - lanes)]
    mask = ir.Constant(ir.VectorType(I32, width), picks)
    return e.b.shuffle_vector(x, undefined(x.type), mask)


def _first(e: Emitter, x: ir.Value, lanes: int) -> ir.Value:
    if x.type.count == lanes:
        return x
    return e.b.shuffle_vector(x, undefined(x.type), lanes_from(0, lanes, I32))


def _row(e: Emitter, table: ir.Value, start: int, count: int) -> ir.Value:
    """Values of the table, side by side."""
    return e.load(e.pointer(table, start, DType.U8), DType.U8, count)


def _permuted(e: Emitter, x: ir.Value, table: ir.Value) -> ir.Value:
    tables = [_row(e, table, start, 64) for start in range(0, 256, 64)]
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    halves = [e.call(name, x.type, [tables[k], x, tables[k + 1]]) for k in (0, 2)]
    upper = e.b.icmp_signed("<", x, e.constant(0, x.type))
    return e.b.select(upper, halves[1], halves[0])


def _shuffled(name: str) -> Callable[[Emitter, ir.Value, ir.Value], ir.Value]:
    def emit(e: Emitter, x: ir.Value, table: ir.Value) -> ir.Value:
        width, found = x.type.count, None
        for high in range(_NIBBLES):
            moved = e.b.xor(x, e.constant(high << 4, x.type)) if high else x
            at = e.call(f"llvm.uadd.sat.v{width}i8", x.type, [moved, e.constant(_HIGH, x.type)])
            row = e.joined([_row(e, table, high * 16, 16)] * (width // 16))
            part = e.call(name, x.type, [row, at])
            found = part if found is None else e.b.or_(found, part)
        assert found is not None
        return found

    return emit


def _tbl(e: Emitter, x: ir.Value, table: ir.Value) -> ir.Value:
    found = None
    for start in range(0, 256, 64):
        rows = [_row(e, table, k, 16) for k in range(start, start + 64, 16)]
        at = e.b.sub(x, e.constant(start, x.type)) if start else x
        part = e.call("llvm.aarch64.neon.tbl4.v16i8", x.type, [*rows, at])
        found = part if found is None else e.b.or_(found, part)
    assert found is not None
    return found


def _loaded(e: Emitter, x: ir.Value, table: ir.Value) -> ir.Value:
    """Every byte by itself."""
    if not is_vector(x):
        return _element(e, table, x)
    found = undefined(x.type)
    for lane in range(x.type.count):
        at = ir.Constant(I32, lane)
        one = _element(e, table, e.b.extract_element(x, at))
        found = e.b.insert_element(found, one, at)
    return found


def _element(e: Emitter, table: ir.Value, at: ir.Value) -> ir.Value:
    return e.load(e.pointer(table, e.b.zext(at, e.index_type), DType.U8), DType.U8)


_EMITTED: dict[str, Callable[[Emitter, ir.Value, ir.Value], ir.Value]] = {
    "vpermi2b": _permuted,
    "vpshufb512": _shuffled("llvm.x86.avx512.pshuf.b.512"),
    "vpshufb256": _shuffled("llvm.x86.avx2.pshuf.b"),
    "tbl": _tbl,
}
