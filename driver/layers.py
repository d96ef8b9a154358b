"""Layer by layer: where a compiled model first differs from the model, and in what.

Each value that lies between kernels is compared twice. With what numpy makes of the same operands
by the operators of its kernel alone: that is exact up to rounding, and errors of earlier layers are
no part of it. And, where it is a tensor of the model, with that in the reference of the model.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.backend import Observe, backend_of
from ..compiler.errors import BudgetError, RunError, TensmithError, VerificationError
from ..compiler.ir import Graph, Node, Value
from ..compiler.ir.groups import is_fused
from ..compiler.ir.ops.registry import Trait, has_trait
from ..compiler.scratch import temporary_folder
from .compare import Difference, Tolerance, compare_outputs
from .engines import as_bytes
from .halves import InPrecision
from .model_build import import_model
from .probes import (
    Probe,
    Seen,
    alone,
    in_order_of,
    is_of_model,
    makes,
    mark_tensors,
    marked,
    sizes_told,
    tensors_of,
)
from .processes import DeadlineError, EngineProcess
from .ranges_observed import decibels
from .request import CompileRequest, reference_precision
from .roundings import RUNS, RoundingSpread, distance, nudge, within_roundings
from .tensor_files import read_file, write_file
from .verify_report import FAILED, INCOMPLETE, PASSED

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ComparedLayer:
    """One value between kernels. nodes: the model's operators that its kernel computes. tensor: the
    model's tensor that it is, "" where it is none.

    kernel: the difference from what numpy makes of the same operands; model: from the tensor of the
    model; None where that was not compared, of which `note` says why. decibels: how far the latter
    lies below the tensor.
    """

    nodes: tuple[str, ...]
    tensor: str
    shape: tuple[int, ...]
    kernel: Difference | None = None
    model: Difference | None = None
    decibels: float | None = None
    note: str = ""

    @property
    def fault(self) -> str:
        """What is wrong; "" where nothing that was compared is."""
        if self.kernel is not None and not self.kernel.agrees:
            return f"its kernel computes something else than its operators: {self.kernel.message}"
        if self.model is not None and not self.model.agrees:
            return (
                "its kernel computes what the graph says that was made of the model, and that is "
                f"not what the model says: {self.model.message}"
            )
        return ""

    @property
    def label(self) -> str:
        """How messages call it."""
        operators = ", ".join(f"'{name}'" for name in self.nodes) or "an operator without a name"
        return f"{operators} (tensor '{self.tensor}')" if self.tensor else operators


@dataclass
class LayerReport:
    """The answer. status: as of `VerifyReport`. layers: in the order in which they are computed.

    missing: what could not be compared at all, and why.
    """

    status: str = PASSED
    reason: str = ""
    layers: list[ComparedLayer] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def first(self) -> ComparedLayer | None:
        """The first layer that diverges."""
        return next((layer for layer in self.layers if layer.fault), None)

    def summary(self) -> str:
        """One line for people."""
        kernels = sum(layer.kernel is not None for layer in self.layers)
        tensors = sum(layer.model is not None for layer in self.layers)
        if self.status == FAILED:
            return f"layers FAILED: {self.reason}"
        compared = (
            f"{kernels} of {len(self.layers)} layers by their operators, {tensors} as tensors"
        )
        if self.status == INCOMPLETE:
            return f"layers NOT VERIFIED: {self.reason} ({compared} of the model)"
        return f"layers verified: {compared} of the model"

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        first = self.first
        return {
            "status": self.status,
            "reason": self.reason,
            "first": asdict(first) if first else None,
            "layers": [asdict(layer) for layer in self.layers],
            "missing": self.missing,
            "seconds": self.seconds,
        }

    def error(self) -> TensmithError | None:
        """VerificationError when a layer diverges, BudgetError when not all were compared."""
        if self.status == FAILED:
            return VerificationError("a layer of the compiled model diverges", why=self.reason)
        if self.status == INCOMPLETE:
            return BudgetError("the layers were not all compared", why=self.reason)
        return None


def verify_layers(
    model: Path,
    request: CompileRequest,
    inputs: Mapping[str, Array],
    tolerance: Tolerance,
    time_limit: float | None = None,
) -> LayerReport:
    """Compile a model (that of a request for int8: the quantised one) and compare its layers.

    Memory: the values between kernels are computed in parts of 256 MiB and lie in files. inputs:
    by name. tolerance: of tensors of the model; see `Tolerance`. time_limit: seconds. Raises as
    `compile`, UsageError for inputs that do not fit.
    """
    start = time.monotonic()
    deadline = None if time_limit is None else start + time_limit
    report = LayerReport()
    precision = reference_precision(request.precision)
    plain = CompileRequest(
        target=request.target,
        precision=precision,
        opt_level=request.opt_level,
        threads=request.threads,
        shapes=request.shapes,
        choices=request.choices,
        progress=request.progress,
        force_precision=True,
    )
    with temporary_folder("tensmith-layers-") as folder:
        job = _Job(model, plain, inputs, tolerance, Path(folder), deadline, report)
        try:
            job.run()
        except DeadlineError:
            report.status = INCOMPLETE
            report.reason = f"the time limit of {time_limit:g} s passed"
        except RunError as error:
            report.status, report.reason = FAILED, f"the compiled model does not run: {error.what}"
    first = report.first
    if first is not None:
        report.status, report.reason = FAILED, f"{first.label}: {first.fault}"
    report.seconds = time.monotonic() - start
    return report


@dataclass
class _Job:
    """One comparison. sizes: of symbols, as far as they are known. spreads: of the tensors of a
    quantised model, how far roundings alone move them."""

    model: Path
    request: CompileRequest
    inputs: Mapping[str, Array]
    tolerance: Tolerance
    folder: Path
    deadline: float | None
    report: LayerReport
    sizes: dict[str, int] = field(default_factory=dict)
    given: dict[str, Array] = field(default_factory=dict)
    spreads: dict[str, RoundingSpread] = field(default_factory=dict)

    def run(self) -> None:
        """Compile, run, and compare in the order of the plan."""
        graph, names = self._imported()
        self.given = as_bytes(
            {**graph.defaults, **self.inputs},
            {name for name, meaning in graph.meanings.items() if meaning.strings},
        )
        for value in graph.inputs:
            self.sizes = sizes_told(value.type, self.given[value.name].shape, self.sizes)
        compiled = self._run_compiled()
        seen = tensors_of(compiled, names)
        self._run_reference(graph, names, {s.tensor for s in seen.values()})
        self._compare(compiled, seen)

    def note(self, text: str) -> None:
        """Tell the user what happens now; ends the job when its time is over."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineError
        if self.request.progress:
            self.request.progress(text)

    def _imported(self) -> tuple[Graph, list[str]]:
        """The reference: the imported graph in its precision, and the names of its tensors."""
        graph = import_model(self.model, self.request.shapes)
        names = mark_tensors(graph)
        InPrecision(self.request.precision, self.request.resolve()[1]).rewrite(graph)
        return graph, names

    def _run_compiled(self) -> Graph:
        """Store what lies between the kernels, in files; the graph that they were made of."""
        from .api import compile_request

        following: int | None = 0
        first: Probe | None = None
        while following is not None:
            probe = Probe(self.sizes, following)
            artifact = compile_request(self.model, replace(self.request, probe=probe))
            with EngineProcess(artifact.subject(), self.deadline) as engine:
                self.note("running the compiled model")
                engine.open()
                results = engine.run(dict(self.inputs))
            for name, number in probe.values.items():
                write_file(self._file(f"{number}"), {"": results[name]})
            following, first = probe.following, first or probe
        assert first is not None
        first.restore()
        return first.graph

    def _run_reference(self, graph: Graph, names: Sequence[str], wanted: set[str]) -> None:
        """Store the wanted tensors of the model, in files."""

        def observe(node: Node, results: Sequence[Array]) -> None:
            for value, array in zip(node.outputs, results, strict=True):
                name = self._tensor(value, graph, names)
                if name in wanted:
                    write_file(self._file(f"tensor_{name}"), {"": array})
            self.note("running the reference")

        self._evaluate(graph, self.given, observe)
        for seed in range(1, RUNS if self.tolerance.quantised else 1):
            self._evaluate(graph, self.given, self._nudged(seed, graph, names, wanted))

    def _nudged(self, seed: int, graph: Graph, names: Sequence[str], wanted: set[str]) -> Observe:
        """Moves every float a little, and notes how far that has moved the wanted tensors."""
        move = nudge(seed)

        def observe(node: Node, results: Sequence[Array]) -> Sequence[Array]:
            self.note("running the reference with floats moved")
            for value, array in zip(node.outputs, results, strict=True):
                name = self._tensor(value, graph, names)
                stored = self._stored(f"tensor_{name}") if name in wanted else None
                if name is not None and stored is not None and stored.shape == array.shape:
                    found = distance(np.asarray(array), stored)
                    before = self.spreads.get(name, found)
                    self.spreads[name] = max((before, found), key=lambda s: (s.rms, s.peak))
            return move(node, results)

        return observe

    def _tensor(self, value: Value, graph: Graph, names: Sequence[str]) -> str | None:
        """The model's tensor that a value of the reference is, if any."""
        if value in graph.outputs:
            return value.name
        number = marked(value)
        return None if number is None else names[number]

    def _evaluate(
        self, graph: Graph, inputs: Mapping[str, Array], observe: Observe | None = None
    ) -> dict[str, Array]:
        evaluate = backend_of("reference").evaluate
        assert evaluate is not None
        return evaluate(graph, inputs, observe)

    def _file(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy"

    def _stored(self, name: str) -> Array | None:
        path = self._file(name)
        return read_file(path)[""] if path.exists() else None

    def _compare(self, graph: Graph, seen: Mapping[Value, Seen]) -> None:
        """Fill the report."""
        made: dict[Value, str] = {}
        given = {value: self.given[value.name] for value in graph.inputs}
        for node in graph.nodes:
            if not makes(node):
                continue
            before = len(made)
            made.update((v, f"{n}") for n, v in enumerate(node.outputs, before))
            if node.regions and not is_fused(node):
                self.report.missing.append(f"what is inside of {node.op} '{node.name}'")
            self.note(f"comparing layers ({before + 1})")
            results = [self._stored(made[value]) for value in node.outputs]
            for value, array in zip(node.outputs, results, strict=True):
                if array is not None:
                    self.sizes = sizes_told(value.type, array.shape, self.sizes)
            expected, why = self._expected(node, made, given)
            for number, (value, array) in enumerate(zip(node.outputs, results, strict=True)):
                wanted = expected[number] if expected else None
                self.report.layers.append(self._layer(node, value, array, wanted, seen, why))

    def _expected(
        self, node: Node, made: Mapping[Value, str], given: Mapping[Value, Array]
    ) -> tuple[list[Array] | None, str]:
        """What numpy makes of the operands that the compiled model had, or why not."""
        others = [v for v in made if v not in node.outputs]
        inner, operands = alone(node, [*others, *given], self.sizes)
        arrays = {f"size_{name}": np.empty(size, np.uint8) for name, size in self.sizes.items()}
        for value in operands:
            array = given.get(value)
            array = self._stored(made[value]) if array is None else array
            if array is None:
                return None, "an operand is not at hand"
            arrays[value.name] = array
        try:
            results = self._evaluate(inner, arrays)
        except TensmithError as error:
            return None, f"the reference does not run it alone: {error.what}"
        return [results[value.name] for value in node.outputs], ""

    def _layer(
        self,
        node: Node,
        value: Value,
        array: Array | None,
        wanted: Array | None,
        seen: Mapping[Value, Seen],
        why: str,
    ) -> ComparedLayer:
        inner = list(node.regions[0].nodes) if is_fused(node) else [node]
        nodes = tuple(dict.fromkeys(n.name for n in inner if is_of_model(n)))
        at = seen.get(value)
        layer = ComparedLayer(nodes, at.tensor if at else "", () if array is None else array.shape)
        if array is None:
            return replace(layer, note="the run did not hand it out")
        if wanted is not None:
            limits = replace(self.tolerance, quantised=any(map(_rounds, inner)))
            layer = replace(layer, kernel=_difference(array, wanted, limits, layer.tensor))
        tensor = self._stored(f"tensor_{at.tensor}") if at else None
        if at is None or tensor is None:
            return replace(layer, note=why or "no tensor of the model")
        moved = in_order_of(at.of(array, self.sizes), tensor)
        if moved is None:
            return replace(layer, note=f"its axes are not those of the tensor '{at.tensor}'")
        if self.tolerance.quantised and array.dtype.kind in "iu":
            moved, tensor = moved.astype(np.float32), tensor.astype(np.float32)
        pair = ({at.tensor: moved}, {at.tensor: tensor})
        found = _difference(moved, tensor, self.tolerance, at.tensor)
        found = within_roundings([found], *pair, self.spreads)[0]
        below = decibels([({"": tensor}, {"": moved})]).get("")
        return replace(layer, model=found, decibels=below, note=why)


def _difference(actual: Array, wanted: Array, tolerance: Tolerance, name: str) -> Difference:
    return compare_outputs({name: actual}, {name: wanted}, tolerance)[0]


def _rounds(node: Node) -> bool:
    """Whether the last bit of a float may decide a whole step."""
    return has_trait(node, Trait.DISCRETE)
