"""What calibration tells of tensors, and the ranges that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..frontends.onnx.quantising.recipe import STEPS, Limits

Array = np.ndarray[Any, Any]

# greatest element, in units of the root of the mean square: of normal numbers two in 1e9 are larger
LONG_TAIL = 6.0
# times the median of the greatest magnitudes of samples: of 255 steps half of the samples get three
OUTLYING = 100.0
FEWEST = 4  # samples of which most tell what is usual: of three, two may be unusual by chance
# of the greatest magnitude: 1.4 dB from one to the next, which steps grow by, down to a twelfth;
# errors are flat about the best clip (R. Banner et al., https://arxiv.org/abs/1810.05723)
CLIPS = tuple(0.85**step for step in range(16))


def outlying(peaks: Sequence[float] | Array) -> Array:
    """Which samples, of given greatest magnitudes, are far larger than most are."""
    found = np.zeros(len(peaks), bool)
    if len(peaks) >= FEWEST:
        usual = float(np.median(peaks))
        found = np.asarray(peaks) > OUTLYING * usual if usual > 0 else found
    return np.asarray(found)


@dataclass
class Spread:
    """The least and greatest elements of a tensor over samples, and sums over samples of the mean
    of the squares and of the means of channels; lows, highs: of channels; each: of every sample."""

    low: float = np.inf
    high: float = -np.inf
    squares: float = 0.0
    samples: int = 0
    finite: bool = True
    means: Array | None = None
    lows: Array | None = None
    highs: Array | None = None
    each: list[tuple[float, float]] = field(default_factory=list)

    def add(
        self,
        low: float,
        high: float,
        square: float,
        means: Array | None = None,
        limits: tuple[Array, Array] | None = None,
    ) -> None:
        """Take note of a sample; one without elements (whose least is infinite) says nothing.

        means: of channels; limits: their least and greatest elements.
        """
        if low > high:
            return
        self.finite &= bool(np.isfinite(low) and np.isfinite(high))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.squares += square
        self.each.append((low, high))
        self.means = _sum(self.means, means)
        if limits is not None:
            self.lows = _least(self.lows, limits[0])
            self.highs = _greatest(self.highs, limits[1])
        self.samples += 1

    def merged(self, other: Spread) -> Spread:
        """Of the samples of both."""
        return Spread(
            min(self.low, other.low),
            max(self.high, other.high),
            self.squares + other.squares,
            self.samples + other.samples,
            self.finite and other.finite,
            _sum(self.means, other.means),
            _least(self.lows, other.lows),
            _greatest(self.highs, other.highs),
            self.each + other.each,
        )

    @property
    def channel_peaks(self) -> Array | None:
        """The greatest magnitude of every channel."""
        if self.lows is None or self.highs is None:
            return None
        return np.maximum(np.abs(self.lows), np.abs(self.highs)).astype(np.float64)

    def scaled(self, scales: Array) -> Limits:
        """The range of what is left when every channel is divided by its scale."""
        if self.lows is None or self.highs is None:
            return self.range
        return Limits(float((self.lows / scales).min()), float((self.highs / scales).max()))

    @property
    def peak(self) -> float:
        """The greatest magnitude."""
        return max(abs(self.low), abs(self.high)) if self.samples else 0.0

    @property
    def is_long_tailed(self) -> bool:
        """Whether few elements are far larger than the others, as far as that shows."""
        root = np.sqrt(self.squares / self.samples) if self.samples else 0.0
        return bool(root > 0 and self.peak > LONG_TAIL * root)

    @property
    def range(self) -> Limits:
        """From the least to the greatest element."""
        return Limits(float(self.low), float(self.high)) if self.samples else Limits(0.0, 0.0)

    @property
    def usual_peak(self) -> float:
        """The greatest magnitude in samples that are not far larger than most."""
        peaks = np.array([max(abs(low), abs(high)) for low, high in self.each])
        return float(peaks[~outlying(peaks)].max(initial=0.0))

    def within(self, bound: float) -> Limits:
        """The range of the samples whose elements are no larger; none (0) where there are none."""
        kept = [own for own in self.each if max(abs(own[0]), abs(own[1])) <= bound]
        low, high = (min(low for low, _ in kept), max(high for _, high in kept)) if kept else (0, 0)
        return Limits(float(low), float(high))

    def clipped(self, bound: float) -> Limits:
        """The range without what is larger than a bound."""
        return Limits(float(max(self.low, -bound)), float(min(self.high, bound)))


def _sum(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    return np.asarray(one + other)


def _least(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    return np.minimum(one, other)


def _greatest(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    return np.maximum(one, other)


def means_of(spreads: Mapping[str, Spread]) -> dict[str, Array]:
    """The mean of every channel of tensors."""
    return {name: s.means / s.samples for name, s in spreads.items() if s.means is not None}


def squared_errors(elements: Array, ranges: Iterable[Limits]) -> Array:
    """How much every range loses of some elements: sums of squares."""
    x = elements.astype(np.float32).reshape(-1)
    found = []
    for limits in ranges:
        scale, zero = limits.u8()
        steps = np.clip(np.rint(x / scale), -zero, STEPS - zero)
        found.append(float(np.square(steps * scale - x, dtype=np.float64).sum()))
    return np.array(found)


def decibels(pairs: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]) -> dict[str, float]:
    """Of (wanted, got) outputs of runs: how far the error lies below what is wanted, for each
    output of floats, over all runs."""
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for wanted, got in pairs:
        for name, array in wanted.items():
            if array.dtype.kind != "f" or not array.size:
                continue
            exact, real = array.astype(np.float64), got[name].astype(np.float64)
            error = float("inf") if real.shape != exact.shape else np.square(real - exact).sum()
            signal[name] = signal.get(name, 0.0) + float(np.square(exact).sum())
            noise[name] = noise.get(name, 0.0) + float(error)
    return {name: ratio_in_decibels(signal[name], noise[name]) for name in signal}


MOST_DECIBELS = 120.0
FAINT = 0.01  # of the mean power of samples: what a sample counts for at least (20 dB below it)


def shares_of_noise(
    pairs: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> dict[str, Array]:
    """Of (wanted, got) outputs of runs, a sample each: how large the error is, as a share of what
    is wanted (roots of mean squares), for each output of floats and each sample; 1 where nothing
    is left of it, NaN where both are empty. Outputs that always are have none."""
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for wanted, got in pairs:
        for name, array in wanted.items():
            if array.dtype.kind != "f":
                continue
            exact, real = array.astype(np.float64), got[name].astype(np.float64)
            with np.errstate(all="ignore"):
                signal = float(np.square(exact).sum()) if exact.size else np.nan
                error = float("inf") if real.shape != exact.shape else np.square(real - exact).sum()
            is_empty = not exact.size and not real.size
            found.setdefault(name, []).append((signal, float(error), is_empty))
    shares = {name: _shares(np.array(own)) for name, own in found.items()}
    return {name: own for name, own in shares.items() if not np.isnan(own).all()}


def means_of_outputs(shares: Mapping[str, Array]) -> Array:
    """Of `shares_of_noise`, one output or more: of each sample, the mean over outputs that are not
    empty; NaN where all are."""
    own = np.array(list(shares.values()))
    count = np.sum(~np.isnan(own), axis=0)
    return np.where(count > 0, np.nansum(own, axis=0) / np.maximum(count, 1), np.nan)


def share_of_noise(
    pairs: Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> float:
    """Of (wanted, got) outputs of runs, a sample each: the power of the noise as a share of that of
    what is wanted, which is the square of the mean of `shares_of_noise`; 0 without floats."""
    shares = shares_of_noise(pairs)
    return float(np.square(np.nanmean(means_of_outputs(shares)))) if shares else 0.0


def _shares(sums: Array) -> Array:
    """Of (signal, noise, whether there is nothing) of samples, the former sums of squares."""
    signal, noise, is_empty = sums.T
    finite = signal[np.isfinite(signal)]
    least = FAINT * float(finite.mean()) if finite.size else 0.0
    with np.errstate(all="ignore"):
        shares = np.sqrt(noise / np.maximum(np.maximum(signal, least), 1e-30))
    shares = np.where(np.isfinite(shares), np.minimum(shares, 1.0), 1.0)
    return np.where(is_empty > 0, np.nan, shares)


def decibels_of(shares: Array) -> float:
    """How far the error lies below what is wanted, of shares of noise: of the mean of those that
    are not NaN, one or more.

    Answers whose margins are even about zero change in proportion to the mean size of the noise
    (not of its power): a sample that is lost counts once, however large it is.
    """
    return ratio_in_decibels(1.0, float(np.square(np.nanmean(shares))))


def ratio_in_decibels(signal: float, noise: float) -> float:
    """How far noise lies below a signal (sums of squares), within `MOST_DECIBELS`."""
    if not np.isfinite(noise) or not np.isfinite(signal):
        return -MOST_DECIBELS
    if noise <= 0.0:
        return MOST_DECIBELS
    ratio = 10.0 * np.log10(max(signal, 1e-30) / noise)
    return float(np.clip(ratio, -MOST_DECIBELS, MOST_DECIBELS))
