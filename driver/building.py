"""One model file to one artifact: quantised, imported, rewritten, compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..compiler.backend import AnyBackend
from ..compiler.compilation import Stages
from ..compiler.errors import InvalidModelError, UnsupportedError
from ..compiler.ir import Graph
from ..compiler.ir.flops import graph_flops
from ..compiler.scratch import called
from ..compiler.target import Target
from .argument_checks import unsupported_nodes
from .artifacts import Artifact
from .faults import faults_explained
from .halves import InPrecision
from .manifest import build_manifest, sha256_of
from .model_source import ModelSource
from .request import INT8, WEIGHT_BITS, CompileRequest
from .samples import Sampler
from .shapes import ShapeSpecs

if TYPE_CHECKING:
    from .quantisation import Quantisation


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
    options = request.options(path, work_dir, target)
    given, quantised = path, None
    if request.precision in (INT8, *WEIGHT_BITS):
        with stages.stage("quantise"):
            quantised = quantised_as(request, given, work_dir)
            path = quantised.path
    with stages.stage("import"):
        graph = import_model(path, request.shapes)
        digest = sha256_of(given)
    if options.dump_after:
        options.dump_after("import", graph)
    unsupported = unsupported_nodes(graph, backend, target)
    if unsupported:
        raise UnsupportedError(unsupported, where=f"target '{target.name}'")
    sampler, notes = Sampler(graph), (*graph.notes, *(quantised.notes if quantised else ()))
    flops = graph_flops(graph)
    options = replace(options, sizes=sampler.usual_sizes)
    if request.probe:
        request.probe.imported(graph)
    with faults_explained(path, stages):
        decisions = InPrecision(request.precision, target).rewrite(graph, options.dump_after)
        compilation = backend.compile(graph, target, options, stages)
    manifest = build_manifest(
        compilation, target, options, source_sha256=digest, flops=flops, decisions=decisions
    )
    manifest |= quantised.to_json(compilation.decisions) if quantised else {}
    used = [key for kernel in compilation.kernels for key in kernel.keys]
    if unused := options.choices.unused(used):
        notes += (f"choices for no group of this model: {', '.join(unused)}",)
    source = ModelSource(
        path, given, request.shapes, request.threads, request.target, sampler, notes
    )
    artifact = Artifact(compilation, manifest, backend, target, stages, work_dir, source)
    artifact.budget = quantised.budget if quantised else None
    return artifact


def import_model(path: Path, shapes: ShapeSpecs) -> Graph:
    """The graph of a model file, unoptimised. Raises as `frontends.onnx.load`.

    A malformed model can drive the parser's and our recursion too deep, or ask for absurd sizes;
    both are the model's fault and said so.
    """
    from ..frontends.onnx import load as load_model

    try:
        return load_model(path, shapes=shapes)
    except RecursionError:
        raise InvalidModelError(f"{called(path)} is nested too deeply") from None
    except MemoryError:
        raise InvalidModelError(f"{called(path)} needs more memory than there is") from None


def quantised_as(request: CompileRequest, model: Path, work_dir: Path) -> Quantisation:
    """The model, quantised as a request says, in a folder of its own."""
    from .quantisation import quantise
    from .weight_quantisation import quantise_weights

    folder = work_dir / "quantised"
    folder.mkdir()
    output = folder / "model.onnx"
    if request.precision in WEIGHT_BITS:
        return quantise_weights(model, output, request)
    return quantise(model, output, request, folder)
