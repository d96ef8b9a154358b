"""Generated code that checks its accesses: right models run, kernels that stray are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Library, Setting, run_all
from random_graphs import ALL_STEPS, build
from suites.case import I64, CaseBuilder
from suites.cases import ALL_CASES
from suites.edges import EDGE_CASES
from view_graphs import IMAGE_USES, IMAGE_VIEWS, SIZES, USES, VIEWS, feed, image_graph, row_graph

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim, evaluate
from tensmith.compiler.kernel.plan.plan import Place, Plan
from tensmith.compiler.knobs import SANITIZE

SETTINGS = (Setting("native", 2), Setting("x86-64-v3", 2), Setting("aarch64", 2, emulated=True))
SOME = [("row", "product"), ("gap", "gates"), ("picked", "layer"), ("joined", "attention")]


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SANITIZE.variable, "1")
    monkeypatch.setattr("tensmith.compiler.kernel.schedule.resolve.FORK_OPERATIONS", 0)


def check(graphs: list[Graph], setting: Setting, folder: Path) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    inputs = {graph.name: [feed(graph, sizes) for sizes in SIZES] for graph in graphs}
    library = Library({graph.name: graph for graph in graphs}, setting, folder)
    for name, drawn in inputs.items():
        for arrays in drawn:
            for threads in (1, 2):
                found = library.run(name, arrays, threads)
                assert not isinstance(found, Exception), f"{name}: {found}"


def test_views_stay_within_their_tensors(tmp_path: Path) -> None:
    graphs = [row_graph(*some, 256) for some in SOME]
    check([*graphs, image_graph("part", "plain")], SETTINGS[1], tmp_path)


@pytest.mark.parametrize("wrong", [-4, -64])
def test_a_kernel_that_strays_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: int
) -> None:
    """Every tensor is said to be smaller than it is: the last elements lie outside."""
    shrink(monkeypatch, lambda size: size + wrong)
    graph = row_graph("first", "layer", 32)
    found = Library({"m": graph}, SETTINGS[1], tmp_path).run("m", feed(graph, SIZES[0]), 2)
    text = r"kernel 'm?k?\d*.*matmul.*' touches bytes \d+ to \d+ of '\w+', which has \d+"
    with pytest.raises(Exception, match=text):
        raise found if isinstance(found, Exception) else AssertionError("not noticed")


def shrink(monkeypatch: pytest.MonkeyPatch, change: Callable[[Dim], Dim]) -> None:
    from tensmith.backends.llvm.emit.sanitize import extent_of

    def shrunk(plan: Plan, place: Place) -> tuple[Dim | None, str]:
        size, name = extent_of(plan, place)
        return None if size is None else change(size), name

    monkeypatch.setattr("tensmith.backends.llvm.emit.plan_function.extent_of", shrunk)


def test_gathers_behind_guards_of_rows_and_lanes(tmp_path: Path) -> None:
    """Rows and the rest of a vector are outside at once: no lane may be read there."""
    c = CaseBuilder("padded")
    x, places = c.input(2, 4, 4, 6), c.input(2, 4, 4, 6, dtype=I64)
    picked = c.op("gather_elements", x, places, axis=3)
    c.output(c.op("pad", picked, pads=(1, 1, 0, 1, 1, 1, 0, 0)))
    graph = c.graph()
    inputs = {x.name: np.ones((2, 4, 4, 6), np.float32)}
    inputs[places.name] = np.tile(np.arange(6), (2, 4, 4, 1))
    found = Library({"m": graph}, SETTINGS[1], tmp_path).run("m", inputs)
    assert not isinstance(found, Exception), found


def test_results_are_the_same(tmp_path: Path) -> None:
    graph, truth = (row_graph("heads_merged", "layer", 64) for _ in range(2))
    inputs = feed(truth, SIZES[0])
    found = Library({"m": graph}, SETTINGS[1], tmp_path).run("m", inputs)
    assert not isinstance(found, Exception), found
    for name, want in run_graph(truth, inputs).items():
        np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("use", [*USES, *IMAGE_USES])
def test_every_view(tmp_path: Path, setting: Setting, use: str) -> None:
    if use in USES:
        graphs = [row_graph(view, use, 256) for view in VIEWS]
    else:
        graphs = [image_graph(view, use) for view in IMAGE_VIEWS]
    check(graphs, setting, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("start", range(0, len(ALL_CASES) + len(EDGE_CASES), 40))
def test_operator_cases(tmp_path: Path, setting: Setting, start: int) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    chosen = [*ALL_CASES, *EDGE_CASES][start : start + 40]
    chosen = [case for case in chosen if all(n.op != "fused" for n in case.graph().nodes)]
    results = run_all({c.name: Job(c.graph(), c.inputs()) for c in chosen}, setting, tmp_path)
    assert not {name: str(r) for name, r in results.items() if isinstance(r, Exception)}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", range(10))
def test_random_graphs(tmp_path: Path, setting: Setting, seed: int) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    rng, jobs = np.random.default_rng(seed), {}
    for number in range(20):
        steps = [int(n) for n in rng.integers(0, 9999, int(rng.integers(1, 9)))]
        graph = build(steps, symbols=number % 4, branches=number % 5 == 0, steps=ALL_STEPS)
        sizes = {"n": int(rng.integers(1, 5)), "s": int(rng.integers(1, 10))}
        inputs = {
            v.name: rng.uniform(-2, 2, [evaluate(d, sizes) for d in v.shape]).astype(v.dtype.numpy)
            for v in graph.inputs
        }
        jobs[f"{steps} {sizes}"] = Job(graph, inputs)
    results = run_all(jobs, setting, tmp_path)
    assert not {name: str(r) for name, r in results.items() if isinstance(r, Exception)}
