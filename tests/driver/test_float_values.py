"""Which values stay in floats beside a processor of integers."""

from __future__ import annotations

import numpy as np
import pytest
from integer_graphs import WINDOW, Sketch, ranges_of

from tensmith.backends.ethosu.integer_form import FLOAT_FORM, integer_passes
from tensmith.backends.reference import run_graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.driver import float_values
from tensmith.driver.float_values import LEAST_DECIBELS, RoundingNoise, kept_in_floats
from tensmith.passes.precision.fixed_point.quantise_floats import IN_FLOATS


def _spectrum(*, wide: bool):
    """Magnitudes of pairs; wide: some channels are a thousand times as loud as others, which 8 bits
    of squares do not tell from 0."""
    sketch = Sketch(0)
    loudness = np.array([1000.0] + [1.0] * 15) if wide else np.ones(16)
    x, y = sketch.input(8, 16), sketch.input(8, 16)
    squares = sketch.op("add", sketch.op("mul", x, x), sketch.op("mul", y, y))
    root = sketch.op("sqrt", squares)
    weights = sketch.weights(16, 6)
    weights.data[...] /= loudness[:, None].astype(np.float32)
    behind = sketch.relu(sketch.op("matmul", root, weights))
    graph = sketch.graph(sketch.op("matmul", behind, sketch.weights(6, 5)))
    samples = [
        {name: (a * loudness).astype(np.float32) for name, a in sketch.draw(n).items()}
        for n in range(3)
    ]
    return graph, ranges_of(graph, samples), samples


def _decibels(graph, samples, wanted):
    found = [run_graph(graph, sample)["y0"] for sample in samples]
    noise = sum(np.square(a - b).sum() for a, b in zip(wanted, found, strict=True))
    return 10 * np.log10(sum(np.square(a).sum() for a in wanted) / noise)


def test_what_8_bits_hold_is_quantised():
    graph, ranges, samples = _spectrum(wide=False)
    assert kept_in_floats(graph, ranges, samples) == (frozenset(), "")


def test_what_8_bits_do_not_hold_stays():
    graph, ranges, samples = _spectrum(wide=True)
    wanted = [run_graph(graph, sample)["y0"] for sample in samples]
    kept, note = kept_in_floats(graph, ranges, samples)
    assert any(value.producer and value.producer.op == "add" for value in kept)
    assert f"{len(kept)} of {len(ranges)} values stay in floats" in note
    run_passes(graph, integer_passes(ranges | dict.fromkeys(kept, IN_FLOATS)))
    assert _decibels(graph, samples, wanted) > LEAST_DECIBELS
    assert {"sqrt", "requantize"} <= {node.op for node in graph.nodes}


def test_large_models_are_quantised_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(float_values, "MOST_OPERATIONS", 10.0)
    graph, ranges, samples = _spectrum(wide=True)
    kept, note = kept_in_floats(graph, ranges, samples)
    assert not kept
    assert "too large to look" in note


def _softmax_of(count):
    return lambda s: s.op("softmax", s.input(2, count), axis=1)


def _scaled(function, factor, offset):
    def make(s):
        return s.op(function, s.op("add", s.op("mul", s.input(4, 50), factor), offset))

    return make


def _means_of_small(s):
    x = s.op("tanh", s.op("mul", s.input(1, 4, 8, 8), 0.02))
    return s.op("avg_pool", x, **{**WINDOW, "kernel": (2, 2), "strides": (2, 2)})


_LIMITED = {
    "softmax of few": _softmax_of(10),
    "softmax of 300": _softmax_of(300),
    "softmax of 1500": _softmax_of(1500),
    "small tanh": _scaled("tanh", 0.01, 0.0),
    "tanh": _scaled("tanh", 1.0, 0.0),
    "small sigmoid": _scaled("sigmoid", 1.0, -6.0),
    "sigmoid": _scaled("sigmoid", 1.0, 0.0),
    "steep sigmoid": _scaled("sigmoid", 1000.0, 0.0),
    "means of small tanh": _means_of_small,
}


def _drawn(name):
    sketch = Sketch(0)
    graph = sketch.graph(_LIMITED[name](sketch))
    run_passes(graph, FLOAT_FORM)
    samples = [sketch.draw(number) for number in range(4)]
    return graph, ranges_of(graph, samples), samples


@pytest.mark.parametrize("name", _LIMITED)
def test_the_noise_that_is_foreseen_is_that_of_the_integers(name):
    graph, ranges, samples = _drawn(name)
    wanted = [run_graph(graph, sample)["y0"] for sample in samples]
    foreseen = RoundingNoise(graph, ranges, samples).of(frozenset(ranges))
    run_passes(graph, integer_passes(ranges))
    assert _decibels(graph, samples, wanted) == pytest.approx(foreseen, abs=2.0)
    assert foreseen > LEAST_DECIBELS


def test_what_stays_in_floats_is_computed_in_floats():
    graph, ranges, _ = _drawn("softmax of 300")
    assert any(value.producer and value.producer.op == "softmax" for value in ranges)
    ranges |= {v: IN_FLOATS for v in ranges if v.producer and v.producer.op == "softmax"}
    run_passes(graph, integer_passes(ranges))
    assert [node.op for node in graph.nodes][-1] == "softmax"
    assert "reduce_sum" not in {node.op for node in graph.nodes}
