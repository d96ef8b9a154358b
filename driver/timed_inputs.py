"""Inputs on which binaries are timed: samples of the user, or such as are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from .artifacts import Artifact
from .calibration import CalibrationData, Samples, largest
from .tensor_files import Arrays

_SIZES = 6  # of symbolic dims that are tried, until the model takes one


def timed_inputs(
    artifact: Artifact, data: Iterable[CalibrationData | None], folder: Callable[[], Path]
) -> Iterator[Arrays]:
    """Inputs to be tried until the model takes one: of sizes that go together, the usual first.

    data: samples that are given, in order of preference. folder: makes one for their files.
    """
    for given in data:
        if given is not None and not isinstance(given, Iterator):
            yield largest(Samples(given, artifact.inputs, folder(), labelled=True))
    sampler = artifact.sampler
    yield sampler.draw(sampler.usual_sizes, 0)
    for sizes in islice(sampler.candidate_sizes(), _SIZES):
        yield sampler.draw(sizes, 0)
