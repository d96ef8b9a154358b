"""Tuning of command streams for an Ethos-U: by estimates, without noise."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tosa_runs import needs_vela

from tensmith.driver import api
from tensmith.driver.request import CompileRequest
from tensmith.driver.tuning.tune import TuneOptions, TuneResult, TuneWatch, tune_request

TARGET = "ethos-u55-128"
pytestmark = [needs_vela, pytest.mark.filterwarnings("ignore:kernels run in an interpreter")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two convolutions of one tensor, and their sum: operands that lie side by side at no cost. The
    scales of both are in no ratio of small whole numbers."""
    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int, size: float = 1.0) -> onnx.TensorProto:
        return numpy_helper.from_array((size * rng.normal(size=shape)).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="left", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w1"], ["b"], name="right"),
        helper.make_node("Add", ["a", "b"], ["y"], name="both"),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32, 16, 16])],
        [weights("w0", 32, 16, 3, 3), weights("w1", 32, 16, 1, 1, size=0.035)],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def _request(**more: object) -> CompileRequest:
    data = np.random.default_rng(1).normal(size=(4, 1, 16, 16, 16)).astype(np.float32)
    return CompileRequest(target=TARGET, calibration={"x": data}, **more)  # type: ignore[arg-type]


def _tuned(model: Path, folder: Path, **more: object) -> TuneResult:
    options = TuneOptions(records=folder / "records.db", trials=40)
    return tune_request(model, _request(**more), options, TuneWatch(), folder / "net.so")


def _cycles(manifest: dict[str, object]) -> int:
    return manifest["npu"]["estimated_cycles"]  # type: ignore[index, no-any-return]


def test_a_sum_becomes_a_convolution_where_results_may_change(model: Path, tmp_path: Path) -> None:
    untuned = api.compile_request(model, _request())
    result = _tuned(model, tmp_path, allow_reordering=True)
    assert result.chosen == ("command streams",)
    (task,) = result.session.tasks
    assert task.choice["sum of both"] == "convolution"
    assert _cycles(result.artifact.manifest) < _cycles(untuned.manifest)
    ratio = _cycles(result.artifact.manifest) / _cycles(untuned.manifest)
    assert task.ratio == pytest.approx(ratio)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = result.artifact.verify()
    assert report.status == "passed"
    assert max(d.max_abs for trial in report.trials for d in trial) == 0
    request = _request(allow_reordering=True, records=tmp_path / "records.db")
    again = api.compile_request(model, request)
    assert again.notes == ("nothing was measured: Vela has ranked 1 choice(s)",)
    (tmp_path / "again").mkdir()
    again.save(tmp_path / "again" / "net.so")
    assert (tmp_path / "again" / "net.so").read_bytes() == (tmp_path / "net.so").read_bytes()


def test_no_bit_changes_otherwise(model: Path, tmp_path: Path) -> None:
    result = _tuned(model, tmp_path)
    untuned = api.compile_request(model, _request())
    assert _cycles(result.artifact.manifest) <= _cycles(untuned.manifest)
    x = {"x": np.random.default_rng(2).normal(size=(1, 16, 16, 16)).astype(np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, wanted = (a.load()(x)["y"] for a in (result.artifact, untuned))
    np.testing.assert_array_equal(found, wanted)
