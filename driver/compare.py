"""Whether two sets of outputs agree: |a - b| <= atol + rtol * |b|, element by element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from ..compiler.ir.types import DType

Array = np.ndarray[Any, Any]

# (rtol, atol as a share of the output's peak |b|) by element type. A reordered f32 sum of n terms
# differs by about sqrt(n) * 6e-8 of its largest partial sum, and the error grows from layer to
# layer: deep networks show 1e-6 to 3e-5 of the peak, so 1e-4 flags what is not rounding.
FLOAT_TOLERANCE = {
    DType.F64: (1e-3, 1e-4),
    DType.F32: (1e-3, 1e-4),
    DType.F16: (1e-2, 2e-3),
    DType.BF16: (5e-2, 2e-2),
}
# A model in halves rounds on the way: what falls between two of them may fall to either side, and
# the difference goes through all layers that follow. Results differ as those of such a type do.
# Operands of products in tf32 have as many bits as those of fp16.
_ROUNDED = {"bf16": DType.BF16, "fp16": DType.F16, "tf32": DType.F16}
# What was near one before a subtraction, as 1 - x, carries units of this size, however small it is.
FLOOR_IN_EPSILONS = 4.0
# Quantised networks round activations: a difference in the last bit before a rounding becomes one
# step of 1/256 of a range after it, and some such steps meet in one output.
QUANTISED_ATOL = 2e-2
BYTE_STEP = 1  # 8-bit outputs come from rounding a float, and may differ by one


@dataclass(frozen=True)
class Tolerance:
    """rtol and absolute atol for every float output; None: by element type, see above.

    unknown_sizes: whether sizes of tensors without elements may be 0 in what is expected. ONNX
    Runtime gives 0 for those it does not know, of what a loop of no rounds stacks. rounded: the
    type that the model rounds to on the way, if it is smaller than that of its outputs.
    """

    rtol: float | None = None
    atol: float | None = None
    quantised: bool = False
    unknown_sizes: bool = False
    rounded: DType | None = None

    def of(self, engine: str, precision: str = "fp32") -> Tolerance:
        """The tolerance for what an engine (of `engines.py`) computes. precision: that a model was
        compiled in, and the engine takes it in."""
        rounded = _ROUNDED.get(precision)
        return replace(self, unknown_sizes=engine == "onnxruntime", rounded=rounded)

    def limits(self, expected: Array) -> tuple[float, float]:
        """(rtol, atol) for an output with the given expected values; (0, 0) means exact."""
        dtype = DType.of(expected.dtype)
        if not dtype.is_float:
            default = float(BYTE_STEP if dtype.is_integer and dtype.bits == 8 else 0)
            return 0.0, default if self.atol is None else self.atol
        rtol, share = FLOAT_TOLERANCE[dtype]
        if self.rounded:
            rtol, share = map(max, (rtol, share), FLOAT_TOLERANCE[self.rounded])
        if self.quantised:
            share = max(share, QUANTISED_ATOL)
        finite = np.abs(expected[np.isfinite(expected)].astype(np.float64))
        peak = float(finite.max()) if finite.size else 0.0
        floor = FLOOR_IN_EPSILONS * float(ml_dtypes.finfo(expected.dtype).eps)
        return (
            rtol if self.rtol is None else self.rtol,
            max(share * peak, floor) if self.atol is None else self.atol,
        )


@dataclass(frozen=True)
class Difference:
    """How one output compares. `message` says what is wrong, "" when nothing is.

    max_abs: the largest |a - b|. informative: whether that it agrees says anything: some element
    is finite, and larger than atol unless all are equal. peak: the largest |b|. roundings: how far
    roundings alone may move elements, where that is more than atol and was measured
    (`roundings.py`).
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    rtol: float
    atol: float
    message: str
    informative: bool
    peak: float = 0.0
    roundings: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether every element is within the tolerance."""
        return not self.message


def compare_outputs(
    actual: Mapping[str, Array], expected: Mapping[str, Array], tolerance: Tolerance
) -> list[Difference]:
    """Compare every expected output; one that is missing is a difference."""
    return [
        _compare(name, actual[name], array, tolerance)
        if name in actual
        else _refusal(name, array, "the output is missing")
        for name, array in expected.items()
    ]


def _refusal(name: str, expected: Array, message: str) -> Difference:
    return Difference(name, expected.shape, float("inf"), 0.0, 0.0, message, True)


def _may_be(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether both are of tensors without elements, and sizes differ only where 0 is wanted."""
    if len(shape) != len(wanted) or 0 not in shape or 0 not in wanted:
        return False
    return all(size == other or other == 0 for size, other in zip(shape, wanted, strict=True))


def _compare(name: str, actual: Array, expected: Array, tolerance: Tolerance) -> Difference:
    if tolerance.unknown_sizes and _may_be(actual.shape, expected.shape):
        expected = expected.reshape(actual.shape)
    if actual.shape != expected.shape:
        return _refusal(name, expected, f"shape {actual.shape}, expected {expected.shape}")
    if actual.dtype.kind == expected.dtype.kind == "U":
        return _compare_strings(name, actual, expected)
    if actual.dtype != expected.dtype:
        return _refusal(name, expected, f"type {actual.dtype}, expected {expected.dtype}")
    rtol, atol = tolerance.limits(expected)
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if actual.dtype.kind in "iu" and actual.dtype.itemsize == 8:
        gap = np.where(actual > expected, actual - expected, expected - actual).astype(np.float64)
    else:
        with np.errstate(invalid="ignore"):
            gap = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    wrong = ~same & ~(finite & np.isfinite(a) & (gap <= atol + rtol * np.abs(b)))
    if actual.dtype.kind in "iu" and actual.dtype.itemsize == 8:
        wrong = gap > atol
    usable = gap[finite & np.isfinite(a)]
    max_abs = float(usable.max()) if usable.size else 0.0
    return Difference(
        name=name,
        shape=expected.shape,
        max_abs=max_abs,
        rtol=rtol,
        atol=atol,
        message=_describe(wrong, gap, actual, expected),
        informative=bool(finite.any()) and (max_abs == 0 or bool((np.abs(b) > atol).any())),
        peak=float(np.abs(b[finite]).max(initial=0.0)),
    )


def _compare_strings(name: str, actual: Array, expected: Array) -> Difference:
    wrong = actual != expected
    gap = wrong.astype(np.float64)
    return Difference(
        name=name,
        shape=expected.shape,
        max_abs=float(gap.max(initial=0.0)),
        rtol=0.0,
        atol=0.0,
        message=_describe(wrong, gap, actual, expected),
        informative=bool(expected.size),
    )


def _describe(wrong: Array, gap: Array, actual: Array, expected: Array) -> str:
    count = int(np.count_nonzero(wrong))
    if not count:
        return ""
    ranked = np.where(wrong, np.where(np.isfinite(gap), gap, np.inf), -1.0)
    worst = np.unravel_index(int(np.argmax(ranked)), expected.shape)
    place = [int(index) for index in worst]
    return (
        f"{count} of {expected.size} elements differ; worst at {place}: "
        f"{actual[worst]}, expected {expected[worst]}"
    )
