"""What calibration data show that should not be: inputs that never change, samples that are all the
same, and samples far larger than the others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..frontends.onnx.quantising.batch_norms import Norm
from .ranges_observed import Spread, outlying
from .tensor_files import Array, Arrays

# of channels from the least to the greatest element, in standard deviations of training: 3e4 normal
# numbers are 8 wide; half way (by ratio) to what a scale that is wrong by 255 makes of that
NARROW, WIDE = 0.5, 150.0
# of channels' means, in the same unit: those of training data are within 1, those of data that are
# 255 times larger, and of a mean that is as large as their deviation, 254 away
AWAY = 10.0
# of the greatest standard deviation: channels that count. Less have those that training has
# switched off: theirs is the epsilon of the normalisation (1e-3 to 1e-5), whatever the data are
LEAST_SHARE = 1e-3
_REMEDY = "give inputs as the model gets them in use"
_LISTED = 3


@dataclass
class _Input:
    """An input in all samples so far. kind: of its elements. size: the most elements of a sample;
    peaks: the greatest magnitude of each sample."""

    kind: str
    size: int = 0
    low: float = np.inf
    high: float = -np.inf
    peaks: list[float] = field(default_factory=list)

    def add(self, array: Array) -> None:
        self.size = max(self.size, array.size)
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        self.peaks.append(max(abs(low), abs(high)))
        if array.size:
            self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def is_constant(self) -> bool:
        """Whether all elements of all samples are one number; a single element may well be."""
        return self.size > 1 and self.low == self.high


class DataNotes:
    """Looks at samples, one after the other (`add`)."""

    def __init__(self) -> None:
        self._inputs: dict[str, _Input] = {}
        self._seen: set[bytes] = set()
        self._count = 0

    def add(self, sample: Arrays) -> None:
        """Take note of a sample."""
        digest = hashlib.sha256()
        for name, array in sorted(sample.items()):
            digest.update(repr((name, array.shape)).encode())
            digest.update(repr(array.tolist()).encode() if array.dtype.hasobject
                          else np.ascontiguousarray(array).tobytes())  # fmt: skip
            if array.dtype.kind in "fiub" or array.dtype.kind == "V":
                wide = array.astype(np.float32) if array.dtype.kind == "V" else array
                self._inputs.setdefault(name, _Input(array.dtype.kind)).add(wide)
        self._seen.add(digest.digest())
        self._count += 1

    @property
    def outlying(self) -> frozenset[int]:
        """Numbers of the samples of which an input of floats is far larger than in most."""
        floats = (seen for seen in self._inputs.values() if seen.kind in "fV")
        return frozenset(int(n) for seen in floats for n in np.flatnonzero(outlying(seen.peaks)))

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The least and greatest element of every input of numbers."""
        return {name: (seen.low, seen.high) for name, seen in self._inputs.items()}

    def notes(self) -> list[str]:
        """What the user should know."""
        return [*self._constant(), *self._same(), *self._outlying()]

    def _constant(self) -> list[str]:
        constant = {n: seen for n, seen in self._inputs.items() if seen.is_constant}
        varies = any(n not in constant and seen.size > 1 for n, seen in self._inputs.items())
        if varies:  # masks and the like are integers, and often all ones
            constant = {n: seen for n, seen in constant.items() if seen.kind in "fV"}
        return [
            f"calibration: every element of '{name}' is {seen.low:.6g} in "
            f"{_samples(self._count)}: ranges of what depends on it are those of a constant, and "
            f"other data will exceed them; {_REMEDY}"
            for name, seen in constant.items()
        ]

    def _same(self) -> list[str]:
        if self._count < 2 or len(self._seen) > 1:
            return []
        return [
            f"calibration: the {self._count} samples are all the same: ranges and errors are those "
            "of one; give a few dozen different ones, of every kind that occurs"
        ]

    def _outlying(self) -> list[str]:
        found = []
        for name, seen in self._inputs.items():
            places = np.flatnonzero(outlying(seen.peaks)).tolist()
            if places and seen.kind in "fV":
                usual, worst = float(np.median(seen.peaks)), max(seen.peaks)
                which = ", ".join(str(n) for n in places[:_LISTED])
                more = ", ..." if len(places) > _LISTED else ""
                found.append(
                    f"calibration: '{name}' reaches {worst:.4g} in sample {which}{more} (the first "
                    f"is 0), and {usual:.4g} in half of the samples: one range for both has few "
                    "steps for most; leave such samples out, unless they occur in use"
                )
        return found


def _samples(count: int) -> str:
    return f"all {count} samples" if count > 1 else "the sample"


def untrained(norm: Norm, seen: Spread, inputs: Mapping[str, tuple[float, float]]) -> list[str]:
    """A note where the channels that a batch normalisation made (`seen`) have means or widths that
    those of training (`norm`) make impossible: data of another scale or layout."""
    known = norm.scale > LEAST_SHARE * norm.scale.max(initial=0.0)
    if seen.lows is None or seen.highs is None or seen.means is None or not known.any():
        return []
    means = np.abs(seen.means / max(seen.samples, 1) - norm.shift)[known] / norm.scale[known]
    widths = (seen.highs - seen.lows)[known] / norm.scale[known]
    width, mean = float(np.median(widths)), float(np.median(means))
    if NARROW <= width <= WIDE and mean <= AWAY:
        return []
    told = ", ".join(f"'{name}' is {low:.4g} to {high:.4g}" for name, (low, high) in inputs.items())
    return [
        f"calibration: {told}, of which '{norm.name}' makes channels that lie {mean:.2g} standard "
        f"deviations of training from their means and are {width:.2g} wide; 0 to 1 and 4 to 30 "
        "are usual. The data are probably scaled otherwise than the model was trained with (0 to "
        "255 or 0 to 1, less a mean or not); prepare them as the model's users do"
    ]
