"""Numbers of 2 and 4 bits that come out of words of 32, as f32."""

from __future__ import annotations

from llvmlite import ir

from ....compiler.ir.ops.packed import DIGITS, WORD_BITS
from .builder import F32, I32, Emitter, is_vector, shaped
from .target_module import has_instruction

_LOOKUP = "llvm.x86.avx512.permvar.sf.512"
_ENTRIES = 16


def digit(e: Emitter, op: str, word: ir.Value, place: ir.Value) -> ir.Value:
    """The signed number at a place of each word, counted from the low end.

    Where the target looks up one of 16 floats by the low 4 bits of a word (VPERMPS, Intel SDM vol.
    2), that is the conversion; elsewhere the number is moved to the top and back.
    """
    bits = DIGITS[op]
    size = e.constant(bits, word.type)
    if has_instruction(e.module, "lookup16") and is_vector(word) and word.type.count == _ENTRIES:
        table = [_signed(n, bits) for n in range(_ENTRIES)]
        entries = ir.Constant(ir.VectorType(F32, _ENTRIES), [ir.Constant(F32, n) for n in table])
        lowered = e.b.lshr(word, e.b.mul(place, size))
        return e.call(_LOOKUP, entries.type, [entries, lowered])
    above = e.b.sub(e.constant(WORD_BITS - bits, word.type), e.b.mul(place, size))
    raised = e.b.shl(word, above)
    number = e.b.ashr(raised, e.constant(WORD_BITS - bits, shaped(I32, word)))
    return e.b.sitofp(number, shaped(F32, word))


def _signed(number: int, bits: int) -> float:
    """What the low bits of a number are as a signed one."""
    low = number & ((1 << bits) - 1)
    return float(low - (1 << bits) if low >> (bits - 1) else low)
