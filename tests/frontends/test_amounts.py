"""Amounts that only a run knows, and nothing at all, through every operator: interpreted, compiled.

The fast tests interpret all of them and compile some; the slow ones compile all, in three ways: as
they are, with amounts computed from shapes, and with inputs cut to what the run decides.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .amounts import amounts, i64
from .empties import empties
from .oracle import floats, node
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


def _too_many() -> list[Sweep]:
    """Numbers of elements that no integer of the machine holds; numpy does not get as far."""
    x, refused = floats(1 << 18), "no machine has the memory"
    tiles = [node("Tile", "x r")]
    powers = ([32, 32], [46, 18], [46, 46])
    shapes = [{"r": i64([1 << power for power in row])} for row in powers]
    filled = node("ConstantOfShape", "r", "h")
    return [
        Sweep(name, nodes, feeds, answered=dict.fromkeys(range(len(feeds)), refused), **more)
        for name, nodes, feeds, more in (
            ("tile", tiles, [{"x": x, "r": i64([1 << n])} for n in (44, 45, 46)], {}),
            ("tile twice", [node("Tile", "x r", "h"), node("Tile", "h q")],
             [{"x": floats(1), "r": i64([1 << 32]), "q": i64([1 << 32])}], {}),
            ("concat", [node("Tile", "x r", "h"), node("Concat", "h h", axis=0)],
             [{"x": x, "r": i64([1 << 45])}], {}),
            ("shape", [filled, node("Reshape", "h m")], shapes, {"constants": {"m": i64([-1])}}),
            ("range", [node("Range", "z r o")],
             [{"r": np.array(n)} for n in (1 << 46, 1 << 62)],
             {"constants": {"z": np.int64(0), "o": np.int64(1)}}),
        )
    ]  # fmt: skip


@pytest.mark.parametrize("level", [0, 2])
def test_sizes_that_may_wrap_are_refused(tmp_path: Path, level: int) -> None:
    wrong = differences(_too_many(), tmp_path, [level], reference=False)
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
