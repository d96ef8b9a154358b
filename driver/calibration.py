"""Calibration data: files, folders, dicts and iterables, as samples that a model takes.

A sample holds an array for every input. A record (a file, a dict) is one sample, or several along
a new leading axis of its arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.artifact import TensorSpec
from ..compiler.errors import UsageError
from ..compiler.ir import DType, Graph, Meaning
from .tensor_files import Array, Arrays, check_inputs, read_file, write_file, write_npz

CalibrationData = str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any]
LABELS = "labels"
_LOOKED_AT = 64  # samples
SUFFIXES = (".npz", ".npy")
_FORMS = (
    "give a .npz with an array for every input (one sample, or several along a new leading axis), "
    "a .npy for a model of one input, or a folder of such files"
)


def specs_of_inputs(graph: Graph) -> list[TensorSpec]:
    """What the inputs of an imported graph take."""
    return [
        TensorSpec(
            value.name,
            str(value.dtype),
            tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape),
            graph.meanings.get(value.name, Meaning()).strings,
            default=graph.defaults[value.name].shape if value.name in graph.defaults else None,
        )
        for value in graph.inputs
    ]


class Samples:
    """The samples of calibration data: iterable again and again, one in memory at a time.

    What can be iterated only once is stored in `folder` as it is read. what: as messages call the
    data. labelled: an array of no input's name may be there, which are the labels (`pairs`). Raises
    UsageError for data of no known form; iterating raises it for what does not fit the model, names
    where.
    """

    def __init__(
        self,
        data: CalibrationData,
        specs: Sequence[TensorSpec],
        folder: Path,
        *,
        what: str = "calibration",
        labelled: bool = False,
    ) -> None:
        self._what, self._labelled = what, labelled
        self._specs = list(specs)
        self._known = {spec.name for spec in self._specs}
        self._sources: Iterable[tuple[str, Any]]
        if isinstance(data, str | os.PathLike):
            self._sources = [(f"'{path}'", path) for path in _files(Path(data), what)]
        elif isinstance(data, Mapping | np.ndarray):
            self._sources = [(f"the {what} data", data)]
        elif isinstance(data, Iterator):
            self._sources = [(where, path) for where, path in self._stored(data, folder)]
        elif isinstance(data, Iterable):
            self._sources = _Numbered(data)
        else:
            raise UsageError(
                f"{what} data cannot be a {type(data).__name__}",
                remedy="give a path, a dict of arrays, or an iterable of such dicts",
            )

    def _stored(self, data: Iterator[Any], folder: Path) -> Iterator[tuple[str, Path]]:
        folder.mkdir(parents=True, exist_ok=True)
        for number, record in enumerate(data):
            where = f"sample {number}"
            path = folder / f"{number}.npz"
            write_npz(path, {n: np.asarray(a) for n, a in self._named(record, where).items()})
            yield where, path

    def __iter__(self) -> Iterator[Arrays]:
        return (sample for sample, _ in self.pairs())

    def pairs(self) -> Iterator[tuple[Arrays, Array | None]]:
        """The samples, each with its label; None where the data have none."""
        number, labelled = 0, None
        for where, source in self._sources:
            record = read_file(source) if isinstance(source, Path) else source
            arrays, labels = self._arrays(record, where)
            if labelled not in (None, labels is not None):
                raise UsageError(
                    f"{self._what}: some records have labels, and {where} differs",
                    remedy="give labels for every record, or for none",
                )
            labelled = labels is not None
            count = self._number(arrays, where)
            for index in (0,) if count is None else range(count):
                yield (
                    self._sample(arrays, where, index, count),
                    None if labels is None else _label(labels, index, count),
                )
                number += 1
        if not number:
            raise UsageError(f"the {self._what} data holds no sample", remedy=_FORMS)

    def _named(self, record: Any, where: str) -> Mapping[str, Any]:
        """A record's arrays by name; that of a single input need not have one."""
        named: Mapping[str, Any] = record if isinstance(record, Mapping) else {"": record}
        if set(named) != {""}:
            return named
        if len(self._specs) != 1:
            names = ", ".join(self._known)
            raise UsageError(
                f"{self._what}: {where} is an array without a name, and the model has "
                f"{len(self._specs)} inputs",
                remedy=f"give an array for each of {names} in a .npz or dict",
            )
        return {self._specs[0].name: named[""]}

    def _arrays(self, record: Any, where: str) -> tuple[Arrays, Array | None]:
        """A record's arrays by the names of the inputs, and its labels, where it may have some: the
        array `labels`, or the only one that is no input. Raises UsageError for other names."""
        named = self._named(record, where)
        unknown = sorted(set(named) - self._known)
        labels = None
        if self._labelled and unknown:
            labels = LABELS if LABELS in unknown else unknown[0]
            unknown.remove(labels)
        if unknown:
            also = f"; labels: an array '{LABELS}'" if self._labelled else ""
            raise UsageError(
                f"{self._what}: {where} has arrays for no input: {', '.join(unknown)}",
                remedy=f"name them as the inputs are named: {', '.join(sorted(self._known))}{also}",
            )
        arrays = {name: np.asarray(named[name]) for name in named if name != labels}
        found = None if labels is None else np.asarray(named[labels])
        count = self._number(arrays, where)
        if found is not None and count is not None and (not found.ndim or len(found) % count):
            raise UsageError(
                f"{self._what}: {where} holds {count} samples, and labels of shape "
                f"{list(found.shape)} in '{labels}'",
                remedy="give as many labels as samples, along the first axis",
            )
        return arrays, found

    def _number(self, arrays: Arrays, where: str) -> int | None:
        """How many samples a record holds; None: its arrays are one as they are."""
        counts = {name: count for name, count in self._counts(arrays).items() if count is not None}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{n} of '{name}'" for name, n in counts.items())
            raise UsageError(
                f"{self._what}: {where} holds different numbers of samples: {told}",
                remedy="give as many of every input, or one that all samples share",
            )
        return next(iter(counts.values()), None)

    def _counts(self, arrays: Arrays) -> dict[str, int | None]:
        known = (spec for spec in self._specs if spec.name in arrays)
        return {spec.name: self._count(spec, arrays[spec.name]) for spec in known}

    def _sample(self, arrays: Arrays, where: str, index: int, count: int | None) -> Arrays:
        """A sample of a record, checked."""
        counts = self._counts(arrays)
        sample = {
            name: array if counts.get(name) is None else self._piece(name, array, index)
            for name, array in arrays.items()
        }
        self._check(sample, where if count is None else f"{where}, sample {index}")
        return sample

    def _count(self, spec: TensorSpec, array: Array) -> int | None:
        """How many samples lie along the leading axis of an array; None: it is one."""
        rank = len(spec.dims) - (spec.strings and array.dtype.kind in "US")
        if array.ndim == rank + 1:
            return len(array)
        first = spec.dims[0] if rank else None
        if array.ndim == rank and isinstance(first, int) and first and len(array) != first:
            return len(array) // first if len(array) % first == 0 else None
        return None

    def _piece(self, name: str, array: Array, index: int) -> Array:
        spec = next(spec for spec in self._specs if spec.name == name)
        if array.ndim > len(spec.dims):
            return np.asarray(array[index])
        size = spec.dims[0]
        assert isinstance(size, int)
        return array[index * size : (index + 1) * size]

    def _check(self, sample: Arrays, where: str) -> None:
        for spec in self._specs:
            array = sample.get(spec.name)
            wanted = DType(spec.dtype).numpy
            if array is not None and array.dtype != wanted and not spec.strings:
                raise UsageError(
                    f"{self._what}: '{spec.name}' is {array.dtype}, and the input is {wanted}",
                    where=where,
                    remedy=f"convert the data as the model's users do, to {wanted}",
                )
        try:
            check_inputs(self._specs, sample)
        except UsageError as error:
            raise UsageError(
                f"{self._what}: {error.what}", where=where, why=error.why, remedy=_FORMS
            ) from None
        for name, array in sample.items():
            if array.dtype.kind == "f" and not np.isfinite(array.astype(np.float64)).all():
                raise UsageError(
                    f"{self._what}: '{name}' has elements that are NaN or infinite",
                    where=where,
                    remedy="leave the sample out, or mend how it was made",
                )


class _Numbered:
    """The items of an iterable, each with what it is called."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((f"sample {n}", item) for n, item in zip(count(), self._items, strict=False))


def largest(samples: Iterable[Arrays]) -> Arrays:
    """Of the first samples the one with the most elements: what a model is timed with."""
    return max(islice(samples, _LOOKED_AT), key=lambda s: sum(array.size for array in s.values()))


def stored(data: Iterator[Any], folder: Path) -> Path:
    """The folder, with a file for every record of data that can be read once only."""
    folder.mkdir(parents=True)
    for number, record in enumerate(data):
        path = folder / f"{number:08}.npz"
        named = record if isinstance(record, Mapping) else {"": record}
        arrays = {str(name): np.asarray(array) for name, array in named.items()}
        write_file(path.with_suffix(".npy") if set(arrays) == {""} else path, arrays)
    return folder


def repeatable(data: CalibrationData | None, folder: Path) -> CalibrationData | None:
    """Data that can be read again and again: those of an iterator, from files of the folder."""
    return stored(data, folder) if isinstance(data, Iterator) else data


def _label(labels: Array, index: int, count: int | None) -> Array:
    """That of a sample: an element, or as many as each of the samples has results."""
    if count is None or not labels.ndim:
        return labels
    size = len(labels) // count
    return np.asarray(labels[index] if size == 1 else labels[index * size : (index + 1) * size])


def _files(path: Path, what: str) -> list[Path]:
    """The file, or those of a folder by name."""
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"there is no {what} data '{path}'", remedy=_FORMS)
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not found:
        raise UsageError(f"the folder '{path}' has no .npz and no .npy file", remedy=_FORMS)
    return found
