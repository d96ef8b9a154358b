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

    @property
    def dtype(self) -> type[np.generic]:
        """Of the integers in memory."""
        return np.int8 if self.symmetric else np.uint8

    @property
    def most(self) -> np.float32:
        """The greatest integer."""
        return np.float32((1 << (self.bits - 1)) - 1 if self.symmetric else (1 << self.bits) - 1)


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
    numbers = np.empty((columns, blocks, block), form.dtype)
    scales = np.empty((columns, blocks), np.float32)
    zeros = np.zeros((columns, blocks), numbers.dtype)
    error = power = 0.0
    step = max(1, _CHUNK // (blocks * block))
    for start in range(0, columns, step):
        part = slice(start, start + step)
        wide = np.zeros((len(weights[part]), blocks, block), np.float32)
        wide.reshape(len(wide), -1)[:, :depth] = weights[part]
        found = best_range(wide, form)
        numbers[part], scales[part], zeros[part] = found[:3]
        error += float(found[3].sum())
        power += float(np.square(wide, dtype=np.float64).sum())
    return FewBits(numbers, scales, zeros, error, power)


def best_range(wide: Array, form: WeightForm) -> tuple[Array, Array, Array, Array]:
    """(numbers, scales, zero points, squared errors by block) of the best range for each block.

    wide: f32 weights whose last axis is a block.
    """
    low, high = wide.min(-1, initial=0), wide.max(-1, initial=0)
    best = _rounded(wide, low, high, form)
    for shrink in SHRINKS[1:]:
        other = _rounded(wide, low * np.float32(shrink), high * np.float32(shrink), form)
        better = other[3] < best[3]
        best = tuple(  # type: ignore[assignment]
            np.where(better[..., None] if new.ndim > better.ndim else better, new, old)
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
        scale = np.maximum(np.maximum(-low, high) / form.most, tiny)
        zero = np.zeros(scale.shape, np.int8)
    else:
        scale = np.maximum((high - low) / form.most, tiny)
        zero = np.clip(np.rint(-low / scale), 0, form.most).astype(np.uint8)
    numbers = nearest(wide, scale[..., None], zero[..., None], form)
    real = reals(numbers, scale[..., None], zero[..., None])
    return numbers, scale, zero, _squares(real - wide)


def nearest(wide: Array, scale: Array, zero: Array, form: WeightForm) -> Array:
    """Weights as integers of given scales and zero points, which broadcast: rounded to nearest."""
    least = -form.most if form.symmetric else np.float32(0)
    numbers = np.clip(np.rint(wide / scale) + zero.astype(np.float32), least, form.most)
    return np.asarray(numbers.astype(form.dtype))


def reals(numbers: Array, scale: Array, zero: Array) -> Array:
    """The weights that integers stand for, in f32."""
    return np.asarray((numbers.astype(np.float32) - zero.astype(np.float32)) * scale)
