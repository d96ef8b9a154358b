"""What could be compiled: models in precisions, for numbers of threads and batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...compiler.economics.estimate import Estimate
from ...compiler.errors import UnsupportedError
from ...compiler.ir import Graph
from ...compiler.ir.dims import symbols_of
from ..halves import HALVES
from ..model_build import import_model
from ..preflight import predicted_run
from ..request import FP32, INT8, CompileRequest
from ..samples import Sampler
from ..shapes import DimSpec, ShapeSpecs
from .plan_request import PlanRequest

LEAST_GAIN = 0.9  # of the predicted time: threads that do not save a tenth are not tried


@dataclass(frozen=True)
class Variant:
    """A binary that could be made. label: of its model. shapes: as `compile` takes them. cascade:
    whether its model is two, the larger of which answers what the smaller is not sure of."""

    label: str
    path: Path
    target: str
    precision: str
    threads: int
    batch: int
    shapes: tuple[tuple[str, tuple[DimSpec, ...]], ...] = ()
    cascade: bool = False

    @property
    def name(self) -> str:
        """As tables and files call it."""
        parts = [self.label, self.precision]
        parts += [] if self.target == "native" else [self.target.replace(":", "-")]
        parts += [f"b{self.batch}"] if self.batch > 1 else []
        parts += [f"t{self.threads}"] if self.threads > 1 else []
        return "-".join(parts)

    @property
    def judged(self) -> Variant:
        """The variant whose answers are judged for it: threads and batches change none."""
        single = tuple((n, (1 if self.batch > 1 else d[0], *d[1:])) for n, d in self.shapes if d)
        return replace(self, threads=1, batch=1, shapes=single)

    def request(self, request: PlanRequest) -> CompileRequest:
        """How it is compiled."""
        needs_data = self.precision == INT8
        return CompileRequest(
            target=self.target,
            precision=self.precision,
            threads=self.threads,
            shapes=dict(self.shapes),
            calibration=request.calibration if needs_data else None,
            force_precision=True,
        )


@dataclass(frozen=True)
class Pruned:
    """What is not tried, or did not come to anything, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ModelInterface:
    """What a plan has to know of a model's inputs. batch: whether rows of a batch are open."""

    shapes: ShapeSpecs
    open_batch: bool
    fixed: int | None

    def of_batch(self, batch: int) -> tuple[tuple[str, tuple[DimSpec, ...]], ...]:
        """Shapes in which so many rows stand in place of an open first dim."""
        if not self.open_batch:
            return tuple(self.shapes.items())
        return tuple((name, (batch, *dims[1:])) for name, dims in self.shapes.items())


def interface_of(graph: Graph, given: ShapeSpecs) -> ModelInterface:
    """The inputs of a graph, as `shapes` name them."""
    sampler = Sampler(graph)
    leading = set(sampler.batch_symbols)
    shapes: dict[str, tuple[DimSpec, ...]] = {}
    firsts: set[int | str] = set()
    for value in graph.inputs:
        if value.name in graph.defaults or not value.shape:
            continue
        dims = tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape)
        firsts.add(dims[0])
        if symbols_of(value.shape[0]) and str(value.shape[0]) in leading:
            shapes[value.name] = dims
    open_batch = len(firsts) == 1 and bool(shapes)
    fixed = next(iter(firsts)) if len(firsts) == 1 else None
    if not open_batch:
        return ModelInterface(given, False, fixed if isinstance(fixed, int) else None)
    return ModelInterface({**given, **shapes}, True, None)


def enumerated(
    request: PlanRequest, label: str, path: Path, cores: int, *, cascade: bool = False
) -> Iterator[Variant | Pruned]:
    """The variants of a model, and those that make no sense, with the reason.

    cores: of the largest machine that may run them.
    """
    try:
        graph = import_model(path, request.shapes)
    except UnsupportedError as error:
        yield Pruned(label, f"cannot be imported: {error.what}")
        return
    interface = interface_of(graph, request.shapes)
    for target in request.targets:
        for precision in request.precisions:
            for batch in request.batches:
                for threads in request.threads:
                    shapes = interface.of_batch(batch)
                    variant = Variant(
                        label, path, target, precision, threads, batch, shapes, cascade
                    )
                    reason = _senseless(request, variant, interface, cores)
                    yield Pruned(variant.name, reason) if reason else variant


def _senseless(
    request: PlanRequest, variant: Variant, interface: ModelInterface, cores: int
) -> str:
    if variant.precision == INT8 and request.calibration is None:
        return "int8 needs --calibration"
    if variant.precision != FP32 and variant.cascade:
        return "the threshold of a cascade is chosen in fp32"
    if variant.batch > 1 and variant.cascade:
        return "cascades are tried row by row"
    if variant.precision != FP32 and request.eval is None:
        return "without --eval nothing tells what a lower precision loses"
    if variant.batch > 1 and not interface.open_batch:
        return f"the model's batch is {interface.fixed or 'not open'}"
    if variant.threads > cores:
        return f"{variant.threads} threads, and no machine has more than {cores} cores"
    return ""


def labels_of(paths: Iterable[Path]) -> list[str]:
    """Names of models, of their files; with a number where two have one."""
    found: list[str] = []
    for path in paths:
        stem, number = path.stem, 2
        while stem in found:
            stem, number = f"{path.stem}{number}", number + 1
        found.append(stem)
    return found


def predicted(variant: Variant) -> Estimate | None:
    """Seconds of a run by the cost model, without code; None where its backend predicts nothing.

    Raises UsageError for a target that nobody knows, UnsupportedError for a model that it refuses.
    """
    request = CompileRequest(
        target=variant.target, threads=variant.threads, shapes=dict(variant.shapes)
    )
    backend, _ = request.resolve()
    return None if backend.estimate is None else predicted_run(variant.path, request).seconds


def why_no_gain(variant: Variant, limit: float) -> str:
    """Why the cost model says that a variant is not worth a compilation; "" where it may be."""
    own = predicted(variant)
    if own is None:
        return ""
    if own.low > limit:
        return f"a run is predicted to take {own.low:.3g} s at least, and the p99 is {limit:g} s"
    if variant.threads > 1:
        one = predicted(replace(variant, threads=1))
        if one is not None and own.value > LEAST_GAIN * one.value:
            return (
                f"{variant.threads} threads are predicted to save {1 - own.value / one.value:.0%} "
                "of a run"
            )
    return ""


def predicted_precisions(variant: Variant) -> tuple[str, ...]:
    """Precisions that something predicts times of without code, on the target of a variant."""
    backend, _ = CompileRequest(target=variant.target).resolve()
    if backend.estimate is not None:
        return (FP32, *HALVES)
    return (INT8,) if backend.integers is not None else ()


def why_elsewhere(variant: Variant) -> str:
    """Why a variant's code does not run on this machine; "" where it does.

    Raises UsageError for a target that nobody knows.
    """
    backend, target = CompileRequest(target=variant.target).resolve()
    return backend.runs_here(target) or ""
