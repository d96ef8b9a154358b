"""Broadcasting of sizes that only a run knows.

ONNX lets either of two sizes that meet be 1, symbolic ones, too. The core operators take different
symbols for equal; here operands whose size may be 1 where another is not are expanded explicitly,
which costs nothing in a run where the sizes are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...compiler.ir import Dim, Value
from ...compiler.ir.dims import are_one_together, dbroadcast, is_never_one
from ...compiler.ir.ops.registry import Trait, lookup

Shape = tuple[Dim, ...]


def common_shape(*shapes: Shape) -> Shape:
    """The shape that shapes broadcast to, whichever symbolic sizes turn out to be 1.

    Raises ValueError for numbers that do not broadcast.
    """
    rank = max((len(shape) for shape in shapes), default=0)
    out: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, start=rank - len(shape)):
            other = out[axis]
            numbers = isinstance(dim, int) and isinstance(other, int)
            if numbers and len({dim, other, 1}) == 3:
                raise ValueError(f"dimensions {other} and {dim} do not broadcast")
            out[axis] = dbroadcast(other, dim)
    return tuple(out)


def expanded_shapes(op: str, inputs: Sequence[Value], attrs: Mapping[str, Any]) -> list[Shape]:
    """The shapes that the operands of a core operator get before it broadcasts them.

    Raises ValueError for numbers that do not broadcast.
    """
    shapes = [value.shape for value in inputs]
    if all(isinstance(dim, int) for shape in shapes for dim in shape) and op != "broadcast_to":
        return shapes
    if len(inputs) > 1 and lookup(op).traits & Trait.POINTWISE:
        common = common_shape(*shapes)
        return [expanded_shape(shape, common) for shape in shapes]
    if op in ("matmul", "attention") and min(map(len, shapes)) >= 2:
        return _product(shapes)
    if op == "layer_norm":
        return [shapes[0], *(expanded_shape(shape, shapes[0]) for shape in shapes[1:])]
    if op == "broadcast_to":
        return [expanded_shape(shapes[0], tuple(attrs["shape"]))]
    return shapes


def _product(shapes: Sequence[Shape]) -> list[Shape]:
    """Of the operands of a matmul, or of an attention, whose mask fits its scores."""
    batch = common_shape(*(shape[:-2] for shape in shapes[:3]))
    found = [(*expanded_shape(shape[:-2], batch), *shape[-2:]) for shape in shapes[:3]]
    scores = (*batch, shapes[0][-2], shapes[1][-2])
    return found + [expanded_shape(shape, scores) for shape in shapes[3:]]


def expanded_shape(shape: Shape, wanted: Shape) -> Shape:
    """A shape that is to broadcast to another, with the sizes made those wanted that may be 1.

    Ones stay: they broadcast by themselves. So do sizes that are equal to the wanted ones wherever
    the shapes fit.
    """
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    fitted = [dim if _stays(dim, size) else size for dim, size in pairs]
    return (*shape[: len(shape) - len(fitted)], *reversed(fitted))


def _stays(dim: Dim, wanted: Dim) -> bool:
    return dim == wanted or dim == 1 or is_never_one(dim) or are_one_together(dim, wanted)
