"""Models in integers alone: close to floats, and nothing of floats left in them."""

import numpy as np
import pytest
from integer_graphs import CASES, integers_of
from suites.cases import ALL_CASES

from tensmith.backends.ethosu.integer_form import integer_passes
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.types import DType
from tensmith.compiler.pass_manager import run_passes

LEAST = 30.0  # decibels that errors of 8 bits lie below results, a few layers on
FEWER = {"attention": 22.0, "layer_normalised": 28.0}
STEP_OF_SOFTMAX = 2.0**-8
EDGES = {"quantize", "dequantize", "reshape", "transpose"}


@pytest.mark.parametrize("name", CASES)
def test_integers_are_close_to_floats(name):
    graph, _, samples, wanted = integers_of(name, 1)
    found = [run_graph(graph, sample) for sample in samples]
    exact, real = (np.stack([answer["y0"] for answer in side]) for side in (wanted, found))
    noise = np.square(real - exact, dtype=np.float64).sum()
    decibels = 10 * np.log10(np.square(exact, dtype=np.float64).sum() / max(noise, 1e-12))
    if "softmax" in name:
        assert np.abs(real - exact).max() <= 4 * STEP_OF_SOFTMAX
    else:
        assert decibels >= FEWER.get(name, LEAST)


@pytest.mark.parametrize("name", CASES)
def test_nothing_computes_in_floats(name):
    graph, *_ = integers_of(name, 2)
    floats = {node.op for node in graph.nodes if any(v.dtype is DType.F32 for v in node.outputs)}
    assert floats <= EDGES
    assert [node.op for node in graph.nodes].count("quantize") == len(graph.inputs)


def test_sums_that_are_rounded_twice_stay_so():
    case = next(case for case in ALL_CASES if case.name == "requantize_ties_double")
    graph, inputs = case.graph(), case.inputs()
    run_passes(graph, integer_passes({}))
    np.testing.assert_array_equal(
        run_graph(graph, inputs)["y0"], run_graph(case.graph(), inputs)["y0"]
    )
