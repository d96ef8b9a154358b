"""Expressions of a kernel as tensors over a tile: each has the dimensions that it depends on.

A tile has one or two dimensions, along which blocks of points lie. An axis is a tensor along one
of them, with size 1 along the other, so that what rows or columns share is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ....compiler.ir.dims import (
    Call,
    Dim,
    Sym,
    Symbol,
    coefficient,
    is_nonnegative,
    is_position,
    symbol,
    symbols_of,
    terms_of,
)
from ....compiler.ir.types import DType
from ....compiler.kernel.expr import (
    Acc,
    Apply,
    Bound,
    Buffer,
    Const,
    Expr,
    Guarded,
    IndexValue,
    Load,
    unique_parts,
)
from ....compiler.kernel.kernel import Axis, Store, linear_of
from . import scalar
from .text import Lines
from .types import NoDeviceCode, literal, memory_type, register_type

MOST_TERMS = 64  # of a sum that is written as one
Pointers = Mapping[str, tuple[str, DType]]  # of parameters: what they are called, their elements


def _along(dim: Dim, axes: Sequence[Axis]) -> tuple[Dim, int]:
    """(what is left, factor) of an index that is a multiple of the number of a point among axes,
    and something that no axis changes; (index, 0) of others."""
    factor = coefficient(dim, axes[-1].name)
    if not isinstance(factor, int) or not factor:
        return dim, 0
    rest = dim - linear_of(axes) * factor
    return (dim, 0) if symbols_of(rest) & {axis.name for axis in axes} else (rest, factor)


def sizes_of(index: Dim) -> list[str]:
    """The sizes that an index depends on, in order."""
    return sorted(name for name in symbols_of(index) if not is_position(symbol(name)))


def in_64_bits(text: str) -> str:
    """The name of the size in 64 bits whose name in as many as offsets have is `text`."""
    return f"{text}_whole"


@dataclass(frozen=True)
class Term:
    """An expression of Triton. dims: of the tile, along which it may differ."""

    text: str
    dims: frozenset[str] = frozenset()


@dataclass
class DeviceTile:
    """Where expressions are evaluated.

    shape: size of the block along each dimension, in order. index: the integer type of offsets.
    env: values of axes and symbols. runs: axes through which points of the tile count, the last one
    fastest, with those points. masks: along a dimension, which of its points there are; none
    where all are. accumulators: results of the stage's reductions. pointers: by buffer. registers:
    local memory of one element for every row.
    """

    lines: Lines
    shape: Mapping[str, int]
    index: str
    pointers: Pointers
    env: dict[str, Term]
    runs: list[tuple[tuple[Axis, ...], Term]] = field(default_factory=list)
    masks: dict[str, str] = field(default_factory=dict)
    accumulators: list[Term] = field(default_factory=list)
    registers: dict[str, Term] = field(default_factory=dict)
    inlined: dict[str, Callable[[Load], Expr]] = field(default_factory=dict)

    # shapes --------------------------------------------------------------------------------

    def shape_of(self, dims: frozenset[str]) -> str:
        """The shape of a tensor along some dimensions."""
        return "[" + ", ".join(str(n if d in dims else 1) for d, n in self.shape.items()) + "]"

    def vector(self, dim: str) -> str:
        """0, 1, ... along a dimension."""
        text = f"tl.arange(0, {self.shape[dim]})"
        if len(self.shape) == 2:
            text += "[:, None]" if next(iter(self.shape)) == dim else "[None, :]"
        return text if self.index == "tl.int32" else f"({text}).to({self.index})"

    def widened(self, value: Term, dtype: DType) -> str:
        """The value along all dimensions of the tile."""
        dims = frozenset(self.shape)
        if value.dims == dims:
            return value.text
        if not value.dims:
            return f"tl.full({self.shape_of(dims)}, {value.text}, {register_type(dtype)})"
        return f"tl.broadcast_to({value.text}, {self.shape_of(dims)})"

    def named(self, text: str, *operands: Term) -> Term:
        """A name for an expression of operands."""
        dims = frozenset[str]().union(*(operand.dims for operand in operands))
        return Term(self.lines.let(text), dims)

    # indices -------------------------------------------------------------------------------

    def offset(self, dim: Dim) -> Term:
        """An index expression; what depends on fewer dimensions is added up first."""
        if not isinstance(dim, Sym):
            return Term(str(dim))
        sums: dict[frozenset[str], list[str]] = {}
        for axes, points in self.runs:
            dim, factor = _along(dim, axes)
            if factor:
                text = points.text + f" * {factor}" * (factor != 1)
                sums.setdefault(points.dims, []).append(text)
        for monomial, factor in terms_of(dim):
            atoms = [self._atom(atom) for atom in monomial]
            dims = frozenset[str]().union(*(atom.dims for atom in atoms))
            texts = [atom.text for atom in atoms] + [str(factor)] * (factor != 1 or not atoms)
            sums.setdefault(dims, []).append(" * ".join(texts))
        parts = [self._sum(sums[dims]) for dims in sorted(sums, key=lambda d: sorted(d))]
        return Term(self._sum(parts), frozenset().union(*sums))

    def _sum(self, texts: list[str]) -> str:
        """The name of a sum, in parts where it is long: Triton recurses to the depth of a line."""
        while len(texts) > MOST_TERMS:
            starts = range(0, len(texts), MOST_TERMS)
            texts = [self.lines.let(" + ".join(texts[n : n + MOST_TERMS])) for n in starts]
        return self.lines.let(" + ".join(texts))

    def _atom(self, atom: Symbol | Call) -> Term:
        if isinstance(atom, Symbol):
            return self.env[atom.name]
        a, b = (self.offset(arg) for arg in atom.args)
        if atom.fn in ("min", "max"):
            return self.named(f"tl.{atom.fn}imum({a.text}, {b.text})", a, b)
        if atom.fn == "broadcast":
            return self.named(f"ts_broadcast({a.text}, {b.text})", a, b)
        divisor = b.text if isinstance(atom.args[1], int) else f"tl.maximum({b.text}, 1)"
        if is_nonnegative(atom.args[0]):
            sign = "//" if atom.fn == "floordiv" else "%"
            return self.named(f"{a.text} {sign} {divisor}", a, b)
        return self.named(f"ts_{atom.fn}({a.text}, {divisor})", a, b)

    def holds(self, bounds: Sequence[Bound], *, whole: bool = False) -> Term | None:
        """Whether all bounds hold; None where nothing has to. whole: whether they may be of what
        lies in no tensor, and is larger than any offset; so may products be."""
        tests: list[Term] = []
        for bound in bounds:
            product = any(len(monomial) > 1 for monomial, _ in terms_of(bound.index))
            at = self._number if whole or product else self.offset
            index, low, high = map(at, (bound.index, bound.low, bound.high))
            if isinstance(bound.index, int) and isinstance(bound.low, int):
                if bound.index < bound.low:
                    tests.append(self.named("tl.full([], 0, tl.int1)"))
            elif not is_nonnegative(bound.index - bound.low):
                tests.append(self.named(f"{low.text} <= {index.text}", low, index))
            if isinstance(bound.index, int) and isinstance(bound.high, int):
                if bound.index >= bound.high:
                    tests.append(self.named("tl.full([], 0, tl.int1)"))
            elif not is_nonnegative(bound.high - bound.index - 1):
                tests.append(self.named(f"{index.text} < {high.text}", index, high))
        return self._conjunction(tests)

    def _conjunction(self, tests: Sequence[Term]) -> Term | None:
        if not tests:
            return None
        if len(tests) == 1:
            return tests[0]
        return self.named(" & ".join(test.text for test in tests), *tests)

    # values --------------------------------------------------------------------------------

    def value(self, expr: Expr, guard: Term | None = None) -> Term:
        """An expression. guard: where memory may be touched; None: wherever there are points."""
        match expr:
            case Const(value=number, dtype=dtype):
                return self.named(literal(number, dtype))
            case IndexValue(index=index, dtype=dtype):
                if isinstance(index, int):
                    return self.named(literal(index, dtype))
                at = self._number(index)
                return self.named(f"{at.text}.to({register_type(dtype)})", at)
            case Acc(position=position):
                return self.accumulators[position]
            case Load():
                return self.load(expr, guard)
            case Guarded():
                return self._guarded(expr, guard)
            case Apply(op="byte_table", args=(x, Load() as table), dtype=dtype):
                return self._looked_up(x, table, dtype, guard)
            case Apply(op=op, args=args, dtype=dtype):
                operands = [self.value(arg, guard) for arg in args]
                kinds = [arg.dtype for arg in args]
                texts = [operand.text for operand in operands]
                return self.named(scalar.apply(op, texts, kinds, dtype), *operands)

    def _number(self, index: Dim) -> Term:
        """An index that is an element, which may be larger than any offset is: in 64 bits, but
        where it is the place on an axis."""
        names = symbols_of(index)
        if self.index == "tl.int64" or (
            len(names) == 1 and is_position(index) and index == symbol(*names)
        ):
            return self.offset(index)
        wide = DeviceTile(self.lines, self.shape, "tl.int64", self.pointers, {})
        rest = index
        for axes, points in self.runs:
            rest, factor = _along(rest, axes)
            if factor:
                wide.runs.append((axes, self._whole(points)))
        for name in sorted(symbols_of(rest)):
            own = self.env[name]
            known = name in sizes_of(rest)
            wide.env[name] = Term(in_64_bits(own.text)) if known else self._whole(own)
        return wide.offset(index)

    def _whole(self, places: Term) -> Term:
        """Places along axes in 64 bits."""
        if places.text.isdecimal():
            return places
        return self.named(f"{places.text}.to(tl.int64)", places)

    def _guarded(self, expr: Guarded, guard: Term | None) -> Term:
        stored = any(isinstance(part, Load) for part in unique_parts(expr.value))
        inside = self.holds(expr.bounds, whole=not stored)
        if inside is None:
            return self.value(expr.value, guard)
        both = self._conjunction([inside] if guard is None else [guard, inside])
        if isinstance(expr.value, Load) and isinstance(expr.other, Const):
            other = float(expr.other.value) if expr.dtype.is_float else int(expr.other.value)
            loaded = self.load(expr.value, inside if guard is None else both, other)
            if guard is None:
                return loaded
            value = loaded
        else:
            value = self.value(expr.value, both)
        other_value = self.value(expr.other, guard)
        text = f"tl.where({inside.text}, {value.text}, {other_value.text})"
        return self.named(text, inside, value, other_value)

    def _looked_up(self, x: Expr, table: Load, dtype: DType, guard: Term | None) -> Term:
        index = self.value(x, guard)
        place = IndexValue(table.offset, DType.I64)
        at = self.named(f"{index.text}.to(tl.uint8, bitcast=True).to({self.index})", index)
        start = self.offset(place.index)
        pointer = f"{self.pointer(table.buffer)} + ({start.text} + {at.text})"
        found = self.named(f"tl.load({pointer})", start, at)
        if table.buffer.dtype is dtype:
            return found
        return self.named(f"{found.text}.to({register_type(dtype)}, bitcast=True)", found)

    # memory --------------------------------------------------------------------------------

    def pointer(self, buffer: Buffer) -> str:
        """A pointer to the elements of a buffer, which may be read as groups of its own."""
        name, dtype = self.pointers[buffer.name]
        if dtype is buffer.dtype:
            return name
        return self.lines.let(f"{name}.to(tl.pointer_type({memory_type(buffer.dtype)}))")

    def address(self, offset: Dim, dynamic: Sequence[tuple[Expr, Dim]], guard: Term | None) -> Term:
        """The element that is meant, along the dimensions of the guard too."""
        at = self.offset(offset)
        for index, stride in dynamic:
            found, step = self.value(index, guard), self.offset(stride)
            at = self.named(f"{at.text} + {found.text}.to({self.index}) * {step.text}", at, found)
        return at

    def _wide(self, at: Term, dims: frozenset[str]) -> Term:
        if dims <= at.dims:
            return at
        text = f"{at.text} + tl.zeros({self.shape_of(dims | at.dims)}, {self.index})"
        return Term(self.lines.let(text), dims | at.dims)

    def mask(self, dims: frozenset[str], guard: Term | None) -> str:
        """Which points along dimensions there are, where the guard holds; "" for all."""
        tests = [self.masks[dim] for dim in self.shape if dim in dims and self.masks.get(dim)]
        if guard is not None:
            tests.append(guard.text)
        return self.lines.let(" & ".join(tests)) if tests else ""

    def load(self, load: Load, guard: Term | None = None, other: float | int = 0) -> Term:
        """The loaded element; `other` where there is none."""
        name = load.buffer.name
        if name in self.inlined:
            return self.value(self.inlined[name](load), guard)
        if name in self.registers:
            if load.offset != 0 or load.dynamic:
                raise NoDeviceCode("local memory is read at another place than it is written")
            return self.registers[name]
        at = self.address(load.offset, load.dynamic, guard)
        if guard is not None:
            at = self._wide(at, guard.dims)
        mask = self.mask(at.dims, guard)
        if mask:
            text = repr(other) if other - other == 0 else f'float("{other}")'
            mask = f", mask={mask}, other={text}"
        loaded = self.named(f"tl.load({self.pointer(load.buffer)} + {at.text}{mask})", at)
        return self.named(f"{loaded.text} != 0", loaded) if load.dtype is DType.BOOL else loaded

    def store_all(self, stores: Sequence[Store]) -> None:
        """Store elements at every point of the tile."""
        for store in stores:
            self.store(store)

    def store(self, store: Store) -> None:
        """Store an element at every point of the tile."""
        guard = self.holds(store.bounds)
        value = self.value(store.value, guard)
        at = self.address(store.offset, store.dynamic, guard)
        self.lines.add(self.stored(store, value, at, guard))

    def stored(self, store: Store, value: Term, at: Term, guard: Term | None) -> str:
        """The statement that stores a value at an address."""
        at = self._wide(at, value.dims | (guard.dims if guard else frozenset()))
        mask = self.mask(at.dims, guard)
        text = f"{value.text}.to(tl.int8)" if store.buffer.dtype is DType.BOOL else value.text
        suffix = f", mask={mask}" if mask else ""
        return f"tl.store({self.pointer(store.buffer)} + {at.text}, {text}{suffix})"
