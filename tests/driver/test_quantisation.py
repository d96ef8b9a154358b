"""From a model of floats and samples to integers: what is decided, told and computed."""

from __future__ import annotations

import json
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
from tensmith.driver import calibrated_search
from tensmith.driver.quantisation import Quantisation, quantise, summary_of
from tensmith.driver.ranges_observed import CLIPS, Spread, decibels, squared_errors
from tensmith.driver.request import CompileRequest
from tensmith.frontends.onnx import load
from tensmith.frontends.onnx.quantising.recipe import Limits
from tensmith.passes.precision import integer_products

Array = np.ndarray[Any, Any]
SAMPLES = np.random.default_rng(7).random((8, 1, 3, 8, 8), np.float32)


def weights(*shape: int, seed: int = 0) -> Array:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(drawn / np.sqrt(np.prod(shape[1:])), np.float32)


def store(folder: Path, nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "net.onnx"
    onnx.save_model(onnx.shape_inference.infer_shapes(model), path)
    return path


@pytest.fixture
def net(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["e"], "second", group=8),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["v"]),
        helper.make_node("MatMul", ["v", "m"], ["l"], "last"),
        helper.make_node("Softmax", ["l"], ["y"]),
    ]
    constants = {
        "w": weights(8, 3, 3, 3),
        "b": weights(8, seed=1),
        "d": weights(8, 1, 3, 3, seed=2),
        "m": weights(5, 288, seed=3).T.copy(),
    }
    return store(tmp_path, nodes, constants)


def quantised(net: Path, data: Any, name: str = "q") -> Quantisation:
    folder = net.parent / f"work_{name}"
    folder.mkdir()
    request = CompileRequest(precision="int8", calibration=data)
    return quantise(net, net.parent / f"{name}.onnx", request, folder)


@needs_native
def test_a_small_net(net: Path) -> None:
    found = quantised(net, {"x": SAMPLES})
    assert (found.method, found.samples, found.held_out) == ("static", 8, 8)
    assert [p.precision for p in found.products] == ["int8", "int8", "int8"]
    assert found.decibels["l"] > 30
    assert found.decibels["l"] == max(found.tried.values())
    assert list(found.tried) == ["minmax", "scales of channels", "corrected biases"]
    first = found.products[0]
    assert (first.low, first.high) == (SAMPLES.min(), SAMPLES.max())
    exact, real = load(net), load(found.path)
    for x in SAMPLES:
        wanted, got = run_graph(exact, {"x": x})["y"], run_graph(real, {"x": x})["y"]
        assert 0 < np.abs(wanted - got).max() < 0.01


@needs_native
def test_the_same_data_give_the_same_file(net: Path) -> None:
    one = quantised(net, {"x": SAMPLES}, "one").path.read_bytes()
    other = quantised(net, ({"x": array} for array in SAMPLES), "other").path.read_bytes()
    assert one == other


@needs_native
def test_one_sample_is_said(net: Path) -> None:
    found = quantised(net, {"x": SAMPLES[0]})
    assert (found.samples, found.held_out) == (1, 1)
    assert "one calibration sample" in found.notes[0]


@needs_native
def test_compiled_it_computes_what_the_written_file_says(net: Path) -> None:
    """The reference of the quantised graph is the truth, and ONNX Runtime reads the file so."""
    written = quantised(net, {"x": SAMPLES})
    model = tensmith.compile(net, precision="int8", calibration={"x": SAMPLES})
    module, truth = model.load(), load(written.path)
    for x in SAMPLES:
        got = module({"x": x})["y"]
        np.testing.assert_allclose(got, run_graph(truth, {"x": x})["y"], rtol=1e-5, atol=1e-6)
    assert model.manifest["precision"] == "int8"
    assert model.manifest["quantisation"] == written.to_json()["quantisation"]
    assert model.manifest["contractions"][2] == {
        "name": "last", "op": "MatMul", "precision": "int8", "reason": "",
        "low": written.products[2].low, "high": written.products[2].high,
    }  # fmt: skip
    fused = [op for kernel in model.manifest["kernels"] for op in kernel["operators"]]
    assert fused.count("conv") + fused.count("matmul") == 3


@needs_native
def test_the_manifest_tells_what_the_backend_has_made(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of bytes are what the binary multiplies so, whatever quantising meant to have."""
    request: dict[str, Any] = {"precision": "int8", "calibration": {"x": SAMPLES}}
    forced = {**request, "force_precision": True}

    def told(model: tensmith.Artifact) -> dict[str, tuple[str, str]]:
        rows = model.manifest["contractions"]
        return {row["name"]: (row["precision"], row["reason"]) for row in rows}

    plain = told(tensmith.compile(net, **forced, opt_level=0))
    assert {precision for precision, _ in plain.values()} == {"fp32"}
    assert all("multiplies them as floats" in reason for _, reason in plain.values())
    refused = integer_products.why_no_bytes
    monkeypatch.setattr(
        integer_products,
        "why_no_bytes",
        lambda op, *given: "no room" if op == "matmul" else refused(op, *given),
    )
    model = tensmith.compile(net, **forced)
    assert told(model) == {
        "first": ("int8", ""),
        "second": ("int8", ""),
        "last": ("fp32", "no room"),
    }
    assert summary_of(model.manifest)[0].startswith("2 of 3 products")


def test_names_of_products_stay_where_their_results_are_renamed(tmp_path: Path) -> None:
    """A correction, or a range that a run finds, puts other nodes behind the product."""
    data = np.random.default_rng(3).random((6, 1, 3, 8, 8), np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["v"]),
        helper.make_node("MatMul", ["v", "m"], ["y"]),
    ]
    net = store(tmp_path, nodes, {"m": weights(5, 192).T.copy()})
    for calibration in ({"x": data}, None):
        found = quantised(net, calibration, f"q{calibration is None}")
        names = [node.name for node in onnx.load(found.path).graph.node]
        assert names.count(found.products[0].name) == 1


@needs_native
def test_onnx_runtime_runs_the_written_file(net: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    written = quantised(net, {"x": SAMPLES}).path
    session = ort.InferenceSession(written, providers=["CPUExecutionProvider"])
    truth = load(written)
    for x in SAMPLES:
        got = session.run(None, {"x": x})[0]
        assert np.abs(got - run_graph(truth, {"x": x})["y"]).max() < 0.01


@needs_native
def test_without_data_only_matrix_products(net: Path) -> None:
    with pytest.warns(ModelWarning, match="no calibration data"):
        model = tensmith.compile(net, precision="int8", verify=True)
    assert model.manifest["quantisation"]["method"] == "dynamic"
    told = {
        row["name"]: (row["precision"], row["reason"]) for row in model.manifest["contractions"]
    }
    assert told["last"] == ("dynamic int8", "")
    assert told["first"][0] == "fp32"
    assert "calibration data only" in told["first"][1]
    exact = run_graph(load(net), {"x": SAMPLES[0]})["y"]
    assert 0 < np.abs(model.load()({"x": SAMPLES[0]})["y"] - exact).max() < 0.01


def test_without_data_convolutions_alone_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = store(tmp_path, nodes, {"w": weights(8, 3, 3, 3)})
    with pytest.raises(UsageError, match="without calibration data") as caught:
        quantised(path, None)
    assert "--calibration" in caught.value.remedy


@needs_native
def test_few_bits_that_make_most_of_the_noise(tmp_path: Path) -> None:
    """A depthwise convolution of channels of unlike ranges is little work, and stays in floats."""
    scale = np.geomspace(1, 3000, 8).reshape(8, 1, 1, 1).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "d"], ["e"], "depthwise", group=8),
        helper.make_node("Conv", ["e", "p"], ["y"], "pointwise"),
    ]
    constants = {
        "w": weights(8, 3, 3, 3) * scale,
        "d": np.asarray(weights(8, 1, 1, 1, seed=1) / scale, np.float32),
        "p": weights(24, 8, 3, 3, seed=2),
    }
    found = quantised(store(tmp_path, nodes, constants), {"x": SAMPLES})
    [line] = summary_of(found.to_json())[1:]
    assert line.startswith("in floats: Conv 'depthwise': it makes much of the noise")
    assert found.tried["float parts"] > found.tried["minmax"] + 3


@needs_native
@pytest.mark.parametrize(("outliers", "kept"), [((0,), "mse"), ((0, 1), "minmax")])
def test_clipped_ranges_are_kept_where_other_samples_gain(
    outliers: tuple[int, ...], kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An element far larger than the others: in one sample, and in one of another part, too."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["s"]),
        helper.make_node("Conv", ["s", "w"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["c"], ["t"]),
        helper.make_node("Conv", ["t", "p"], ["y"], "second"),
    ]
    constants = {"w": weights(8, 3, 3, 3), "p": weights(24, 8, 3, 3, seed=2)}
    samples = SAMPLES.copy()
    samples[list(outliers), 0, 0, 4, 4] = 3

    def errors(elements: Array, ranges: Any) -> Array:
        return np.array([abs(limits.high - 1) for limits in ranges])

    monkeypatch.setattr(calibrated_search, "squared_errors", errors)
    found = quantised(store(tmp_path, nodes, constants), {"x": samples})
    assert found.ranges == kept
    assert (found.tried["mse"] > found.tried["minmax"]) == (kept == "mse")
    high = found.products[0].high
    assert high is not None
    assert (high < 2) == (kept == "mse")


@needs_native
def test_without_outliers_rotation_is_not_looked_into(tmp_path: Path) -> None:
    found = quantised(products_of_channels(tmp_path, 1.0), {"x": SAMPLES})
    assert [name for name in found.tried if "rotated" in name] == ["rotated, minmax"]


def products_of_channels(folder: Path, peak: float) -> Path:
    scale = np.where(np.arange(64) == 9, np.float32(peak), np.float32(1))
    constants = {"dims": np.array([1, 1, 3, 64]), "scale": scale}
    nodes = [helper.make_node("Reshape", ["x", "dims"], ["d0"])]
    for n in range(4):
        constants[f"w{n}"] = weights(64, 64, seed=n)
        nodes += [
            helper.make_node("Tanh", [f"d{n}"], [f"t{n}"]),
            helper.make_node("Mul", [f"t{n}", "scale"], [f"s{n}"]),
            helper.make_node("MatMul", [f"s{n}", f"w{n}"], [f"d{n + 1}"], f"product{n}"),
        ]
    nodes.append(helper.make_node("Identity", ["d4"], ["y"]))
    return store(folder, nodes, constants)


@needs_native
def test_outliers_of_matrix_products_are_rotated_away(tmp_path: Path) -> None:
    """One channel is far larger than the others, as in transformers."""
    net = products_of_channels(tmp_path, 100.0)
    found = quantised(net, iter([{"x": x} for x in SAMPLES]))
    assert found.rotated
    assert found.tried["rotated, minmax"] > found.tried["minmax"] + 3
    assert {p.precision for p in found.products} == {"int8"}
    module = tensmith.compile(net, precision="int8", calibration={"x": SAMPLES}).load()
    truth = run_graph(load(found.path), {"x": SAMPLES[2]})["y"]
    np.testing.assert_allclose(
        module({"x": SAMPLES[2]})["y"], truth, rtol=0, atol=0.02 * np.abs(truth).max()
    )


@needs_native
def test_data_that_are_not_finite_stay_in_floats(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first"),
        helper.make_node("Div", ["x", "zero"], ["i"]),
        helper.make_node("Conv", ["i", "w"], ["d"], "second"),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    constants = {"w": weights(8, 3, 3, 3), "zero": np.zeros((1, 1, 1, 1), np.float32)}
    found = quantised(store(tmp_path, nodes, constants), {"x": SAMPLES})
    reasons = {p.name: p.reason for p in found.products}
    assert reasons == {"first": "", "second": "its data were not finite in calibration"}


def test_summaries() -> None:
    assert summary_of({}) == []
    rows = [
        {"name": f"n{i}", "op": "Conv", "precision": "fp32", "reason": "why"} for i in range(14)
    ]
    told = {
        "method": "static", "samples": 80, "held_out": 32, "ranges": "minmax", "rotated": False,
        "decibels": {"a": 31.25, "b": 20.04}, "tried": {},
    }  # fmt: skip
    lines = summary_of({"quantisation": told, "contractions": rows})
    assert lines[0] == (
        "0 of 14 products in static int8, ranges by minmax of 80 samples; on 32 of them, each "
        "judged by what others show, the error is 20.0 dB below the outputs"
    )
    assert (lines[1], lines[-1]) == ("in floats: Conv 'n0': why", "and 2 more")
    [line] = summary_of({"quantisation": {**told, "samples": 1, "held_out": 1}})
    assert line.endswith("of the sample; on itself the error is 20.0 dB below the outputs")


def test_spreads() -> None:
    spread = Spread()
    assert spread.range == Limits(0, 0)
    spread.add(np.inf, -np.inf, np.nan)  # of no elements
    spread.add(-1, 20, 2)
    spread.add(-2, 10, 4)
    assert spread.range == Limits(-2, 20)
    assert spread.is_long_tailed
    assert spread.finite
    assert spread.clipped(1) == Limits(-1, 1)
    other = Spread()
    other.add(0, np.nan, 1)
    merged = spread.merged(other)
    assert not merged.finite
    assert merged.samples == 3


def test_clips_lose_what_they_cut_off_and_gain_steps() -> None:
    x = np.random.default_rng(0).standard_normal(1 << 18).astype(np.float32)
    assert np.argmin(squared_errors(x, [Limits(-5 / c, 5 / c) for c in CLIPS])) == 0
    x[0] = 40
    lost = squared_errors(x, [Limits(-40 * c, 40 * c) for c in CLIPS])
    assert 0 < np.argmin(lost) < len(CLIPS) - 1


def test_decibels() -> None:
    wanted = {"a": np.full(4, 10.0), "b": np.arange(3), "c": np.ones(2)}
    got = {"a": np.full(4, 11.0), "b": np.arange(3), "c": np.ones(2)}
    found = decibels([(wanted, got)])
    assert list(found) == ["a", "c"]
    assert found["a"] == pytest.approx(20)
    assert found["c"] == 120
    assert decibels([({"a": np.ones(2)}, {"a": np.full(2, np.nan)})]) == {"a": -120}


def test_calibration_without_int8_is_refused() -> None:
    with pytest.raises(UsageError, match="calibration data change nothing"):
        CompileRequest(calibration={"x": SAMPLES})


def test_requests_travel_with_files_only() -> None:
    request = CompileRequest(precision="int8", calibration=Path("data.npz"))
    assert CompileRequest.from_json(request.to_json()).calibration == "data.npz"
    with pytest.raises(UsageError, match="another process"):
        CompileRequest(precision="int8", calibration={"x": SAMPLES}).to_json()


@needs_native
def test_the_command_lines(net: Path, call: Any) -> None:
    data = net.parent / "data.npz"
    np.savez(data, x=SAMPLES)
    code, out, err = call("quantize", net, "-o", net.parent / "q.onnx", "--calibration", data)
    assert code == 0, err
    assert "3 of 3 products in static int8, ranges by minmax of 8 samples" in out
    onnx.checker.check_model(onnx.load(net.parent / "q.onnx"))
    output = net.parent / "net.so"
    code, out, err = call(
        "compile", net, "-o", output, "--precision", "int8", "--calibration", data, "--json"
    )
    assert code == 0, err
    result = json.loads(out)
    assert result["manifest"]["quantisation"]["samples"] == 8
    assert result["verify"]["status"] == "passed"
    assert call("quantize", net, "-o", net.parent / "q.bin", "--calibration", data)[0] == 2
    code, out, err = call("inspect", output)
    assert code == 0, err
    assert "3 of 3 products" in out


@needs_native
def test_verify_takes_the_quantised_model_for_the_truth(net: Path, call: Any) -> None:
    data = net.parent / "data.npz"
    np.savez(data, x=SAMPLES)
    code, out, err = call("verify", net, "--precision", "int8", "--calibration", data)
    assert code == 0, err
    assert "verified against reference" in out
    assert "away from fp32" not in out  # of a file that is quantised itself
    code, _, err = call("verify", net, "--precision", "int8", "--library", data)
    assert code == 2
    assert "tensmith quantize" in err
