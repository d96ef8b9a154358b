"""The passes keep what graphs compute: operator cases, random graphs, real models."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import build
from rewriting import count, inputs_for, same_results
from suites.cases import ALL_CASES, Case, compare

from tensmith import passes
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.text import print_graph
from tensmith.compiler.ir.verify import verify
from tensmith.compiler.pass_manager import Fixpoint, Pass, run_passes
from tensmith.frontends.onnx import load
from tensmith.passes.layout.choose_layouts import ChooseLayouts
from tensmith.passes.layout.matmul_form import MatmulForm
from tensmith.passes.layout.sink_reshapes import SinkReshapes
from tensmith.passes.patterns.attention_pattern import AttentionPattern
from tensmith.passes.patterns.layer_norm_pattern import LayerNormPattern
from tensmith.passes.pipeline import SIMPLIFY, optimization_passes
from tensmith.passes.simplify.reciprocal import Reciprocal
from tensmith.passes.simplify.scale_folding import ScaleFolding

MODELS = Path(__file__).resolve().parents[3] / "shared" / "models" / "dev"
SMALL = (
    "digits_cnn", "kws", "kws_qdq", "kws_savedmodel", "magika", "mnist", "resnet8", "resnet8_qdq",
    "silero_vad", "dtln_1", "ultraface_rfb320",
)  # fmt: skip
ALONE: tuple[Pass, ...] = (
    *SIMPLIFY,
    Reciprocal(),
    LayerNormPattern(),
    AttentionPattern(),
    ScaleFolding(),
    ChooseLayouts(),
    MatmulForm(),
    SinkReshapes(),
)


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_case(case: Case, level: int) -> None:
    graph = case.graph()
    inputs = case.inputs(seed=2)
    want = run_graph(graph, inputs)
    run_passes(graph, optimization_passes(level))
    got = run_graph(graph, inputs)
    assert list(got) == list(want)
    for name, array in want.items():
        compare(name, got[name], array, case.tolerance)


@pytest.mark.parametrize("single", ALONE, ids=lambda item: item.name)
def test_every_pass_alone(single: Pass) -> None:
    for case in ALL_CASES:
        graph = case.graph()
        inputs = case.inputs(seed=3)
        want = run_graph(graph, inputs)
        run_passes(graph, [single])
        got = run_graph(graph, inputs)
        for name, array in want.items():
            compare(f"{case.name} {name}", got[name], array, case.tolerance)


def _keeps_results(graph: Graph) -> None:
    verify(graph)
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, optimization_passes(2))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)


@settings(max_examples=150)
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=14), st.booleans(), st.booleans())
def test_random_graphs(numbers: list[int], symbolic: bool, branches: bool) -> None:
    _keeps_results(build(numbers, symbols=int(symbolic), branches=branches))


@pytest.mark.slow
@settings(max_examples=4000)
@given(st.lists(st.integers(0, 1_000_000), min_size=2, max_size=24), st.booleans(), st.booleans())
def test_more_random_graphs(numbers: list[int], symbolic: bool, branches: bool) -> None:
    _keeps_results(build(numbers, symbols=int(symbolic), branches=branches))


TRANSPOSED = [case for case in ALL_CASES if "conv_transpose" in case.name]


@pytest.mark.parametrize("case", ALL_CASES[::7] + TRANSPOSED, ids=lambda case: case.name)
def test_a_second_run_changes_nothing(case: Case) -> None:
    graph = case.graph()
    run_passes(graph, optimization_passes(2))
    before = print_graph(graph)
    run_passes(graph, optimization_passes(2))
    assert print_graph(graph) == before


def test_the_same_graph_gives_the_same_text() -> None:
    texts = set()
    for _ in range(2):
        graph = build([5, 10, 3, 27, 44, 13, 8, 10])
        run_passes(graph, optimization_passes(2))
        texts.add(print_graph(graph))
    assert len(texts) == 1


def _model(name: str) -> tuple[Graph, dict[str, np.ndarray]]:
    folder = MODELS / name
    if not folder.is_dir():
        pytest.skip("the shared models are not here")
    graph = load(folder / "model.onnx")
    with np.load(folder / "inputs_0.npz") as stored:
        arrays = {value.name: stored[value.name] for value in graph.inputs}
    for value in graph.inputs:  # a sequence: its first step
        if arrays[value.name].ndim > value.type.rank:
            arrays[value.name] = arrays[value.name][0]
    return graph, arrays


@pytest.mark.parametrize("name", SMALL)
def test_model(name: str) -> None:
    graph, inputs = _model(name)
    want = run_graph(graph, inputs)
    run_passes(graph, optimization_passes(2))
    got = run_graph(graph, inputs)
    for key, array in want.items():
        peak = float(np.max(np.abs(array), initial=1e-6))
        np.testing.assert_allclose(got[key], array, rtol=1e-4, atol=1e-5 * peak, err_msg=key)


@pytest.mark.parametrize(
    ("name", "transposes"),
    [
        ("mnist", 0),
        ("resnet8", 1),
        ("ultraface_rfb320", 1),
        ("openseeface_retinaface", 1),
        ("yunet_n_dynamic", 1),
        ("super_resolution", 1),
        ("resnet8_qdq", 0),
        ("kws", 0),
    ],
)
def test_transposes_that_remain(name: str, transposes: int) -> None:
    """Only the picture at the input is turned (super_resolution: the pixels at its output)."""
    graph, _ = _model(name)
    run_passes(graph, optimization_passes(2))
    assert count(graph)["transpose"] == transposes


def test_fixpoints_converge() -> None:
    """No group of the pipeline needs its limit of rounds."""
    for case in ALL_CASES[::5]:
        graph = case.graph()
        for item in optimization_passes(2):
            run_passes(graph, [item])
            if isinstance(item, Fixpoint):
                assert not run_passes(graph, [item]), case.name


def test_names_of_passes_are_those_of_their_kind() -> None:
    """What dumps and timings call them: words of small letters, and underscores."""
    found: dict[type, object] = {}
    for module in pkgutil.walk_packages(passes.__path__, f"{passes.__name__}."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and is_dataclass(kind) and hasattr(kind, "run"):
                found.update({(kind, f.default) for f in fields(kind) if f.name == "name"})
    assert len(found) > len(SIMPLIFY)
    assert not [name for name in found.values() if not re.fullmatch("[a-z]+(_[a-z]+)*", str(name))]
