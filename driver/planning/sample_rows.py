"""The rows that programs are measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..samples import Sampler
from ..tensor_files import Arrays, write_npz
from .judging import Judge

MOST_ROWS = 256
MOST_ROW_BYTES = 64 << 20
DRAWN_ROWS = 16


def write_rows(path: Path, judge: Judge | None, sampler: Sampler) -> None:
    """Write rows of the evaluation data, or, where there are none, some that are drawn."""
    found: list[Arrays] = []
    room = MOST_ROW_BYTES
    for sample, _ in judge.evaluation.pairs() if judge else ():
        room -= sum(array.nbytes for array in sample.values())
        if found and (len(found) == MOST_ROWS or room < 0):
            break
        found.append(dict(sample))
    if not found:
        sizes = sampler.usual_sizes
        found = [sampler.draw(sizes, 2 * seed) for seed in range(DRAWN_ROWS)]
    write_npz(path, _stacked(found))


def _stacked(samples: list[Arrays]) -> Arrays:
    """Samples along the first axis where that is a batch of 1, else along a new one."""
    names = samples[0]
    alike = [s for s in samples if all(s[n].shape == names[n].shape for n in names)]
    joined: Arrays = {}
    for name, array in names.items():
        join = np.concatenate if array.ndim and array.shape[0] == 1 else np.stack
        joined[name] = join([sample[name] for sample in alike])
    return joined
