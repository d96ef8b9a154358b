"""Real models that are opened for tuning: every kernel has candidates. Nothing is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.compiler.compilation import Stages
from tensmith.compiler.tuning.task import Tunable
from tensmith.driver.model_build import ModelBuild, prepare
from tensmith.driver.request import CompileRequest
from tensmith.driver.tuning.applying import opened

DIGITS = Path(__file__).parents[3] / "examples/digits/digits.onnx"


def open_model(path: Path, target: str, folder: Path) -> Tunable:
    request = CompileRequest(target=target)
    backend, resolved = request.resolve()
    model = ModelBuild(path, path, request, backend, resolved)
    stages = Stages()
    return opened(model, prepare(model, folder, stages), stages)


@pytest.mark.parametrize("target", ["x86-64-v3", pytest.param("x86-64-v4", marks=pytest.mark.slow)])
def test_a_network_with_an_open_batch_has_candidates(target: str, tmp_path: Path) -> None:
    """Its first convolution has one channel, and the others could take Winograd's algorithm."""
    tunable = open_model(DIGITS, target, tmp_path)
    assert len(tunable.tasks) > 4
    for task in tunable.tasks:
        candidates = tunable.candidates(task)
        assert candidates[0].key == tunable.base(task).key
        assert len({one.key for one in candidates}) == len(candidates) > 1


def test_kernels_whose_sizes_depend_on_data_are_left_out(tmp_path: Path) -> None:
    """How many elements are not zero only a run knows; the product before has fixed sizes."""
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("a", (8, 8)), ("b", (16, 2)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["first"]),
        helper.make_node("NonZero", ["first"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["b", "numbers"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "places",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, "count"])],
        weights,
    )  # fmt: skip
    path = tmp_path / "places.onnx"
    onnx.save(helper.make_model(graph), path)
    tunable = open_model(path, "x86-64-v3", tmp_path)
    assert len(tunable.tasks) == 1
    assert len(tunable.candidates(tunable.tasks[0])) > 1
