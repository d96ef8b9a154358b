"""Bounds of the elements of integer values, as far as a graph tells them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ...compiler.ir.dims import (
    Dim,
    Symbol,
    dmax,
    dmin,
    floordiv,
    is_nonnegative,
    order_key,
    size_of,
    substitute,
    symbol,
)
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.types import DType

MAX_DEPTH = 48  # of the expressions looked at
MAX_BOUNDS = 4  # alternatives that are kept
Bounds = frozenset[Dim]


@dataclass(frozen=True)
class Range:
    """Every element is at least each of `low` and at most each of `high`; empty: not known."""

    low: Bounds = frozenset()
    high: Bounds = frozenset()

    def within(self, size: Dim, *, nonempty: bool = False) -> bool:
        """Whether every element is certainly an index into `size` elements, or from their end.

        nonempty: taking for granted that `size` is not 0.
        """
        more = {name: symbol(name) + 1 for name in _factors(size)} if nonempty else {}
        return any(is_nonnegative(substitute(low + size, more)) for low in self.low) and any(
            is_nonnegative(substitute(size - 1 - high, more)) for high in self.high
        )

    def is_nonnegative(self) -> bool:
        """Whether no element is below zero."""
        return any(is_nonnegative(low) for low in self.low)


UNKNOWN = Range()


def _factors(size: Dim) -> list[str]:
    """The symbols that cannot be 0 where a product of them is not 0; none for other sizes."""
    if isinstance(size, int) or len(size.terms) != 1:
        return []
    return [atom.name for atom in size.terms[0][0] if isinstance(atom, Symbol)]


def _range(low: Dim, high: Dim) -> Range:
    return Range(frozenset({low}), frozenset({high}))


def _few(bounds: Iterable[Dim]) -> Bounds:
    simplest = sorted(set(bounds), key=lambda dim: (size_of(dim), order_key(dim)))
    return frozenset(simplest[:MAX_BOUNDS])


def _pairs(a: Bounds, b: Bounds, combine: Callable[[Dim, Dim], Dim]) -> Bounds:
    return _few(combine(x, y) for x in a for y in b)


def _sum(a: Range, b: Range) -> Range:
    def add(x: Dim, y: Dim) -> Dim:
        return x + y

    return Range(_pairs(a.low, b.low, add), _pairs(a.high, b.high, add))


def _negated(a: Range) -> Range:
    return Range(frozenset(-1 * x for x in a.high), frozenset(-1 * x for x in a.low))


def _union(parts: Iterable[Range]) -> Range:
    found: Range | None = None
    for part in parts:
        if found is None:
            found = part
        else:
            found = Range(_pairs(found.low, part.low, dmin), _pairs(found.high, part.high, dmax))
    return found or UNKNOWN


def _constant(value: Value) -> Range:
    data = value.data
    if data is None or not data.size:
        return UNKNOWN
    low, high = float(np.min(data)), float(np.max(data))
    if not (math.isfinite(low) and math.isfinite(high)):
        return UNKNOWN
    if data.dtype.kind in "iub":
        return _range(int(np.min(data)), int(np.max(data)))
    return _range(math.floor(low), math.ceil(high))


class Ranges:
    """Ranges of the values of a graph and the regions inside it."""

    def __init__(self, graph: Graph) -> None:
        self._known: dict[Value, Range] = {}
        self._inner: dict[Value, tuple[Node, int]] = {}
        for node in graph.walk():
            for region in node.regions:
                self._inner.update((v, (node, n)) for n, v in enumerate(region.inputs))

    def of(self, value: Value, depth: int = 0) -> Range:
        """The range of a value's elements."""
        if value not in self._known:
            found = self._find(value, depth) if depth < MAX_DEPTH else UNKNOWN
            if value.dtype is DType.BOOL and not (found.low and found.high):
                found = _range(0, 1)
            self._known[value] = found
        return self._known[value]

    def _find(self, value: Value, depth: int) -> Range:
        if value.is_constant:
            return _constant(value)
        node = value.producer
        if node is None:
            return self._region_input(value, depth) if value in self._inner else UNKNOWN
        rule = _RULES.get(node.op)
        if rule is not None:
            return rule(node, node.outputs.index(value), lambda v: self.of(v, depth + 1))
        if has_trait(node, Trait.INDEX_MAP | Trait.LOOKUP) or node.op in _SELECTS:
            return self.of(node.inputs[0], depth + 1)
        return UNKNOWN

    def _region_input(self, value: Value, depth: int) -> Range:
        node, position = self._inner[value]
        if node.op == "loop" and position == 0:
            trip = self.of(node.inputs[0], depth + 1)
            return Range(frozenset({0}), frozenset(high - 1 for high in trip.high))
        if node.op == "scan" and position >= node.attrs["num_state"]:
            return self.of(node.inputs[position], depth + 1)
        return UNKNOWN


# operators whose elements are elements of their first operand
_SELECTS = frozenset({"reduce_max", "reduce_min", "floor", "ceil", "round"})
Of = Callable[[Value], Range]
Rule = Callable[[Node, int, Of], Range]


def _iota(node: Node, position: int, of: Of) -> Range:
    return _range(0, node.attrs["shape"][node.attrs["axis"]] - 1)


def _dims(node: Node, position: int, of: Of) -> Range:
    return _union(_range(dim, dim) for dim in node.attrs["values"])


def _along_axis(node: Node, position: int, of: Of) -> Range:
    return _range(0, node.inputs[0].shape[node.attrs["axis"]] - 1)


def _argsort(node: Node, position: int, of: Of) -> Range:
    return _range(0, node.inputs[0].shape[-1] - 1)


def _rows(node: Node, position: int, of: Of) -> Range:
    return _range(0, node.inputs[0].shape[0] - 1) if position < 2 else UNKNOWN


def _cast(node: Node, position: int, of: Of) -> Range:
    source, dtype = of(node.inputs[0]), node.output.dtype
    if dtype.is_float or dtype in (DType.I64, DType.I32) or dtype is node.inputs[0].dtype:
        return source
    return UNKNOWN


def _min(node: Node, position: int, of: Of) -> Range:
    a, b = (of(value) for value in node.inputs)
    return Range(_pairs(a.low, b.low, dmin), _few(a.high | b.high))


def _max(node: Node, position: int, of: Of) -> Range:
    a, b = (of(value) for value in node.inputs)
    return Range(_few(a.low | b.low), _pairs(a.high, b.high, dmax))


def _add(node: Node, position: int, of: Of) -> Range:
    return _sum(of(node.inputs[0]), of(node.inputs[1]))


def _sub(node: Node, position: int, of: Of) -> Range:
    return _sum(of(node.inputs[0]), _negated(of(node.inputs[1])))


def _mul(node: Node, position: int, of: Of) -> Range:
    a, b = (of(value) for value in node.inputs)
    if a.is_nonnegative() and b.is_nonnegative():
        return Range(frozenset({0}), _pairs(a.high, b.high, lambda x, y: x * y))
    return UNKNOWN


def _div(node: Node, position: int, of: Of) -> Range:
    a, b = (of(value) for value in node.inputs)
    divisors = [low for low in b.low if isinstance(low, int) and low > 0]
    if node.output.dtype.is_integer and a.is_nonnegative() and divisors:
        return Range(frozenset({0}), frozenset(floordiv(x, max(divisors)) for x in a.high))
    return UNKNOWN


def _mod(node: Node, position: int, of: Of) -> Range:
    divisor = of(node.inputs[1])
    if node.output.dtype.is_integer and divisor.is_nonnegative():
        return Range(frozenset({0}), frozenset(high - 1 for high in divisor.high))
    return UNKNOWN


def _where(node: Node, position: int, of: Of) -> Range:
    return _union(of(value) for value in node.inputs[1:])


def _all(node: Node, position: int, of: Of) -> Range:
    return _union(of(value) for value in node.inputs)


def _pad(node: Node, position: int, of: Of) -> Range:
    if node.attrs["mode"] == "constant" and len(node.inputs) == 1:
        return _union((of(node.inputs[0]), _range(0, 0)))
    return _all(node, position, of)


def _if(node: Node, position: int, of: Of) -> Range:
    return _union(of(region.outputs[position]) for region in node.regions)


_RULES: dict[str, Rule] = {
    "iota": _iota, "dims": _dims, "argmax": _along_axis, "argmin": _along_axis,
    "argsort": _argsort, "nonzero": lambda n, p, of: _rows(n, p, of) if p == 0 else UNKNOWN,
    "unique": _rows, "cast": _cast, "min": _min, "max": _max, "add": _add, "sub": _sub,
    "neg": lambda n, p, of: _negated(of(n.inputs[0])), "mul": _mul, "div": _div, "mod": _mod,
    "where": _where, "concat": _all, "pad": _pad, "if": _if,
}  # fmt: skip
