"""Graphs that are made on the way to an artifact, compiled for this machine and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.backend import resolve_target
from ..compiler.compilation import CompileOptions, Stages
from ..compiler.errors import RunError
from ..compiler.ir import Graph
from .argument_checks import require_available
from .manifest import build_manifest
from .samples import Sampler

Array = np.ndarray[Any, Any]
GraphRun = Callable[[Mapping[str, Array]], dict[str, Array]]


def compiled_graph(graph: Graph, folder: Path, name: str, threads: int) -> GraphRun:
    """What runs a graph here; the graph is rewritten and loses its constants.

    name: a C identifier; the files that `folder` gets are called so. What the run raises is a
    RunError. Raises UsageError where nothing compiles for this machine.
    """
    from ..runtime.loader import ModuleError, load

    backend, target = resolve_target("native")
    require_available(backend)
    work = folder / name
    work.mkdir(parents=True)
    options = CompileOptions(
        name=name, work_dir=work, threads=threads, sizes=Sampler(graph).usual_sizes
    )
    compilation = backend.compile(graph, target, options, Stages())
    manifest = build_manifest(compilation, target, options, source_sha256="", flops=None)
    files = backend.link(compilation.model, "so", work / f"{name}.so", manifest)
    module = load(files[0], threads=threads)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return {key: np.array(array) for key, array in module(inputs).items()}
        except ModuleError as error:
            raise RunError(str(error), code=error.code, where="calibration") from None

    return run
