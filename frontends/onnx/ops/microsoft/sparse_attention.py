"""SparseAttention of com.microsoft: attention between blocks of tokens, as Phi-3-small has it.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md; Abdin et al., Phi-3 technical report
(2024), section 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .....compiler.ir import Dim, DType, Value, constant
from .....compiler.ir.assumptions import AT_MOST
from ...site import Site
from ...table import MICROSOFT, lowers
from ..shared.heads import attend, divided, lowest, merged, rotated, scale_of
from .grouped_attention import projections, with_new_steps

Array = np.ndarray[Any, Any]


@lowers("SparseAttention", domain=MICROSOFT)
def sparse_attention(s: Site) -> list[Value]:
    heads, groups = s.integer("num_heads"), s.integer("kv_num_heads")
    share = int(divided(s, heads, groups, "a number of heads"))  # type: ignore[arg-type]
    q, k, v = projections(s, heads, groups)
    batch, steps = q.shape[0], q.shape[2]
    (total,) = s.dims(s.reshape(s.input(7), (1,)))
    filled = _filled(s, batch, steps, total)
    places = s.op_("add", filled, s.iota((1, steps), 1, DType.I64))
    if s.integer("do_rotary", 0):
        interleaved = bool(s.integer("rotary_interleaved", 0))
        q, k = (rotated(s, x, s.input(9), s.input(10), places, interleaved) for x in (q, k))
    keys, values = (
        with_new_steps(s, s.input(place), new, filled, s.input(place).shape[2])
        for place, new in ((3, k), (4, v))
    )
    seen = _seen(s, places, total, heads)
    mask = s.op_("where", seen, s.scalar(0.0, q.dtype), s.scalar(lowest(q.dtype), q.dtype))
    mask = s.reshape(mask, (batch, groups, share, steps, total))
    s.require(total, AT_MOST, keys.shape[2], f"a cache of {keys.shape[2]} steps is too short")
    used = [s.slice(x, 2, 0, total) for x in (keys, values)]
    common = [s.reshape(x, (batch, groups, 1, *x.shape[2:])) for x in used]
    queries = s.reshape(q, (batch, groups, share, *q.shape[2:]))
    out = attend(s, queries, common[0], common[1], scale_of(s, q.shape[3]), mask)
    joined = s.reshape(out, (batch, heads, steps, out.shape[4]))
    return [merged(s, joined), keys, values]


def _filled(s: Site, batch: Dim, steps: Dim, total: Dim) -> Value:
    """How many keys of the cache count for each row: [batch, 1]. None do in a first prompt."""
    lengths = s.reshape(s.cast(s.input(8), DType.I64), (batch, 1))
    before = s.op_("max", s.op_("add", lengths, s.reshape(s.emitter.virtual([-steps]), ())), 0)
    new = s.reshape(s.emitter.virtual([total - steps]), ())
    return s.op_("where", s.op_("eq", new, 0), 0, before)


def _seen(s: Site, places: Value, total: Dim, heads: int) -> Value:
    """Which keys each query meets: [batch, heads, steps, total]. places: [batch, steps]."""
    size = s.integer("sparse_block_size")
    table = _blocks(s, size)
    count, layouts = table.shape[0], table.shape[1]
    repeats = int(divided(s, heads, layouts, "a number of heads"))  # type: ignore[arg-type]
    why = f"{count} blocks of {size} tokens are fewer than the tokens"
    s.require(total, AT_MOST, count * size, why)
    batch, steps = places.shape
    key = s.iota((total,), 0, DType.I64)
    row = s.op_("min", s.op_("div", places, size), count - 1)
    rows = s.emit("gather", [constant(table), row], axis=0)
    both = s.emit("gather", [rows, s.op_("div", key, size)], axis=3)
    past = s.op_("le", key, s.reshape(places, (batch, steps, 1, 1)))
    seen = s.transpose(s.op_("and", both, past), (0, 2, 1, 3))
    wide = s.reshape(seen, (batch, 1, layouts, steps, total))
    wide = s.expand(wide, (batch, repeats, layouts, steps, total))
    return s.reshape(wide, (batch, heads, steps, total))


def _blocks(s: Site, size: int) -> Array:
    """Which blocks of keys each block of queries meets: bool [blocks, layouts, blocks]."""
    ends = s.constant(s.input(5), "the rows of the layout")
    columns = s.constant(s.input(6), "the columns of the layout")
    if size < 1 or ends.ndim != 2 or columns.ndim != 2 or len(ends) != len(columns):
        raise ValueError(f"layouts {ends.shape} and {columns.shape} in blocks of {size} do not fit")
    layouts, count = ends.shape[0], ends.shape[1] - 1
    table = np.zeros((count, layouts, count), bool)
    for layout in range(layouts):
        for row in range(count):
            met = columns[layout, ends[layout, row] : ends[layout, row + 1]]
            if met.size and not 0 <= met.min() <= met.max() < count:
                raise ValueError(f"a layout of {count} blocks names block {met.max()}")
            table[row, layout, met] = True
    return table
