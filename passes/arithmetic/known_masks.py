"""Attention under masks that are known: keys that no query of a block may see are left out.

A causal mask, a window or padding is a constant of the model, or folds to one. Queries are divided
into blocks, each of which meets the keys that its rows see and no others; what is masked inside of
these is masked as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Array
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from .work import elements

MASKED = -1e30  # what is added to a score that is gone then, in f32 and below
_LINE = 16  # keys are cut at multiples of this
_MOST_BLOCKS = 16
_LEAST_GAIN = 0.1


@dataclass(frozen=True)
class KnownMasks:
    """attention(q, k, v, constant mask) -> a concat of attentions over the keys that are seen.

    Rows that see nothing at all keep every key, as their weights are defined by the masked scores.
    told: hears of what is left out. least_rows: of a block, so that what every block reads anew
    stays small beside its products.
    """

    told: Told | None = None
    least_rows: int = 128
    name: str = "known_masks"

    def run(self, graph: Graph) -> bool:
        """Leave out masked keys; whether there were any."""
        masks = _Masks(self.least_rows)
        rules = Rules()
        rules.on("attention")(lambda node, rw: _blocks(node, rw, masks, self.told))
        return rewrite(graph, rules)


@dataclass(frozen=True)
class _Block:
    """Queries from `first` on up to `last`, which see keys from `low` on up to `high`."""

    first: int
    last: int
    low: int
    high: int

    @property
    def scores(self) -> int:
        return (self.last - self.first) * (self.high - self.low)


@dataclass
class _Masks:
    """What is known of each mask, found once for all layers that share it."""

    least_rows: int
    blocks: dict[tuple[Value, int, int], list[_Block]] = field(default_factory=dict)
    parts: dict[tuple[Value, _Block], Value | None] = field(default_factory=dict)

    def of(self, mask: Value, queries: int, keys: int) -> list[_Block]:
        """The best blocks for a mask of scores [queries, keys]."""
        key = mask, queries, keys
        if key not in self.blocks:
            seen = _seen(mask, queries, keys)
            counts = [1]
            while counts[-1] < _MOST_BLOCKS and queries // (2 * counts[-1]) >= self.least_rows:
                counts.append(2 * counts[-1])
            found = [_divided(seen, count) for count in counts]
            best = min(found, key=lambda blocks: sum(block.scores for block in blocks))
            self.blocks[key] = best
        return self.blocks[key]

    def part(self, mask: Value, block: _Block) -> Value | None:
        """The mask of a block; None where nothing in it is masked."""
        key = mask, block
        if key not in self.parts:
            data = np.asarray(mask.data)
            rows = slice(block.first, block.last) if data.shape[-2] > 1 else slice(None)
            keys = slice(block.low, block.high) if data.shape[-1] > 1 else slice(None)
            cut = np.ascontiguousarray(data[..., rows, keys])
            self.parts[key] = constant(cut, mask.name) if cut.any() else None
        return self.parts[key]


def _seen(mask: Value, queries: int, keys: int) -> Array:
    """bool[queries, keys]: which scores are not masked in all batches and heads."""
    data = np.asarray(mask.data)
    hidden = (data <= MASKED).reshape(-1, *data.shape[-2:]).all(axis=0)
    seen = ~np.broadcast_to(hidden, (queries, keys))
    return seen | ~seen.any(axis=1, keepdims=True)


def _divided(seen: Array, count: int) -> list[_Block]:
    """So many blocks of queries, with the keys that any of their rows sees."""
    queries, keys = seen.shape
    rows = -(-queries // count)
    found = []
    for first in range(0, queries, rows):
        last = min(first + rows, queries)
        places = np.flatnonzero(seen[first:last].any(axis=0))
        low = int(places[0]) // _LINE * _LINE
        high = min(keys, -(-(int(places[-1]) + 1) // _LINE) * _LINE)
        found.append(_Block(first, last, low, high))
    return found


def _blocks(node: Node, rw: Rewriter, masks: _Masks, told: Told | None) -> Replacement:
    q, k, v, *given = node.inputs
    if not given or given[0].data is None or given[0].type.rank < 2 or not given[0].data.size:
        return None
    queries, keys = q.shape[-2], k.shape[-2]
    if not isinstance(queries, int) or not isinstance(keys, int) or not queries or not keys:
        return None
    mask = given[0]
    blocks = masks.of(mask, queries, keys)
    share = sum(block.scores for block in blocks) / (queries * keys)
    if share > 1 - _LEAST_GAIN:
        return None
    if told:
        before = 2.0 * elements(node.output.shape[:-1]) * keys * (q.shape[-1] + v.shape[-1])
        why = f"{1 - share:.0%} of the scores are masked, whatever the inputs are"
        told(Saving("known_masks", node.name, node.op, before, before * share, why))
    parts = []
    for block in blocks:
        inputs = [
            _rows(rw, q, block.first, block.last),
            _rows(rw, k, block.low, block.high),
            _rows(rw, v, block.low, block.high),
        ]
        part = masks.part(mask, block)
        parts.append(rw.emit("attention", inputs if part is None else [*inputs, part], node.attrs))
    if len(parts) == 1:
        return parts[0] if parts[0].shape == node.output.shape else None
    return rw.emit("concat", parts, {"axis": node.output.type.rank - 2})


def _rows(rw: Rewriter, value: Value, first: int, last: int) -> Value:
    """Rows of matrices."""
    rank = value.type.rank
    if (first, last) == (0, value.shape[-2]):
        return value
    attrs: dict[str, Sequence[Any]] = {
        "starts": (*(0,) * (rank - 2), first, 0),
        "stops": (*value.shape[:-2], last, value.shape[-1]),
        "steps": (1,) * rank,
    }
    return rw.emit("slice", [value], attrs)
