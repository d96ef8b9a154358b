"""Rounding of floats to whole numbers, by what the target has."""

from __future__ import annotations

from llvmlite import ir

from .builder import F32, I32, Emitter, intrinsic_suffix, is_vector, shaped
from .target_module import has_instruction, is_bare

_MVE_LANES = 4


def nearest_integer(e: Emitter, x: ir.Value) -> ir.Value:
    """The nearest i32, ties to even, of a float that an i32 can hold."""
    element = x.type.element if is_vector(x) else x.type
    if element == F32 and is_bare(e.module):
        return _by_mve(e, x) if is_vector(x) else _by_mode(e, x)
    whole = shaped(I32, x)
    name = f"llvm.lrint.{intrinsic_suffix(whole)}.{intrinsic_suffix(x.type)}"
    return e.call(name, whole, [x])


def round_even(e: Emitter, x: ir.Value) -> ir.Value:
    """The nearest whole number, ties to even, as a float.

    Bare machines may only have the instruction that rounds as the mode says, which nothing changes.
    """
    name = "rint" if is_bare(e.module) else "roundeven"
    return e.call(f"llvm.{name}.{intrinsic_suffix(x.type)}", x.type, [x])


def _by_mode(e: Emitter, x: ir.Value) -> ir.Value:
    """VCVTR: rounded as the mode says. LLVM calls a function of the C library for `lrint`."""
    return e.b.bitcast(e.call("llvm.arm.vcvtr.f32", F32, [x]), I32)


def _by_mve(e: Emitter, x: ir.Value) -> ir.Value:
    lanes = x.type.count
    if lanes > _MVE_LANES:
        return e.joined([_by_mve(e, part) for part in e.parts(x, lanes // _MVE_LANES)])
    if not has_instruction(e.module, "mve") or lanes < _MVE_LANES:
        result = ir.Constant(shaped(I32, x), ir.Undefined)
        for lane in range(lanes):
            at = ir.Constant(I32, lane)
            one = _by_mode(e, e.b.extract_element(x, at))
            result = e.b.insert_element(result, one, at)
        return result
    signed = ir.Constant(I32, 0)
    return e.call("llvm.arm.mve.vcvtn.v4i32.v4f32", shaped(I32, x), [signed, x])
