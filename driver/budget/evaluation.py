"""Models on evaluation data: what f32 gives once, and how much worse others are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.artifact import TensorSpec
from ...compiler.errors import UsageError
from ..batch_rows import batch_of
from ..calibration import CalibrationData, Samples
from ..tensor_files import read_file, write_npz
from .drops import Drop, jackknife_drop, mean_drop
from .metrics import Metric, Record, check_label, usual_metric

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Run = Callable[[Arrays], Arrays]

FIRST_LOOK = 32  # samples behind which an evaluation may end early; then behind twice as many, ...
SURE = 3.0  # half intervals of 90 % (some 5 standard errors) by which a drop is beyond the limit


class Evaluation:
    """Evaluation data, the metric, and what f32 scores on them.

    metric: None: `usual_metric`. classifies: of the model, for that. outputs: names of those that
    are compared. Raises UsageError for data that do not fit, where they are read.
    """

    def __init__(
        self,
        data: CalibrationData,
        specs: Sequence[TensorSpec],
        metric: Metric | None,
        folder: Path,
        note: Callable[[str], None],
        *,
        classifies: bool,
        outputs: Sequence[str],
    ) -> None:
        self.samples = Samples(data, specs, folder / "given", what="evaluation", labelled=True)
        self.batch = batch_of(specs)
        self.chosen, self.classifies, self.outputs = metric, classifies, tuple(outputs)
        self.folder, self.note = folder / "exact", note
        self.records: list[Record] = []
        self.evaluations = 0

    @property
    def metric(self) -> Metric:
        """Known once `run_exact` is done."""
        assert self.chosen is not None
        return self.chosen

    @property
    def exact(self) -> float:
        """The figure of f32."""
        return self.metric.value(self.records)

    @staticmethod
    def digest_of(pairs: Iterable[tuple[Arrays, Array | None]]) -> str:
        """SHA-256 of samples and labels."""
        found = hashlib.sha256()
        for sample, label in pairs:
            arrays = [*sorted(sample.items()), *([] if label is None else [("", label)])]
            for name, array in arrays:
                found.update(f"{name}{array.dtype}{array.shape}".encode())
                found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def digest(self) -> str:
        """SHA-256 of the samples and labels."""
        return self.digest_of(self.samples.pairs())

    def pairs(self) -> Iterator[tuple[Arrays, Array | None]]:
        """Samples and labels; a batch of a model whose batch is open is taken apart."""
        for sample, label in self.samples.pairs():
            sizes = {len(array) for array in sample.values()} if self.batch else {1}
            count = sizes.pop()
            if sizes or count < 2 or (label is not None and np.shape(label)[:1] != (count,)):
                yield sample, label
                continue
            for n in range(count):
                row = {name: array[n : n + 1] for name, array in sample.items()}
                yield row, None if label is None else label[n]

    def check(self) -> None:
        """Raise UsageError where the first label is not what the metric needs."""
        _, label = next(self.pairs())
        if self.chosen is not None:
            check_label(self.chosen, label)

    def run_exact(self, run: Run) -> None:
        """Take the outputs of f32 for what they are; they are kept in files."""
        self.folder.mkdir(parents=True)
        for number, (sample, label) in enumerate(self.pairs()):
            self.note(f"evaluating fp32 ({number + 1})")
            outputs = self._of(run, sample)
            if self.chosen is None:
                rank = next(iter(outputs.values())).ndim
                self.chosen = usual_metric(label, self.classifies, rank)
            self.records.append(self.metric.record(outputs, outputs, label))
            write_npz(self.folder / f"{number}.npz", outputs)
        if not np.isfinite(self.exact):
            raise UsageError(
                f"the metric {self.metric.name} of the model in fp32 is {self.exact}",
                why="the model's outputs, or the labels, hold NaN or infinities",
                remedy="leave out the samples that make them, or choose another --metric",
            )

    def exact_outputs(self) -> Iterator[Arrays]:
        """What f32 gave for every sample of `pairs`."""
        return (read_file(self.folder / f"{n}.npz") for n in range(len(self.records)))

    def drop(self, run: Run, limit: float, what: str) -> Drop:
        """How much worse a run is. It ends early where it is certainly beyond the limit."""
        self.evaluations += 1
        found: list[Record] = []
        look, count = FIRST_LOOK, len(self.records)
        for number, (sample, label) in enumerate(self.pairs()):
            self.note(f"evaluating {what} ({number + 1} of {count})")
            exact = read_file(self.folder / f"{number}.npz")
            found.append(self.metric.record(self._of(run, sample), exact, label))
            if len(found) == look < count:
                look *= 2
                seen = self._drop(found, whole=False)
                if seen.drop - SURE * (seen.high - seen.drop) > limit:
                    return seen
        return self._drop(found, whole=True)

    def _drop(self, records: Sequence[Record], *, whole: bool) -> Drop:
        metric, exact = self.metric, self.records[: len(records)]
        if metric.figure is None:
            losses = np.concatenate(
                [metric.loss(a, b) for a, b in zip(records, exact, strict=True)]
            )
            score, own = metric.value(records), metric.value(exact)
            return mean_drop(losses, score, own, whole=whole)

        def both(chosen: Sequence[int]) -> tuple[float, float]:
            return (
                metric.value([records[i] for i in chosen]),
                metric.value([exact[i] for i in chosen]),
            )

        return jackknife_drop(both, metric.loss, len(records), whole=whole)

    def _of(self, run: Run, sample: Arrays) -> dict[str, Array]:
        outputs = run(sample)
        return {name: outputs[name] for name in self.outputs}
