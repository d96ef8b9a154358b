"""Amounts that only a run knows, and nothing at all, through every operator: interpreted, compiled.

The fast tests interpret all of them and compile some; the slow ones compile all, in three ways: as
they are, with amounts computed from shapes, and with inputs cut to what the run decides.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .amounts import amounts
from .empties import empties
from .sweeps import Sweep, differences, of_shapes, of_slices

TABLES = {"amounts": amounts, "empties": empties}
COMPILED = {
    "amounts": ["pad constant", "pad edge", "slice by 1", "slice by steps", "split", "tile",
                "one hot", "reshape, zeros kept 0", "top 1 1", "resize linear half_pixel"],
    "empties": ["matmul", "attention", "LSTM forward", "MaxPool 0", "Softmax 1", "ArgMax 1",
                "conv 1", "true: products", "ScatterND add"],
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_interpreted(tmp_path: Path, table: str) -> None:
    wrong = differences(TABLES[table](), tmp_path, [], reference=True)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("table", TABLES)
def test_compiled(tmp_path: Path, table: str) -> None:
    sweeps = [sweep for sweep in TABLES[table]() if sweep.name in COMPILED[table]]
    assert len(sweeps) == len(COMPILED[table])
    wrong = differences(sweeps, tmp_path, [2], reference=False)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("variant", [None, of_shapes, of_slices])
@pytest.mark.parametrize("table", TABLES)
def test_all_compiled(
    tmp_path: Path, table: str, variant: Callable[[Sweep], Sweep | None] | None, level: int
) -> None:
    made = [sweep if variant is None else variant(sweep) for sweep in TABLES[table]()]
    sweeps = [sweep for sweep in made if sweep is not None]
    wrong = differences(sweeps, tmp_path, [level], reference=False)
    assert not wrong, "\n".join(wrong)
