"""Kernels run in numpy, point by point as written: what schedules and generated code must equal.

Every access is checked: an element outside its buffer, or one that two points of a stage write,
is an InternalError. Slow; for tests and for finding out where a kernel goes wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InternalError
from ..ir.dims import Call, Dim, Symbol, dbroadcast, evaluate
from ..ir.ops.byte_table import looked_up
from ..ir.ops.registry import lookup
from ..ir.types import DType
from .axis_names import panel_base
from .expr import Acc, Apply, Bound, Buffer, Const, Expr, Guarded, IndexValue, Load
from .kernel import Kernel, Reduction, Stage, Store

Array = np.ndarray[Any, Any]
Values = dict[str, "Array | int"]  # of axes (one number per point) and symbolic dims
_CALLS: dict[str, Callable[..., Any]] = {
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "min": np.minimum,
    "max": np.maximum,
    "broadcast": np.vectorize(dbroadcast, otypes=[np.int64]),
}
_FOLDS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def interpret(
    kernel: Kernel,
    arrays: Mapping[str, Array],
    symbols: Mapping[str, int] | None = None,
    panels: Mapping[str, int] | None = None,
    order: np.random.Generator | None = None,
) -> None:
    """Run a kernel on flat arrays, one per parameter, writing its outputs.

    symbols: values of the symbolic dims. panels: width of the tile along axes whose tile's start
    the indices use ("$axis@base", in packed operands). order: runs points in a drawn order and a
    stage in two halves, so that the outcome changes where arrays share memory that one point
    writes and another reads.
    Raises InternalError for an access outside an array and for two points that write one element.
    """
    memory = dict(arrays)
    values: Values = dict(symbols or {})
    shared = [evaluate(axis.extent, symbols or {}) for axis in _shared(kernel, 0)]
    points = list(np.ndindex(*shared))
    if order is not None and not any(stage.sequential for stage in kernel.stages):
        order.shuffle(points)
    for point in points:
        for number, stage in enumerate(kernel.stages):
            for store in stage.stores:
                if store.buffer.local is not None and store.buffer.name not in memory:
                    own = (evaluate(a.extent, symbols or {}) for a in stage.axes[kernel.shared :])
                    count = store.buffer.local or math.prod(own)
                    local = np.zeros(count, store.buffer.dtype.numpy)
                    memory[store.buffer.name] = local
            names = (axis.name for axis in _shared(kernel, number))
            here: Values = {**values, **dict(zip(names, point, strict=True))}
            _Run(stage, kernel.shared, memory, here, dict(panels or {}), order).all_points()


def _shared(kernel: Kernel, stage: int) -> tuple[Any, ...]:
    return kernel.stages[stage].axes[: kernel.shared]


def _grid(extents: list[int]) -> Array:
    """All points of a box, one column each."""
    return np.indices(extents).reshape(len(extents), math.prod(extents))


@dataclass
class _Run:
    """One stage at one point of the shared axes."""

    stage: Stage
    shared: int
    memory: dict[str, Array]
    values: Values
    panels: dict[str, int]
    order: np.random.Generator | None

    def all_points(self) -> None:
        """Run the stage's own loops: at once, in halves, or one by one if their order matters."""
        own = self.stage.axes[self.shared :]
        extents = [int(self.dim(axis.extent)) for axis in own]
        names = [axis.name for axis in own]
        if self.stage.sequential:
            for point in np.ndindex(*extents):
                self._points(names, np.array(point, np.int64).reshape(-1, 1))
        elif math.prod(extents):  # no axes: one point
            grid = _grid(extents)
            if self.order is not None and grid.shape[1] > 1:
                mixed = self.order.permutation(grid.shape[1])
                for half in np.array_split(mixed, 2):
                    self._points(names, grid[:, half])
            else:
                self._points(names, grid)

    def _points(self, names: list[str], index: Array) -> None:
        points = index.shape[1] if names else 1
        reducing = [int(self.dim(axis.extent)) for axis in self.stage.reduce_axes]
        steps = _grid(reducing)
        for name, numbers in zip(names, index, strict=True):
            self._bind(name, numbers[:, None])
        for axis, numbers in zip(self.stage.reduce_axes, steps, strict=True):
            self._bind(axis.name, numbers[None, :])
        shape = (points, math.prod(reducing))
        results = [self._reduce(reduction, shape) for reduction in self.stage.reductions]
        for store in self.stage.stores:
            self._store(store, results, points)

    def _bind(self, name: str, numbers: Array) -> None:
        self.values[name] = numbers
        if name in self.panels:
            self.values[panel_base(name)] = numbers // self.panels[name] * self.panels[name]

    def dim(self, dim: Dim) -> Array | int:
        """An index expression at every point."""
        if isinstance(dim, int):
            return dim
        total: Array | int = 0
        for mono, factor in dim.terms:
            term: Array | int = factor
            for atom in mono:
                term = term * (self._symbol(atom) if isinstance(atom, Symbol) else self._call(atom))
            total = total + term
        return total

    def _symbol(self, atom: Symbol) -> Array | int:
        if atom.name not in self.values:
            raise InternalError(f"the index uses '{atom.name}', which has no value")
        return self.values[atom.name]

    def _call(self, atom: Call) -> Array | int:
        a, b = (self.dim(arg) for arg in atom.args)
        result: Array = _CALLS[atom.fn](a, b)
        return result

    def _reduce(self, reduction: Reduction, shape: tuple[int, int]) -> Array:
        dtype = reduction.body.dtype
        body = np.broadcast_to(self.element(reduction.body, []), shape)
        if reduction.factor is not None:
            factor = np.broadcast_to(self.element(reduction.factor, []), shape)
            body = body.astype(np.float64) * factor
        if reduction.kind.startswith("arg"):
            find = np.argmax if reduction.kind == "argmax" else np.argmin
            if reduction.last:
                return np.asarray(shape[1] - 1 - find(body[:, ::-1], axis=1))[:, None]
            return np.asarray(find(body, axis=1))[:, None]
        wide = body.astype(np.float64 if dtype.is_float else dtype.numpy)
        if dtype is DType.BOOL:
            fold = np.logical_or if reduction.kind in ("max", "sum") else np.logical_and
            return np.asarray(fold.reduce(wide, axis=1, keepdims=True))
        if shape[1] == 0 and reduction.kind in ("max", "min"):
            return np.full((shape[0], 1), -np.inf if reduction.kind == "max" else np.inf)
        result = _FOLDS[reduction.kind].reduce(wide, axis=1, dtype=wide.dtype, keepdims=True)
        return np.asarray(result).astype(dtype.numpy)

    def _store(self, store: Store, results: list[Array], points: int) -> None:
        value = np.broadcast_to(self.element(store.value, results), (points, 1))
        at = self._address(store.offset, store.dynamic, results)
        at = np.broadcast_to(np.asarray(at), (points, 1))
        live = np.broadcast_to(self._holds(store.bounds), (points, 1))
        at, value = at[live], value[live]
        self._check(store.buffer, at)
        if np.unique(at).size != at.size:
            raise InternalError(f"several points write one element of '{store.buffer.name}'")
        self._stored(store.buffer)[at] = value

    def _stored(self, buffer: Buffer) -> Array:
        """A buffer's elements: groups of neighbouring ones where it is read as such."""
        array, wanted = self.memory[buffer.name], buffer.dtype
        grouped = array.dtype.itemsize < wanted.bytes and not wanted.is_narrow
        return array.view(wanted.numpy) if grouped else array

    def _check(self, buffer: Buffer, at: Array) -> None:
        size = self._stored(buffer).size
        if at.size and not (at.min() >= 0 and at.max() < size):
            raise InternalError(
                f"'{buffer.name}' has {size} elements; {at.min()}..{at.max()} are accessed"
            )

    def _holds(self, bounds: tuple[Bound, ...]) -> Array:
        held: Array = np.array(True)
        for bound in bounds:
            index = self.dim(bound.index)
            held = held & (self.dim(bound.low) <= index) & (index < self.dim(bound.high))
        return held

    def _address(
        self, offset: Dim, dynamic: tuple[tuple[Expr, Dim], ...], results: list[Array], **more: Any
    ) -> Array | int:
        at = self.dim(offset)
        for index, stride in dynamic:
            at = at + self.element(index, results, **more).astype(np.int64) * self.dim(stride)
        return at

    def element(self, expr: Expr, results: list[Array], live: Array | None = None) -> Array:
        """A scalar expression at every point. live: where memory may be touched."""
        live = np.array(True) if live is None else live
        match expr:
            case Const(value=value, dtype=dtype):
                return np.array([[value]]).astype(dtype.numpy)
            case IndexValue(index=index, dtype=dtype):
                return np.atleast_2d(np.asarray(self.dim(index))).astype(dtype.numpy)
            case Acc(position=position):
                return results[position]
            case Load(buffer=buffer, offset=offset, dynamic=dynamic):
                at = np.asarray(self._address(offset, dynamic, results, live=live))
                at, mask = np.broadcast_arrays(np.atleast_2d(at), live)
                self._check(buffer, at[mask])
                source = self._stored(buffer)
                if not source.size:
                    return np.zeros(at.shape, source.dtype)
                return np.asarray(source[np.where(mask, at, 0)])
            case Guarded(bounds=bounds, value=value, other=other):
                inside = self._holds(bounds)
                chosen = self.element(value, results, live & inside)
                return np.where(inside, chosen, self.element(other, results, live))
            case Apply(op="byte_table", args=(x, Load(buffer=buffer)), dtype=dtype):
                table = self.memory[buffer.name].reshape(-1)
                return looked_up(self.element(x, results, live), table, dtype)
            case Apply(op=op, args=args, dtype=dtype):
                operator = lookup(op)
                if operator.evaluate is None:
                    raise InternalError(f"'{op}' has no numpy meaning")
                operands = [self.element(arg, results, live) for arg in args]
                return np.asarray(operator.evaluate(operands, {"dtype": dtype})[0])


__all__ = ["interpret"]
