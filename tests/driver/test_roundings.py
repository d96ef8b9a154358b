"""Models that round on the way: differences that roundings explain are told from wrong results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.driver import api
from tensmith.driver.compare import Tolerance, compare_outputs
from tensmith.driver.engines import EngineSpec
from tensmith.driver.roundings import UNIT, RoundingSpread, nudge, spreads, within_roundings
from tensmith.driver.verify import Verification, verify_given
from tensmith.driver.verify_report import FAILED, PASSED

DEPTH, WIDTH = 14, 48


def _stored(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    last: str,
    width: int,
) -> Path:
    """The file of a model of 16 rows, from x to `last`."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [16, width]) for name in ("x", last)
    )
    graph = helper.make_graph(nodes, "layers", [x], [y], constants)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def _deep(path: Path, spoiled: bool = False) -> Path:
    """Layers whose data are quantised; spoiled: with a sign turned in one column of one layer."""
    rng = np.random.default_rng(4)
    nodes, constants = [], []

    def constant(name: str, value: object, dtype: type) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    scale, zero = constant("scale", 1 / 24, np.float32), constant("zero", 128, np.uint8)
    last = "x"
    for layer in range(DEPTH):
        weights = rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH) * 1.7
        if spoiled and layer == DEPTH // 2:
            weights[:, 5] *= -1
        w = constant(f"w{layer}", weights, np.float32)
        nodes += [
            helper.make_node("QuantizeLinear", [last, scale, zero], [f"q{layer}"]),
            helper.make_node("DequantizeLinear", [f"q{layer}", scale, zero], [f"d{layer}"]),
            helper.make_node("MatMul", [f"d{layer}", w], [f"m{layer}"]),
            helper.make_node("Tanh", [f"m{layer}"], [f"t{layer}"]),
            helper.make_node("Add", [f"t{layer}", f"m{layer}"], [f"a{layer}"]),
        ]
        last = f"a{layer}"
    return _stored(path, nodes, constants, last, WIDTH)


def _input() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(8).normal(size=(16, WIDTH)).astype(np.float32)}


def test_steps_that_roundings_turn_are_no_fault(tmp_path: Path) -> None:
    path = _deep(tmp_path / "deep.onnx")
    report = api.compile(path, target="native").verify()
    assert report.status == PASSED, report.reason


def test_wrong_results_of_quantised_models_are_found(tmp_path: Path) -> None:
    artifact = api.compile(_deep(tmp_path / "spoiled.onnx", spoiled=True), target="native")
    tolerance = artifact.tolerance()
    assert tolerance.quantised
    job = Verification(
        EngineSpec("tensmith", artifact.library()), _deep(tmp_path / "deep.onnx"),
        tolerance=tolerance,
    )  # fmt: skip
    report = verify_given(job, _input())
    assert report.status == FAILED
    assert report.spreads[0]


def _sines(path: Path, moved: bool = False, spoiled: bool = False) -> Path:
    """Layers that make small differences large.

    moved: with the columns between two layers in another order, so that sums are rounded otherwise.
    spoiled: with a sign turned in the last layer.
    """
    rng = np.random.default_rng(4)
    nodes, constants, last, depth, width = [], [], "x", 7, 192
    before, orders = np.arange(width), np.random.default_rng(5)
    for layer in range(depth):
        weights = 4 * rng.normal(size=(width, width)) / np.sqrt(width)
        after = orders.permutation(width) if moved and layer < depth - 1 else np.arange(width)
        weights, before = weights[before][:, after], after
        if spoiled and layer == depth - 1:
            weights[:, 5] *= -1
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"w{layer}"))
        nodes += [
            helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]),
            helper.make_node("Sin", [f"m{layer}"], [f"s{layer}"]),
        ]
        last = f"s{layer}"
    return _stored(path, nodes, constants, last, width)


@pytest.mark.parametrize("spoiled", [False, True])
def test_halves_that_fall_to_the_other_side_are_told_from_faults(
    tmp_path: Path, spoiled: bool
) -> None:
    other = _sines(tmp_path / "other.onnx", moved=True, spoiled=spoiled)
    artifact = api.compile(other, target="native", precision="bf16", force_precision=True)
    job = Verification(
        EngineSpec("tensmith", artifact.library()), _sines(tmp_path / "sines.onnx"),
        precision="bf16", tolerance=artifact.tolerance(),
    )  # fmt: skip
    x = np.random.default_rng(8).normal(size=(16, 192)).astype(np.float32)
    report = verify_given(job, {"x": x})
    assert report.status == (FAILED if spoiled else PASSED)
    assert not spoiled or report.spreads[0]


def test_only_floats_are_moved_and_by_little() -> None:
    values = [
        np.full(1000, 3.0, np.float32),
        np.arange(5),
        np.float64(2.0),
        np.zeros(0, np.float32),
    ]
    moved = nudge(seed=2)(None, [np.asarray(v) for v in values])  # type: ignore[arg-type]
    assert [m.dtype for m in moved] == [np.asarray(v).dtype for v in values]
    share = np.abs(moved[0] / 3 - 1)
    assert UNIT / 4 < share.max() <= UNIT * 1.5
    np.testing.assert_array_equal(moved[1], values[1])
    again = nudge(seed=2)(None, [np.asarray(v) for v in values])  # type: ignore[arg-type]
    np.testing.assert_array_equal(again[0], moved[0])


def test_spreads_bound_what_is_accepted() -> None:
    base = np.zeros(100, np.float32)
    base[0] = 1
    one, two = base.copy(), base.copy()
    one[3], two[4] = 0.1, -0.1
    found = spreads([{"y": base}, {"y": one}, {"y": two}])
    assert found["y"] == RoundingSpread(np.float32(0.1) / 10, float(np.float32(0.1)))

    def agrees(value: float, count: int = 1) -> bool:
        actual = base.copy()
        actual[50 : 50 + count] = value
        outputs = {"y": actual}, {"y": base}
        differences = compare_outputs(*outputs, Tolerance(0, 1e-6))
        [judged] = within_roundings(differences, *outputs, found)
        assert judged.roundings == (found["y"].peak if judged.agrees else 0)
        return judged.agrees

    assert agrees(0.15)
    assert not agrees(0.3)  # in the mean
    assert not agrees(0.1, count=9)
    assert not agrees(float("nan"))
