"""The example for Triton Inference Server, without the server: the repository, and its model."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from compiled import needs_native

from tensmith.driver.planning.planning import PlanResult

SERVING = Path(__file__).parents[3] / "examples/serving"
pytestmark = needs_native


class _Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


class _Response:
    def __init__(self, output_tensors: Any = (), error: Any = None) -> None:
        self.output_tensors, self.error = output_tensors, error


def test_the_repository_of_a_plan_serves(
    usual_plan: tuple[PlanResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [sys.executable, str(SERVING / "triton_repository.py")]
    subprocess.run([*script, str(usual_plan[1]), str(tmp_path)], check=True, capture_output=True)
    config = (tmp_path / "digits/config.pbtxt").read_text()
    assert 'name: "image" data_type: TYPE_FP32 dims: [ 1, 1, 8, 8 ]' in config
    choice = usual_plan[0].choice
    assert choice is not None
    assert f"count: {choice.layout.instances} kind: KIND_CPU" in config
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.get_input_tensor_by_name = lambda request, name: request[name]
    utils.Tensor, utils.InferenceResponse, utils.TritonError = _Tensor, _Response, str
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    path = tmp_path / "digits/1/model.py"
    spec = importlib.util.spec_from_file_location("triton_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    told = {"parameters": {"threads": {"string_value": "1"}}}
    model.initialize(
        {
            "model_config": json.dumps(told),
            "model_repository": str(tmp_path / "digits"),
            "model_version": "1",
        }
    )
    right = {"image": _Tensor("image", np.zeros((1, 1, 8, 8), np.float32))}
    wrong = {"image": _Tensor("image", np.zeros((2, 1, 8, 8), np.float32))}
    good, bad = model.execute([right, wrong])
    model.finalize()
    assert good.error is None
    assert [(own.name, own.array.shape) for own in good.output_tensors] == [("scores", (1, 10))]
    assert "expected 1, got 2" in bad.error
