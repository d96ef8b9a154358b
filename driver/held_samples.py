"""Which calibration samples count, and which of them errors are measured on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .calibration_notes import DataNotes
from .tensor_files import Arrays

FOLDS = 4  # parts of the samples: each is judged by what the others show
MOST_HELD = 32  # samples that errors are measured on
# of them, however much memory they take: the standard error of a gain, which decides, is known to a
# quarter from eight (1 / sqrt(2 (n - 1))), and to no half from two (a judgement, not measured)
LEAST_HELD = 8
# of inputs and outputs that are kept for it: a few per cent of the memory of machines that compile;
# 32 samples of 3 x 640 x 640 pixels take a seventh of it (a judgement, not measured)
HELD_BYTES = 1 << 30
OUTLYING = -1  # the part of samples that are far larger than most


@dataclass(frozen=True)
class SampleParts:
    """The samples of a calibration, in parts.

    count: of samples. outlying: numbers of those that are far larger than most: what is measured
    on others says nothing of them, and they hide what is. growth: bytes of the largest sample, as a
    multiple of those of the first.
    """

    count: int
    outlying: frozenset[int] = frozenset()
    growth: float = 1.0

    @cached_property
    def counted(self) -> list[int]:
        """Numbers of the samples that count; all, where all are outlying."""
        return [n for n in range(self.count) if n not in self.outlying] or [*range(self.count)]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {number: place for place, number in enumerate(self.counted)}

    @property
    def is_shared(self) -> bool:
        """Whether nothing can be measured but on what it was found with."""
        return len(self.counted) < 2

    def of(self, number: int) -> int:
        """The part of a sample: one of `FOLDS`, or `OUTLYING`."""
        place = self._places.get(number)
        return OUTLYING if place is None else place % FOLDS

    def judged(self, size: int = 0) -> frozenset[int]:
        """Numbers of the samples that errors are measured on, evenly chosen of those that count;
        size: bytes that are kept of the first; of others, what they are made of is as much larger
        at most as the largest sample is (`growth`)."""
        counted = self.counted
        most = max(LEAST_HELD, min(MOST_HELD, int(HELD_BYTES / max(size * self.growth, 1))))
        step = max(1.0, len(counted) / most)
        return frozenset(counted[int(n * step)] for n in range(min(most, len(counted))))

    def held_out(self) -> frozenset[int]:
        """Numbers of the samples that take no part, where one part of them is enough: every fourth
        that counts, and `MOST_HELD` at most; none of a single one."""
        counted = self.counted
        return frozenset(counted[1::FOLDS][:MOST_HELD])


def parts_of(samples: Iterable[Arrays], notes: DataNotes) -> SampleParts:
    """Read all samples, which `notes` takes note of."""
    sizes = []
    for sample in samples:
        notes.add(sample)
        sizes.append(sum(array.nbytes for array in sample.values()))
    growth = max(sizes, default=0) / max(sizes[0], 1) if sizes else 1.0
    return SampleParts(len(sizes), notes.outlying, max(growth, 1.0))
