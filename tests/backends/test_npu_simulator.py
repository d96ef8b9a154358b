"""The simulator of the Ethos-U against Arm's TOSA reference model, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from npu_graphs import U55_CASES, graph_of, inputs_of
from npu_nets import RandomNet
from tosa_runs import needs_model, needs_vela, quiet, reference_run

from tensmith.backends.ethosu.simulator import HARDWARE
from tensmith.backends.ethosu.targets import parse_target

pytestmark = needs_vela
MODELS = Path(__file__).resolve().parents[3] / "shared" / "models" / "dev"


@needs_model
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


def _exact(net: RandomNet, target: str, seed: int) -> None:
    """That a net gives on the simulator what the reference model says."""
    from npu_streams import run

    from tensmith.backends.ethosu.tosa.writer import serialised
    from tensmith.backends.ethosu.vela import compiled

    blob, inputs = serialised(net.graph), inputs_of(net.graph, seed)
    wanted = [np.ascontiguousarray(array).tobytes() for array in reference_run(blob, inputs)]
    found, _ = run(compiled(blob, parse_target(target)), inputs)
    assert found == wanted, (target, seed)


@needs_model
@pytest.mark.parametrize("memory", ["", "+optimise=Size", "+arena-cache-size=20000"])
@pytest.mark.parametrize("target", HARDWARE)
def test_nets_are_exact(target, memory):
    """Layers that follow each other: cascades in small memory, buffers that are used again."""
    for seed in range(2):
        _exact(RandomNet(seed, size=20, layers=6), target + memory, seed)


@pytest.mark.slow
@needs_model
@pytest.mark.parametrize("target", HARDWARE)
def test_many_nets_are_exact(target):
    """`pytest -m slow tests/backends/test_npu_simulator.py`: 50 nets in four memories each."""
    for seed in range(100, 150):
        for memory in ("", "+optimise=Size", "+arena-cache-size=20000", "+arena-cache-size=60000"):
            _exact(RandomNet(seed, size=48, layers=10), target + memory, seed)


@pytest.mark.skipif(not MODELS.is_dir(), reason="no ../shared/models here")
@pytest.mark.parametrize("target", ["ethos-u55-32", "ethos-u55-256", "ethos-u65-512"])
@pytest.mark.parametrize("name", ["resnet8", "kws"])
def test_official_nets_are_those_of_tflite(name, target):
    """MLPerf Tiny's quantised files, softmax included, against LiteRT's stored answers."""
    from npu_streams import run

    from tensmith.backends.ethosu.vela import compiled

    folder = MODELS / name
    with quiet():
        stream = compiled(
            (folder / "official_int8.tflite").read_bytes(), parse_target(target), "TFLITE"
        )
    for path in sorted(folder.glob("litert_int8_*.npz")):
        stored = np.load(path)
        (found,), _ = run(stream, [stored["in_q"]])
        assert found == stored["out_q"].tobytes(), path.name
