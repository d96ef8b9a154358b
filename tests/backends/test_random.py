"""Random small graphs, compiled and run against the reference interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from compiled import Arrays, Job, Setting, run_all
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_graphs import ALL_STEPS, build

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import evaluate

BATCH = 16  # graphs that are linked into one file


@dataclass(frozen=True)
class Recipe:
    """What `random_graphs.build` makes a graph of, and the values of its symbols."""

    numbers: tuple[int, ...]
    symbols: int
    branches: bool
    n: int
    s: int

    def graph(self) -> Graph:
        return build(self.numbers, symbols=self.symbols, branches=self.branches, steps=ALL_STEPS)

    def inputs(self) -> Arrays:
        rng, sizes = np.random.default_rng(self.numbers), {"n": self.n, "s": self.s}
        return {
            value.name: rng.uniform(
                -2, 2, tuple(evaluate(dim, sizes) for dim in value.shape)
            ).astype(value.dtype.numpy)
            for value in self.graph().inputs
        }


RECIPES = st.builds(
    Recipe,
    st.lists(st.integers(0, 9999), min_size=1, max_size=9).map(tuple),
    st.integers(0, 3),
    st.booleans(),
    st.integers(1, 4),
    st.integers(1, 9),
)
BATCHES = st.lists(RECIPES, min_size=BATCH, max_size=BATCH, unique=True)
# a smaller batch says nothing new: the failing recipe is in the message
OPTIONS = {
    "phases": (Phase.explicit, Phase.generate),
    "suppress_health_check": list(HealthCheck),
}


def check(recipes: list[Recipe], setting: Setting, folder: Path) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    jobs = {str(recipe): Job(recipe.graph(), recipe.inputs()) for recipe in recipes}
    results = run_all(jobs, setting, folder)
    wrong = []
    for recipe in recipes:
        want, got = run_graph(recipe.graph(), dict(recipe.inputs())), results[str(recipe)]
        try:
            if isinstance(got, Exception):
                raise got
            for name, array in want.items():
                scale = max(1.0, float(np.abs(array).max(initial=0)))
                np.testing.assert_allclose(got[name], array, 1e-3, 1e-4 * scale, strict=True)
        except Exception as error:
            wrong.append(f"{recipe}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


@settings(max_examples=3, **OPTIONS)
@given(BATCHES)
def test_optimised(tmp_path_factory: pytest.TempPathFactory, recipes: list[Recipe]) -> None:
    check(recipes, Setting("native", 2), tmp_path_factory.mktemp("native"))


@settings(max_examples=2, **OPTIONS)
@given(BATCHES)
def test_naive(tmp_path_factory: pytest.TempPathFactory, recipes: list[Recipe]) -> None:
    check(recipes, Setting("native", 0), tmp_path_factory.mktemp("naive"))


@settings(max_examples=1, **OPTIONS)
@given(BATCHES)
def test_emulated(tmp_path_factory: pytest.TempPathFactory, recipes: list[Recipe]) -> None:
    check(recipes, Setting("aarch64", 2, emulated=True), tmp_path_factory.mktemp("aarch64"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["native", "x86-64-v3", "aarch64"])
@settings(max_examples=25, **OPTIONS)
@given(BATCHES)
def test_many(target: str, tmp_path_factory: pytest.TempPathFactory, recipes: list[Recipe]) -> None:
    check(recipes, Setting(target, 2, target == "aarch64"), tmp_path_factory.mktemp("many"))
