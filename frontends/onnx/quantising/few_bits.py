"""Weights of floats as integers of 4 or 8 bits: rounded to nearest, in ranges that lose least.

Of every block of a column, ranges from the whole one down are tried, and the one is kept whose
rounding errors, those of what it clips included, have the least sum of squares. See R. Banner et
al., "Post-training 4-bit quantization of convolution networks", https://arxiv.org/abs/1810.05723.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .constants import Array

SHRINKS = tuple(1 - 0.04 * n for n in range(10))  # of a range
_CHUNK = 1 << 20  # weights at a time


@dataclass(frozen=True)
class WeightForm:
    """bits: 4 (unsigned, with zero points) or 8 (signed, without). block: steps of a sum with one
    scale; 0: all of them."""

    bits: int
    block: int = 0

    @property
    def symmetric(self) -> bool:
        """Whether zero is 0."""
        return self.bits == 8


@dataclass(frozen=True)
class FewBits:
    """Weights of columns, [columns, blocks, block], scales and zero points [columns, blocks].

    The last block is filled up with what is zero. error, power: sums of squares, of what rounding
    has changed and of the weights.
    """

    numbers: Array
    scales: Array
    zeros: Array
    error: float
    power: float


def in_few_bits(weights: Array, form: WeightForm) -> FewBits:
    """Weights [columns, depth] of f32 as integers: i8, or u8 that hold 4 bits each."""
    columns, depth = weights.shape
    block = form.block or depth
    blocks = -(-depth // block)
    numbers = np.empty((columns, blocks, block), np.int8 if form.symmetric else np.uint8)
    scales = np.empty((columns, blocks), np.float32)
    zeros = np.zeros((columns, blocks), numbers.dtype)
    error = power = 0.0
    step = max(1, _CHUNK // (blocks * block))
    for start in range(0, columns, step):
        part = slice(start, start + step)
        wide = np.zeros((len(weights[part]), blocks, block), np.float32)
        wide.reshape(len(wide), -1)[:, :depth] = weights[part]
        found = _best(wide, form)
        numbers[part], scales[part], zeros[part] = found[:3]
        error += float(found[3].sum())
        power += float(np.square(wide, dtype=np.float64).sum())
    return FewBits(numbers, scales, zeros, error, power)


def _best(wide: Array, form: WeightForm) -> tuple[Array, Array, Array, Array]:
    """(numbers, scales, zero points, squared errors by block) of the best range for each block."""
    low, high = wide.min(-1, initial=0), wide.max(-1, initial=0)
    best = _rounded(wide, low, high, form)
    for shrink in SHRINKS[1:]:
        other = _rounded(wide, low * np.float32(shrink), high * np.float32(shrink), form)
        better = other[3] < best[3]
        best = tuple(  # type: ignore[assignment]
            np.where(better[..., None] if new.ndim > 2 else better, new, old)
            for new, old in zip(other, best, strict=True)
        )
    return best


def _squares(errors: Array) -> Array:
    """Their sum for each block, in f64, which holds the square of every f32."""
    return np.asarray(np.square(errors, dtype=np.float64).sum(-1))


def _rounded(
    wide: Array, low: Array, high: Array, form: WeightForm
) -> tuple[Array, Array, Array, Array]:
    tiny = np.float32(np.finfo(np.float32).tiny)
    if form.symmetric:
        most = np.float32((1 << (form.bits - 1)) - 1)
        scale = np.maximum(np.maximum(-low, high) / most, tiny)
        zero = np.zeros(scale.shape, np.int8)
        numbers = np.clip(np.rint(wide / scale[..., None]), -most, most)
        error = _squares(numbers * scale[..., None] - wide)
        return numbers.astype(np.int8), scale, zero, error
    top = np.float32((1 << form.bits) - 1)
    scale = np.maximum((high - low) / top, tiny)
    zero = np.clip(np.rint(-low / scale), 0, top)
    numbers = np.clip(np.rint(wide / scale[..., None]) + zero[..., None], 0, top)
    real = (numbers - zero[..., None]) * scale[..., None]
    error = _squares(real - wide)
    return numbers.astype(np.uint8), scale, zero.astype(np.uint8), error
