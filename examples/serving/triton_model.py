"""A compiled model as a model of Triton's Python backend: copied to REPOSITORY/NAME/1/model.py.

Triton starts one of these for each instance of `config.pbtxt`, and hands calls to one that is free.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from tensmith.runtime.loader import ModuleError, load


class TritonPythonModel:
    """An instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the library beside this file, with the threads that the plan chose."""
        config = json.loads(args["model_config"])
        threads = int(config["parameters"]["threads"]["string_value"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self.model = load(folder / "model.so", threads=threads, idle="park")

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request; one that the model refuses is an error of its own."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = {
            spec.name: pb_utils.get_input_tensor_by_name(request, spec.name).as_numpy()
            for spec in self.model.inputs
        }
        try:
            outputs = self.model(inputs)
        except ModuleError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def finalize(self) -> None:
        """Free the instance."""
        self.model.close()
