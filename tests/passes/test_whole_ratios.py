"""Scales in the ratio of whole numbers, and as large as they were but for half a step."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from integer_graphs import Sketch, integers_made

from tensmith.backends.ethosu.integer_form import FLOAT_FORM, integer_passes
from tensmith.backends.reference import run_graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.precision.fixed_point.quantise_floats import to_quantise
from tensmith.passes.precision.fixed_point.whole_ratios import MOST_CHANGE, scale_in_ratio


def _is_whole(ratio: float) -> bool:
    """Whether a ratio is one of numbers up to 127, as f32 tells."""
    near = Fraction(min(ratio, 1 / ratio)).limit_denominator(127)
    return bool(np.isclose(float(near), min(ratio, 1 / ratio), rtol=2.0**-22, atol=0))


def test_scales_come_into_whole_ratios():
    rng = np.random.default_rng(0)
    change = []
    for scale, other in np.exp(rng.uniform(-3, 0, (500, 2))).astype(np.float32):
        found = scale_in_ratio(float(scale), float(other))
        change.append(abs(found / float(scale) - 1))
        assert _is_whole(found / float(other)) or change[-1] == 0
    assert np.mean([n == 0 for n in change]) < 0.05
    assert max(change) <= MOST_CHANGE
    assert np.median(change) <= MOST_CHANGE / 2


@pytest.mark.parametrize("ratio", [1e-6, 1 / 300.0, 1 / 80.5, 80.5, 300.0, 1e6])
def test_scales_far_from_any_ratio_stay(ratio):
    assert scale_in_ratio(0.37 * ratio, 0.37) == 0.37 * ratio


def _factors(graph) -> list[float]:
    """What operands of sums are scaled by."""
    return [float(v.producer.inputs[1].data) for n in graph.nodes if n.op == "add"
            for v in n.inputs if v.producer and v.producer.op == "requantize"]  # fmt: skip


def test_operands_that_nothing_else_reads_get_such_scales():
    def apart(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, 8, 8), 8))
        return (s.op("add", s.conv(x, 8), s.conv(x, 8)),)

    left, right = _factors(integers_made(apart, 2)[0])
    assert _is_whole(left / right)


def test_operands_that_others_read_keep_theirs():
    def read(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, 8, 8), 8))
        a, b = s.conv(x, 8), s.conv(x, 8)
        return s.op("add", a, b), s.conv(a, 4), s.conv(b, 4)

    left, right = _factors(integers_made(read, 2)[0])
    assert not _is_whole(left / right)


def _sum_over(low, high, op: str) -> tuple[np.ndarray, list[float]]:
    """(what a sum in integers misses over the whole ranges of both operands, the steps of operands
    and sum where scales are not changed). low, high: of the operands."""
    sketch = Sketch(0)
    x, y = (sketch.input(1, 1, 64, 64) for _ in range(2))
    graph = sketch.graph(sketch.op(op, x, y))
    drawn = sketch.rng.uniform(low, high, (62, 2))
    grid = np.meshgrid(*np.vstack([low, drawn, high]).astype(np.float32).T, indexing="ij")
    sample = {v.name: a.reshape(v.type.static_shape) for v, a in zip((x, y), grid, strict=True)}
    (total,) = run_graph(graph, sample).values()
    run_passes(graph, FLOAT_FORM)
    arrays = dict(zip(to_quantise(graph), (*sample.values(), total), strict=True))
    ranges = {v: (float(a.min()), float(a.max())) for v, a in arrays.items()}
    run_passes(graph, integer_passes(ranges))
    (found,) = run_graph(graph, sample).values()
    steps = [(max(h, 0.0) - min(l, 0.0)) / 255 for l, h in ranges.values()]
    return found - total, steps


@pytest.mark.parametrize("op", ["add", "sub"])
@pytest.mark.parametrize("one_sided", [False, True])
def test_sums_are_as_near_to_floats_as_bytes_are(op, one_sided):
    rng = np.random.default_rng(3)
    for _ in range(8):
        high = np.exp(rng.uniform(-1, 1, 2))
        low = np.zeros(2) if one_sided else -np.exp(rng.uniform(-1, 1, 2))
        missed, steps = _sum_over(low, high, op)
        by_chance = np.sqrt(np.square(steps).sum() / 12)
        assert np.sqrt(np.square(missed).mean()) <= 1.05 * by_chance
        assert np.abs(missed).max() <= 0.55 * sum(steps)
