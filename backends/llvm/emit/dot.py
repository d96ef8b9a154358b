"""Sums of products of groups of elements: what each instruction computes of them."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .builder import F32, I8, I32, Emitter, intrinsic_suffix, is_vector, shaped
from .target_module import BFLOAT

I16 = ir.IntType(16)
_Dot = Callable[[Emitter, ir.Value, ir.Value, ir.Value], ir.Value]
_MADD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}


def dot(
    e: Emitter, op: str, instruction: str, total: ir.Value, a: ir.Value, b: ir.Value
) -> ir.Value:
    """total plus the products of the elements of two groups of 32 bits.

    `dot4`: four unsigned bytes of a and four signed ones of b, added up in i32; `sdot4`: four
    signed ones of either. `wdot2`: two words of either, in i32. `dot2`: two bf16 of either, in
    f32. All are of as many lanes. Where the instruction has no such number of lanes, several or
    others compute the same.
    """
    lanes = total.type.count if is_vector(total) else 1
    widest, emit = _BY_INSTRUCTION.get(instruction, (0, _PLAIN[op]))
    if widest and lanes > widest:
        count = lanes // widest
        pieces = zip(*(e.parts(value, count) for value in (total, a, b)), strict=True)
        return e.joined([dot(e, op, instruction, *piece) for piece in pieces])
    if widest > 1 and lanes < 4:
        emit = _PLAIN[op]
    return emit(e, total, a, b)


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


def _maddw(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    lanes = total.type.count
    words = [e.b.bitcast(part, ir.VectorType(I16, 2 * lanes)) for part in (a, b)]
    return e.b.add(total, e.call(_MADD[lanes], total.type, words))


def _vnniw(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    lanes = total.type.count
    words = [e.b.bitcast(part, ir.VectorType(I16, 2 * lanes)) for part in (a, b)]
    return e.call(f"llvm.x86.avx512.vpdpwssd.{32 * lanes}", total.type, [total, *words])


def _bytes(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value, signed: bool = False) -> ir.Value:
    top = e.constant(24, total.type)
    for place in range(4):
        left = e.constant(24 - 8 * place, total.type)
        first = (e.b.ashr if signed else e.b.lshr)(e.b.shl(a, left), top)
        second = e.b.ashr(e.b.shl(b, left), top)
        total = e.b.add(total, e.b.mul(first, second))
    return total


def _words(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    half = e.constant(16, total.type)
    later = e.b.mul(e.b.ashr(a, half), e.b.ashr(b, half))
    first = (e.b.ashr(e.b.shl(group, half), half) for group in (a, b))
    return e.b.add(total, e.b.add(later, e.b.mul(*first)))


def _signed_bytes(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    return _bytes(e, total, a, b, signed=True)


def _neon(name: str, element: ir.Type) -> _Dot:
    """Arm's dot product of four bytes, or two bf16, of each lane.

    Its last operand may be one lane for all, as the data is; where only one operand is unsigned it
    has to be the first, and LLVM finds the instruction that has them the other way round.
    """

    def emit(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        count = total.type.count * (4 if element == I8 else 2)
        parts = ir.VectorType(element, count)
        kinds = f"{intrinsic_suffix(total.type)}.v{count}{'i8' if element == I8 else 'bf16'}"
        first, last = (a, b) if name == "usdot" else (b, a)
        operands = [total, e.b.bitcast(first, parts), e.b.bitcast(last, parts)]
        return e.call(f"llvm.aarch64.neon.{name}.{kinds}", total.type, operands)

    return emit


def pair_product(
    e: Emitter, instruction: str, total: ir.Value, rows: ir.Value, columns: ir.Value
) -> ir.Value:
    """total plus the products of two rows and two columns (of `PAIRS`), each of two groups.

    Lanes of the operands are the groups of the first, then those of the second; of the total the
    results of the first row, then those of the second (Arm Architecture Reference Manual, SMMLA,
    USMMLA, BFMMLA).
    """
    element, name = _PAIR_PRODUCTS[instruction]
    parts = ir.VectorType(element, 16 if element == I8 else 8)
    operands = [total, e.b.bitcast(rows, parts), e.b.bitcast(columns, parts)]
    return e.call(f"llvm.aarch64.neon.{name}", total.type, operands)


def dot_across(e: Emitter, instruction: str, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """total, one number, plus the products of all elements of all groups (of `ACROSS`)."""
    octets = ir.VectorType(I8, 4 * a.type.count)
    plain = [ir.Constant(I32, 0)] * 3  # signed, added, not exchanged
    operands = [*plain, total, e.b.bitcast(a, octets), e.b.bitcast(b, octets)]
    return e.call(_ACROSS[instruction], I32, operands)


def _smlad(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """The even bytes, then the odd ones, as pairs of 16 bits (Armv7-M, UXTB16, SXTB16, SMLAD)."""
    if is_vector(total):
        return _bytes(e, total, a, b)
    rotation = ir.Constant(I32, 8)
    for turned in (False, True):
        pair = [e.call("llvm.fshr.i32", I32, [x, x, rotation]) if turned else x for x in (a, b)]
        left = e.call("llvm.arm.uxtb16", I32, [pair[0]])
        right = e.call("llvm.arm.sxtb16", I32, [pair[1]])
        total = e.call("llvm.arm.smlad", I32, [left, right, total])
    return total


def _bf16(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """The later element's product is added before the earlier one's, each rounded to nearest;
    denormal numbers, also such sums, count as zero (Intel SDM vol. 2, VDPBF16PS)."""
    lanes = total.type.count
    pairs = ir.VectorType(BFLOAT, 2 * lanes)
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}"
    return e.call(name, total.type, [total, e.b.bitcast(a, pairs), e.b.bitcast(b, pairs)])


def _pairs(e: Emitter, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """As `_bf16` adds up, by multiply-adds of f32."""
    half, later = e.constant(16, a.type), e.constant(-(1 << 16), a.type)
    for parts in (
        [e.b.and_(group, later) for group in (a, b)],
        [e.b.shl(group, half) for group in (a, b)],
    ):
        left, right = (e.b.bitcast(part, shaped(F32, part)) for part in parts)
        total = e.fma(left, right, total)
    return total


_PAIR_PRODUCTS = {
    "smmla": (I8, "smmla.v4i32.v16i8"),
    "usmmla": (I8, "usmmla.v4i32.v16i8"),
    "bfmmla": (BFLOAT, "bfmmla"),
}
_ACROSS = {"vmladava": "llvm.arm.mve.vmldava.v16i8"}
# the most lanes of one instruction
_BY_INSTRUCTION: dict[str, tuple[int, _Dot]] = {
    "amx": (16, _vnni),  # where there is too little for matrices
    "vnni": (16, _vnni),
    "avxvnni": (8, _vnni),
    "madd": (16, _madd),
    "vnniw": (16, _vnniw),
    "avxvnniw": (8, _vnniw),
    "maddw": (16, _maddw),
    "usdot": (4, _neon("usdot", I8)),
    "sdot": (4, _neon("sdot", I8)),
    "smlad": (1, _smlad),
    "bf16": (16, _bf16),
    "bfdot": (4, _neon("bfdot", BFLOAT)),
    "amxbf16": (16, _bf16),
}
_PLAIN: dict[str, _Dot] = {
    "dot4": _bytes,
    "sdot4": _signed_bytes,
    "wdot2": _words,
    "dot2": _pairs,
}
