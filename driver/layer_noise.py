"""Where quantising loses accuracy: the model of quantised operands against the one of floats.

Nothing is compiled: both are evaluated by the reference, tensor by tensor of the same name. A
tensor's own noise is what its layer makes of exact operands: whatever lies before it takes on the
elements that the model of floats has there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.backend import Observe, backend_of
from ..compiler.ir import Graph, Node, Value
from ..compiler.scratch import temporary_folder
from .engines import as_bytes
from .model_build import import_model
from .probes import tensors_by_name
from .processes import DeadlineError
from .ranges_observed import MOST_DECIBELS, ratio_in_decibels
from .request import Progress
from .shapes import ShapeSpecs
from .tensor_files import read_file, write_file

Array = np.ndarray[Any, Any]
SAMPLES = 4  # that are looked at, at most


@dataclass(frozen=True)
class Noise:
    """Of one tensor, in decibels below it: own: the noise that its layer adds, from exact operands;
    total: what all layers up to it have added. node: the operator that makes it."""

    tensor: str
    node: str
    own: float
    total: float


@dataclass
class NoiseReport:
    """The layers that add noise, in order. tensors: how many were compared. seconds: it took."""

    layers: list[Noise] = field(default_factory=list)
    tensors: int = 0
    seconds: float = 0.0

    @property
    def worst(self) -> Noise | None:
        """The layer where most of the error enters, of its tensor's size."""
        return min(self.layers, key=lambda layer: layer.own, default=None)

    def summary(self) -> str:
        """One line for people."""
        if self.worst is None:
            return f"quantising changes none of {self.tensors} tensors"
        name, worst = self.worst.node, self.worst
        return (
            f"most of the quantisation error enters at '{name}' (tensor '{worst.tensor}'): "
            f"{worst.own:.1f} dB below it of its own, {worst.total:.1f} dB in all"
        )

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "worst": asdict(self.worst) if self.worst else None,
            "layers": [asdict(layer) for layer in self.layers],
            "tensors": self.tensors,
            "seconds": self.seconds,
        }


def layer_noise(
    floats: Path,
    quantised: Path,
    shapes: ShapeSpecs,
    samples: Iterable[Mapping[str, Array]],
    note: Progress,
    time_limit: float | None = None,
) -> NoiseReport:
    """Compare two model files, whose tensors of one name mean the same, on the first samples.

    Tensors of the model of floats lie in files meanwhile. Raises DeadlineError when the time limit
    (seconds) passes, RunError where a model does not take the inputs.
    """
    start = time.monotonic()
    pair = [import_model(path, shapes) for path in (floats, quantised)]
    common = set.intersection(*(_floats(graph) for graph in pair))
    sums: dict[str, dict[str, _Sums]] = {"own": {}, "total": {}}
    with temporary_folder("tensmith-noise-") as folder:
        watch = _Watch(
            common, Path(folder), note, None if time_limit is None else start + time_limit
        )
        for _, inputs in zip(range(SAMPLES), samples, strict=False):
            note("running the model of floats")
            _run(pair[0], inputs, watch.storing(pair[0]))
            for kind, found in sums.items():
                note("running the quantised model")
                _run(pair[1], inputs, watch.comparing(pair[1], found, exact=kind == "own"))
    makers = {v.name: n.name for n in pair[1].nodes for v in n.outputs}
    layers = [
        Noise(name, makers[name], own.decibels, sums["total"][name].decibels)
        for name, own in sums["own"].items()
        if own.decibels < MOST_DECIBELS
    ]
    return NoiseReport(layers, len(sums["own"]), time.monotonic() - start)


def _floats(graph: Graph) -> set[str]:
    return {name for name, value in tensors_by_name(graph).items() if value.dtype.is_float}


def _run(graph: Graph, inputs: Mapping[str, Array], observe: Observe) -> None:
    evaluate = backend_of("reference").evaluate
    assert evaluate is not None
    texts = {name for name, meaning in graph.meanings.items() if meaning.strings}
    evaluate(graph, as_bytes(inputs, texts), observe)


@dataclass
class _Sums:
    signal: float = 0.0
    noise: float = 0.0

    @property
    def decibels(self) -> float:
        return ratio_in_decibels(self.signal, self.noise)


@dataclass(frozen=True)
class _Watch:
    """Observers of both runs. common: names of tensors that both models have."""

    common: set[str]
    folder: Path
    note: Progress
    deadline: float | None

    def _file(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy"

    def _named(self, graph: Graph) -> dict[Node, list[str | None]]:
        """Of every node, which of its results are tensors that both models have."""
        last = tensors_by_name(graph)

        def tensor(value: Value) -> str | None:
            own = value.name in self.common and last[value.name] is value
            return value.name if own else None

        return {node: [tensor(value) for value in node.outputs] for node in graph.nodes}

    def storing(self, graph: Graph) -> Observe:
        """Stores tensors as files."""
        named = self._named(graph)

        def observe(node: Node, results: Sequence[Array]) -> None:
            self._look_at_clock()
            for name, array in zip(named.get(node, ()), results, strict=False):
                if name:
                    write_file(self._file(name), {"": array})

        return observe

    def comparing(self, graph: Graph, sums: dict[str, _Sums], *, exact: bool) -> Observe:
        """Adds up what tensors differ by from those stored. exact: what follows gets those."""
        named = self._named(graph)

        def observe(node: Node, results: Sequence[Array]) -> Sequence[Array] | None:
            self._look_at_clock()
            given = list(results)
            for index, name in enumerate(named.get(node, ())):
                if not name:
                    continue
                wanted = read_file(self._file(name))[""]
                if wanted.shape != results[index].shape:
                    continue
                real = wanted.astype(np.float64)
                found = sums.setdefault(name, _Sums())
                found.signal += float(np.square(real).sum())
                found.noise += float(np.square(results[index].astype(np.float64) - real).sum())
                given[index] = wanted.astype(results[index].dtype)
            return given if exact else None

        return observe

    def _look_at_clock(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineError
