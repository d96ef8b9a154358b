"""Can a target take a model? Asked of every node, before any code is generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..compiler.backend import AnyBackend
from ..compiler.compilation import CompileOptions, HostKernel, Stages
from ..compiler.errors import Unsupported, UnsupportedError, UsageError
from ..compiler.ir import Graph
from ..compiler.ir.dims import symbols_of
from ..compiler.kernel.cost.model_cost import RunEstimate
from ..compiler.kernel.cost.slow_kernels import SlowKernel
from ..compiler.target import Target
from ..passes.checks.run_time_checks import RunTimeChecks
from .argument_checks import unsupported_nodes
from .faults import faults_explained
from .halves import InPrecision
from .integer_ranges import with_any_ranges
from .model_build import import_model
from .precision import Risk, precision_risks
from .request import CompileRequest
from .samples import Sampler
from .shapes import loosened

MAX_PLANNED_NODES = 1000  # of a model that is checked within seconds


@dataclass
class Preflight:
    """The answer.

    nodes: number of core operators, 0 when the model could not be imported. symbols: symbolic
    dims of the inputs, with the places where they stand. unknown: values whose shape only a run
    can tell, as text. risks: see `precision.py`. checks: nodes whose indices a run checks. notes:
    what the model says and does not hold. optional: inputs that have a default. free: for every
    shared symbol, what --shape takes to let the last input that it is in have other sizes. slow:
    kernels predicted to take far longer than their bytes and operations; None where nothing is
    predicted. on_host: what runs beside the device; None where there is none. npu, cpu: for targets
    with command streams, as in manifests.
    """

    target: str
    nodes: int = 0
    unsupported: list[Unsupported] = field(default_factory=list)
    symbols: dict[str, list[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    risks: list[Risk] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    free: dict[str, str] = field(default_factory=dict)
    slow: list[SlowKernel] | None = None
    on_host: list[HostKernel] | None = None
    npu: dict[str, Any] | None = None
    cpu: dict[str, Any] | None = None

    @property
    def shared(self) -> list[str]:
        """Symbols that stand in several places, whose sizes must agree in a run."""
        return [name for name, places in self.symbols.items() if len(places) > 1]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"supported": not self.unsupported, **asdict(self), "shared": self.shared}


def preflight(path: Path, request: CompileRequest) -> Preflight:
    """Import the model and ask the target's backend about every node, regions included.

    Raises UsageError and InvalidModelError as the import does.
    """
    backend, target = request.resolve()
    found = Preflight(request.target)
    try:
        graph = import_model(path, request.shapes)
    except UnsupportedError as error:
        found.unsupported = list(error.items)
        return found
    found.notes, found.optional = list(graph.notes), list(graph.defaults)
    found.nodes = sum(1 for _ in graph.walk())
    found.unsupported = unsupported_nodes(graph, backend, target)
    found.symbols = _input_symbols(graph)
    found.free = {name: _freed(graph, name) for name in found.shared}
    found.unknown = _unknown_shapes(graph, set(found.symbols))
    found.risks = precision_risks(graph)
    RunTimeChecks().run(graph)
    found.checks = [node.name for node in graph.walk() if node.op == "check_index"]
    if not found.unsupported and found.nodes <= MAX_PLANNED_NODES:
        # planning rewrites the graph, and wants it without the checks
        if backend.slow_kernels:
            found.slow = _planned(backend.slow_kernels, path, request, target)
        if backend.host_kernels:
            found.on_host = _planned(backend.host_kernels, path, request, target)
    if not found.unsupported and backend.integers and not backend.available():
        told = _placed(backend, path, request, target)
        found.npu, found.cpu = told["npu"], told["cpu"]
    return found


def predicted_run(path: Path, request: CompileRequest) -> RunEstimate:
    """What a run of a model is predicted to need, for its usual sizes, without code.

    Raises UsageError where the target's backend predicts nothing, else as the import does.
    """
    backend, target = request.resolve()
    if backend.estimate is None:
        raise UsageError(
            f"nothing predicts how long a model takes on {target.name}",
            remedy="choose a CPU or a GPU: --target native, --target cuda:sm_90",
        )
    graph, stages = import_model(path, request.shapes), Stages()
    unsupported = unsupported_nodes(graph, backend, target)
    if unsupported:
        raise UnsupportedError(unsupported, where=f"target '{target.name}'")
    sizes = Sampler(graph).usual_sizes
    options = replace(request.options(path, path.parent, target), sizes=sizes)
    with faults_explained(path, stages):
        InPrecision(request.precision, target).rewrite(graph)
        return backend.estimate(graph, target, options, stages)


Found = TypeVar("Found")


def _planned(
    ask: Callable[[Graph, Target, CompileOptions, Stages], tuple[Found, ...]],
    path: Path,
    request: CompileRequest,
    target: Target,
) -> list[Found]:
    """What a backend says of a model's plan."""
    graph = import_model(path, request.shapes)
    sizes, stages = Sampler(graph).usual_sizes, Stages()
    options = replace(request.options(path, path.parent, target), sizes=sizes)
    with faults_explained(path, stages):
        return list(ask(graph, target, options, stages))


def _placed(
    backend: AnyBackend, path: Path, request: CompileRequest, target: Target
) -> dict[str, Any]:
    """What of a model a processor with command streams would run, and what its host."""
    assert backend.integers is not None
    graph, stages = import_model(path, request.shapes), Stages()
    with faults_explained(path, stages):
        options = request.options(path, path.parent, target)
        options = with_any_ranges(graph, target, backend, options)
        return backend.integers.placed(graph, target, options, stages).to_json()


def _input_symbols(graph: Graph) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for value in graph.inputs:
        for axis, dim in enumerate(value.shape):
            for name in sorted(symbols_of(dim)):
                places.setdefault(name, []).append(f"input '{value.name}' axis {axis}")
    return places


def _freed(graph: Graph, name: str) -> str:
    inside = [[name in symbols_of(dim) for dim in value.shape] for value in graph.inputs]
    value, places = [(v, p) for v, p in zip(graph.inputs, inside, strict=True) if any(p)][-1]
    return loosened(value.name, value.shape, [axis for axis, here in enumerate(places) if here])


def _unknown_shapes(graph: Graph, known: set[str]) -> list[str]:
    """Values of the main graph with a dim that the inputs' shapes do not decide."""
    return [
        f"'{value.name}' {value.type} of {node.op} '{node.name}'"
        for node in graph.nodes
        for value in node.outputs
        if not all(symbols_of(dim) <= known for dim in value.shape)
    ]
