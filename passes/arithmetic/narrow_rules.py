"""What each operator needs of its operands to compute a part of its result.

Everything that acts on rows, pixels or heads by itself passes parts on; what meets along an axis
(sums, softmax, keys of attention) needs all of that axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Node, Value, constant
from ...compiler.ir.ops.registry import Array, Builder, Trait, has_trait
from ..layout.axis_permutation import match_axes
from .narrow_windows import WINDOW_RULES
from .narrowing import Make, Narrowed, Rule, aligned, same, without
from .parts import MOST_PLACES, Interval, Looked, Part, Picks, Places, part_shape, picks, whole


def narrowed(node: Node, part: Part) -> Narrowed | None:
    """How a node computes a part of its only result; None where it computes all of it only."""
    if len(node.outputs) != 1 or node.regions:
        return None
    if has_trait(node, Trait.POINTWISE):
        return _pointwise(node, part)
    rule = _RULES.get(node.op)
    if rule is None and has_trait(node, Trait.REDUCTION):
        rule = _reduction
    return rule(node, part) if rule else None


def _pointwise(node: Node, part: Part) -> Narrowed:
    needs = tuple(aligned(part, value, len(part)) for value in node.inputs)
    return Narrowed(part, needs, same(node))


def _transpose(node: Node, part: Part) -> Narrowed:
    need: list[Places | None] = [None] * len(part)
    for axis, source in enumerate(node.attrs["perm"]):
        need[source] = part[axis]
    return Narrowed(part, (tuple(need),), same(node))


def _broadcast(node: Node, part: Part) -> Narrowed:
    shape = part_shape(node.output.shape, part)
    need = aligned(part, node.inputs[0], len(part))
    return Narrowed(part, (need,), same(node, shape=shape))


def _softmax(node: Node, part: Part) -> Narrowed:
    computed = without(part, (node.attrs["axis"] % len(part),))
    return Narrowed(computed, (computed,), same(node))


def _layer_norm(node: Node, part: Part) -> Narrowed:
    computed = without(part, range(node.attrs["axis"] % len(part), len(part)))
    others = tuple(whole(value.type.rank) for value in node.inputs[1:])
    return Narrowed(computed, (computed, *others), same(node))


def _reduction(node: Node, part: Part) -> Narrowed:
    rank = node.inputs[0].type.rank
    axes = node.attrs["axes"] if "axes" in node.attrs else (node.attrs["axis"],)
    gone = [axis % rank for axis in axes]
    if node.attrs["keepdims"]:
        computed = without(part, gone)
        return Narrowed(computed, (computed,), same(node))
    left = iter(part)
    need = tuple(None if axis in gone else next(left) for axis in range(rank))
    return Narrowed(part, (need,), same(node))


def _cumulative(node: Node, part: Part) -> Narrowed:
    axis = node.attrs["axis"] % len(part)
    found, computed = part[axis], list(without(part, (axis,)))
    if isinstance(found, Picks) and not node.attrs["reverse"]:
        computed[axis] = picks(range(found.places[-1] + 1), node.output.shape[axis])
    return Narrowed(tuple(computed), (tuple(computed),), same(node))


def _matmul(node: Node, part: Part) -> Narrowed:
    a, b = node.inputs
    rank = len(part)
    left = (*aligned(part, a, rank)[:-1], None)
    right = aligned(part, b, rank)
    return Narrowed(part, (left, (*right[:-2], None, right[-1])), same(node))


def _packed_product(node: Node, part: Part) -> Narrowed:
    """Constant weights that stay packed: rows only."""
    computed = without(part, (len(part) - 1,))
    others = tuple(whole(value.type.rank) for value in node.inputs[1:])
    if node.inputs[0].type.rank != len(part):
        computed = whole(len(part))
    return Narrowed(computed, (computed, *others), same(node))


def _attention(node: Node, part: Part) -> Narrowed:
    q, k, v, *mask = node.inputs
    rank = len(part)
    rows = (*part[:-1], None)
    keys = (*part[:-2], None, None)
    needs = [
        aligned(rows, q, rank),
        aligned(keys, k, rank),
        aligned((*keys[:-1], part[-1]), v, rank),
    ]
    needs += [aligned(rows, value, rank) for value in mask]
    return Narrowed(part, tuple(needs), same(node))


def _gather(node: Node, part: Part) -> Narrowed | None:
    x, index = node.inputs
    axis, width = node.attrs["axis"] % x.type.rank, index.type.rank
    chosen = part[axis : axis + width]
    before, after = part[:axis], part[axis + width :]
    if index.data is not None and not x.is_constant and isinstance(x.shape[axis], int):
        return _constant_gather(node, part, index.data % x.shape[axis])
    if x.is_constant or width > 1 or any(places is not None for places in chosen):
        return Narrowed(part, ((*before, None, *after), chosen), same(node))
    looked = Looked(index)
    if not isinstance(looked.count, int):
        return Narrowed(part, ((*before, None, *after), chosen), same(node))
    size = x.shape[axis]
    if isinstance(size, int) and size <= looked.count:
        return Narrowed(part, ((*before, None, *after), chosen), same(node))

    def make(b: Builder, inputs: Sequence[Value | None]) -> Value:
        return _with_index_axes(b, inputs[0], axis, index.shape)

    return Narrowed(part, ((*before, looked, *after), None), make)


def _with_index_axes(b: Builder, value: Value | None, axis: int, dims: tuple[Dim, ...]) -> Value:
    """A value, one of whose axes becomes those of an index."""
    assert value is not None
    shape = (*value.shape[:axis], *dims, *value.shape[axis + 1 :])
    return value if shape == value.shape else b.emit("reshape", [value], {"shape": shape})


def _constant_gather(node: Node, part: Part, index: Array) -> Narrowed | None:
    """Places that the model names: what is left of them, in order, and each once."""
    x, axis = node.inputs[0], node.attrs["axis"] % node.inputs[0].type.rank
    chosen = part[axis : axis + index.ndim]
    if not index.size or index.size > MOST_PLACES:
        return None
    if any(places is not None and not isinstance(places, Picks) for places in chosen):
        return None
    for number, places in enumerate(chosen):
        if isinstance(places, Picks):
            index = np.take(index, np.asarray(places.places), axis=number)
    ordered, position = np.unique(index, return_inverse=True)
    position = position.reshape(index.shape)
    straight = bool(np.array_equal(position.ravel(), np.arange(len(ordered))))
    need = (*part[:axis], picks(ordered, x.shape[axis]), *part[axis + index.ndim :])

    def make(b: Builder, inputs: Sequence[Value | None]) -> Value:
        if straight:
            return _with_index_axes(b, inputs[0], axis, index.shape)
        assert inputs[0] is not None
        return b.emit("gather", [inputs[0], constant(position)], {"axis": axis})

    return Narrowed(part, (need, None), make)


def _slice(node: Node, part: Part) -> Narrowed | None:
    x, computed, need = node.inputs[0], list(part), list(part)
    backwards = []
    for axis, dim in enumerate(x.shape):
        start, stop, step = (node.attrs[key][axis] for key in ("starts", "stops", "steps"))
        if (start, stop, step) == (0, dim, 1):
            continue
        found = part[axis]
        size = node.output.shape[axis]
        if isinstance(start, int) and isinstance(stop, int):
            places = range(start, stop, step)
            if not places:
                return None
            if not isinstance(found, Picks):
                computed[axis] = None
            need[axis] = picks(_among(places, computed[axis]), dim)
            if step < 0:
                backwards.append(axis)
        elif step != 1:
            return None
        elif isinstance(found, Picks) and _is_run(found):
            need[axis] = Interval(start + found.places[0], len(found.places))
        elif isinstance(found, Interval):
            need[axis] = Interval(start + found.start, found.count)
        else:
            computed[axis], need[axis] = None, Interval(start, size)
    return Narrowed(tuple(computed), (tuple(need),), _reversing(backwards))


def _among(places: range, found: Places | None) -> Sequence[int] | Array:
    """Those of the places that are at the found ones among them."""
    if not isinstance(found, Picks):
        return places
    chosen = found.places
    if isinstance(chosen, range):
        return places[chosen.start : chosen[-1] + 1 : chosen.step]
    return np.asarray(places)[list(chosen)]


def _is_run(found: Picks) -> bool:
    return isinstance(found.places, range) and (found.places.step == 1 or len(found.places) == 1)


def _reversing(axes: Sequence[int]) -> Make:
    """The operand itself, but for axes along which it is read backwards."""

    def make(b: Builder, inputs: Sequence[Value | None]) -> Value:
        value = inputs[0]
        assert value is not None
        if not axes:
            return value
        dims = list(enumerate(value.shape))
        attrs = {
            "starts": tuple(dim - 1 if axis in axes else 0 for axis, dim in dims),
            "stops": tuple(-1 if axis in axes else dim for axis, dim in dims),
            "steps": tuple(-1 if axis in axes else 1 for axis, _ in dims),
        }
        return b.emit("slice", [value], attrs)

    return make


def _pad(node: Node, part: Part) -> Narrowed | None:
    x, rank = node.inputs[0], len(part)
    pads, computed, need = list(node.attrs["pads"]), list(part), list(part)
    for axis, dim in enumerate(x.shape):
        low, high = pads[axis], pads[rank + axis]
        if low == 0 and high == 0:
            continue
        fixed = all(isinstance(item, int) for item in (low, high, dim))
        if node.attrs["mode"] != "constant" or not fixed:
            computed[axis] = need[axis] = None
            continue
        found = part[axis]
        if not isinstance(found, Picks):
            computed[axis] = None
        wanted = found.places if isinstance(found, Picks) else range(node.output.shape[axis])
        inside = np.asarray(wanted, np.int64) - low
        kept = inside[(inside >= 0) & (inside < dim)]
        if not kept.size:
            computed[axis] = need[axis] = None
            continue
        need[axis] = picks(kept, dim)
        pads[axis], pads[rank + axis] = int((inside < 0).sum()), int((inside >= dim).sum())
    others = tuple(whole(value.type.rank) for value in node.inputs[1:])
    return Narrowed(tuple(computed), (tuple(need), *others), same(node, pads=tuple(pads)))


def _concat(node: Node, part: Part) -> Narrowed | None:
    axis = node.attrs["axis"] % len(part)
    found, needs = part[axis], list[Part | None]()
    computed, offset = part, 0
    if not isinstance(found, Picks):
        computed = without(part, (axis,))
        return Narrowed(computed, (computed,) * len(node.inputs), same(node))
    left = np.asarray(found.places, np.int64)
    for value in node.inputs:
        size = value.shape[axis]
        if not left.size:
            needs.append(None)
            continue
        if not isinstance(size, int):
            computed = without(part, (axis,))
            return Narrowed(computed, (computed,) * len(node.inputs), same(node))
        here = left[left < offset + size] - offset
        left, offset = left[left >= offset + size], offset + size
        chosen = (*part[:axis], picks(here, size) if here.size else None, *part[axis + 1 :])
        needs.append(chosen if here.size else None)

    def make(b: Builder, inputs: Sequence[Value | None]) -> Value:
        given = [value for value in inputs if value is not None]
        return given[0] if len(given) == 1 else b.emit("concat", given, node.attrs)

    return Narrowed(computed, tuple(needs), make)


def _reshape(node: Node, part: Part) -> Narrowed | None:
    x, shape = node.inputs[0], node.output.shape
    groups = match_axes(x.shape, shape)
    if groups is None:
        return None
    computed, need = list(whole(len(part))), list(whole(x.type.rank))
    for sources, results in groups:
        wanted = [part[axis] for axis in results]
        if all(places is None for places in wanted):
            continue
        if len(sources) == len(results) == 1:
            computed[results[0]] = need[sources[0]] = wanted[0]
            continue
        found = _regrouped([x.shape[axis] for axis in sources], [shape[a] for a in results], wanted)
        for axis, places in zip(sources, found or (), strict=False):
            need[axis] = places
        for axis, places in zip(results, wanted if found else (), strict=False):
            computed[axis] = places
    made = part_shape(shape, tuple(computed))
    return Narrowed(tuple(computed), (tuple(need),), same(node, shape=made))


def _regrouped(
    sources: Sequence[Dim], results: Sequence[Dim], wanted: Sequence[Places | None]
) -> list[Places | None] | None:
    """The places along axes that a reshape merges or splits into others, whose places are wanted;
    None where they make no part."""
    if not all(isinstance(dim, int) for dim in (*sources, *results)):
        return None
    if not all(places is None or isinstance(places, Picks) for places in wanted):
        return None
    sizes, dims = [int(dim) for dim in results], [int(dim) for dim in sources]  # type: ignore[arg-type]
    if int(np.prod(sizes)) > MOST_PLACES:
        return None
    places = [
        np.arange(size) if found is None else np.asarray(found.places)  # type: ignore[union-attr]
        for size, found in zip(sizes, wanted, strict=True)
    ]
    flat = np.ravel_multi_index(np.ix_(*places), sizes).ravel()
    axes = [np.unique(axis) for axis in np.unravel_index(flat, dims)]
    if int(np.prod([len(axis) for axis in axes])) != flat.size:
        return None
    return [picks(axis, dim) for axis, dim in zip(axes, dims, strict=True)]


_RULES: dict[str, Rule] = {
    **WINDOW_RULES,
    "transpose": _transpose,
    "broadcast_to": _broadcast,
    "expand": _broadcast,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "cumsum": _cumulative,
    "cumprod": _cumulative,
    "matmul": _matmul,
    "quantised_matmul": _packed_product,
    "attention": _attention,
    "gather": _gather,
    "slice": _slice,
    "pad": _pad,
    "concat": _concat,
    "reshape": _reshape,
}
