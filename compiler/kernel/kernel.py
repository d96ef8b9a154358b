"""Kernels: fused groups in tensor-expression form, as loop nests over named axes.

A stage computes, for every point of its parallel axes, its reductions over its reduction axes and
then its stores. The first `shared` axes are common to all stages of a kernel: the stages run one
after another inside those loops, and local buffers live for one iteration of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..ir.dims import Dim, product, symbol, symbols_of
from ..ir.ops.step_groups import GROUP_PRODUCTS
from ..target import STACK_BYTES
from . import expr as ex
from .expr import Bound, Buffer, Expr
from .instruction import DOTS

CACHE_LINE = 64  # bytes, on all CPUs that code is generated for


@dataclass(frozen=True)
class Axis:
    """A loop from 0 to extent; the name begins with "$"."""

    name: str
    extent: Dim


def linear_of(axes: Sequence[Axis]) -> Dim:
    """The number of a point among all those of some axes, the last one fastest."""
    number: Dim = 0
    for axis in axes:
        number = number * axis.extent + symbol(axis.name)
    return number


@dataclass(frozen=True)
class Reduction:
    """kind: "sum", "max", "min", "prod", or "argmax"/"argmin" (body: the compared value).

    The last two give the i64 position along the one reduction axis; `last` prefers later ties.
    factor: of a sum: what the sum over the innermost axes that it does not move along is multiplied
    by, before it is added up over the others (`Stage.outer_axes`); of the body's type.
    """

    kind: str
    body: Expr
    last: bool = False
    factor: Expr | None = None

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """What it evaluates at every step, and for every factor."""
        return (self.body,) if self.factor is None else (self.body, self.factor)

    def with_parts(self, change: Callable[[Expr], Expr]) -> Reduction:
        """The reduction with `change` applied to its expressions."""
        factor = None if self.factor is None else change(self.factor)
        return replace(self, body=change(self.body), factor=factor)


@dataclass(frozen=True)
class Store:
    """buffer[offset + sum(expr * stride)] = value, where all bounds hold."""

    buffer: Buffer
    offset: Dim
    value: Expr
    dynamic: tuple[tuple[Expr, Dim], ...] = ()
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One loop nest. With `sequential` set the points must run in order (scatter)."""

    axes: tuple[Axis, ...]
    reduce_axes: tuple[Axis, ...]
    reductions: tuple[Reduction, ...]
    stores: tuple[Store, ...]
    sequential: bool = False

    def expressions(self) -> Iterator[Expr]:
        """All scalar expressions: reduction bodies, then stored values and dynamic indices."""
        for reduction in self.reductions:
            yield from reduction.expressions
        for store in self.stores:
            yield store.value
            for index, _ in store.dynamic:
                yield index

    def map_indices(self, change: Callable[[Dim], Dim]) -> Stage:
        """The stage with `change` applied to every index expression."""
        done: dict[int, Expr] = {}

        def moved(expression: Expr) -> Expr:
            return ex.map_indices(expression, change, done)

        reductions = tuple(r.with_parts(moved) for r in self.reductions)
        stores = tuple(
            Store(
                s.buffer,
                change(s.offset),
                moved(s.value),
                tuple((moved(i), change(stride)) for i, stride in s.dynamic),
                tuple(Bound(change(b.index), change(b.low), change(b.high)) for b in s.bounds),
            )
            for s in self.stores
        )
        return replace(self, reductions=reductions, stores=stores)

    @property
    def outer_axes(self) -> int:
        """How many of the reduction axes, from the first, factors of sums move along: sums over
        the others are multiplied by them. 0 without factors."""
        factors = [r.factor for r in self.reductions if r.factor is not None]
        moving = [
            place
            for place, axis in enumerate(self.reduce_axes, 1)
            if any(ex.depends_on(factor, axis.name) for factor in factors)
        ]
        return max(moving, default=0)

    def all_indices(self) -> Iterator[Dim]:
        """Every index expression of the stage."""
        for expression in self.expressions():
            yield from ex.all_indices(expression)
        for store in self.stores:
            yield store.offset
            for _, stride in store.dynamic:
                yield stride
            for bound in store.bounds:
                yield from (bound.index, bound.low, bound.high)

    def points(self) -> Dim:
        """Evaluations of the reduction bodies (or of the stores where there are none)."""
        return product(axis.extent for axis in self.axes + self.reduce_axes)

    def sum_flops(self) -> Dim:
        """Operations of the reductions, a multiply-add counted as two."""
        return self.points() * sum(_accumulation(r.body) for r in self.reductions)

    def store_flops(self) -> Dim:
        """Operations of what is stored."""
        outer = product(axis.extent for axis in self.axes)
        return outer * sum(_operations(s.value) for s in self.stores)


def has_factors(stage: Stage) -> bool:
    """Whether the stage adds up sums that are multiplied by a factor each."""
    return any(reduction.factor is not None for reduction in stage.reductions)


@dataclass(frozen=True)
class Kernel:
    """A function over buffers: `params` in call order, inputs before outputs.

    outputs: how many of the params, counted from the end, are written. most_stack: bytes of a local
    buffer that lies on the stack; larger ones lie in scratch memory. together: whether the stages
    may run at the same time.
    operators: the core operators that it fuses, nodes: the names of their nodes, for reports.
    """

    name: str
    params: tuple[Buffer, ...]
    outputs: int
    stages: tuple[Stage, ...]
    shared: int = 0
    operators: tuple[str, ...] = ()
    nodes: tuple[str, ...] = field(default=(), compare=False)
    most_stack: int = STACK_BYTES
    together: bool = False

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbolic dims that are run-time arguments, sorted."""
        names = {name for dim in self.all_dims() for name in symbols_of(dim)}
        return tuple(sorted(name for name in names if not name.startswith("$")))

    def map_dims(self, change: Callable[[Dim], Dim]) -> Kernel:
        """The kernel with `change` applied to every extent and index."""

        def axes(old: tuple[Axis, ...]) -> tuple[Axis, ...]:
            return tuple(Axis(axis.name, change(axis.extent)) for axis in old)

        stages = (
            replace(stage, axes=axes(stage.axes), reduce_axes=axes(stage.reduce_axes))
            for stage in self.stages
        )
        return replace(self, stages=tuple(stage.map_indices(change) for stage in stages))

    def all_dims(self) -> Iterator[Dim]:
        """Every extent and index."""
        for stage in self.stages:
            yield from (axis.extent for axis in stage.axes + stage.reduce_axes)
            yield from stage.all_indices()

    @property
    def scratch(self) -> dict[str, int]:
        """Offsets, in bytes, of the local buffers that are too large for the stack."""
        offsets: dict[str, int] = {}
        end = 0
        for name, size in self._large_locals().items():
            offsets[name] = end
            end += size
        return offsets

    @property
    def scratch_bytes(self) -> int:
        """Memory that each thread running the kernel needs for its large local buffers."""
        return sum(self._large_locals().values())

    def _large_locals(self) -> dict[str, int]:
        """Bytes of every large local buffer, rounded up to cache lines."""
        found: dict[str, int] = {}
        for stage in self.stages:
            for store in stage.stores:
                size = (store.buffer.local or 0) * store.buffer.dtype.bytes
                if size > self.most_stack:
                    found[store.buffer.name] = -(-size // CACHE_LINE) * CACHE_LINE
        return found

    def flops(self) -> Dim:
        """Operations of one call, a multiply-add counted as two."""
        total: Dim = 0
        for stage in self.stages:
            total = total + stage.sum_flops() + stage.store_flops()
        return total


def _accumulation(body: Expr) -> int:
    """Operations of one step of a sum, a product of groups counted with all its products."""
    if isinstance(body, ex.Apply) and body.op in DOTS:
        return 2 * GROUP_PRODUCTS[body.op].steps
    return max(1, _operations(body)) + 1


def _operations(expression: Expr) -> int:
    return sum(
        isinstance(part, ex.Apply) and part.dtype.is_float and part.op != "cast"
        for part in ex.walk(expression)
    )


def kernel_label(kernel: Kernel) -> str:
    """What the kernel fuses, as part of a symbol's name."""
    names = [op for op in kernel.operators if op not in ("reshape", "broadcast_to")]
    label = "_".join(dict.fromkeys(names)) or "copy"
    return re.sub(r"[^a-z0-9_]", "", label)[:40]


def kernel_text(kernel: Kernel) -> str:
    """The kernel in readable form. Equal texts mean equal code, whatever the kernel's name."""
    lines = [
        "kernel(" + ", ".join(f"{b.name}: {b.dtype}" for b in kernel.params) + ")"
        f" outputs {kernel.outputs} shared {kernel.shared}" + " together" * kernel.together
    ]
    for stage in kernel.stages:
        loops = " ".join(f"{axis.name}<{axis.extent}" for axis in stage.axes)
        lines.append(f"  for {loops}" + (" in order" if stage.sequential else ""))
        over = " ".join(f"{axis.name}<{axis.extent}" for axis in stage.reduce_axes)
        for number, reduction in enumerate(stage.reductions):
            last = " last" if reduction.last else ""
            factor = "" if reduction.factor is None else f" by {ex.text(reduction.factor)}"
            body = ex.text(reduction.body)
            lines.append(f"    acc{number} = {reduction.kind}{last} over {over}: {body}{factor}")
        for store in stage.stores:
            more = "".join(f" + {ex.text(index)}*({stride})" for index, stride in store.dynamic)
            more += "]" + "".join(f" if {b.low} <= {b.index} < {b.high}" for b in store.bounds)
            local = "" if store.buffer.local is None else f"local {store.buffer.local} "
            target = f"{local}{store.buffer.name}[{store.offset}{more}"
            lines.append(f"    {target} = {ex.text(store.value)}")
    return "\n".join(lines)
