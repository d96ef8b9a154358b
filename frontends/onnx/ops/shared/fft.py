"""Fourier transforms of known lengths, as products with small constant matrices.

A length is split into radices, and each stage multiplies by the DFT matrix of one: Stockham's form
of the algorithm of Cooley and Tukey, which ends in natural order (Van Loan, "Computational
Frameworks for the Fast Fourier Transform", 1992, section 1.7). Long prime factors make a
convolution of the transform (Bluestein, "A linear filtering approach to the computation of discrete
Fourier transform", 1970). Angles are reduced exactly, in integers, before they are rounded.

Between stages lie both z and i z, so that a complex product is a sum of two products with real
numbers, and lanes never change places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from .....compiler.ir import Dim, DType, Value, constant
from ...site import Site

MOST_STAGES = 3
LARGEST_RADIX = 512  # of a stage among several, whose matrix has 2 MiB
POINTWISE_COST = 8  # multiply-adds of a product that cost as much as an element between two stages
LANES = 16  # columns of a product are computed in such groups


@dataclass(frozen=True)
class Spectrum:
    """What is computed of y[k] = scale * sum over n of x[n] e^(sign 2 pi i n k / length).

    given: how many x[n] there are, the others being 0, and of how many parts: 1 for real numbers.
    wanted: how many y[k], from 0 on, and of how many parts: 1 for the real ones alone.
    """

    length: int
    sign: int
    given: int
    given_parts: int
    wanted: int
    wanted_parts: int
    scale: float = 1.0


def transform(s: Site, x: Value, spectrum: Spectrum) -> Value:
    """The spectrum [batch, wanted, wanted_parts] of x[batch, given, given_parts]."""
    radices, cost = _radices(spectrum)
    if cost > _chirp_cost(spectrum):
        return _by_convolution(s, x, spectrum)
    return _by_stages(s, x, spectrum, radices)


# -------------------------------------------------------------------------- the choice of radices


def _factorisations(length: int, most: int) -> Iterator[tuple[int, ...]]:
    """Ordered products that are the length: itself, or of at most so many radices."""
    yield (length,)
    if most == 1:
        return
    for radix in range(2, min(LARGEST_RADIX, length // 2) + 1):
        if length % radix:
            continue
        for rest in _factorisations(length // radix, most - 1):
            if max(rest) <= LARGEST_RADIX:
                yield (radix, *rest)


def _columns(count: int) -> int:
    return -(-count // LANES) * LANES


def _cost(spectrum: Spectrum, radices: tuple[int, ...]) -> int:
    """Multiply-adds of one transform, and what else takes as long."""
    parts, left, done = spectrum.wanted_parts, spectrum.length, 1
    total = 0
    for number, radix in enumerate(radices):
        left //= radix
        final = left == 1
        rows = ceil(spectrum.wanted / done) if final else 2 * radix
        if number:
            total += 2 * radix * left * rows * _columns(done * parts)
        else:
            depth = ceil(spectrum.given / left) * spectrum.given_parts
            total += left * depth * _columns(rows * parts)
        total += 0 if final else POINTWISE_COST * 2 * parts * spectrum.length
        done *= radix
    return total


@cache
def _radices(spectrum: Spectrum) -> tuple[tuple[int, ...], int]:
    """The radices of the stages that cost least, and their cost."""
    found = _factorisations(spectrum.length, MOST_STAGES)
    cost, radices = min((_cost(spectrum, radices), radices) for radices in found)
    return radices, cost


def _convolved(spectrum: Spectrum) -> tuple[Spectrum, Spectrum]:
    """The two transforms, of a power of two, that `_by_convolution` needs."""
    size = 1 << ceil(log2(spectrum.given + spectrum.wanted - 1))
    there = Spectrum(size, -1, spectrum.given, 2, size, 2)
    back = Spectrum(size, 1, size, 2, spectrum.wanted, 2, 1 / size)
    return there, back


def _chirp_cost(spectrum: Spectrum) -> int:
    there, back = _convolved(spectrum)
    pointwise = 4 * POINTWISE_COST * there.length
    return _radices(there)[1] + _radices(back)[1] + pointwise


# -------------------------------------------------------------------------- constants


def _rotations(angles: NDArray[np.int64], period: int, sign: int) -> NDArray[np.complex128]:
    """e^(sign 2 pi i angle / period)."""
    turns = (angles % period) / period
    found: NDArray[np.complex128] = np.exp(sign * 2j * np.pi * turns)
    return found


def _dft_matrix(rows: int, columns: int, period: int, sign: int) -> NDArray[np.complex128]:
    return _rotations(np.outer(np.arange(rows), np.arange(columns)), period, sign)


def _in_parts(z: NDArray[np.complex128], parts: int) -> NDArray[np.float64]:
    """Real and, where there are 2 parts, imaginary parts along a new last axis."""
    return np.stack([z.real, z.imag][:parts], axis=-1)


def _first_matrix(
    waves: NDArray[np.complex128], doubled: bool, given_parts: int, parts: int
) -> NDArray[np.float64]:
    """[radix, given] waves as a matrix [(given, part), (z or i z, radix, part)]."""
    results = []
    for factor in (1, 1j) if doubled else (1,):
        operands = [_in_parts(factor * unit * waves.T, parts) for unit in (1, 1j)[:given_parts]]
        results.append(np.stack(operands, axis=1))  # given, part, radix, part
    whole = np.stack(results, axis=2)
    given, _, _, radix, _ = whole.shape
    return whole.reshape(given * given_parts, len(results) * radix * parts)


def _next_matrix(waves: NDArray[np.complex128], doubled: bool) -> NDArray[np.float64]:
    """[rows, radix] waves as a matrix [(z or i z, rows), (radix, z or i z)]."""
    plain = np.stack([waves.real, waves.imag], axis=-1).reshape(len(waves), -1)
    turned = np.stack([-waves.imag, waves.real], axis=-1).reshape(len(waves), -1)
    return np.concatenate([plain, turned]) if doubled else plain


def _twiddles(left: int, radix: int, sign: int) -> list[NDArray[np.float64]]:
    """What z and i z are multiplied by to turn them: two arrays [left, (z or i z), radix]."""
    turn = _rotations(np.outer(np.arange(left), np.arange(radix)), left * radix, sign)
    pairs = ((turn.real, -turn.imag), (turn.imag, turn.real))
    return [np.stack(pair, axis=1) for pair in pairs]


def _table(values: NDArray[np.float64], dtype: DType) -> Value:
    return constant(np.ascontiguousarray(values).astype(dtype.numpy))


# -------------------------------------------------------------------------- stages


def _by_stages(s: Site, x: Value, spectrum: Spectrum, radices: tuple[int, ...]) -> Value:
    left, done, parts = spectrum.length // radices[0], radices[0], spectrum.wanted_parts
    y = _first_stage(s, x, spectrum, radices[0])
    reached = spectrum.wanted
    for before, radix in pairwise(radices):
        y = _turned(s, y, left, before, spectrum)
        y = s.reshape(y, (x.shape[0], radix, left // radix, 2, done * parts))
        left //= radix
        y = s.transpose(y, (0, 2, 1, 3, 4))
        y = s.reshape(y, (x.shape[0], left, 2 * radix, done * parts))
        rows = ceil(spectrum.wanted / done) if left == 1 else radix
        waves = _dft_matrix(rows, radix, radix, spectrum.sign)
        waves *= spectrum.scale if left == 1 else 1
        matrix = _next_matrix(waves, doubled=left > 1)
        y = s.emit("matmul", [_table(matrix[None, None], x.dtype), y])
        reached, done = rows * done, radix * done
    y = s.reshape(y, (x.shape[0], reached, parts))
    return s.slice(y, 1, 0, spectrum.wanted)


def _first_stage(s: Site, x: Value, spectrum: Spectrum, radix: int) -> Value:
    """y[batch, left, (z or i z, radix, part)], or, if no stage follows, [batch, 1, (wanted, part)].

    left: the length over the radix.
    """
    left, parts = spectrum.length // radix, spectrum.given_parts
    given = ceil(spectrum.given / left)
    x = fitted(s, x, given * left)
    x = s.reshape(x, (x.shape[0], given, left, parts))
    x = s.reshape(s.transpose(x, (0, 2, 1, 3)), (x.shape[0], left, given * parts))
    rows = radix if left > 1 else spectrum.wanted
    waves = _dft_matrix(rows, given, radix, spectrum.sign)
    waves *= spectrum.scale if left == 1 else 1
    matrix = _first_matrix(waves, left > 1, parts, spectrum.wanted_parts)
    return s.emit("matmul", [x, _table(matrix, x.dtype)])


def _turned(s: Site, y: Value, left: int, radix: int, spectrum: Spectrum) -> Value:
    """y[batch, left, (z or i z), (radix, what stages before have made)] times twiddle factors."""
    inner = spectrum.length // left // radix * spectrum.wanted_parts
    y = s.reshape(y, (y.shape[0], left, 2, radix, inner))
    width = inner if inner < LANES else 1
    tables = [
        _table(np.repeat(table[None, ..., None], width, axis=-1), y.dtype)
        for table in _twiddles(left, radix, spectrum.sign)
    ]
    terms = [s.op_("mul", s.slice(y, 2, i, i + 1), table) for i, table in enumerate(tables)]
    return s.op_("add", *terms)


def _by_convolution(s: Site, x: Value, spectrum: Spectrum) -> Value:
    """Bluestein's algorithm: 2 n k = n^2 + k^2 - (k - n)^2."""
    there, back = _convolved(spectrum)
    longest, period = max(spectrum.given, spectrum.wanted), 2 * spectrum.length
    chirp = _rotations(np.arange(longest) ** 2, period, spectrum.sign)
    response = np.zeros(there.length, np.complex128)
    response[: spectrum.wanted] = chirp[: spectrum.wanted].conj()
    response[there.length - spectrum.given + 1 :] = chirp[1 : spectrum.given][::-1].conj()
    y = _times(s, x, chirp[: spectrum.given])
    y = _by_stages(s, y, there, _radices(there)[0])
    y = _by_stages(s, _times(s, y, np.fft.fft(response)), back, _radices(back)[0])
    y = _times(s, y, spectrum.scale * chirp[: spectrum.wanted])
    return s.slice(y, 2, 0, spectrum.wanted_parts)


def _times(s: Site, x: Value, factors: NDArray[np.complex128]) -> Value:
    """x[batch, n, 1 or 2] times complex numbers [n], in 2 parts."""
    if x.shape[2] == 1:
        return s.op_("mul", x, _table(_in_parts(factors, 2)[None], x.dtype))
    swapped = s.emit("concat", [s.slice(x, 2, 1, 2), s.slice(x, 2, 0, 1)], axis=2)
    kept = np.stack([factors.real, factors.real], axis=-1)
    mixed = np.stack([-factors.imag, factors.imag], axis=-1)
    return s.op_(
        "add",
        s.op_("mul", x, _table(kept[None], x.dtype)),
        s.op_("mul", swapped, _table(mixed[None], x.dtype)),
    )


def fitted(s: Site, x: Value, length: Dim) -> Value:
    """x[before, n, ...] cut or filled with zeros to `length` along n."""
    if x.shape[1] == length:
        return x
    rank = x.type.rank
    pads = tuple(length - x.shape[1] if place == rank + 1 else 0 for place in range(2 * rank))
    return s.emit("pad", [x, s.scalar(0, x.dtype)], pads=pads, mode="constant")
