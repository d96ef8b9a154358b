"""How operators commute with permutations of the axes of their tensors.

A value v under a permutation p stands for transpose(v, p): axis i of it is axis p[i] of v. `carry`
says which permutations of a node's tensors go together, so that the node can be computed on the
permuted tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...compiler.ir.dims import Dim, product
from ...compiler.ir.graph import Node
from ...compiler.ir.ops.registry import Trait, has_trait
from ..simplify.rules.movement import keeps_order, without_ones

Perm = tuple[int, ...]
Shape = Sequence[Dim]


@dataclass(frozen=True)
class Carried:
    """A node on permuted tensors.

    inputs: per input its permutation, None for one used as it is; the permutation of an operand
    with fewer axes than the node's output is that of the operand with leading axes of size 1.
    output: permutation of the output (of no node with several). attrs: of the permuted node.
    """

    inputs: tuple[Perm | None, ...]
    output: Perm
    attrs: dict[str, Any]


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes `perm`."""
    out = [0] * len(perm)
    for position, axis in enumerate(perm):
        out[axis] = position
    return tuple(out)


def compose(first: Perm, second: Perm) -> Perm:
    """The permutation of transpose(transpose(x, first), second)."""
    return tuple(first[axis] for axis in second)


def is_identity(perm: Perm) -> bool:
    """Whether the permutation moves nothing."""
    return perm == tuple(range(len(perm)))


def same_order(shape: Shape, a: Perm, b: Perm) -> bool:
    """Whether two permutations of a tensor put its elements into the same order."""
    return without_ones(shape, a) == without_ones(shape, b)


def moves_elements(shape: Shape, perm: Perm) -> bool:
    """Whether a transpose changes the order of the elements."""
    return not keeps_order(shape, perm)


def carry(node: Node, perm: Perm) -> Carried | None:
    """The node computed on permuted tensors, or None where it cannot be.

    perm: permutation of the output for pointwise operators, of the first input for others.
    """
    if has_trait(node, Trait.POINTWISE):
        ranks = [value.type.rank for value in node.inputs]
        return Carried(tuple(perm if rank else None for rank in ranks), perm, node.attrs)
    rule = _CARRY.get(node.op)
    if rule is None and has_trait(node, Trait.REDUCTION):
        rule = _reduction
    return rule(node, perm) if rule else None


def source(node: Node, perm: Perm) -> Perm | None:
    """The permutation for `carry` under which the output has the permutation `perm`."""
    if has_trait(node, Trait.POINTWISE) or node.op in _SAME_RANK:
        return perm
    if has_trait(node, Trait.REDUCTION) and node.attrs["keepdims"]:
        return perm
    if node.op == "gather" and node.inputs[1].type.rank == 1:
        return perm
    if has_trait(node, Trait.BROADCAST) and node.inputs[0].type.rank == len(perm):
        return perm
    if node.op == "reshape":
        return regroup(node.output.shape, node.inputs[0].shape, perm)
    return None


def _permuted(items: Sequence[Any], perm: Perm) -> tuple[Any, ...]:
    return tuple(items[axis] for axis in perm)


def _axis(node: Node, perm: Perm) -> Carried:
    attrs = {**node.attrs, "axis": perm.index(node.attrs["axis"])}
    return Carried((perm,) * len(node.inputs), perm, attrs)


def _slice(node: Node, perm: Perm) -> Carried:
    attrs = {key: _permuted(items, perm) for key, items in node.attrs.items()}
    return Carried((perm,), perm, attrs)


def _pad(node: Node, perm: Perm) -> Carried:
    pads, rank = node.attrs["pads"], len(perm)
    both = (*_permuted(pads[:rank], perm), *_permuted(pads[rank:], perm))
    inputs = (perm, None)[: len(node.inputs)]
    return Carried(inputs, perm, {**node.attrs, "pads": both})


def _reduction(node: Node, perm: Perm) -> Carried | None:
    key = "axes" if "axes" in node.attrs else "axis"
    axes = node.attrs["axes"] if key == "axes" else (node.attrs["axis"],)
    moved = tuple(sorted(perm.index(axis) for axis in axes))
    output = perm if node.attrs["keepdims"] else without(perm, axes)
    return Carried((perm,), output, {**node.attrs, key: moved if key == "axes" else moved[0]})


def without(perm: Perm, axes: Sequence[int]) -> Perm:
    """The permutation of the tensor that has lost some axes."""
    left = [axis for axis in range(len(perm)) if axis not in axes]
    return tuple(left.index(axis) for axis in perm if axis not in axes)


def _gather(node: Node, perm: Perm) -> Carried | None:
    axis, rank = node.attrs["axis"], node.inputs[1].type.rank
    if rank > 1:
        return None
    output = perm if rank else without(perm, (axis,))
    return Carried((perm, None), output, {**node.attrs, "axis": perm.index(axis)})


def _matmul(node: Node, perm: Perm) -> Carried | None:
    """Rows may be permuted when every row meets the same matrix."""
    last = len(perm) - 1
    if node.inputs[1].type.rank != 2 or perm[last] != last:
        return None
    return Carried((perm, None), perm, node.attrs)


def _layer_norm(node: Node, perm: Perm) -> Carried | None:
    axis = node.attrs["axis"]
    if perm[axis:] != tuple(range(axis, len(perm))):
        return None
    return Carried((perm, *(None,) * (len(node.inputs) - 1)), perm, node.attrs)


def _broadcast_to(node: Node, perm: Perm) -> Carried | None:
    if node.inputs[0].type.rank != len(perm) or len(perm) != len(node.attrs["shape"]):
        return None
    return Carried((perm,), perm, {"shape": _permuted(node.attrs["shape"], perm)})


def _reshape(node: Node, perm: Perm) -> Carried | None:
    output = regroup(node.inputs[0].shape, node.output.shape, perm)
    if output is None:
        return None
    return Carried((perm,), output, {"shape": _permuted(node.output.shape, output)})


def regroup(old: Shape, new: Shape, perm: Perm) -> Perm | None:
    """The permutation q such that reshaping transpose(x, perm) gives transpose(reshape(x), q).

    It exists when the axes that the reshape merges are neighbours under `perm`, in their order.
    None where it does not, or where symbolic dims hide which axes belong together.
    """
    groups = match_axes(old, new)
    if groups is None:
        return None
    start_of = {inputs[0]: (inputs, outputs) for inputs, outputs in groups}
    order = without_ones(old, perm)
    out: list[int] = []
    position = 0
    while position < len(order):
        inputs, outputs = start_of.get(order[position], ((), ()))
        if not inputs or tuple(order[position : position + len(inputs)]) != inputs:
            return None
        out.extend(outputs)
        position += len(inputs)
    return _place_ones(new, out)


def _place_ones(shape: Shape, order: list[int]) -> Perm:
    """Axes of size 1 go in front of the axis they precede, those at the end to the end."""
    before: dict[int, list[int]] = {}
    waiting: list[int] = []
    for axis, dim in enumerate(shape):
        if dim == 1:
            waiting.append(axis)
        else:
            before[axis], waiting = waiting, []
    placed = [item for axis in order for item in (*before[axis], axis)]
    return tuple(placed + waiting)


Group = tuple[tuple[int, ...], tuple[int, ...]]


def match_axes(old: Shape, new: Shape) -> list[Group] | None:
    """Which axes a reshape merges or splits: runs of axes (those of size 1 left out) with equal
    products on both sides; None where symbolic dims hide it."""
    left = tuple(axis for axis, dim in enumerate(old) if dim != 1)
    right = tuple(axis for axis, dim in enumerate(new) if dim != 1)
    return _match(old, new, left, right)


def _match(old: Shape, new: Shape, left: Perm, right: Perm) -> list[Group] | None:
    if not left and not right:
        return []
    for a, b in _equal_prefixes(old, new, left, right):
        rest = _match(old, new, left[a:], right[b:])
        if rest is not None:
            return [(left[:a], right[:b]), *rest]
    return None


def _equal_prefixes(old: Shape, new: Shape, left: Perm, right: Perm) -> Iterator[tuple[int, int]]:
    """Lengths of prefixes with equal products, shortest first."""
    for total in range(2, len(left) + len(right) + 1):
        for a in range(max(1, total - len(right)), min(len(left), total - 1) + 1):
            b = total - a
            product_a = product(old[axis] for axis in left[:a])
            if product_a == product(new[axis] for axis in right[:b]):
                yield a, b


_SAME_RANK = frozenset(
    {"concat", "slice", "pad", "softmax", "cumsum", "cumprod", "matmul", "layer_norm"}
)
_CARRY: dict[str, Callable[[Node, Perm], Carried | None]] = {
    "concat": _axis,
    "softmax": _axis,
    "cumsum": _axis,
    "cumprod": _axis,
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
    "matmul": _matmul,
    "layer_norm": _layer_norm,
    "broadcast_to": _broadcast_to,
    "expand": _broadcast_to,
    "reshape": _reshape,
}
