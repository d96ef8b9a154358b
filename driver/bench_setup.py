"""From what the user names to what `bench` measures: a library, peers, inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compiler.artifact import TensorSpec
from ..compiler.errors import UsageError
from ..compiler.ir import Graph, Meaning, TensorType, Value, symbol
from ..compiler.ir.types import DType
from . import api
from .argument_checks import check_choice
from .compare import Tolerance
from .engines import PEERS, EngineSpec
from .request import CompileRequest
from .samples import Sampler
from .session import is_compiled, refuse_for_library, specs_of
from .shapes import ShapeSpecs
from .tensor_files import Array, as_declared, check_inputs, read_inputs

if TYPE_CHECKING:
    from .artifacts import Artifact


@dataclass
class Subject:
    """What is measured: engines (ours first), their inputs, sizes of the symbols in them.

    artifact: kept, for its files are measured. notes: what the user should know of the choices.
    """

    specs: list[EngineSpec]
    inputs: dict[str, Array]
    sizes: dict[str, int]
    manifest: dict[str, Any]
    sampler: Sampler
    artifact: Artifact | None = None
    notes: list[str] = field(default_factory=list)

    def tolerance(self, rtol: float | None, atol: float | None) -> Tolerance:
        """What difference between engines is allowed."""
        return Tolerance(rtol, atol, quantised=self.sampler.quantised)


def prepare(
    path: Path, peers: Sequence[str], request: CompileRequest, files: Sequence[str]
) -> Subject:
    """Compile (or take the library), and choose inputs: from files, else random.

    Shapes given for a compiled library size its symbolic dims. Raises UsageError for symbolic dims
    without a size, unknown peers, or peers of a library (they need the ONNX file).
    """
    for peer in peers:
        check_choice("--vs", peer, PEERS)
    artifact, threads = None, request.threads
    if is_compiled(path):
        if peers:
            raise UsageError("peers need the ONNX file", remedy="bench MODEL.onnx --vs ...")
        refuse_for_library(request, "threads", "shapes")
        module = api.load(path, threads)
        specs, manifest, library = specs_of(module), module.manifest, path
        sampler, shapes = Sampler(_interface_graph(specs)), request.shapes
    else:
        artifact = api.compile_request(path, request)
        specs = artifact.inputs
        artifact.check_runs_here()
        manifest, library, sampler = artifact.manifest, artifact.library(), artifact.sampler
        shapes = {}
    notes: list[str] = []
    if files:
        inputs = as_declared(read_inputs(files, [spec.name for spec in specs]), specs)
    else:
        inputs = sampler.draw(_sizes(specs, shapes, sampler, notes), 0)
    sizes = check_inputs(specs, inputs)
    fixed = {name: tuple(array.shape) for name, array in inputs.items()}
    engines = [EngineSpec("tensmith", library, threads)]
    engines += [EngineSpec(peer, path, threads, fixed) for peer in peers]
    return Subject(engines, inputs, sizes, manifest, sampler, artifact, notes)


def _interface_graph(specs: Sequence[TensorSpec]) -> Graph:
    """A graph that has the inputs that must be given and nothing else: all that a library tells of
    its model."""
    graph = Graph(
        [
            Value(
                TensorType(
                    DType(spec.dtype),
                    tuple(symbol(dim) if isinstance(dim, str) else dim for dim in spec.dims),
                ),
                spec.name,
            )
            for spec in specs
            if spec.default is None
        ]
    )
    graph.meanings = {spec.name: Meaning(strings=True) for spec in specs if spec.strings}
    return graph


def _sizes(
    specs: Sequence[TensorSpec], shapes: ShapeSpecs, sampler: Sampler, notes: list[str]
) -> dict[str, int]:
    """A size for every symbol: from `shapes`; 1 for what stands on axis 0 only (a batch); room for
    the strings that the model knows."""
    sizes = dict(sampler.widths)
    known = {spec.name: spec for spec in specs}
    for name, dims in shapes.items():
        spec = known.get(name)
        if spec is None or len(spec.dims) != len(dims):
            raise UsageError(
                f"--shape {name}:{list(dims)} does not fit",
                why=f"the inputs are {', '.join(f'{s.name}{list(s.dims)}' for s in specs)}",
            )
        pairs = zip(spec.dims, dims, strict=True)
        sizes.update({a: b for a, b in pairs if isinstance(a, str) and isinstance(b, int)})
    for name in sampler.batch_symbols:
        if name not in sizes:
            sizes[name] = 1
            notes.append(f"the symbolic dimension '{name}' is 1; --shape gives another size")
    missing = [name for name in sampler.symbols if name not in sizes]
    if missing:
        raise UsageError(
            f"which size have the symbolic dimensions {', '.join(missing)}?",
            remedy="give the shapes of the inputs with --shape, or the inputs with --input",
        )
    return sizes
