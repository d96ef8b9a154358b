"""What fusion asks of a node: what it does to elements, whatever its operator is called."""

from __future__ import annotations

from ...compiler.ir.graph import Node
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.types import DType
from ...compiler.kernel.lower import ATTENTION, INLINE


def widens(node: Node) -> bool:
    """Whether it makes f32 of smaller elements, which is cheap and so better done by readers."""
    if node.op == "cast":
        return node.output.dtype is DType.F32 and node.inputs[0].dtype in (DType.F16, DType.BF16)
    return has_trait(node, Trait.QUANTISATION)


def is_map(node: Node) -> bool:
    """Whether it only moves elements, and is copied into the groups that read it."""
    if widens(node):
        return True  # where it is in no group
    return (
        node.op in INLINE
        and not has_trait(node, Trait.POINTWISE)
        and node.op not in ("concat", "expand")
    )


def multiplies(node: Node) -> bool:
    """Whether it is a product: a contraction or attention."""
    return has_trait(node, Trait.CONTRACTION) or node.op == ATTENTION


def is_pointwise(node: Node) -> bool:
    """Whether each element follows from those in its place."""
    return has_trait(node, Trait.POINTWISE)


def moves_last(node: Node) -> bool:
    """Whether what lies side by side is not so in the operand."""
    if node.op == "pack_groups":
        return bool(node.attrs["axis"] != -1)
    return node.op == "transpose" and bool(node.attrs["perm"][-1] != len(node.attrs["perm"]) - 1)


def row_axes(node: Node) -> tuple[int, ...] | None:
    """The trailing axes that a reduction keeps as ones; None for what is not such a reduction."""
    if not has_trait(node, Trait.REDUCTION) or "axes" not in node.attrs:
        return None
    if not node.attrs["keepdims"]:
        return None
    rank = node.inputs[0].type.rank
    axes = tuple(sorted(axis % rank for axis in node.attrs["axes"]))
    return axes if axes and axes == tuple(range(rank - len(axes), rank)) else None


def steps_along(node: Node) -> bool:
    """Whether it reads by an index of a product's steps: one number for all rows and columns."""
    return node.op == "gather" and bool(node.attrs["within"])
