"""Products of bytes on Arm: which instructions compute them, the same bits from all, and how many
instructions whole models take.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bare_models import DTYPES, compile_bare, needs_qemu, run_models
from compiled import Job, Setting, compile_graph, run_all
from suites.case import F32, I8, I32, U8, CaseBuilder

import tensmith
from tensmith.backends.arm.cortex_m import BOARDS
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.kernel.instruction import byte_data
from tensmith.runtime.firmware import run_firmware

MODELS = Path(__file__).resolve().parents[3] / "shared" / "models" / "dev"
# target -> the bytes of the data, and the mnemonic of its products
EXPECTED = {
    "aarch64:cortex-a76": (I8, "sdot"),
    "aarch64:neoverse-n1": (I8, "sdot"),
    "aarch64+i8mm": (U8, "usmmla"),
    "cortex-m4": (U8, "smlad"),
    "cortex-m33": (U8, "smlad"),
    "cortex-m55": (I8, "vmlava.s8"),
    "cortex-m85": (I8, "vmlava.s8"),
}
# (target, model) -> instructions for a multiply-add of the model, about a tenth above what it takes
COUNTS = {
    ("cortex-m4", "kws_qdq"): 2.1,
    ("cortex-m4", "resnet8_qdq"): 1.7,
    ("cortex-m55", "kws_qdq"): 0.44,
    ("cortex-m55", "resnet8_qdq"): 0.38,
}
MULTIPLY_ADDS = {"kws_qdq": 2.66e6, "resnet8_qdq": 12.50e6}


def products(kind: DType, depth: int = 64) -> Graph:
    """A product of bytes with constant ones, a convolution padded with a number, and a product of
    an odd depth with few columns."""
    low, high = (0, 256) if kind is U8 else (-128, 128)
    c = CaseBuilder("products")
    x = c.input(9, depth, dtype=kind, low=low, high=high, name="x")
    c.output(c.op("matmul", x, c.weight(depth, 48, dtype=I8, low=-128, high=128), accumulate=I32))
    images = c.input(1, 8, 7, 7, dtype=kind, low=low, high=high, name="images")
    filters = c.weight(24, 8, 3, 3, dtype=I8, low=-128, high=128)
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "pad_value": 9}
    c.output(c.op("conv", images, filters, accumulate=I32, **window))
    odd = c.input(3, 76, dtype=kind, low=low, high=high, name="odd")
    c.output(c.op("matmul", odd, c.weight(76, 5, dtype=I8, low=-128, high=128), accumulate=I32))
    return c.graph()


def inputs(kind: DType, seed: int = 3) -> dict[str, np.ndarray]:
    """Bytes of all values, the greatest among them."""
    rng = np.random.default_rng(seed)
    shapes = {"x": (9, 64), "images": (1, 8, 7, 7), "odd": (3, 76)}
    info = np.iinfo(kind.numpy)
    found = {
        name: rng.integers(info.min, info.max + 1, shape).astype(kind.numpy)
        for name, shape in shapes.items()
    }
    found["x"][0], found["x"][1] = info.max, info.min
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_products_of_bytes_are_one_instruction(name: str, tmp_path: Path) -> None:
    kind, mnemonic = EXPECTED[name]
    assert byte_data(resolve_target(name)[1].instructions) is kind
    model = compile_graph(products(kind), Setting(name, 2), tmp_path, texts=frozenset({"asm"}))
    lines = [line.split()[0] for line in model.code.texts["asm"].splitlines() if line.split()]
    assert lines.count(mnemonic) >= 8


@needs_qemu
@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("kind", [U8, I8])
def test_products_of_bytes_are_exact_on_a_board(name: str, kind: DType, tmp_path: Path) -> None:
    given = inputs(kind)
    model = compile_bare(Job(products(kind), given), name, tmp_path)
    run = run_models({"m": model}, {"m": given}, name, tmp_path)["m"]
    want = run_graph(products(kind), given)
    for spec, got in zip(model.outputs, run.outputs, strict=True):
        np.testing.assert_array_equal(got, want[spec.name])


@pytest.mark.parametrize("name", ["aarch64:cortex-a76", "aarch64+i8mm"])
def test_products_of_bytes_are_exact_under_linux(name: str, tmp_path: Path) -> None:
    setting, kind = Setting(name, 2, emulated=True), EXPECTED[name][0]
    if missing := setting.missing():
        pytest.skip(missing)
    given = inputs(kind)
    got = run_all({"m": Job(products(kind), given)}, setting, tmp_path)["m"]
    assert not isinstance(got, Exception), got
    for key, array in run_graph(products(kind), given).items():
        np.testing.assert_array_equal(got[key], array)


def autoencoder() -> Graph:
    """640 -> 128 -> 128 -> 8 -> 128 -> 640 of bytes, as QuantizeLinear and DequantizeLinear say."""
    c = CaseBuilder("autoencoder")
    value = c.op("quantize", c.input(1, 640, name="x"), c.scalar(0.02), c.scalar(3, I8))
    sizes = (640, 128, 128, 8, 128, 640)
    for depth, columns in pairwise(sizes):
        floats = c.op("dequantize", value, c.scalar(0.02), c.scalar(3, I8))
        weights = c.weight(depth, columns, dtype=I8, low=-127, high=128)
        scaled = c.op("dequantize", weights, c.scalar(2.0**-11), c.scalar(0, I8))
        total = c.op("add", c.op("matmul", floats, scaled), c.weight(columns, dtype=F32))
        value = c.op(
            "quantize", c.op("max", total, c.scalar(-2.6)), c.scalar(0.02), c.scalar(3, I8)
        )
    c.output(value)
    return c.graph()


@needs_qemu
@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m55"])
def test_an_autoencoder_of_bytes_is_exact(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    given = {"x": rng.normal(0, 1, (1, 640)).astype(np.float32)}
    model = compile_bare(Job(autoencoder(), given), name, tmp_path)
    run = run_models({"m": model}, {"m": given}, name, tmp_path)["m"]
    np.testing.assert_array_equal(run.outputs[0], run_graph(autoencoder(), given)["y0"])
    assert len(np.unique(run.outputs[0])) > 20


@needs_qemu
@pytest.mark.parametrize(("name", "model"), list(COUNTS))
def test_quantised_models_on_a_board(name: str, model: str, tmp_path: Path) -> None:
    folder = MODELS / model
    if not folder.is_dir():
        pytest.skip("the models are not there")
    artifact = tensmith.compile(folder / "model.onnx", target=name)
    (program,) = artifact.save(tmp_path / "model.elf")
    backend, target = resolve_target(name)
    emulator = backend.emulator(target)
    assert emulator is not None
    with np.load(folder / "inputs_0.npz") as given, np.load(folder / "outputs_0.npz") as stored:
        runs = run_firmware(emulator.command, program, [(0, dict(given))], DTYPES, tmp_path)
        for got, want in zip(runs[0].outputs, stored.values(), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    counted = runs[0].ticks * BOARDS[name].tick_ns  # a nanosecond is an instruction there
    assert counted <= COUNTS[name, model] * MULTIPLY_ADDS[model]
