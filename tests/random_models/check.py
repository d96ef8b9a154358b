"""Random models, compiled many at a time, beside ONNX Runtime without optimisations."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from compiled import Library, Setting
from onnx import numpy_helper

from tensmith.compiler.ir import Graph
from tensmith.frontends.onnx import load_model

from .builder import ALL, Array, Features
from .coarse import FLOATS, moved
from .generate import Sample, sample

Arrays = Mapping[str, Array]
BATCH = 25  # models of consecutive seeds that share a library
LEVELS = (2, 0, 2, 1)  # of batches in turn
RTOL, ATOL = 2e-4, 2e-5  # the latter times an output's peak, where that is above 1
NOISE = 2e-6  # relative change of inputs and weights that shows how rounding is amplified
PROBES = 12
COARSE = 25  # times RTOL and ATOL, where floats have 16 bits
COARSE_NOISE = 5e-4  # and this in place of NOISE: half a unit of the last bit of float16


@dataclass(frozen=True)
class Finding:
    """A model that is not right. kind: "import", "compile", "run" or "differs"."""

    seed: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.seed} {self.kind}: {self.text}"


class Models(Protocol):
    """Models that were compiled together. errors: why others were not."""

    errors: dict[str, Exception]

    @property
    def models(self) -> Iterable[str]:
        """Their names."""
        ...

    def run(self, name: str, inputs: Arrays) -> Arrays | Exception:
        """The outputs of one, or how it failed."""
        ...


def check(
    seeds: Sequence[int],
    folder: Path,
    features: Features = ALL,
    compiled: Callable[[dict[str, Graph], int, Path], Models] | None = None,
) -> list[Finding]:
    """Compile the models of the seeds, which belong to one batch, run them, compare.

    compiled: how, at an optimisation level, with a folder for files; None: into one library for
    this machine.
    """
    found: list[Finding] = []
    samples: dict[str, Sample] = {}
    graphs: dict[str, Graph] = {}
    for seed in seeds:
        given = sample(seed, features)
        Oracle(given.model)  # raises where the generator made what ONNX Runtime refuses
        try:
            graphs[str(seed)] = load_model(given.model)
            samples[str(seed)] = given
        except Exception as error:
            found.append(Finding(seed, "import", f"{type(error).__name__}: {error}"))
    library = (compiled or _native)(graphs, level_of(seeds[0]), folder)
    for name, error in library.errors.items():
        found.append(Finding(int(name), "compile", f"{type(error).__name__}: {error}"))
    for name in library.models:
        found += _run(samples[name], library)
    return found


def _native(graphs: dict[str, Graph], level: int, folder: Path) -> Models:
    return Library(graphs, Setting("native", level), folder)


def level_of(seed: int) -> int:
    """The optimisation level of a seed: the same for those of a batch."""
    return LEVELS[seed // BATCH % len(LEVELS)]


def _run(given: Sample, library: Models) -> Iterator[Finding]:
    oracle = Oracle(given.model)
    for number, call in enumerate(given.calls):
        want = oracle.run(call)
        got = library.run(str(given.seed), call)
        if isinstance(got, Exception):
            yield Finding(given.seed, "run", f"call {number}: {type(got).__name__}: {got}")
            continue
        wrong = differences(got, want, {}, given.coarse)
        if wrong and differences(got, want, oracle.spread(call, want, given), given.coarse):
            yield Finding(given.seed, "differs", f"call {number}: {'; '.join(wrong)}")


def differences(
    got: Arrays, want: Arrays, spread: Arrays, coarse: Container[str] = ()
) -> list[str]:
    """What is wrong with each output. spread: how far rounding may move its elements; coarse: the
    outputs that depend on floats of 16 bits."""
    found = []
    for name, right in want.items():
        mine = np.asarray(got[name])
        if mine.dtype != right.dtype or mine.shape != right.shape:
            found.append(f"{name} is {mine.dtype}{mine.shape}, not {right.dtype}{right.shape}")
            continue
        a, b = mine.astype(np.float64), right.astype(np.float64)
        peak = float(np.abs(b[np.isfinite(b)]).max(initial=1.0))
        with np.errstate(invalid="ignore"):
            allowed = (COARSE if name in coarse else 1) * (RTOL * np.abs(b) + ATOL * peak)
            far = np.abs(a - b) > allowed + 4 * spread.get(name, 0.0)
        far |= np.isfinite(a) != np.isfinite(b)
        far &= ~((a == b) | (np.isnan(a) & np.isnan(b)))
        if far.any():
            at = tuple(int(i) for i in np.argwhere(far)[0])
            found.append(f"{name}{list(at)} is {a[at]:.7g}, not {b[at]:.7g}; {far.sum()} differ")
    return found


class Oracle:
    """ONNX Runtime on one model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.session = _session(model)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """The outputs by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))

    def spread(self, inputs: Arrays, want: Arrays, given: Sample) -> dict[str, Array]:
        """How far the elements of the outputs move when inputs and weights change by rounding: a
        model may amplify that, and steps (Floor, ArgMax, comparisons) may fall to either side.
        Amounts stay what they are. What feeds floats of 16 bits is rounded as these are."""
        found = {name: np.zeros(array.shape) for name, array in want.items()}
        for noise in (NOISE, COARSE_NOISE):
            names = [name for name in want if (name in given.coarse) == (noise == COARSE_NOISE)]
            if names:
                self._probe(inputs, want, given.amounts, noise, {n: found[n] for n in names})
        return found

    def _probe(
        self,
        inputs: Arrays,
        want: Arrays,
        amounts: Container[str],
        noise: float,
        found: Mapping[str, Array],
    ) -> None:
        """Raise what was found of some outputs to how far they move where floats are moved."""
        for probe in range(PROBES):
            rng = np.random.default_rng(probe)
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            for tensor in _tensors(model.graph):
                array = numpy_helper.to_array(tensor)
                if array.dtype in FLOATS:
                    tensor.CopyFrom(numpy_helper.from_array(moved(array, rng, noise), tensor.name))
            inputs_moved = {
                name: array if name in amounts else moved(array, rng, noise)
                for name, array in inputs.items()
            }
            again = Oracle(model).run(inputs_moved)
            for name, most in found.items():
                array = again[name]
                if array.shape != want[name].shape:
                    most[...] = np.inf
                    continue
                with np.errstate(invalid="ignore"):
                    change = np.abs(array.astype(np.float64) - want[name].astype(np.float64))
                np.maximum(most, np.nan_to_num(change, nan=0.0), out=most)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "value":
                yield attribute.t
            yield from _tensors(attribute.g)


def _session(model: onnx.ModelProto):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
