"""A batch as samples: its rows, where the model treats each of them by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np

from ..compiler.artifact import TensorSpec
from .graph_run import Array, GraphRun
from .tensor_files import Arrays

FEWEST = 4  # rows that are worth being samples
_ALIKE = 1e-3  # of the greatest element: what sums in another order may move


def batch_of(specs: Sequence[TensorSpec]) -> str:
    """The symbol that is the first dimension of every input, and no other; "" where there is
    none."""
    first = {spec.dims[0] if spec.dims else 0 for spec in specs}
    name = first.pop() if len(first) == 1 else 0
    others = {dim for spec in specs for dim in spec.dims[1:]}
    return name if isinstance(name, str) and name not in others else ""


def rows_of(sample: Arrays, specs: Sequence[TensorSpec]) -> list[Arrays]:
    """The rows of a sample of a model whose batch is open, each a batch of one; none where it is
    not."""
    sizes = {len(array) for array in sample.values()} if batch_of(specs) else set[int]()
    if len(sizes) != 1:
        return []
    return [{name: array[n : n + 1] for name, array in sample.items()} for n in range(sizes.pop())]


def only_rows(
    samples: Iterable[Arrays], specs: Sequence[TensorSpec], run: GraphRun, outputs: Sequence[str]
) -> list[Arrays]:
    """The rows of the only sample, if `run` makes of a row what it makes of it in the batch.

    None of several samples, of few rows, and where rows depend on each other (steps of time).
    """
    first, *more = islice(samples, 2)
    rows = [] if more else rows_of(first, specs)
    if len(rows) < FEWEST:
        return []
    whole = run(first)
    ends = ((n, run(rows[n])) for n in (0, len(rows) - 1))
    alike = all(_same(whole, row, n, len(rows), outputs) for n, row in ends)
    return rows if alike and outputs else []


def _same(
    whole: Mapping[str, Array], row: Mapping[str, Array], n: int, count: int, names: Sequence[str]
) -> bool:
    for name in names:
        every, one = whole[name], row[name]
        if every.shape[:1] != (count,) or one.shape != (1, *every.shape[1:]):
            return False
        room = _ALIKE * float(np.abs(every).max(initial=0)) if every.dtype.kind == "f" else 0.0
        if not np.allclose(every[n : n + 1], one, rtol=0, atol=room, equal_nan=True):
            return False
    return True
