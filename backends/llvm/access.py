"""Evaluation of index expressions as LLVM integers, scalar or one per lane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llvmlite import ir

from ...compiler.errors import InternalError
from ...compiler.ir.dims import Call, Dim, Symbol
from .builder import F64, I64, Emitter, Int


def index_value(e: Emitter, dim: Dim, env: Mapping[str, Int]) -> Int:
    """The value of an index expression, folded as far as the environment is known.

    Raises InternalError for a symbol without a value.
    """
    if isinstance(dim, int):
        return dim
    total: Int = 0
    for mono, coef in dim.terms:
        term: Int = coef
        for atom in mono:
            if isinstance(atom, Symbol):
                if atom.name not in env:
                    raise InternalError(f"index '{dim}' uses '{atom.name}', which has no value")
                factor = env[atom.name]
            else:
                factor = _call(e, atom, env)
            term = e.mul(term, factor)
        total = e.add(total, term)
    return total


def _call(e: Emitter, atom: Call, env: Mapping[str, Int]) -> Int:
    a, b = (index_value(e, arg, env) for arg in atom.args)
    if atom.fn in ("min", "max"):
        return e.minmax(atom.fn, a, b)
    if atom.fn == "broadcast":
        return _broadcast(e, e.i64(a), e.i64(b))
    if not isinstance(b, int):
        b = e.minmax("max", b, 1)  # a size of 0 must not trap; what it divides is checked
    return e.floordiv(a, b) if atom.fn == "floordiv" else e.mod(a, b)


def _broadcast(e: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """`dbroadcast` of integers or of vectors of them."""
    larger = e.b.select(e.b.icmp_signed("<", a, b), b, a)
    one = e.constant(1, a.type)
    kept = e.b.select(e.b.icmp_signed("==", b, one), a, larger)
    return e.b.select(e.b.icmp_signed("==", a, one), b, kept)


def float_value(e: Emitter, dim: Dim, env: Mapping[str, Int]) -> ir.Value:
    """About the value of an expression that is not negative, as a double: it cannot overflow."""
    if isinstance(dim, int):
        return ir.Constant(F64, float(dim))
    total: ir.Value = ir.Constant(F64, 0.0)
    for mono, coef in dim.terms:
        term: ir.Value = ir.Constant(F64, float(coef))
        for atom in mono:
            if isinstance(atom, Symbol):
                factor = e.b.sitofp(e.i64(env[atom.name]), F64)
            else:
                a, b = (float_value(e, argument, env) for argument in atom.args)
                factor = _float_call(e, atom.fn, a, b)
            term = e.b.fmul(term, factor)
        total = e.b.fadd(total, term)
    return total


def _float_call(e: Emitter, fn: str, a: ir.Value, b: ir.Value) -> ir.Value:
    if fn in ("min", "max", "broadcast"):
        return e.b.select(e.b.fcmp_ordered("<" if fn == "min" else ">", a, b), a, b)
    if fn == "mod":
        return b
    one = ir.Constant(F64, 1.0)
    return e.b.fdiv(a, e.b.select(e.b.fcmp_ordered(">", b, one), b, one))


@dataclass(frozen=True)
class Lanes:
    """The SIMD axis inside a vector: lane l has the index `base + l`."""

    axis: str
    count: int


def lane_indices(e: Emitter, dim: Dim, env: Mapping[str, Int], lanes: Lanes) -> ir.Value:
    """The index expression per lane, a vector of i64; env[lanes.axis] is lane 0's index."""
    vector = ir.VectorType(I64, lanes.count)

    def spread(value: Int) -> ir.Value:
        return e.splat(e.i64(value), lanes.count)

    def go(part: Dim) -> ir.Value | int:
        if isinstance(part, int):
            return part
        total: ir.Value = e.constant(0, vector)
        for mono, coef in part.terms:
            term: ir.Value = e.constant(coef, vector)
            for atom in mono:
                term = e.b.mul(term, factor(atom))
            total = e.b.add(total, term)
        return total

    def factor(atom: Symbol | Call) -> ir.Value:
        if isinstance(atom, Symbol):
            base = spread(env[atom.name])
            if atom.name == lanes.axis:
                return e.b.add(base, e.lane_numbers(lanes.count))
            return base
        a, b = (as_vector(go(arg)) for arg in atom.args)
        if atom.fn in ("min", "max"):
            keep = e.b.icmp_signed("<" if atom.fn == "min" else ">", a, b)
            return e.b.select(keep, a, b)
        if atom.fn == "broadcast":
            return _broadcast(e, a, b)
        quotient, rest = e.b.sdiv(a, b), e.b.srem(a, b)
        negative = e.b.icmp_signed("<", rest, e.constant(0, vector))
        if atom.fn == "floordiv":
            return e.b.sub(quotient, e.b.zext(negative, vector))
        return e.b.select(negative, e.b.add(rest, b), rest)

    def as_vector(value: ir.Value | int) -> ir.Value:
        return e.constant(value, vector) if isinstance(value, int) else value

    return as_vector(go(dim))
