"""Softmax on the Ethos-U: how many operators it is, and that constants are read as bytes are."""

from __future__ import annotations

import pytest
from integer_graphs import integers_of
from tosa_runs import needs_vela

from tensmith.backends.ethosu.placement import place
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.tosa.region import tosa_of
from tensmith.backends.ethosu.tosa.schema import ElementType, Op

ALL = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")
SCALING, FEW = 1, 6  # the product before it; the greatest, d, e, the sum, r and e r


@needs_vela
@pytest.mark.parametrize("target", ALL)
def test_what_is_looked_up_and_scaled_is_so_by_what_makes_it(target):
    """Steps of Newton are four operators each, and the first reciprocal is a further one then."""
    for name, steps in (("softmax_of_few", 0), ("softmax_of_many", 3)):
        graph, *_ = integers_of(name, 3)
        (stream,) = place(graph, TARGETS[target]).streams
        made = [operator for operator in stream.estimate.operators if operator.cycles]
        assert len(made) <= SCALING + FEW + (2 + 4 * steps if steps else 0)


@needs_vela
def test_constants_beside_narrow_operands_are_widened_as_these_are():
    graph, *_ = integers_of("softmax_of_many", 3)
    (segment,) = place(graph, TARGETS[ALL[0]]).segments
    tosa = tosa_of(segment.regions[0])
    made = {operator.output: operator for operator in tosa.operators}
    read = [made.get(tensor) for op in tosa.operators if op.op is Op.MUL for tensor in op.inputs]
    narrow = [maker.inputs[0] for maker in read if maker is not None and maker.op is Op.RESCALE]
    assert any(t.data is not None and t.type is ElementType.INT16 for t in narrow)
