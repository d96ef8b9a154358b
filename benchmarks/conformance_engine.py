"""Tensmith as an engine of an ONNX conformance runner: `run(model_path, inputs) -> outputs`.

Every model is compiled for the host into a shared library in a temporary folder, loaded and run.
An input or output that is a sequence is a list, an optional that holds nothing is None: the
elements of a sequence are inputs of the library, as many as the case has. Strings (arrays of
objects) go in and out as their bytes. Where a model that takes or gives sequences is refused
because their lengths follow from the value of a small input (how often a loop grows one, say), that
value is compiled in.

The environment may set CONFORMANCE_LEVEL, the optimisation level (default 1). Loops of more than
MAX_TRIPS rounds end with an error.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tensmith.backends.common.link import link
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.text import print_graph
from tensmith.driver.argument_checks import unsupported_nodes
from tensmith.frontends.onnx import load as load_onnx
from tensmith.runtime.loader import Module, load
from tensmith.runtime.meaning import decode, encode

Array = np.ndarray[Any, Any]
Given = Array | Sequence[Array] | None
_SMALL = 64  # elements of an input whose value may be compiled in
MAX_TRIPS = 1_000_000


def split_inputs(
    inputs: Mapping[str, Given],
) -> tuple[dict[str, Array], dict[str, Sequence[int]], dict[str, Given]]:
    """Arrays for the library, shapes of sequences' elements and strings, inputs without content."""
    arrays: dict[str, Array] = {}
    shapes: dict[str, Sequence[int]] = {}
    empty: dict[str, Given] = {}
    for name, given in inputs.items():
        if isinstance(given, np.ndarray) and given.dtype.kind in "OUS":
            arrays[name] = encode(given)
            shapes[name] = arrays[name].shape
        elif isinstance(given, np.ndarray | np.generic):
            arrays[name] = np.asarray(given)
        elif not given:
            empty[name] = given
        else:
            elements = {f"{name}_{i}": np.asarray(item) for i, item in enumerate(given)}
            arrays |= elements
            shapes |= {key: item.shape for key, item in elements.items()}
    return arrays, shapes, empty


def import_case(model: str, inputs: Mapping[str, Given]) -> Graph:
    """The graph of a model file for inputs of this structure.

    Raises what the frontend raises.
    """
    arrays, shapes, empty = split_inputs(inputs)
    try:
        return load_onnx(Path(model), shapes=shapes, values=empty)
    except (UnsupportedError, InvalidModelError):
        if not _holds_containers(model):
            raise
        whole = {n: a for n, a in arrays.items() if n not in shapes and a.dtype.kind in "iub"}
        small = {name: array for name, array in whole.items() if array.size <= _SMALL}
        if not small:
            raise
        return load_onnx(Path(model), shapes=shapes, values={**empty, **small})


def _holds_containers(model: str) -> bool:
    """Whether an input or output is a sequence or an optional."""
    graph = onnx.load(model, load_external_data=False).graph
    return any(not info.type.HasField("tensor_type") for info in (*graph.input, *graph.output))


def merge_outputs(infos: Sequence[onnx.ValueInfoProto], found: Mapping[str, Array]) -> list[Given]:
    """The model's outputs in order; those that the library has in parts are lists."""
    merged: list[Given] = []
    for info in infos:
        if info.name not in found:
            names = (f"{info.name}_{i}" for i in count())
            merged.append([found[part] for part in takewhile(lambda part: part in found, names)])
        elif info.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            merged.append(decode(found[info.name]).astype(object))
        else:
            merged.append(found[info.name])
    return merged


@lru_cache(maxsize=4)
def _outputs(model: str) -> tuple[onnx.ValueInfoProto, ...]:
    return tuple(onnx.load(model, load_external_data=False).graph.output)


def _compile(graph: Graph) -> Module:
    """The graph as a library of the host, loaded. Raises what a stage of the compiler raises."""
    backend, target = resolve_target("native")
    refused = unsupported_nodes(graph, backend, target)
    if refused:
        raise UnsupportedError(refused)
    level = int(os.environ.get("CONFORMANCE_LEVEL", "1"))
    with tempfile.TemporaryDirectory(prefix="tensmith-conformance-") as folder:
        options = CompileOptions("model", Path(folder), opt_level=level)
        compiled = backend.compile(graph, target, options, Stages()).model
        link(compiled, "so", Path(folder) / "model.so")
        return load(Path(folder) / "model.so", max_trips=MAX_TRIPS)


class _Latest:
    """The library of the latest model, which a case with the same graph uses again."""

    def __init__(self) -> None:
        self.key = ""
        self.module: Module | None = None

    def find(self, graph: Graph) -> Module:
        """The graph's library."""
        text = print_graph(graph, full=True)
        if self.module is None or text != self.key:
            self.module = _compile(graph)
            self.key = text
        return self.module


_LATEST = _Latest()


def run(model_path: str, inputs: Mapping[str, Given]) -> list[Given]:
    """Outputs in the order of the model's. Raises whatever a stage of the compiler raises."""
    module = _LATEST.find(import_case(model_path, inputs))
    wanted = {spec.name for spec in module.inputs}
    arrays = split_inputs(inputs)[0]
    found = module({name: array for name, array in arrays.items() if name in wanted})
    return merge_outputs(_outputs(model_path), found)
