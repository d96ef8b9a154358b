"""Ranges of tensors, for targets that compute in integers alone: calibration data show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..compiler.backend import AnyBackend
from ..compiler.compilation import CompileOptions
from ..compiler.errors import UsageError
from ..compiler.ir import Graph, Value
from ..compiler.ir.copying import copied
from ..compiler.target import Target
from ..passes.precision.fixed_point.quantise_floats import IN_FLOATS
from ..passes.precision.observers import HIGH, LOW, observe, observed
from ..passes.simplify.unroll_scans import in_all_steps
from .calibration import Samples, specs_of_inputs
from .float_values import kept_in_floats
from .graph_run import compiled_graph
from .request import FP32, INT8, CompileRequest

_QUANTISED = ("quantize", "dequantize")
_PRECISIONS = (FP32, INT8)
Range = tuple[float, float]


def with_ranges(
    graph: Graph,
    target: Target,
    backend: AnyBackend,
    request: CompileRequest,
    options: CompileOptions,
) -> tuple[CompileOptions, tuple[str, ...]]:
    """(the options with the ranges that a backend asks for, what a user should know of them).

    It may rewrite the graph.

    Raises UsageError for a model of floats without calibration data, for data that do not fit, and
    for a precision of floats.
    """
    if backend.integers is None:
        return options, ()
    if options.precision not in _PRECISIONS:
        raise UsageError(
            f"'{target.name}' computes in integers, not in {options.precision}",
            remedy="leave --precision out, and give --calibration for a model of floats",
        )
    values = backend.integers.observed(graph, target)
    if not values:
        return options, ()
    if request.calibration is None:
        if not any(node.op in _QUANTISED for node in graph.walk()):
            raise UsageError(
                f"'{target.name}' computes in integers, and the model is of floats",
                remedy="give --calibration: a few dozen inputs as the model gets them; or give a "
                "quantised model (QDQ)",
            )
        return options, ()
    folder = options.work_dir / "calibration"
    samples = Samples(request.calibration, specs_of_inputs(graph), folder / "samples")
    ranges = _measured(graph, values, samples, request, folder)
    for alike in in_all_steps(values):
        lows, highs = zip(*(ranges[value] for value in alike), strict=True)
        ranges |= dict.fromkeys(alike, (min(lows), max(highs)))
    kept, note = kept_in_floats(graph, ranges, samples)
    ranges |= dict.fromkeys(kept, IN_FLOATS)
    return replace(options, ranges=ranges), (note,) if note else ()


def with_any_ranges(
    graph: Graph, target: Target, backend: AnyBackend, options: CompileOptions
) -> CompileOptions:
    """As `with_ranges`, where nothing but the place of operators depends on them: each has another,
    as in a model."""
    if backend.integers is None:
        return options
    values = backend.integers.observed(graph, target)
    ranges = {value: (-1.0, 1.0 + number) for number, value in enumerate(values)}
    return replace(options, ranges=ranges)


def _measured(
    graph: Graph,
    values: Sequence[Value],
    samples: Samples,
    request: CompileRequest,
    folder: Path,
) -> dict[Value, Range]:
    """The least and greatest elements of values, over all samples."""
    observing = copied(graph)
    pairs = twins(graph, observing)
    chosen = [pairs[value] for value in values]
    for number, twin in enumerate(chosen):
        if twin.producer is not None:
            twin.name = f"observed{number}"
    observing.outputs = list(chosen)
    observing.meanings = {}
    observe(observing, 0, [None] * len(chosen))
    names = [twin.name for twin in chosen]
    run = compiled_graph(observing, folder, "ranges", request.threads)
    found: dict[Value, Range] = {}
    for sample in samples:
        told = run(sample)
        for value, name in zip(values, names, strict=True):
            low, high = (float(told[observed(name, what)]) for what in (LOW, HIGH))
            before = found.get(value, (low, high))
            found[value] = (min(before[0], low), max(before[1], high))
    return found


def twins(graph: Graph, copy: Graph) -> Mapping[Value, Value]:
    """The values of a graph, each with that of its copy."""
    pairs = dict(zip(graph.inputs, copy.inputs, strict=True))
    for node, other in zip(graph.nodes, copy.nodes, strict=True):
        pairs.update(zip(node.outputs, other.outputs, strict=True))
    return pairs
