"""What an artifact is built of: enough to build it again, with other choices about kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..compiler.backend import AnyBackend
from ..compiler.compilation import CompileOptions, Stages
from ..compiler.errors import InvalidModelError, UnsupportedError
from ..compiler.ir import Graph
from ..compiler.ir.dims import Dim
from ..compiler.ir.flops import graph_flops
from ..compiler.scratch import called
from ..compiler.target import Target
from .argument_checks import unsupported_nodes
from .halves import Decision, InPrecision
from .manifest import sha256_of
from .request import CompileRequest
from .samples import Sampler
from .shapes import ShapeSpecs

if TYPE_CHECKING:
    from .quantisation import Quantisation


@dataclass(frozen=True)
class ModelBuild:
    """What an artifact is built of, but for choices about kernels.

    path: the file that is compiled; given: that it was made of, by quantising it as `quantised`
    tells.
    """

    path: Path
    given: Path
    request: CompileRequest
    backend: AnyBackend
    target: Target
    quantised: Quantisation | None = None


@dataclass(frozen=True)
class PreparedGraph:
    """A model's graph, imported and not rewritten, and what a backend is told with it."""

    graph: Graph
    options: CompileOptions
    precision: InPrecision
    digest: str
    flops: Dim | None
    sampler: Sampler
    notes: tuple[str, ...]

    def rewrite(self, options: CompileOptions) -> tuple[Decision, ...]:
        """Rewrite the graph in place, into the precision of the request."""
        return self.precision.rewrite(self.graph, options.dump_after)


def prepare(model: ModelBuild, work_dir: Path, stages: Stages) -> PreparedGraph:
    """Import a model's file. Raises UnsupportedError, which names all nodes that cannot be."""
    request, target, quantised = model.request, model.target, model.quantised
    options = request.options(model.given, work_dir, target)
    with stages.stage("import"):
        graph = import_model(model.path, request.shapes)
        digest = sha256_of(model.given)
    if options.dump_after:
        options.dump_after("import", graph)
    unsupported = unsupported_nodes(graph, model.backend, target)
    if unsupported:
        raise UnsupportedError(unsupported, where=f"target '{target.name}'")
    sampler, notes = Sampler(graph), (*graph.notes, *(quantised.notes if quantised else ()))
    options = replace(options, sizes=sampler.usual_sizes)
    precision = InPrecision(request.precision, target)
    return PreparedGraph(graph, options, precision, digest, graph_flops(graph), sampler, notes)


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
