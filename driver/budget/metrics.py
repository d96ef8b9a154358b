"""What tells how good outputs are: named metrics, and those of users.

A metric makes a record of every sample, and a figure of records. Where the figure is the mean of
what the records hold, drops are those of paired means; else they come from leaving out groups.

An output may have another shape than in f32 (a detector that finds another number of things): what
is compared with f32, or with as many labels as f32 has results, is lost then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from ...compiler.errors import UsageError

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Record = Any
UserMetric = Callable[[dict[str, Array], Any], float]


@dataclass(frozen=True)
class Metric:
    """record: (outputs, those of f32, label) -> what is kept of a sample. figure: of records; None:
    the mean of all that they hold.

    lower: whether less is better. relative: whether percents are of the figure in f32, not of 1.
    labelled: whether it needs labels.
    """

    name: str
    record: Callable[[Arrays, Arrays, Any], Record]
    figure: Callable[[Sequence[Record]], float] | None = None
    lower: bool = False
    relative: bool = False
    labelled: bool = False

    def value(self, records: Sequence[Record]) -> float:
        """The figure of some samples."""
        if self.figure is not None:
            return float(self.figure(records))
        return float(np.mean(np.concatenate(records)))

    def loss(self, score: Any, exact: Any) -> Any:
        """By how much a figure is worse than that of f32."""
        return score - exact if self.lower else exact - score


# outputs ------------------------------------------------------------------------------------


def scores_of(outputs: Arrays) -> Array:
    """The output that classifies: the first of floats for two classes at least, or of integers.

    Raises UsageError where there is none.
    """
    for array in outputs.values():
        if array.dtype.kind == "f" and array.ndim and array.shape[_axis(array)] > 1:
            return array
    for array in outputs.values():
        if array.dtype.kind in "iu":
            return array
    raise UsageError(
        "no output has scores of classes",
        remedy="choose --metric cosine, snr or mae, or give a function as metric",
    )


def _axis(array: Array) -> int:
    """Along which the classes lie: the second, if there are several."""
    return 1 if array.ndim > 1 else 0


def predicted(outputs: Arrays) -> Array:
    """The classes that are told, of every row (and place, where classes are told of each).

    -1, which is no class, where a score is NaN.
    """
    scores = scores_of(outputs)
    if scores.dtype.kind != "f":
        return scores.reshape(-1)
    axis = _axis(scores)
    told = np.where(np.isnan(scores).any(axis=axis), -1, np.argmax(scores, axis=axis))
    return told.reshape(-1)


def _floats(outputs: Arrays) -> dict[str, Array]:
    found = {n: a.astype(np.float64) for n, a in outputs.items() if a.dtype.kind == "f"}
    if not found:
        raise UsageError("no output is of floats", remedy="choose --metric agreement or top1")
    return found


def _rows(array: Array) -> Array:
    return array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)


# records ------------------------------------------------------------------------------------


def _labels(label: Any, count: int, what: str) -> Array:
    check_label(TABLE[what], label)
    labels = np.asarray(label).reshape(-1)
    if len(labels) != count:
        raise UsageError(
            f"a sample has {len(labels)} labels, and outputs of {count} results",
            remedy="give a label for every row (and place) of the output that has the scores, or "
            "a function as metric",
        )
    return labels


def _same_shapes(outputs: Arrays, exact: Arrays) -> bool:
    return all(array.shape == exact[name].shape for name, array in outputs.items())


def _classes(outputs: Arrays, exact: Arrays) -> Array:
    """The classes that are told; none (-1), as often as f32 tells one, where shapes differ."""
    if _same_shapes(outputs, exact):
        return predicted(outputs)
    return np.full(len(predicted(exact)), -1)


def _top1(outputs: Arrays, exact: Arrays, label: Any) -> Record:
    classes = _classes(outputs, exact)
    return (classes == _labels(label, len(classes), "top1")).astype(np.float64)


def _agreement(outputs: Arrays, exact: Arrays, label: Any) -> Record:
    wanted = predicted(exact)
    if not len(wanted):
        return np.array([float(_same_shapes(outputs, exact))])
    return (_classes(outputs, exact) == wanted).astype(np.float64)


def _mae(outputs: Arrays, exact: Arrays, label: Any) -> Record:
    name, output = next(iter(_floats(outputs).items()))
    if output.shape != exact[name].shape:
        raise UsageError(
            f"the output '{name}' has another shape in lower precision",
            why="a number that is computed decides the shape",
            remedy="give a function as metric, or compile with --precision fp32",
        )
    wanted = np.asarray(label, np.float64)
    if wanted.size != output.size:
        raise UsageError(
            f"a sample has labels of shape {list(wanted.shape)}, and the output has "
            f"{list(output.shape)}: the metric mae compares element by element",
            remedy="give labels of the shape of the first output, or a function as metric",
        )
    return np.abs(_rows(output) - wanted.reshape(_rows(output).shape)).mean(axis=1)


def _f1(outputs: Arrays, exact: Arrays, label: Any) -> Record:
    classes = _classes(outputs, exact)
    return np.stack([classes, _labels(label, len(classes), "f1")])


def _macro_f1(records: Sequence[Record]) -> float:
    told, true = np.concatenate(records, axis=1)
    found = []
    for label in np.union1d(told, true):
        hits = float(np.sum((told == label) & (true == label)))
        found.append(2 * hits / float(np.sum(told == label) + np.sum(true == label)))
    return float(np.mean(found))


def _cosine(outputs: Arrays, exact: Arrays, label: Any) -> Record:
    """Of every row, that of the output which is worst; an output without elements is a row."""
    wanted = _floats(exact)
    found = [_cosines(array, wanted[name]) for name, array in _floats(outputs).items()]
    return np.concatenate(found) if len({len(f) for f in found}) > 1 else np.min(found, axis=0)


def _cosines(real: Array, exact: Array) -> Array:
    if real.shape != exact.shape or not exact.size:
        rows = len(_rows(exact)) if exact.size else 1
        return np.full(rows, float(real.shape == exact.shape))
    a, b = _rows(real), _rows(exact)
    sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    equal = np.where((a == b).all(axis=1), 1.0, 0.0)
    inner = np.sum(a * b, axis=1)
    return np.asarray(np.divide(inner, sizes, out=equal, where=sizes > 0))


def _noise(outputs: Arrays, exact: Arrays, label: Any) -> Record:
    """(noise, signal) of every output: sums of squares."""
    wanted = _floats(exact)
    return np.array([_noise_of(array, wanted[name]) for name, array in _floats(outputs).items()])


def _noise_of(real: Array, exact: Array) -> tuple[float, float]:
    signal = float(np.square(exact).sum())
    if real.shape != exact.shape:
        return max(signal, float(np.square(real).sum())), signal
    return float(np.square(real - exact).sum()), signal


def _worst_share(records: Sequence[Record]) -> float:
    noise, signal = np.sum(records, axis=0).T
    return float(np.max(noise / np.maximum(signal, 1e-30)))


TABLE = {
    metric.name: metric
    for metric in (
        Metric("top1", _top1, labelled=True),
        Metric("f1", _f1, _macro_f1, labelled=True),
        Metric("mae", _mae, lower=True, relative=True, labelled=True),
        Metric("agreement", _agreement),
        Metric("cosine", _cosine),
        Metric("snr", _noise, _worst_share, lower=True),
    )
}
METRICS = tuple(TABLE)


def of_user(function: UserMetric, lower: bool) -> Metric:
    """The metric that a function of (outputs, labels) is; it gets those of many samples, joined
    along the first axis where that can be, else as lists."""

    def record(outputs: Arrays, exact: Arrays, label: Any) -> Record:
        return dict(outputs), label

    def figure(records: Sequence[Record]) -> float:
        outputs = {name: _joined([r[0][name] for r in records]) for name in records[0][0]}
        found = function(outputs, _stacked([r[1] for r in records]))
        try:
            value = float(found)
        except (TypeError, ValueError):
            raise UsageError(f"the metric gave {found!r}", remedy="let it give a number") from None
        if not np.isfinite(value):
            raise UsageError(f"the metric gave {value}", remedy="let it give a finite number")
        return value

    name = getattr(function, "__name__", "metric")
    return Metric(name, record, figure, lower=lower, relative=True)


def _joined(arrays: Sequence[Array]) -> Any:
    try:
        return np.concatenate(arrays) if arrays[0].ndim else np.stack(arrays)
    except ValueError:
        return list(arrays)


def _stacked(labels: Sequence[Any]) -> Any:
    """One array, with the labels of a sample of many results as so many."""
    if labels[0] is None:
        return None
    try:
        return np.concatenate([np.atleast_1d(label) for label in labels])
    except ValueError:
        return list(labels)


def check_label(metric: Metric, label: Any) -> None:
    """Raise UsageError where a sample has no label, or none that the metric can take."""
    if not metric.labelled:
        return
    if label is None:
        raise UsageError(
            f"the metric {metric.name} needs labels, and the data have none",
            remedy="add an array 'labels' to them, or choose --metric agreement, cosine or snr, "
            "which compare with fp32",
        )
    if metric.name != "mae" and np.asarray(label).dtype.kind not in "iub":
        raise UsageError(
            f"labels are {np.asarray(label).dtype}, and {metric.name} needs numbers of classes",
            remedy="give integers, or choose --metric mae",
        )


def metric_of(given: Any, direction: str) -> Metric | None:
    """The metric of a name or a function; None where none is given.

    direction: "higher" or "lower", of what is better, for a function.
    Raises UsageError for other names and directions.
    """
    if direction not in ("higher", "lower"):
        raise UsageError(f"metric direction {direction!r}", remedy="give 'higher' or 'lower'")
    if given is None:
        return None
    if callable(given):
        return of_user(given, direction == "lower")
    if given not in TABLE:
        raise UsageError(
            f"there is no metric {given!r}",
            remedy=f"choose from {', '.join(METRICS)}, or, in Python, give a function",
        )
    return TABLE[given]


def identity_of(given: Any) -> str | None:
    """What tells a metric from all others: a name, or the source of a function with the modules
    that it uses. None for all that does not depend on these alone: methods and other objects,
    lambdas, functions that have defaults or read variables of their module or from around them."""
    if given is None or isinstance(given, str):
        return str(given)
    if not inspect.isfunction(given) or given.__name__ == "<lambda>":
        return None
    if given.__closure__ or given.__defaults__ or given.__kwdefaults__:
        return None
    used = {n: given.__globals__[n] for n in _names(given.__code__) if n in given.__globals__}
    if not all(isinstance(value, ModuleType) for value in used.values()):
        return None
    modules = sorted(f"{name}: {module.__name__}" for name, module in used.items())
    try:
        return "\n".join((inspect.getsource(given), *modules))
    except (OSError, TypeError):
        return None


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes in a function and in those that it defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def usual_metric(labels: Any, classifies: bool, rank: int) -> Metric:
    """Where none is given. labels: of a sample, or None. rank: of the first output.

    Integer labels: top1; others: mae. Without labels: agreement with f32 of models that classify,
    else cosine for outputs of up to two axes, and snr for larger ones.
    """
    if labels is not None:
        return TABLE["top1" if np.asarray(labels).dtype.kind in "iub" else "mae"]
    if classifies:
        return TABLE["agreement"]
    return TABLE["cosine" if rank <= 2 else "snr"]
