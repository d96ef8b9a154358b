"""Evaluation of index expressions as LLVM integers, scalar or one per lane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.dims import Call, Dim, Symbol, as_dim, calls_of, symbols_of, terms_of
from .builder import F64, Emitter
from .indices import Int


def index_value(e: Emitter, dim: Dim, env: Mapping[str, Int]) -> Int:
    """The value of an index expression, folded as far as the environment is known.

    What symbols decide that the function holds is computed once for all of it. Raises
    InternalError for a symbol without a value.
    """
    missing = symbols_of(dim) - env.keys()
    if missing:
        raise InternalError(f"index '{dim}' uses {sorted(missing)}, which have no value")
    return _Scalars(e, env).of(dim)


class _Scalars:
    """Values of index expressions at one place of a function, each call computed once."""

    def __init__(self, e: Emitter, env: Mapping[str, Int]) -> None:
        self.e = e
        self.env = env
        self.done: dict[Call, Int] = {}

    def of(self, dim: Dim) -> Int:
        """The value of an expression."""
        if isinstance(dim, int):
            return dim
        total: Int = 0
        for mono, coef in dim.terms:
            term: Int = coef
            for atom in mono:
                factor = self.env[atom.name] if isinstance(atom, Symbol) else self.call(atom)
                term = self.e.mul(term, factor)
            total = self.e.add(total, term)
        return total

    def call(self, call: Call) -> Int:
        """The value of a call, computed where its symbols get theirs if these are held."""
        e = self.e
        if call.symbols and call.symbols <= e.held.keys():
            if call not in e.sizes:
                for inner in calls_of(call):
                    self.call(inner)  # first: the builder leaves off at the end of a block
                with e.sizing():
                    e.sizes[call] = _called(e, call.fn, *map(_Scalars(e, e.held).of, call.args))
            return e.sizes[call]
        if call not in self.done:
            self.done[call] = _called(e, call.fn, *map(self.of, call.args))
        return self.done[call]


def _called(e: Emitter, fn: str, a: Int, b: Int) -> Int:
    if fn in ("min", "max"):
        return e.minmax(fn, a, b)
    if fn == "broadcast":
        return _broadcast(e, e.as_index(a), e.as_index(b))
    if not isinstance(b, int):
        b = e.minmax("max", b, 1)  # a size of 0 must not trap; what it divides is checked
    return e.floordiv(a, b) if fn == "floordiv" else e.mod(a, b)


def _broadcast(e: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """`dbroadcast` of integers or of vectors of them."""
    larger = e.b.select(e.b.icmp_signed("<", a, b), b, a)
    one = e.constant(1, a.type)
    kept = e.b.select(e.b.icmp_signed("==", b, one), a, larger)
    return e.b.select(e.b.icmp_signed("==", a, one), b, kept)


def float_value(e: Emitter, dim: Dim, env: Mapping[str, Int]) -> ir.Value:
    """About the value of an expression that is not negative, as a double: it cannot overflow."""
    done: dict[Call, ir.Value] = {}

    def of(dim: Dim) -> ir.Value:
        total: ir.Value = ir.Constant(F64, 0.0)
        for mono, coef in terms_of(dim):
            term: ir.Value = ir.Constant(F64, float(coef))
            for atom in mono:
                if isinstance(atom, Symbol):
                    factor = e.b.sitofp(e.as_index(env[atom.name]), F64)
                else:
                    if atom not in done:
                        done[atom] = _float_call(e, atom.fn, *map(of, atom.args))
                    factor = done[atom]
                term = e.b.fmul(term, factor)
            total = e.b.fadd(total, term)
        return total

    return of(dim)


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
    scalars = _Scalars(e, env)
    done: dict[Call, ir.Value] = {}

    def spread(value: Int) -> ir.Value:
        return e.splat(e.as_index(value), lanes.count)

    def of(part: Dim) -> ir.Value:
        if lanes.axis not in symbols_of(part):
            return spread(scalars.of(part))
        total: ir.Value | None = None
        same: Int = 0
        for mono, coef in terms_of(part):
            fixed: Int = coef
            term: ir.Value | None = None
            for atom in mono:
                if lanes.axis not in atom.symbols:
                    fixed = e.mul(fixed, scalars.of(as_dim(atom)))
                else:
                    factor = moving(atom)
                    term = factor if term is None else e.b.mul(term, factor)
            if term is None:
                same = e.add(same, fixed)
                continue
            if fixed != 1:
                term = e.b.mul(term, spread(fixed))
            total = term if total is None else e.b.add(total, term)
        assert total is not None
        return total if isinstance(same, int) and same == 0 else e.b.add(total, spread(same))

    def moving(atom: Symbol | Call) -> ir.Value:
        if isinstance(atom, Symbol):
            return e.b.add(spread(env[atom.name]), e.lane_numbers(lanes.count))
        if atom not in done:
            done[atom] = _lanes_called(e, atom.fn, *map(of, atom.args))
        return done[atom]

    return of(dim)


def _lanes_called(e: Emitter, fn: str, a: ir.Value, b: ir.Value) -> ir.Value:
    if fn in ("min", "max"):
        keep = e.b.icmp_signed("<" if fn == "min" else ">", a, b)
        return e.b.select(keep, a, b)
    if fn == "broadcast":
        return _broadcast(e, a, b)
    quotient, rest = e.b.sdiv(a, b), e.b.srem(a, b)
    negative = e.b.icmp_signed("<", rest, e.constant(0, a.type))
    if fn == "floordiv":
        return e.b.sub(quotient, e.b.zext(negative, a.type))
    return e.b.select(negative, e.b.add(rest, b), rest)
