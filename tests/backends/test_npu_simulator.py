"""The simulator of the Ethos-U against Arm's TOSA reference model, bit for bit."""

import numpy as np
import pytest
from npu_graphs import U55_CASES, graph_of, inputs_of
from tosa_runs import needs_model, needs_vela, reference_run

from tensmith.backends.ethosu.simulator import HARDWARE

pytestmark = [needs_vela, needs_model]


@pytest.mark.parametrize("name", U55_CASES)
def test_operators_are_exact(name):
    from npu_streams import run, stream_of

    from tensmith.backends.ethosu.tosa.writer import serialised

    graph = graph_of(U55_CASES[name])
    blob, inputs = serialised(graph), inputs_of(graph, 1)
    wanted = [np.ascontiguousarray(array).tobytes() for array in reference_run(blob, inputs)]
    for target in HARDWARE:
        found, report = run(stream_of(blob, target), inputs)
        assert found == wanted, target
        assert report.accelerator == target
