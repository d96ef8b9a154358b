"""Models of which parts run on the host, and unusual inputs, on the driver that is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cuda_models import SM_80
from cuda_runs import needs_triton
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tensmith
from tensmith.backends.cuda.fake.install import FakeDriver, install

pytestmark = needs_triton
FLOAT, INT64, BOOL, DOUBLE = (
    TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE
)  # fmt: skip
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def driver() -> Iterator[FakeDriver]:
    found = install()
    found.be(80, SM_80)
    yield found
    gc.collect()
    assert found.live == (0, 0)


def model_of(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, int], weights: dict[str, Any]
) -> onnx.ModelProto:
    """inputs: (element type, shape); outputs: element types."""
    graph = helper.make_graph(
        nodes, "model",
        [helper.make_tensor_value_info(name, *info) for name, info in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def compare(model: onnx.ModelProto, *runs: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Compile, run, and compare with the reference evaluator."""
    tensmith.compile(model, target="cuda:sm_80").save(path / "model.so")
    module = tensmith.load(path / "model.so")
    found = []
    for given in runs:
        wanted = ReferenceEvaluator(model).run(None, given)
        got = module(given)
        for output, want in zip(model.graph.output, wanted, strict=True):
            assert got[output.name].shape == want.shape
            assert got[output.name].dtype == want.dtype
            np.testing.assert_allclose(got[output.name], want, rtol=1e-4, atol=1e-5)
        found.append(got)
    return found


def test_a_detector(tmp_path: Path) -> None:
    """Boxes and scores of a convolution, chosen on the host, gathered on the device."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["maps", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["by_place"], perm=[0, 2, 1]),
        helper.make_node("Split", ["by_place", "parts"], ["b", "s"], axis=2),
        helper.make_node("Sigmoid", ["b"], ["corners"]),
        helper.make_node("Sigmoid", ["s"], ["likely"]),
        helper.make_node("Transpose", ["likely"], ["scores"], perm=[0, 2, 1]),
        helper.make_node(
            "NonMaxSuppression", ["corners", "scores", "most", "overlap", "least"], ["chosen"]
        ),
        helper.make_node("Gather", ["chosen", "two"], ["places"], axis=1),
        helper.make_node("Gather", ["corners", "places"], ["found"], axis=1),
        helper.make_node("Mul", ["found", "size"], ["y"]),
    ]
    weights = {
        "w": RNG.standard_normal((6, 3, 3, 3)).astype("f4"), "flat": np.array([1, 6, -1], "i8"),
        "parts": np.array([4, 2], "i8"), "most": np.array([5], "i8"),
        "overlap": np.array([0.4], "f4"), "least": np.array([0.3], "f4"),
        "two": np.array(2, "i8"), "size": np.array(64, "f4"),
    }  # fmt: skip
    model = model_of(nodes, {"x": (FLOAT, [1, 3, 6, 7])}, {"y": FLOAT, "chosen": INT64}, weights)
    inputs = [{"x": RNG.standard_normal((1, 3, 6, 7)).astype("f4")} for _ in range(2)]
    got, _ = compare(model, *inputs, path=tmp_path)
    assert len(got["chosen"])


def body_of(name: str, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    return helper.make_graph(
        nodes, name,
        [helper.make_tensor_value_info(key, *info) for key, info in inputs.items()],
        [helper.make_tensor_value_info(key, *info) for key, info in outputs.items()],
    )  # fmt: skip


def test_loops_and_branches_decide_on_the_host(tmp_path: Path) -> None:
    """A loop that ends by what its kernels compute, around a branch, with stacked results."""
    then = body_of(
        "then", [helper.make_node("MatMul", ["state", "w"], ["a"])], {}, {"a": (FLOAT, [2, 5])}
    )
    other = body_of(
        "else", [helper.make_node("Mul", ["state", "half"], ["b"])], {}, {"b": (FLOAT, [2, 5])}
    )
    body = body_of(
        "body",
        [
            helper.make_node("Mod", ["i", "two"], ["odd"]),
            helper.make_node("Cast", ["odd"], ["is_odd"], to=BOOL),
            helper.make_node("If", ["is_odd"], ["next"], then_branch=then, else_branch=other),
            helper.make_node("ReduceMax", ["next"], ["largest"], keepdims=0),
            helper.make_node("Less", ["largest", "limit"], ["go"]),
            helper.make_node("Tanh", ["next"], ["told"]),
        ],
        {"i": (INT64, []), "before": (BOOL, []), "state": (FLOAT, [2, 5])},
        {"go": (BOOL, []), "next": (FLOAT, [2, 5]), "told": (FLOAT, [2, 5])},
    )
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Loop", ["n", "yes", "e"], ["last", "all"], body=body),
        helper.make_node("Neg", ["last"], ["y"]),
    ]
    weights = {
        "w": np.abs(RNG.standard_normal((5, 5))).astype("f4"), "half": np.array(0.5, "f4"),
        "two": np.array(2, "i8"), "limit": np.array(40, "f4"), "yes": np.array(True),
    }  # fmt: skip
    model = model_of(
        nodes, {"x": (FLOAT, [2, 5]), "n": (INT64, [])}, {"y": FLOAT, "all": FLOAT}, weights
    )
    x = RNG.standard_normal((2, 5)).astype("f4")
    tensmith.compile(model, target="cuda:sm_80").save(tmp_path / "model.so")
    module = tensmith.load(tmp_path / "model.so")
    rounds = []
    for most in (0, 1, 20):
        state, told = np.exp(x.astype("f8")), []
        while len(told) < most and (not told or state.max() < 40):
            state = state @ weights["w"] if len(told) % 2 else state / 2
            told.append(np.tanh(state))
        got = module({"x": x, "n": np.array(most, "i8")})
        np.testing.assert_allclose(got["y"], -state, rtol=1e-4)
        np.testing.assert_allclose(got["all"], np.reshape(told, (-1, 2, 5)), rtol=1e-4)
        rounds.append(len(told))
    assert rounds[:2] == [0, 1]
    assert 1 < rounds[2] < 20


ODD: dict[str, tuple[list[Any], int, list[Any], int]] = {
    "integers_of_64_bits": (
        [helper.make_node("Mul", ["x", "x"], ["s"]), helper.make_node("Sub", ["s", "x"], ["t"]),
         helper.make_node("ReduceSum", ["t"], ["y"], keepdims=0)], INT64, [3, 1, 5], INT64),
    "doubles": (
        [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("MatMul", ["e", "x"], ["y"])],
        DOUBLE, [20, 20], DOUBLE),
    "bools": (
        [helper.make_node("Not", ["x"], ["n"]), helper.make_node("Xor", ["n", "x"], ["o"]),
         helper.make_node("And", ["o", "x"], ["y"])], BOOL, [4, 9], BOOL),
    "no_dims": (
        [helper.make_node("Sqrt", ["x"], ["r"]), helper.make_node("Add", ["r", "x"], ["y"])],
        FLOAT, [], FLOAT),
    "seven_dims": (
        [helper.make_node("Transpose", ["x"], ["t"], perm=[6, 2, 4, 0, 1, 5, 3]),
         helper.make_node("Softmax", ["t"], ["s"], axis=2),
         helper.make_node("ReduceMean", ["s"], ["y"], axes=[1, 5], keepdims=1)],
        FLOAT, [2, 1, 3, 2, 4, 1, 2], FLOAT),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_unusual_types_and_shapes(name: str, tmp_path: Path) -> None:
    nodes, kind, shape, result = ODD[name]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    numbers = RNG.integers(0, 2, shape) if kind == BOOL else np.abs(RNG.standard_normal(shape)) * 3
    given = {"x": np.asarray(numbers).astype(dtype)}
    compare(model_of(nodes, {"x": (kind, shape)}, {"y": result}, {}), given, path=tmp_path)


def test_tensors_without_elements(tmp_path: Path) -> None:
    """Launches of no programs, sums of nothing, and rows that a run does not have."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Softmax", ["h"], ["s"], axis=1),
        helper.make_node("Concat", ["s", "none"], ["c"], axis=0),
        helper.make_node("ReduceSum", ["c", "first"], ["total"], keepdims=0),
        helper.make_node("Slice", ["c", "zero", "zero", "first"], ["y"]),
    ]
    weights = {
        "w": RNG.standard_normal((6, 7)).astype("f4"), "none": np.zeros((0, 7), "f4"),
        "first": np.array([0], "i8"), "zero": np.array([0], "i8"),
    }  # fmt: skip
    model = model_of(nodes, {"x": (FLOAT, ["N", 6])}, {"total": FLOAT, "y": FLOAT}, weights)
    runs = [{"x": RNG.standard_normal((n, 6)).astype("f4")} for n in (3, 0, 1)]
    compare(model, *runs, path=tmp_path)


def test_numbers_are_counted_on_the_host(tmp_path: Path) -> None:
    """Different rows, found by the host, between kernels of the device."""
    nodes = [
        helper.make_node("Floor", ["x"], ["f"]),
        helper.make_node("Unique", ["f"], ["u", "", "inverse", "counts"]),
        helper.make_node("Mul", ["u", "half"], ["y"]),
    ]
    model = model_of(
        nodes, {"x": (FLOAT, [4, 6])}, {"y": FLOAT, "inverse": INT64, "counts": INT64},
        {"half": np.array(0.5, "f4")},
    )  # fmt: skip
    compare(model, {"x": (3 * RNG.standard_normal((4, 6))).astype("f4")}, path=tmp_path)


def test_words_become_numbers_and_numbers_words(tmp_path: Path) -> None:
    """Text at both ends, on the host; what lies between on the device."""
    words = ["no", "yes", "perhaps"]
    nodes = [
        helper.make_node("LabelEncoder", ["x"], ["i"], domain="ai.onnx.ml", keys_strings=words,
                         values_int64s=[0, 1, 2], default_int64=0),
        helper.make_node("Gather", ["table", "i"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["h"]),
        helper.make_node("ArgMax", ["h"], ["best"], axis=1, keepdims=0),
        helper.make_node("LabelEncoder", ["best"], ["y"], domain="ai.onnx.ml",
                         keys_int64s=[0, 1, 2], values_strings=words, default_string="?"),
    ]  # fmt: skip
    weights = {
        "table": RNG.standard_normal((3, 20)).astype("f4"),
        "w": RNG.standard_normal((20, 3)).astype("f4"),
    }
    model = model_of(
        nodes, {"x": (TensorProto.STRING, ["N"])}, {"y": TensorProto.STRING, "h": FLOAT}, weights
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    tensmith.compile(model, target="cuda:sm_80").save(tmp_path / "model.so")
    module = tensmith.load(tmp_path / "model.so")
    for given in (["yes", "no", "perhaps", "never"], [], ["no"]):
        rows = [words.index(word) if word in words else 0 for word in given]
        want = weights["table"][rows] @ weights["w"]
        got = module({"x": np.array(given, object)})
        np.testing.assert_allclose(got["h"], want, rtol=1e-4, atol=1e-5)
        assert [str(word) for word in got["y"]] == [words[n] for n in want.argmax(1)]


def test_ends_beyond_all_sizes(tmp_path: Path) -> None:
    """As numbers of the run: as far as there is something, from either side."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Slice", ["e", "first", "last", "axis"], ["s"]),
        helper.make_node("Neg", ["s"], ["y"]),
    ]
    inputs = {"x": (FLOAT, ["N", 5]), "first": (INT64, [1]), "last": (INT64, [1])}
    model = model_of(nodes, inputs, {"y": FLOAT}, {"axis": np.array([0], "i8")})
    x = RNG.standard_normal((7, 5)).astype("f4")
    far = [(1 << 63) - 1, (1 << 31) - 1, (1 << 32) + 2, -(1 << 33), 3]
    runs = [{"x": x, "first": np.array([a], "i8"), "last": np.array([b], "i8")}
            for a, b in ((2, far[0]), (0, far[1]), (1, far[2]), (far[3], 6), (far[2], far[0]),
                         (-3, far[0]))]  # fmt: skip
    tensmith.compile(model, target="cuda:sm_80").save(tmp_path / "model.so")
    module = tensmith.load(tmp_path / "model.so")
    for given in runs:
        want = -np.exp(x[slice(int(given["first"][0]), int(given["last"][0]))])
        got = module(given)["y"]
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_sizes_that_are_one_in_a_run(tmp_path: Path) -> None:
    """Either operand is repeated along what has one place, or neither."""
    nodes = [
        helper.make_node("Add", ["x", "z"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=1),
        helper.make_node("MatMul", ["p", "w"], ["y"]),
    ]
    weights = {"w": RNG.standard_normal((16, 9)).astype("f4")}
    inputs = {"x": (FLOAT, ["N", 16]), "z": (FLOAT, ["M", 16])}
    runs = [
        {
            name: RNG.standard_normal((n, 16)).astype("f4")
            for name, n in zip("xz", rows, strict=True)
        }
        for rows in ((5, 1), (1, 4), (3, 3), (1, 1), (17, 1), (0, 1))
    ]
    compare(model_of(nodes, inputs, {"y": FLOAT}, weights), *runs, path=tmp_path)


def test_many_channels(tmp_path: Path) -> None:
    """More than a grid has along its second and third direction."""
    channels = 70_001
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], group=channels),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceSum", ["r", "axis"], ["y"], keepdims=0),
    ]
    weights = {
        "w": RNG.standard_normal((channels, 1, 1, 1)).astype("f4"), "axis": np.array([1], "i8"),
    }  # fmt: skip
    model = model_of(nodes, {"x": (FLOAT, [1, channels, 1, 2])}, {"y": FLOAT}, weights)
    x = RNG.standard_normal((1, channels, 1, 2)).astype("f4")
    tensmith.compile(model, target="cuda:sm_80").save(tmp_path / "model.so")
    got = tensmith.load(tmp_path / "model.so")(x)["y"]
    want = np.maximum(x.astype("f8") * weights["w"][None, :, 0, 0, 0, None, None], 0).sum(1)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.slow
def test_rows_of_a_million(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["p"], axis=1),
             helper.make_node("ArgMax", ["x"], ["at"], axis=1, keepdims=0)]  # fmt: skip
    model = model_of(nodes, {"x": (FLOAT, [1, 1_000_003])}, {"p": FLOAT, "at": INT64}, {})
    x = RNG.standard_normal((1, 1_000_003)).astype("f4")
    tensmith.compile(model, target="cuda:sm_80").save(tmp_path / "model.so")
    got = tensmith.load(tmp_path / "model.so")(x)
    powers = np.exp(x.astype("f8") - x.max())
    np.testing.assert_allclose(got["p"], powers / powers.sum(), rtol=1e-4)
    assert got["at"].tolist() == [int(x.argmax())]
