"""Tensmith as an engine of an ONNX conformance runner: `run(model_path, inputs) -> outputs`.

Every model is compiled for the host into a shared library in a temporary folder, loaded and run.
The environment may set CONFORMANCE_LEVEL, the optimisation level (default 1).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tensmith.backends.llvm.link import link
from tensmith.compiler.backend import CompileOptions, Stages, resolve_target
from tensmith.compiler.errors import UnsupportedError
from tensmith.driver.checks import unsupported_nodes
from tensmith.frontends.onnx import load as load_onnx
from tensmith.runtime.loader import Module, load

Array = np.ndarray[Any, Any]


@cache
def _module(model: str) -> tuple[Module, tuple[str, ...]]:
    """The loaded library of a model file, and the names of its outputs in order."""
    backend, target = resolve_target("native")
    graph = load_onnx(Path(model))
    refused = unsupported_nodes(graph, backend, target)
    if refused:
        raise UnsupportedError(refused)
    level = int(os.environ.get("CONFORMANCE_LEVEL", "1"))
    with tempfile.TemporaryDirectory(prefix="tensmith-conformance-") as folder:
        options = CompileOptions("model", Path(folder), opt_level=level)
        compiled = backend.compile(graph, target, options, Stages()).model
        link(compiled, "so", Path(folder) / "model.so")
        module = load(Path(folder) / "model.so")
    return module, tuple(spec.name for spec in module.outputs)


def run(model_path: str, inputs: Mapping[str, Array]) -> list[Array]:
    """Outputs in the order of the model's. Raises whatever a stage of the compiler raises."""
    module, names = _module(model_path)
    wanted = {spec.name for spec in module.inputs}
    found = module({name: array for name, array in inputs.items() if name in wanted})
    return [found[name] for name in names]
