"""The simulator of the Ethos-U against Arm's TOSA reference model, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from npu_graphs import CASES, U85_CASES, graph_of, inputs_of
from npu_nets import RandomNet, random_convolution
from tosa_runs import needs_model, needs_vela, quiet, reference_run

from tensmith.backends.ethosu.simulator import HARDWARE
from tensmith.backends.ethosu.simulator.u85_weights import fast_weights
from tensmith.backends.ethosu.targets import parse_target

pytestmark = needs_vela
MODELS = Path(__file__).resolve().parents[3] / "shared" / "models" / "dev"


def _compare(make, targets):
    from npu_streams import run, stream_of

    from tensmith.backends.ethosu.tosa.writer import serialised

    graph = graph_of(make)
    blob, inputs = serialised(graph), inputs_of(graph, 1)
    wanted = [np.ascontiguousarray(array).tobytes() for array in reference_run(blob, inputs)]
    for target in targets:
        with quiet():
            stream = stream_of(blob, target)
        found, report = run(stream, inputs)
        assert found == wanted, target
        assert report.accelerator == target


@needs_model
@pytest.mark.parametrize("name", CASES)
def test_operators_are_exact(name):
    _compare(CASES[name], HARDWARE)


@needs_model
@pytest.mark.parametrize("name", U85_CASES)
def test_operators_of_the_u85_are_exact(name):
    _compare(U85_CASES[name], [target for target in HARDWARE if "u85" in target])


@needs_model
@pytest.mark.parametrize("depthwise", [False, True])
def test_activations_of_16_bits_are_exact(depthwise):
    """With sums, biases and scales of 48, 48 and 16 bits."""
    from npu_streams import run, stream_of
    from npu_wide import wide_convolution

    x = np.random.default_rng(4).integers(-32768, 32768, (1, 9, 9, 16)).astype(np.int16)
    blob = wide_convolution(depthwise)
    wanted = [np.ascontiguousarray(array).tobytes() for array in reference_run(blob, [x])]
    for target in HARDWARE:
        assert run(stream_of(blob, target), [x])[0] == wanted, target


@pytest.mark.parametrize(("values", "bits"), [(4, 2), (16, 4), (256, 8)])
def test_fast_weights_of_every_kind(values, bits):
    """Headers as the format has them: flags, a correction of bytes, sixteen folded values."""
    rng = np.random.default_rng(values)
    known = rng.permutation(np.arange(-100, 156))[:values]
    weights = known[rng.integers(0, values, 1000)]
    header = np.zeros(256, np.uint8)
    header[0], header[1] = bits == 8, bits == 2
    codes = np.searchsorted(np.sort(known), weights)
    adjust = -28 if bits == 8 else 0
    if bits == 8:  # -100 .. 155 is more than a signed byte holds
        codes = (weights + adjust) & 0xFF
        header[104:112] = np.unpackbits(
            np.array([adjust], np.int8).view(np.uint8), bitorder="little"
        )
    else:
        folded = 2 * np.abs(np.sort(known)) + (np.sort(known) < 0)
        table = folded[:, None] >> np.arange(9) & 1
        header[112 : 112 + table.size] = table.ravel()
    payload = (codes[:, None] >> np.arange(bits) & 1).ravel().astype(np.uint8)
    payload = np.concatenate([header, payload, np.zeros(-len(payload) % 256, np.uint8)])
    stream = np.packbits(payload, bitorder="little").tobytes()
    np.testing.assert_array_equal(fast_weights(stream, 1000), weights)
    for wrong in (stream[:-32], stream + bytes(32), stream[:20]):
        with pytest.raises(ValueError, match=r"bytes, 1000 weights take|shorter than its header"):
            fast_weights(wrong, 1000)


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


@pytest.mark.slow
@needs_model
@pytest.mark.parametrize("first", range(0, 200, 20))
def test_any_convolution_is_exact(first):
    """`pytest -m slow tests/backends/test_npu_simulator.py`: 200 of random shapes, kernels,
    strides, dilations, padding and weights, on every processor."""
    for seed in range(first, first + 20):
        _compare(random_convolution(seed), HARDWARE)


@pytest.mark.skipif(not MODELS.is_dir(), reason="no ../shared/models here")
@pytest.mark.parametrize(
    "target", ["ethos-u55-32", "ethos-u55-256", "ethos-u65-512", "ethos-u85-256"]
)
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
