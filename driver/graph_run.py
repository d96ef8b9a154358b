"""Graphs that are made on the way to an artifact, compiled for this machine and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.backend import resolve_target
from ..compiler.compilation import CompileOptions, Stages
from ..compiler.errors import RunError
from ..compiler.ir import Graph
from .argument_checks import require_available
from .manifest import build_manifest
from .samples import Sampler

if TYPE_CHECKING:
    from ..runtime.loader import Module

Array = np.ndarray[Any, Any]
GraphRun = Callable[[Mapping[str, Array]], dict[str, Array]]


def compiled_module(
    graph: Graph, folder: Path, name: str, threads: int, target_name: str = "native"
) -> Module:
    """A graph, loaded here; it is rewritten and loses its constants.

    name: a C identifier; the files that `folder` gets are called so. Raises UsageError where
    nothing compiles for the target.
    """
    from ..runtime.loader import load

    backend, target = resolve_target(target_name)
    require_available(backend)
    work = folder / name
    work.mkdir(parents=True)
    options = CompileOptions(
        name=name, work_dir=work, threads=threads, sizes=Sampler(graph).usual_sizes
    )
    compilation = backend.compile(graph, target, options, Stages())
    manifest = build_manifest(compilation, target, options, source_sha256="", flops=None)
    files = backend.link(compilation.model, "so", work / f"{name}.so", manifest)
    return load(files[0], threads=threads)


def compiled_graph(graph: Graph, folder: Path, name: str, threads: int) -> GraphRun:
    """What runs a graph here; as `compiled_module`. What the run raises is a RunError."""
    from ..runtime.loader import ModuleError

    module = compiled_module(graph, folder, name, threads)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return {key: np.array(array) for key, array in module(inputs).items()}
        except ModuleError as error:
            raise RunError(str(error), code=error.code, where="calibration") from None

    return run
