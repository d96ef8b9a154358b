"""Nodes that act on each place of an axis, or on each run of neighbouring places, by itself.

An axis of `count` times `rows` places is taken to be `count` runs of `rows` places, one behind the
other: windows of pictures that a reshape has merged with the batch, or heads of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...compiler.ir.dims import Dim, coefficient, floordiv, product
from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.control import symbol_name
from ...compiler.ir.ops.registry import Builder
from .narrow_rules import narrowed
from .narrowing import Narrowed, same
from .parts import Part, Picks, take, whole


@dataclass(frozen=True)
class Runs:
    """An axis that is divided into runs of so many places."""

    axis: int
    rows: int = 1


def runs_along(shape: Sequence[Dim], axis: int, count: Dim) -> Runs | None:
    """The axis as `count` runs; None where its size is no multiple of that."""
    size = shape[axis]
    if isinstance(size, int) and isinstance(count, int):
        rows: Dim = size // count
    else:
        name = symbol_name(count)
        found = None if name is None else coefficient(size, name)
        rows = floordiv(size, count) if found is None else found
    if not isinstance(rows, int) or rows < 1 or rows * count != size:
        return None
    return Runs(axis, rows)


def first_run(node: Node, runs: Runs, along: Mapping[Value, Runs]) -> Narrowed | None:
    """How a node computes the first run of its result; None where some run of it needs anything but
    that run of operands, and, along other axes, the same places of each.

    runs: of the result. along: of each operand whose runs go with those of the result. Of the
    others nothing may differ from run to run. What accumulates needs more at the second run than at
    the first, a window or a shift reaches beyond the first or the last one.
    """
    if len(node.outputs) != 1 or _reorders(node, along):
        return None
    found, others = None, None
    for number in reversed(_examined(node.output.shape[runs.axis], runs.rows)):
        part = _run(node.output, runs, number)
        found = narrowed(node, part)
        if found is None or found.computed != part:
            return None
        needs = [
            _beside(v, n, along, number) for v, n in zip(node.inputs, found.needs, strict=True)
        ]
        if False in needs or (others is not None and needs != others):
            return None
        others = needs
    return found


def reshaped_run(node: Node, operand: Runs, count: Dim) -> tuple[Narrowed, Runs] | None:
    """The first of `count` runs of a reshape's result, and where its runs are: one behind the other
    in memory like the operand's, whatever axes they are merged with."""
    x, shape = node.inputs[0].shape, node.output.shape
    before, inside = product(x[: operand.axis]), operand.rows * product(x[operand.axis + 1 :])
    for axis in range(len(shape)):
        runs = runs_along(shape, axis, count)
        if runs is None or product(shape[:axis]) != before:
            continue
        if runs.rows * product(shape[axis + 1 :]) == inside:
            part, need = (
                _run(v, r, 0) for v, r in ((node.output, runs), (node.inputs[0], operand))
            )
            made = (*shape[:axis], runs.rows, *shape[axis + 1 :])
            return Narrowed(part, (need,), same(node, shape=made)), runs
    return None


def operands_of_run(
    b: Builder,
    node: Node,
    found: Narrowed,
    made: Mapping[Value, Value],
    along: Mapping[Value, Runs],
) -> list[Value | None]:
    """What a node reads to compute its first run. made: the first runs of operands."""
    operands: list[Value | None] = []
    for value, need in zip(node.inputs, found.needs, strict=True):
        if need is None or value not in along:
            operands.append(None if need is None else value)
            continue
        operands.append(take(b, made[value], _run(value, along[value], 0), need))
    return operands


def _beside(
    value: Value, need: Part | None, along: Mapping[Value, Runs], number: int
) -> Part | bool | None:
    """What is needed of an operand along other axes than that of its runs; False where that is not
    the run of this number, or, of what has none, not everything."""
    if need is None:
        return None
    if value not in along:
        return need if need == whole(value.type.rank) else False
    axis = along[value].axis
    if need[axis] != _run(value, along[value], number)[axis]:
        return False
    return (*need[:axis], None, *need[axis + 1 :])


def _reorders(node: Node, along: Mapping[Value, Runs]) -> bool:
    """Whether a gather reads its operand along the axis in another order: places in the middle
    may be swapped."""
    if node.op != "gather":
        return False
    x, index = node.inputs
    if x not in along or along[x].axis != node.attrs["axis"] % x.type.rank:
        return False
    places = None if index.data is None else index.data.ravel()
    return places is None or not np.array_equal(places, np.arange(len(places)))


def _examined(dim: Dim, rows: int) -> tuple[int, ...]:
    """The runs that are looked at: the first two, and the last one of a size that is known."""
    return tuple(sorted({0, 1, dim // rows - 1})) if isinstance(dim, int) else (0, 1)


def _run(value: Value, runs: Runs, number: int) -> Part:
    part = list(whole(value.type.rank))
    part[runs.axis] = Picks(range(number * runs.rows, (number + 1) * runs.rows))
    return tuple(part)
