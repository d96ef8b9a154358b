"""Sums of products of groups of bytes: what each instruction computes of them."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .builder import I8, Emitter, is_vector

I16 = ir.IntType(16)
_Dot = Callable[[Emitter, ir.Value, ir.Value, ir.Value], ir.Value]
_WIDEST = {"vnni": 16, "avxvnni": 8, "madd": 16}  # lanes of one instruction
_MADD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}


def dot(e: Emitter, instruction: str, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """total (i32) plus the products of four unsigned bytes of a and four signed ones of b.

    All are of as many lanes. Where the instruction has no such number of lanes, several or others
    compute the same.
    """
    lanes = total.type.count if is_vector(total) else 1
    widest = _WIDEST.get(instruction, 0)
    if widest and lanes > widest:
        count = lanes // widest
        pieces = zip(*(e.parts(value, count) for value in (total, a, b)), strict=True)
        return e.joined([dot(e, instruction, *piece) for piece in pieces])
    if widest and lanes >= 4:
        return (_madd if instruction == "madd" else _vnni)(e, total, a, b)
    return _bytes(e, total, a, b)


def _vnni(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    lanes = total.type.count
    octets = ir.VectorType(I8, 4 * lanes)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    return e.call(name, total.type, [total, e.b.bitcast(a, octets), e.b.bitcast(b, octets)])


def _madd(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    lanes = total.type.count
    halves = ir.VectorType(I16, 2 * lanes)
    octet = e.constant(8, halves)
    low = e.constant(0xFF, halves)
    wide, narrow = e.b.bitcast(a, halves), e.b.bitcast(b, halves)
    pairs = (
        (e.b.and_(wide, low), e.b.ashr(e.b.shl(narrow, octet), octet)),
        (e.b.lshr(wide, octet), e.b.ashr(narrow, octet)),
    )
    for left, right in pairs:
        total = e.b.add(total, e.call(_MADD[lanes], total.type, [left, right]))
    return total


def _bytes(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    top = e.constant(24, total.type)
    for place in range(4):
        left = e.constant(24 - 8 * place, total.type)
        unsigned = e.b.lshr(e.b.shl(a, left), top)
        signed = e.b.ashr(e.b.shl(b, left), top)
        total = e.b.add(total, e.b.mul(unsigned, signed))
    return total
