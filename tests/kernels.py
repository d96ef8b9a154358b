"""Kernels of graphs, and what they compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tensmith.compiler.ir import Graph, Node, Value
from tensmith.compiler.ir.dims import evaluate
from tensmith.compiler.ir.ops.registry import bind_attrs, lookup
from tensmith.compiler.ir.types import TensorType
from tensmith.compiler.kernel.interpret import interpret
from tensmith.compiler.kernel.kernel import Kernel
from tensmith.compiler.kernel.lower.scope import storage_elements, strides_of
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.grouping.borders import Borders
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.pipeline import SIMPLIFY, optimization_passes
from tensmith.passes.simplify.dce import DeadCodeElimination
from tensmith.passes.simplify.decompose import Decompose

Array = np.ndarray[Any, Any]


def fused_nodes(graph: Graph, level: int = 2) -> Iterator[Node]:
    """The fused nodes of a graph after the passes of an optimisation level."""
    run_passes(graph, optimization_passes(level))
    fusion = Fusion(epilogues=level > 0)
    run_passes(graph, (Decompose(), *SIMPLIFY, fusion, DeadCodeElimination(), Borders()))
    for node in graph.walk():
        if node.op == "fused":
            yield node


def positions(type_: TensorType, sizes: Mapping[str, int]) -> Array:
    """Where a tensor's elements lie in its storage, with the tensor's shape."""
    strides, origin = strides_of(type_)
    shape = tuple(evaluate(dim, sizes) for dim in type_.shape)
    steps = [evaluate(stride, sizes) for stride in strides]
    index = np.indices(shape) if shape else np.zeros((0,), int)
    at = sum((i * step for i, step in zip(index, steps, strict=True)), np.zeros(shape, int))
    return at + evaluate(origin, sizes)


def store(type_: TensorType, sizes: Mapping[str, int], data: Array | None = None) -> Array:
    """The flat storage of a tensor, what its layout says around its elements."""
    size = evaluate(storage_elements(type_), sizes)
    flat = np.full(size, type_.layout.fill, type_.dtype.numpy)
    if data is not None:
        flat[positions(type_, sizes)] = data
    return flat


def region_inputs(region: Graph, sizes: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Random inputs of a fused region, whose values get names."""
    rng = np.random.default_rng(seed)
    found = {}
    for number, value in enumerate(region.inputs):
        value.name = f"x{number}"
        shape = tuple(evaluate(dim, sizes) for dim in value.shape)
        drawn = rng.uniform(-2, 2, shape) if value.dtype.is_float else rng.integers(0, 3, shape)
        found[value.name] = drawn.astype(value.dtype.numpy)
    for number, value in enumerate(region.outputs):
        value.name = f"y{number}"
    return found


def reference(region: Graph, inputs: Mapping[str, Array], sizes: Mapping[str, int]) -> list[Array]:
    """What a region computes, by the numpy meaning of its operators."""
    known: dict[Value, Array] = {value: inputs[value.name] for value in region.inputs}

    def array(value: Value) -> Array:
        return value.data if value.data is not None else known[value]

    for node in region.nodes:
        evaluate_op = lookup(node.op).evaluate
        assert evaluate_op is not None
        arrays = evaluate_op([array(v) for v in node.inputs], bind_attrs(node.attrs, sizes))
        known.update(zip(node.outputs, arrays, strict=True))
    return [known[value] for value in region.outputs]


def interpreted(
    kernel: Kernel,
    values: tuple[tuple[Any, ...], tuple[Any, ...]],
    inputs: Mapping[str, Array],
    sizes: Mapping[str, int],
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Array]:
    """A kernel's outputs by the name of their value. values: those behind its parameters.

    changes: by parameter name, how constants are stored for the kernel.
    """
    sources, results = values
    arrays = {
        buffer.name: store(value.type, sizes, inputs[value.name])
        for buffer, value in zip(kernel.params, sources, strict=False)
    }
    for name, change in (changes or {}).items():
        arrays[name] = np.ascontiguousarray(change.apply(arrays[name])).reshape(-1)
    outputs = kernel.params[len(sources) :]
    for buffer, value in zip(outputs, results, strict=True):
        arrays[buffer.name] = store(value.type, sizes)
    interpret(kernel, arrays, dict(sizes))
    return {
        value.name: arrays[buffer.name][positions(value.type, sizes)]
        for buffer, value in zip(outputs, results, strict=True)
    }
