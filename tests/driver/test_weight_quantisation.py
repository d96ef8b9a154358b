"""Weights alone in few bits: what is written, told, computed, and how much is lost."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ModelWarning, UsageError
from tensmith.driver.quantisation import Quantisation, summary_of
from tensmith.driver.request import CompileRequest
from tensmith.driver.weight_quantisation import quantise_weights
from tensmith.frontends.onnx import load
from tensmith.frontends.onnx.quantising.compensation import compensated, results_lost
from tensmith.frontends.onnx.quantising.few_bits import WeightForm, in_few_bits

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)
X = RNG.standard_normal((3, 200)).astype(np.float32)
FORMS = [("int8-weights", None), ("int8-weights", 64), ("int4-weights", None)]


def drawn(*shape: int) -> Array:
    return (RNG.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def store(folder: Path, opset: int) -> Path:
    """A product, one of Gemm with factors and turned weights, and a small one."""
    constants = {"a": drawn(200, 150), "b": drawn(130, 150), "c": drawn(130), "d": drawn(130, 4)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "b", "c"], ["g"], "second", transB=1, alpha=0.5, beta=2.0),
        helper.make_node("MatMul", ["g", "d"], ["y"], "third"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 200))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path = folder / f"net{opset}.onnx"
    onnx.save(model, path)
    return path


def quantised(
    source: Path, precision: str, block: int | None = None, calibration: Any = None
) -> Quantisation:
    request = CompileRequest(precision=precision, block=block, calibration=calibration)
    folder = Path(tempfile.mkdtemp(dir=source.parent))
    return quantise_weights(source, source.with_name("q.onnx"), request, folder)


@pytest.mark.parametrize("opset", [11, 17, 21])
@pytest.mark.parametrize(("precision", "block"), FORMS)
def test_files_compute_what_their_weights_say(
    opset: int, precision: str, block: int | None, tmp_path: Path
) -> None:
    """In ONNX Runtime, too, which reads the operators that are written for the opset."""
    source = store(tmp_path, opset)
    found = quantised(source, precision, block)
    ops = {node.op_type for node in onnx.load(found.path).graph.node}
    packed = "MatMulNBits" if opset < 21 and (block or precision == "int4-weights") else (
        "DequantizeLinear")  # fmt: skip
    assert packed in ops
    want = run_graph(load(source), {"x": X})["y"]
    got = run_graph(load(found.path), {"x": X})["y"]
    lost = np.abs(got - want).max() / np.abs(want).max()
    assert 0 < lost < (0.02 if precision == "int8-weights" else 0.25)
    runtime = pytest.importorskip("onnxruntime", reason="the file is run by onnxruntime")
    session = runtime.InferenceSession(str(found.path))
    # where it makes MatMulNBits of what is written, it rounds data to 8 bits
    np.testing.assert_allclose(session.run(None, {"x": X})[0], got, 0, 0.02 * np.abs(got).max())


@needs_native
@pytest.mark.parametrize(("precision", "block"), FORMS)
def test_compiled(precision: str, block: int | None, tmp_path: Path) -> None:
    source = store(tmp_path, 17)
    small = pytest.warns(ModelWarning, match="below 200 M")
    with small if precision == "int4-weights" else nullcontext():
        artifact = tensmith.compile(source, precision=precision, block=block)
    want = run_graph(load(quantised(source, precision, block).path), {"x": X})["y"]
    got = artifact.load()({"x": X})["y"]
    np.testing.assert_allclose(got, want, 1e-5, 1e-5 * np.abs(want).max())
    rows = {row["name"]: row["precision"] for row in artifact.manifest["contractions"]}
    name = precision.replace("-", " ")
    assert rows == {"first": name, "second": name, "third": "fp32"}
    assert artifact.manifest["quantisation"]["method"] == "weights"
    assert artifact.manifest["precision_choice"]["kept"] == precision
    [line, reason] = summary_of(artifact.manifest)
    assert line.startswith(f"2 of 3 products in {name}, scales of")
    assert "fewer than 16384 weights" in reason


def correlated(rows: int, seed: int) -> Array:
    """Data of few directions, and a little of everything else."""
    rng, basis = np.random.default_rng(seed), np.random.default_rng(1)
    directions = basis.standard_normal((24, 200))
    found = rng.standard_normal((rows, 24)) @ directions + 0.3 * rng.standard_normal((rows, 200))
    return found.astype(np.float32)


@pytest.mark.parametrize("form", [WeightForm(4, 32), WeightForm(4), WeightForm(8)])
def test_compensation_keeps_results(form: WeightForm) -> None:
    """For data like those that it saw, while single weights are further from what they were."""
    weights = np.random.default_rng(3).standard_normal((40, 200)).astype(np.float32)
    seen, other = (correlated(800, seed).astype(np.float64) for seed in (1, 2))
    near, made = in_few_bits(weights, form), compensated(weights, form, seen.T @ seen)
    assert made is not None
    lost = [results_lost(few, weights, other.T @ other) for few in (near, made)]
    assert lost[1] < lost[0] / 4
    assert made.error > near.error
    assert made.numbers.dtype == near.numbers.dtype
    assert made.numbers.max() <= form.most


def test_compensation_of_what_is_never_multiplied() -> None:
    """Steps whose data are always zero keep their nearest numbers; no data at all say nothing."""
    weights = np.random.default_rng(3).standard_normal((10, 64)).astype(np.float32)
    data = np.random.default_rng(4).standard_normal((100, 64))
    data[:, 5:9] = 0
    form = WeightForm(8)
    made = compensated(weights, form, data.T @ data)
    assert made is not None
    near = in_few_bits(weights, form)
    np.testing.assert_array_equal(made.numbers[..., 5:9], near.numbers[..., 5:9])
    assert compensated(weights, form, np.zeros((64, 64))) is None
    assert compensated(weights, form, np.full((64, 64), np.nan)) is None


@needs_native
@pytest.mark.parametrize(("opset", "block"), [(17, None), (21, 64)])
def test_calibrated(opset: int, block: int | None, tmp_path: Path) -> None:
    source = store(tmp_path, opset)
    samples = [{"x": correlated(16, seed)} for seed in range(12)]
    plain = quantised(source, "int4-weights", block)
    want = run_graph(load(source), {"x": correlated(64, 99)})["y"]
    before = run_graph(load(plain.path), {"x": correlated(64, 99)})["y"]
    found = quantised(source, "int4-weights", block, samples)
    after = run_graph(load(found.path), {"x": correlated(64, 99)})["y"]
    assert np.square(after - want).sum() < 0.7 * np.square(before - want).sum()
    assert (found.samples, found.held_out) == (12, 3)
    assert found.tried["compensated"] > found.tried["nearest"]
    line = summary_of(found.to_json())[0]
    assert "on 3 samples held out the error is below the outputs by" in line


@needs_native
def test_samples_that_are_far_larger_than_most_tell_nothing(tmp_path: Path) -> None:
    source = store(tmp_path, 17)
    samples = [{"x": correlated(16, seed)} for seed in range(8)]
    plain = quantised(source, "int4-weights", None, samples).path.read_bytes()
    large = {"x": np.float32(1e5) * correlated(16, 99)}
    found = quantised(source, "int4-weights", None, [samples[0], large, *samples[1:]])
    assert found.path.read_bytes() == plain
    assert any("in sample 1" in note for note in found.notes)


@needs_native
def test_calibration_that_tells_nothing(tmp_path: Path) -> None:
    """A single sample, and data whose products are as good rounded to nearest."""
    source = store(tmp_path, 17)
    found = quantised(source, "int8-weights", None, {"x": X})
    nearest = quantised(source, "int8-weights")
    assert found.path.read_bytes() == nearest.path.read_bytes()
    assert any("one calibration sample" in note for note in found.notes)
    nothing = [{"x": np.zeros((2, 200), np.float32)} for _ in range(4)]
    found = quantised(source, "int8-weights", None, nothing)
    assert any("no better on samples held out" in note for note in found.notes)
    with pytest.raises(UsageError, match="arrays for no input"):
        quantised(source, "int8-weights", None, {"z": X})


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    source = store(tmp_path, 21)
    model = onnx.load(source)
    model.graph.node[0].output[0] = "p"
    model.graph.node.insert(1, helper.make_node("MatMul", ["x", "a"], ["q"], "again"))
    model.graph.node.insert(2, helper.make_node("Add", ["p", "q"], ["h"]))
    onnx.save(model, source)
    found = quantised(source, "int4-weights")
    names = [t.name for t in onnx.load(found.path).graph.initializer]
    assert sum(name.startswith("a_") for name in names) == 3
    assert [row.precision for row in found.products].count("int4 weights") == 3


@pytest.mark.parametrize(
    "form", [WeightForm(4, 32), WeightForm(4), WeightForm(8), WeightForm(8, 64)]
)
def test_ranges_lose_no_more_than_whole_ones(form: WeightForm) -> None:
    """Errors are at most half a step, but of what is clipped, and their sum is that of rounding."""
    weights = RNG.standard_t(3, (10, 100)).astype(np.float32)
    weights[3] = 0
    few = in_few_bits(weights, form)
    numbers = few.numbers.astype(np.float64) - few.zeros[..., None]
    real = (numbers * few.scales[..., None]).reshape(10, -1)[:, :100]
    assert few.error == pytest.approx(np.square(real - weights).sum(), rel=1e-3)
    assert few.power == pytest.approx(np.square(weights).sum(), rel=1e-3)
    block = form.block or 100
    wide = np.pad(weights, ((0, 0), (0, -100 % block))).reshape(10, -1, block)
    if form.symmetric:
        step = np.abs(wide).max(-1, keepdims=True) / 127
    else:
        step = (np.maximum(wide.max(-1), 0) - np.minimum(wide.min(-1), 0))[..., None] / 15
    whole = np.where(step > 0, np.rint(wide / np.where(step > 0, step, 1)) * step, 0)
    assert few.error <= 1.05 * np.square(whole - wide).sum()
    assert not real[3].any()


def rewritten(source: Path, change: Any) -> Path:
    """A model after a change of its graph."""
    model = onnx.load(source)
    change(model.graph)
    onnx.save(model, source)
    return source


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(("precision", "block"), FORMS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, "no numbers"), (np.inf, "no numbers"), (-np.inf, "no numbers"), (-3e38, "exceed")],
)
@pytest.mark.filterwarnings("error:::tensmith")
def test_weights_that_no_scale_fits_stay_floats(
    opset: int, precision: str, block: int | None, value: float, reason: str, tmp_path: Path
) -> None:
    def change(graph: onnx.GraphProto) -> None:
        [tensor] = [t for t in graph.initializer if t.name == "a"]
        array = numpy_helper.to_array(tensor).copy()
        array[3, 4] = value
        tensor.CopyFrom(numpy_helper.from_array(array, "a"))

    source = rewritten(store(tmp_path, opset), change)
    with np.errstate(all="raise"):
        found = quantised(source, precision, block)
    first, second, _ = found.products
    assert first.precision == "fp32"
    assert reason in first.reason
    assert second.precision == precision.replace("-", " ")
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("form", [WeightForm(4, 32), WeightForm(8)])
def test_errors_of_large_weights_are_numbers(form: WeightForm) -> None:
    """They are those of smaller ones, times a power of two."""
    weights = RNG.standard_normal((10, 100)).astype(np.float32)
    small, factor = in_few_bits(weights, form), np.float32(2.0**120)
    with np.errstate(all="raise"):
        large = in_few_bits(weights * factor, form)
    np.testing.assert_array_equal(large.numbers, small.numbers)
    assert large.error / large.power == pytest.approx(small.error / small.power, rel=1e-6)


@needs_native
@pytest.mark.parametrize(("precision", "block"), FORMS)
def test_products_without_names(precision: str, block: int | None, tmp_path: Path) -> None:
    """What the manifest tells of them is what was compiled."""

    def change(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            node.name = ""

    source = rewritten(store(tmp_path, 17), change)
    small = pytest.warns(ModelWarning, match="below 200 M")
    with small if precision == "int4-weights" else nullcontext():
        artifact = tensmith.compile(source, precision=precision, block=block)
    name = precision.replace("-", " ")
    rows = {row["name"]: row["precision"] for row in artifact.manifest["contractions"]}
    assert rows == {"MatMul:h": name, "Gemm:g": name, "MatMul:y": "fp32"}


@needs_native
@pytest.mark.parametrize("precision", ["int8", "bf16", "fp16"])
def test_packed_weights_beside_a_lower_precision(precision: str, tmp_path: Path) -> None:
    """Products that stay packed are told of beside those that the precision changes."""
    packed = quantised(store(tmp_path, 21), "int4-weights").path
    given = {"x": np.stack([X, 2 * X])} if precision == "int8" else None
    artifact = tensmith.compile(
        packed, precision=precision, calibration=given, force_precision=True
    )
    rows = {row["name"]: row["precision"] for row in artifact.manifest["contractions"]}
    assert rows["first"] == rows["second"] == "int4 weights"
    assert rows.keys() == {"first", "second", "third"}


@needs_native
def test_packed_weights_alone_are_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is packed in fp32, too, is no reason to compare bf16 with it."""
    monkeypatch.setenv("TENSMITH_TIME_PRECISION", "on")

    def change(graph: onnx.GraphProto) -> None:
        del graph.node[-1]
        graph.node[-1].output[0] = "y"
        graph.output[0].type.tensor_type.shape.dim[1].dim_value = 130

    source = rewritten(store(tmp_path, 21), change)
    artifact = tensmith.compile(quantised(source, "int4-weights").path, precision="bf16")
    assert artifact.choice is not None
    assert artifact.choice.reason.endswith("no product is computed in bf16")
    assert len(artifact.manifest["contractions"]) == 2


def test_no_weights_to_store(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (3,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (3,))],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    with pytest.raises(UsageError, match="no weights of the model"):
        quantised(path, "int8-weights")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "int8", "block": 32}, "blocks of weights change nothing"),
        ({"precision": "int4-weights", "block": 33}, "33"),
        ({"precision": "int4-weights", "max_accuracy_drop": "1%"}, "stores all weights"),
        ({"precision": "bf16", "calibration": "x.npz"}, "calibration data change nothing"),
    ],
)
def test_requests_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompileRequest(**given)


def test_the_command_line(tmp_path: Path, call: Any) -> None:
    source, output = store(tmp_path, 17), tmp_path / "q.onnx"
    options = ["--precision", "int4-weights", "--block", "64", "--json"]
    code, printed, _ = call("quantize", source, "-o", output, *options)
    assert code == 0
    told = json.loads(printed)
    assert told["quantisation"]["ranges"] == "blocks of 64"
    assert onnx.load(output).graph.node[0].op_type == "MatMulNBits"


@needs_native
@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "int8-weights", "fp32"])
def test_weights_that_the_model_has_in_few_bits_are_told_in_any_precision(
    tmp_path: Path, precision: str
) -> None:
    """They are packed whatever else is asked for; that alone makes a binary no lower."""
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
            helper.make_node("MatMul", ["x", "w"], ["h"], "packed"),
            helper.make_node("MatMul", ["h", "v"], ["y"], "floats"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (3, 200))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 129))],
        [
            helper.make_tensor("q", TensorProto.INT4, (200, 129), RNG.integers(-8, 8, 200 * 129)),
            numpy_helper.from_array(np.float32(0.05), "s"),
            numpy_helper.from_array(drawn(129, 129), "v"),
        ],
    )
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "net.onnx")
    lower = precision in ("int8", "int8-weights")
    told = nullcontext() if precision != "int8" else pytest.warns(ModelWarning, match="calibration")
    with told:
        model = tensmith.compile(
            tmp_path / "net.onnx", precision=precision, force_precision=precision != "fp32"
        )
    rows = {row["name"]: row for row in model.manifest["contractions"]}
    assert rows["packed"]["precision"] == "int4 weights"
    assert rows["packed"]["reason"] == ""
    if precision in ("bf16", "fp16"):
        assert rows["floats"]["precision"] == "fp32"
        assert model.choice is not None
        assert "no product" in model.choice.reason
    elif lower:
        assert rows["floats"]["precision"] != "fp32"
