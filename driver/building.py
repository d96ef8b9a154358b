"""One model file to one artifact: quantised, imported, rewritten, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compiler.backend import AnyBackend
from ..compiler.collector import collector_seldom
from ..compiler.compilation import CompileOptions, Stages
from ..compiler.ir import Graph
from ..compiler.kernel.schedule.choices import Choices
from ..compiler.target import Target
from .artifacts import Artifact
from .faults import faults_explained
from .integer_ranges import with_ranges
from .manifest import build_manifest
from .model_build import ModelBuild, PreparedGraph, prepare
from .model_source import ModelSource
from .request import INT8, WEIGHT_BITS, CompileRequest

if TYPE_CHECKING:
    from .budget.coarse_weights import CoarseWeights
    from .quantisation import Quantisation
    from .tuning.applying import AppliedRecords


def build(
    path: Path,
    request: CompileRequest,
    backend: AnyBackend,
    target: Target,
    work_dir: Path,
    stages: Stages,
) -> Artifact:
    """Compile a file as a request says, with intermediate files in `work_dir`.

    Raises as `api.compile`.
    """
    model = ModelBuild(path, path, request, backend, target)
    integers = backend.integers is not None  # the backend quantises all that it is given
    if request.precision in (INT8, *WEIGHT_BITS) and not integers:
        with stages.stage("quantise"):
            quantised = quantised_as(request, path, work_dir)
            model = replace(model, path=quantised.path, quantised=quantised)
    return built(model, work_dir, stages)


def built(
    model: ModelBuild,
    work_dir: Path,
    stages: Stages,
    choices: Mapping[str, Mapping[str, Any]] | None = None,
) -> Artifact:
    """The artifact of a model.

    choices: about kernels, in place of those that the request's records hold; the request's own
    come first. Raises as `api.compile`.
    """
    with collector_seldom():
        return _tuned(model, work_dir, stages, choices)


def _tuned(
    model: ModelBuild,
    work_dir: Path,
    stages: Stages,
    choices: Mapping[str, Mapping[str, Any]] | None,
) -> Artifact:
    """The artifact of a model, with what its records hold, where those are still true."""
    prepared = prepare(model, work_dir, stages)
    if choices is not None or model.request.records is None:
        return _built(model, prepared, work_dir, stages, choices or {}, None)
    from .tuning.applying import looked_up

    tuned = looked_up(model, prepared, stages)
    artifact = _built(model, prepared, work_dir, stages, tuned.choices, tuned)
    if why := tuned.why_stale(artifact.code):
        tuned = tuned.held(model.request, why)
        folder = work_dir / "again"
        folder.mkdir()
        prepared = prepare(model, folder, stages)
        artifact = _built(model, prepared, folder, stages, tuned.choices, tuned)
    return artifact


def _built(
    model: ModelBuild,
    prepared: PreparedGraph,
    work_dir: Path,
    stages: Stages,
    choices: Mapping[str, Mapping[str, Any]],
    tuned: AppliedRecords | None,
) -> Artifact:
    """The artifact of a graph, which is rewritten. tuned: what records the choices are of."""
    request, target, backend = model.request, model.target, model.backend
    options, notes = prepared.options, (*prepared.notes, *(tuned.notes if tuned else ()))
    if choices:
        options = replace(options, choices=Choices({**choices, **options.choices.by_key}))
    if request.probe:
        request.probe.imported(prepared.graph)
    with faults_explained(model.path, stages):
        decisions = prepared.rewrite(options)
        options, told = with_ranges(prepared.graph, target, backend, request, options)
        coarse = _coarse_weights(prepared.graph, model, options, stages)
        options = coarse.in_options(options) if coarse else options
        notes += (*told, coarse.note) if coarse else told
        compilation = backend.compile(prepared.graph, target, options, stages)
    manifest = build_manifest(
        compilation, target, options, source_sha256=prepared.digest, flops=prepared.flops,
        decisions=decisions,
    )  # fmt: skip
    quantised = model.quantised
    manifest |= quantised.to_json(compilation.decisions) if quantised else {}
    manifest |= tuned.in_manifest() if tuned else {}
    manifest |= coarse.in_manifest() if coarse else {}
    used = [key for kernel in compilation.kernels for key in kernel.keys]
    if unused := prepared.options.choices.unused(used):
        notes += (f"choices for no group of this model: {', '.join(unused)}",)
    source = ModelSource(
        model.path, model.given, request.shapes, request.threads, request.target,
        prepared.sampler, notes,
    )  # fmt: skip
    artifact = Artifact(compilation, manifest, backend, target, stages, work_dir, source)
    artifact.build = model
    artifact.budget = quantised.budget if quantised else coarse.report if coarse else None
    artifact.ranges = tuple(options.ranges.values())
    artifact.choices = options.choices.by_key
    return artifact


def _coarse_weights(
    graph: Graph, model: ModelBuild, options: CompileOptions, stages: Stages
) -> CoarseWeights | None:
    """The weights of a graph of integers within the budget of its model, where it has one."""
    if model.backend.integers is None or not model.request.has_budget:
        return None
    from .budget.coarse_weights import coarse_weights

    with stages.stage("weights"):
        return coarse_weights(graph, model, options)


def quantised_as(request: CompileRequest, model: Path, work_dir: Path) -> Quantisation:
    """The model, quantised as a request says, in a folder of its own."""
    from .quantisation import quantise
    from .weight_quantisation import quantise_weights

    folder = work_dir / "quantised"
    folder.mkdir()
    output = folder / "model.onnx"
    if request.precision in WEIGHT_BITS:
        return quantise_weights(model, output, request, folder)
    return quantise(model, output, request, folder)
