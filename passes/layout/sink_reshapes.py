"""Moves reshapes behind what can be computed on the tensor before them, where they meet others.

A reshape moves no data, but an operator between two reshapes hides from its neighbours that all of
them could be one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...compiler.ir.dims import Dim, product
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import TensorType
from .axis_permutation import match_axes

RULES = Rules()


@dataclass(frozen=True)
class SinkReshapes:
    """f(reshape(x)) -> reshape(f(x)) for pointwise operators, softmax, layer_norm and reductions.

    With several operands all must come from reshapes of tensors of one shape; rows [R, N] that are
    spread to [.., N] make all operands rows, and panels [.., G, 1, N] of a product's columns that
    are joined make all operands panels. Whole rows that are cut off before rows of another
    length are made are cut off as elements, one after the other.
    """

    name: str = "sink_reshapes"

    def run(self, graph: Graph) -> bool:
        """Move reshapes; whether any moved."""
        return rewrite(graph, RULES)


def _source(value: Value, rw: Rewriter) -> Value | None:
    view = rw.producer(value, "reshape")
    return view.inputs[0] if view is not None else None


def _are_rows(source: Value, value: Value) -> bool:
    """Whether the value spreads the rows of a matrix over several axes."""
    return source.type.rank == 2 and value.type.rank > 2 and source.shape[1] == value.shape[-1]


def _are_panels(source: Value, value: Value, rw: Rewriter) -> bool:
    """Whether the value joins panels of columns that a product makes, or what follows one element
    by element."""
    if not value.type.rank or source.type.rank != value.type.rank + 2 or source.shape[-2] != 1:
        return False
    if source.shape[-3] * source.shape[-1] != value.shape[-1]:
        return False
    shape, node = source.shape, rw.producer(source)
    while node is not None and has_trait(node, Trait.POINTWISE):
        made = next((value for value in node.inputs if value.shape == shape), None)
        node = None if made is None else rw.producer(made)
    return node is not None and node.op == "matmul"


@RULES.on(Trait.POINTWISE)
def pointwise(node: Node, rw: Rewriter) -> Replacement:
    """f(reshape(x), reshape(y), c) -> reshape(f(x, y, c))"""
    shape = node.output.shape
    full = [value for value in node.inputs if value.shape == shape and not value.is_constant]
    sources = [_source(value, rw) for value in full]
    rows = next(
        (
            s
            for s in sources
            if s is not None and (_are_rows(s, node.output) or _are_panels(s, node.output, rw))
        ),
        None,
    )
    first = rows if rows is not None else (sources[0] if sources else None)
    if first is None:
        return None
    if rows is None and any(s is None or s.shape != first.shape for s in sources):
        return None
    shapes = [
        () if value.is_constant and value.type.elements == 1
        else _operand_shape(value.shape, shape, first.shape)
        for value in node.inputs
    ]  # fmt: skip
    operands: list[Value] = []
    for value, wanted in zip(node.inputs, shapes, strict=True):
        if wanted is None or (value.is_constant and not TensorType(value.dtype, wanted).is_static):
            return None
        operands.append(_shaped(value, wanted, rw))
    result = rw.emit(node.op, operands, node.attrs)
    return rw.emit("reshape", [result], {"shape": shape}) if result.shape == first.shape else None


def _shaped(value: Value, shape: tuple[Dim, ...], rw: Rewriter) -> Value:
    """The value in another shape, without a chain of reshapes."""
    if value.shape == shape:
        return value
    source = _source(value, rw)
    if source is not None:
        return _shaped(source, shape, rw)
    if value.data is not None:
        return constant(value.data.reshape(shape), value.name)
    return rw.emit("reshape", [value], {"shape": shape})


def _operand_shape(
    operand: Sequence[Dim], full: Sequence[Dim], target: Sequence[Dim]
) -> tuple[Dim, ...] | None:
    """The shape of an operand that broadcasts to `target` as it did to `full`, if there is one."""
    if tuple(operand) == tuple(full):
        return tuple(target)
    if all(dim == 1 for dim in operand):
        return ()
    axes = match_axes(target, full)
    if axes is None:
        return None
    wide = (1,) * (len(full) - len(operand)) + tuple(operand)
    out: list[Dim] = [1] * len(target)
    for inner, outer in axes:
        if all(wide[axis] == full[axis] for axis in outer):
            for axis in inner:
                out[axis] = target[axis]
        elif any(wide[axis] != 1 for axis in outer):
            return None
    while out and out[0] == 1:
        out.pop(0)
    return tuple(out)


def _same_axes(axes: Sequence[int], value: Value, source: Value) -> tuple[int, ...] | None:
    """The axes of the source that are these axes of its reshape, each a whole one."""
    groups = match_axes(source.shape, value.shape)
    if groups is None:
        return None
    single = {outer[0]: inner[0] for inner, outer in groups if len(inner) == len(outer) == 1}
    if any(axis not in single for axis in axes):
        return None
    return tuple(single[axis] for axis in axes)


@RULES.on(Trait.NORMALISATION)
def normalisation(node: Node, rw: Rewriter) -> Replacement:
    """Over one axis (for layer_norm: the last), which the reshape leaves alone."""
    x = node.inputs[0]
    source = _source(x, rw)
    axis = node.attrs["axis"]
    moved = _same_axes((axis,), x, source) if source is not None else None
    if source is None or moved is None:
        return None
    last = axis == x.type.rank - 1 and moved[0] == source.type.rank - 1
    if node.op == "layer_norm" and not last:
        return None
    result = rw.emit(node.op, [source, *node.inputs[1:]], {**node.attrs, "axis": moved[0]})
    return rw.emit("reshape", [result], {"shape": node.output.shape})


@RULES.on(Trait.REDUCTION)
def reduction(node: Node, rw: Rewriter) -> Replacement:
    """Over axes that the reshape leaves alone."""
    x = node.inputs[0]
    source = _source(x, rw)
    axes = node.attrs.get("axes")
    moved = _same_axes(axes, x, source) if source is not None and axes else None
    if source is None or moved is None:
        return None
    attrs = {"axes": tuple(sorted(moved)), "keepdims": True}
    result = rw.emit(node.op, [source], attrs)
    return rw.emit("reshape", [result], {"shape": node.output.shape})


@RULES.on("reshape")
def rows_of_other_rows(node: Node, rw: Rewriter) -> Replacement:
    """reshape(slice(x)), where whole rows are left out and rows of another length are made."""
    part = rw.sole(node.inputs[0], "slice")
    if part is None or any(step != 1 for step in part.attrs["steps"]):
        return None
    x, kept = part.inputs[0], part.output.shape
    cut = [axis for axis, dim in enumerate(kept) if dim != x.shape[axis]]
    groups = match_axes(kept, node.output.shape) or []
    found = [(old, new) for old, new in groups if len(old) > 1 and len(new) > 1 and old[0] in cut]
    if len(cut) != 1 or not found:
        return None
    (axis, *_, last), _ = found[0]
    length = product(kept[axis + 1 : last + 1])

    def joined(dims: Sequence[Dim], size: Dim) -> tuple[Dim, ...]:
        return (*dims[:axis], size, *dims[last + 1 :])

    flat = rw.emit("reshape", [x], {"shape": joined(x.shape, x.shape[axis] * length)})
    attrs = {
        "starts": joined(part.attrs["starts"], part.attrs["starts"][axis] * length),
        "stops": joined(part.attrs["stops"], part.attrs["stops"][axis] * length),
        "steps": (1,) * flat.type.rank,
    }
    return rw.emit("reshape", [rw.emit("slice", [flat], attrs)], {"shape": node.output.shape})
