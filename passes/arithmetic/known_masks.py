"""Attention under masks that are known: keys that no query of a block may see are left out.

Causal masks, windows and paddings are constants of the model, or are read off the comparisons that
make them (`mask_regions.py`), whatever else is hidden at run time. Queries are divided into blocks,
each of which meets the keys that its rows may see and no others; what is masked inside of these is
masked as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, like, rewrite
from .hidden_scores import MASKED
from .query_blocks import QueryBlock, QueryBlocks, query_blocks
from .work import elements


@dataclass(frozen=True)
class KnownMasks:
    """attention(q, k, v, mask) -> a concat of attentions over the keys that may be seen.

    Exact for rows that see nothing, too: where a mask alone hides a row, it keeps every key; where
    the run may, the row's result is the mean of all values, which is what equal scores weigh.
    told: hears of what is left out. least_rows: of a block, so that what every block reads anew
    stays small beside its products.
    """

    told: Told | None = None
    least_rows: int = 128
    name: str = "known_masks"

    def run(self, graph: Graph) -> bool:
        """Leave out masked keys; whether there were any."""
        found = _Masks(self.least_rows, {node for node in graph.walk() if node.op == "attention"})
        rules = Rules()
        rules.on("attention")(lambda node, rw: _blocks(node, rw, found, self.told))
        return rewrite(graph, rules)


@dataclass
class _Masks:
    """What is known of each mask, found once for all layers that share it. nodes: those that the
    model has."""

    least_rows: int
    nodes: set[Node]
    blocks: dict[tuple[Value, Dim, Dim], QueryBlocks | None] = field(default_factory=dict)
    parts: dict[tuple[Value, QueryBlock], Value | None] = field(default_factory=dict)

    def of(self, mask: Value, queries: Dim, keys: Dim) -> QueryBlocks | None:
        """The best blocks for a mask of scores [queries, keys]."""
        key = mask, queries, keys
        if key not in self.blocks:
            self.blocks[key] = query_blocks(mask, queries, keys, self.least_rows)
        return self.blocks[key]

    def part(self, mask: Value, block: QueryBlock, rw: Rewriter) -> Value | None:
        """The mask of a block; None where nothing in it is masked."""
        rows = (block.first, block.last) if mask.shape[-2] != 1 else (0, 1)
        keys = (block.low, block.high) if mask.shape[-1] != 1 else (0, 1)
        if mask.data is None or not all(isinstance(end, int) for end in (*rows, *keys)):
            return _cut(rw, mask, rows, keys)
        key = mask, block
        if key not in self.parts:
            cut = np.ascontiguousarray(mask.data[..., slice(*rows), slice(*keys)])
            self.parts[key] = constant(cut, mask.name) if cut.any() else None
        return self.parts[key]


def _blocks(node: Node, rw: Rewriter, masks: _Masks, told: Told | None) -> Replacement:
    q, k, v, *given = node.inputs
    if node not in masks.nodes or not given or given[0].type.rank < 2:
        return None
    queries, keys, mask = q.shape[-2], k.shape[-2], given[0]
    found = masks.of(mask, queries, keys)
    if found is None:
        return None
    mean = None
    if found.may_hide_rows:
        mean = rw.emit("reduce_mean", [v], {"axes": (v.type.rank - 2,), "keepdims": True})
    parts = []
    for block in found.blocks:
        rows, cols = (block.first, block.last), (block.low, block.high)
        inputs = [_cut(rw, q, rows), _cut(rw, k, cols), _cut(rw, v, cols)]
        hidden = masks.part(mask, block, rw)
        operands = inputs if hidden is None else [*inputs, hidden]
        part = rw.emit("attention", operands, node.attrs)
        if mean is not None and hidden is not None:
            part = rw.emit("where", [_sees(rw, hidden), part, mean])
        parts.append(part)
    axis = node.output.type.rank - 2
    result = parts[0] if len(parts) == 1 else rw.emit("concat", parts, {"axis": axis})
    if result.shape != node.output.shape:
        return None
    if told:
        before = 2.0 * elements(node.output.shape[:-1]) * elements((keys,))
        before *= elements((q.shape[-1] + v.shape[-1],))
        why = f"{1 - found.share:.0%} of the scores are masked, whatever the inputs are"
        told(Saving("known_masks", node.name, node.op, before, before * found.share, why))
    return result


def _sees(rw: Rewriter, mask: Value) -> Value:
    """Which rows of a mask leave something seen."""
    best = rw.emit("reduce_max", [mask], {"axes": (mask.type.rank - 1,), "keepdims": True})
    return rw.emit("gt", [best, like(best, MASKED)])


def _cut(
    rw: Rewriter, value: Value, rows: tuple[Dim, Dim], columns: tuple[Dim, Dim] | None = None
) -> Value:
    """Rows of matrices, all columns unless some are given."""
    rank = value.type.rank
    whole = (0, value.shape[-1])
    first, last = columns or whole
    if rows == (0, value.shape[-2]) and (first, last) == whole:
        return value
    attrs: dict[str, Sequence[Any]] = {
        "starts": (*(0,) * (rank - 2), rows[0], first),
        "stops": (*value.shape[:-2], rows[1], last),
        "steps": (1,) * rank,
    }
    return rw.emit("slice", [value], attrs)
