"""Scalar expressions of kernels: what one element of a stage is.

Indices are `Dim` expressions over axis symbols (names that begin with "$") and symbolic dims.
Memory is addressed by a flat element offset, so that axes can be merged and split freely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..ir.dims import Dim, coefficient, substitute, symbols_of
from ..ir.types import DType

EACH_POINT = 0  # elements of local memory: as many as the stage that writes it has points


@dataclass(frozen=True)
class Buffer:
    """Memory that a kernel reads or writes: an argument, or local memory of one iteration.

    local: element count of local memory, or EACH_POINT, None for an argument.
    """

    name: str
    dtype: DType
    local: int | None = None


@dataclass(frozen=True)
class Const:
    """A constant; `value` is a Python float, int or bool."""

    value: float | int | bool
    dtype: DType


@dataclass(frozen=True)
class IndexValue:
    """The value of an index expression as an element."""

    index: Dim
    dtype: DType


@dataclass(frozen=True)
class Load:
    """buffer[offset + sum(expr * stride)]; `dynamic` indices are computed from data."""

    buffer: Buffer
    offset: Dim
    dynamic: tuple[tuple[Expr, Dim], ...] = ()

    @property
    def dtype(self) -> DType:
        """The element type loaded."""
        return self.buffer.dtype


@dataclass(frozen=True)
class Apply:
    """A pointwise core operator applied to scalars; "cast" converts to `dtype`.

    exact: a sum or product that is rounded by itself, never together with another. The
    second argument of a `byte_table` is the first element of its table.
    """

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    exact: bool = False


@dataclass(frozen=True)
class Bound:
    """low <= index < high."""

    index: Dim
    low: Dim
    high: Dim


@dataclass(frozen=True)
class Guarded:
    """`value` where every bound holds, else `other`; memory outside the bounds is not touched."""

    bounds: tuple[Bound, ...]
    value: Expr
    other: Expr

    @property
    def dtype(self) -> DType:
        """The element type of both branches."""
        return self.value.dtype


@dataclass(frozen=True)
class Acc:
    """The result of the stage's reduction number `position`, for use in its stores."""

    position: int
    dtype: DType


Expr = Const | IndexValue | Load | Apply | Guarded | Acc


def children(expr: Expr) -> tuple[Expr, ...]:
    """Direct operands."""
    match expr:
        case Apply(args=args):
            return args
        case Guarded(value=value, other=other):
            return (value, other)
        case Load(dynamic=dynamic):
            return tuple(index for index, _ in dynamic)
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all its operands, each before its own."""
    pending = [expr]
    while pending:
        part = pending.pop()
        yield part
        pending += reversed(children(part))


def unique_parts(expr: Expr) -> Iterator[Expr]:
    """The parts of an expression in the order of `walk`, each object once, whatever uses it."""
    seen: set[int] = set()
    pending = [expr]
    while pending:
        part = pending.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            pending += reversed(list(children(part)))


def indices(expr: Expr) -> Iterator[Dim]:
    """Every index expression in this node itself (not in its operands)."""
    match expr:
        case Load(offset=offset, dynamic=dynamic):
            yield offset
            for _, stride in dynamic:
                yield stride
        case IndexValue(index=index):
            yield index
        case Guarded(bounds=bounds):
            for bound in bounds:
                yield bound.index
                yield bound.low
                yield bound.high


def all_indices(expr: Expr) -> Iterator[Dim]:
    """Every index expression in the expression and its operands."""
    for part in walk(expr):
        yield from indices(part)


def depends_on(expr: Expr, name: str) -> bool:
    """Whether the expression's value may change with the symbol."""
    return any(name in symbols_of(index) for index in all_indices(expr))


class Dependences:
    """What expressions depend on; each part is looked at once, whatever uses it."""

    def __init__(self) -> None:
        # by id, which is a part's own as long as the part is kept
        self._found: dict[int, tuple[Expr, frozenset[str], bool]] = {}

    def of(self, expr: Expr) -> tuple[frozenset[str], bool]:
        """The symbols with which the value may change, and whether accumulators are part of it."""
        if id(expr) not in self._found:
            parts = [self.of(child) for child in children(expr)]
            own = [symbols_of(index) for index in indices(expr)]
            names = frozenset[str]().union(*own, *(names for names, _ in parts))
            accumulates = isinstance(expr, Acc) or any(found for _, found in parts)
            self._found[id(expr)] = expr, names, accumulates
        _, names, accumulates = self._found[id(expr)]
        return names, accumulates

    def runs(self, offset: Dim, dynamic: Iterable[tuple[Expr, Dim]], axis: str) -> bool:
        """Whether the elements of an access along an axis are neighbours in memory, wherever data
        says that they begin."""
        moving = any(
            accumulates or axis in names | symbols_of(stride)
            for (names, accumulates), stride in ((self.of(i), stride) for i, stride in dynamic)
        )
        return not moving and coefficient(offset, axis) == 1


def map_indices(
    expr: Expr, change: Callable[[Dim], Dim], done: dict[int, Expr] | None = None
) -> Expr:
    """The expression with `change` applied to every index expression.

    Parts that are one object stay one object, also between calls that share `done`.
    """
    done = {} if done is None else done
    if id(expr) not in done:
        done[id(expr)] = _map_indices(expr, change, done)
    return done[id(expr)]


def _map_indices(expr: Expr, change: Callable[[Dim], Dim], done: dict[int, Expr]) -> Expr:
    match expr:
        case Load(offset=offset, dynamic=dynamic):
            parts = tuple((map_indices(i, change, done), change(s)) for i, s in dynamic)
            return replace(expr, offset=change(offset), dynamic=parts)
        case IndexValue(index=index):
            return replace(expr, index=change(index))
        case Apply(args=args):
            return replace(expr, args=tuple(map_indices(arg, change, done) for arg in args))
        case Guarded(bounds=bounds, value=value, other=other):
            moved = tuple(Bound(change(b.index), change(b.low), change(b.high)) for b in bounds)
            inside = map_indices(value, change, done)
            return Guarded(moved, inside, map_indices(other, change, done))
        case _:
            return expr


def rebuilt(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The expression with `change` applied to loads and to what has no operands, inside out."""
    match expr:
        case Load(dynamic=dynamic):
            parts = tuple((rebuilt(index, change), stride) for index, stride in dynamic)
            return change(replace(expr, dynamic=parts))
        case Apply(args=args):
            return replace(expr, args=tuple(rebuilt(arg, change) for arg in args))
        case Guarded(value=value, other=other):
            return replace(expr, value=rebuilt(value, change), other=rebuilt(other, change))
        case _:
            return change(expr)


def substitute_indices(expr: Expr, values: Mapping[str, Dim]) -> Expr:
    """The expression with symbols replaced in every index."""
    return map_indices(expr, lambda dim: substitute(dim, values))


def cost(expr: Expr) -> int:
    """A rough count of instructions per element (transcendental functions weigh 15)."""
    own = {"Apply": 1, "Guarded": 2, "Load": 1}.get(type(expr).__name__, 0)
    if isinstance(expr, Apply) and expr.op in EXPENSIVE:
        own = 15
    return own + sum(cost(child) for child in children(expr))


EXPENSIVE = frozenset(
    {"exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh"}
    | {"acosh", "atanh", "erf", "sigmoid", "pow", "div", "mod", "fmod", "sqrt"}
)


def text(expr: Expr) -> str:
    """The expression in readable form; equal texts mean equal computations."""
    match expr:
        case Const(value=value, dtype=dtype):
            return f"{value!r}:{dtype}"
        case IndexValue(index=index, dtype=dtype):
            return f"index({index}):{dtype}"
        case Load(buffer=buffer, offset=offset, dynamic=dynamic):
            more = "".join(f" + {text(index)}*({stride})" for index, stride in dynamic)
            return f"{buffer.name}[{offset}{more}]"
        case Apply(op=op, args=args, dtype=dtype, exact=exact):
            exactly = "!" if exact else ""
            return f"{op}{exactly}:{dtype}({', '.join(text(arg) for arg in args)})"
        case Guarded(bounds=bounds, value=value, other=other):
            tests = " and ".join(f"{b.low} <= {b.index} < {b.high}" for b in bounds)
            return f"({text(value)} if {tests} else {text(other)})"
        case Acc(position=position):
            return f"acc{position}"
