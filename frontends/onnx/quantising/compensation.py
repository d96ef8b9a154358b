"""Rounding of weights that knows what they are multiplied by.

Weights of a column are rounded one behind the other. What rounding one changes in the results, the
weights behind it take back, as far as data allow on average. See E. Frantar et al., "GPTQ: accurate
post-training quantization for generative pre-trained transformers", https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

import numpy as np

from .constants import Array
from .few_bits import FewBits, WeightForm, best_range, nearest, reals

DAMPING = 0.01  # of the mean power of a step's data: what the paper adds to each
STEPS_AT_ONCE = 128  # whose changes reach the weights behind them together


def compensated(weights: Array, form: WeightForm, moments: Array) -> FewBits | None:
    """Weights [columns, depth] of f32 as integers, for data whose sums of x times its transpose
    are `moments` [depth, depth].

    None where those are not finite, or say nothing.
    """
    upper = _inverse_root(moments)
    if upper is None:
        return None
    columns, depth = weights.shape
    block = form.block or depth
    blocks = -(-depth // block)
    numbers = np.zeros((columns, blocks * block), form.dtype)
    scales = np.empty((columns, blocks), np.float32)
    zeros = np.zeros((columns, blocks), form.dtype)
    left = weights.astype(np.float32)
    step = min(block, STEPS_AT_ONCE)
    for start in range(0, depth, step):
        group = start // block
        if start % block == 0:
            wide = np.zeros((columns, block), np.float32)
            ahead = left[:, start : start + block]
            wide[:, : ahead.shape[1]] = ahead
            scales[:, group], zeros[:, group] = best_range(wide, form)[1:3]
            numbers[:, start : start + block] = zeros[:, group, None]
        part = slice(start, min(start + step, depth, (group + 1) * block))
        own = np.ascontiguousarray(left[:, part])
        numbers[:, part], errors = _rounded(
            own, upper[part, part], scales[:, group], zeros[:, group], form
        )
        left[:, part.stop :] -= errors @ upper[part, part.stop :]
    real = reals(numbers.reshape(columns, blocks, block), scales[..., None], zeros[..., None])
    changed = real.reshape(columns, -1)[:, :depth] - weights
    return FewBits(
        numbers.reshape(columns, blocks, block),
        scales,
        zeros,
        float(np.square(changed, dtype=np.float64).sum()),
        float(np.square(weights, dtype=np.float64).sum()),
    )


def _rounded(
    own: Array, upper: Array, scale: Array, zero: Array, form: WeightForm
) -> tuple[Array, Array]:
    """(integers, what weights behind have to make up for) of some steps [columns, steps]."""
    numbers, errors = np.empty(own.shape, form.dtype), np.empty_like(own)
    for n in range(own.shape[1]):
        numbers[:, n] = nearest(own[:, n], scale, zero, form)
        lost = (own[:, n] - reals(numbers[:, n], scale, zero)) / upper[n, n]
        own[:, n + 1 :] -= lost[:, None] * upper[n, n + 1 :]
        errors[:, n] = lost
    return numbers, errors


def _inverse_root(moments: Array) -> Array | None:
    """The upper triangle whose transpose times itself is the inverse of the damped moments."""
    power = np.diagonal(moments).astype(np.float64)
    mean = float(power.mean()) if power.size else 0.0
    if not np.isfinite(moments).all() or mean <= 0.0:
        return None
    damped = moments.astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * mean
    try:
        return np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
    except np.linalg.LinAlgError:
        return None


def results_lost(few: FewBits, weights: Array, moments: Array) -> float:
    """The power that rounding adds to the results of weights [columns, depth], as a share of their
    own, for data of given moments."""
    depth = weights.shape[1]
    real = reals(few.numbers, few.scales[..., None], few.zeros[..., None])
    changed = real.reshape(len(weights), -1)[:, :depth] - weights
    noise, power = (_power(array.astype(np.float64), moments) for array in (changed, weights))
    return noise / power if power > 0 else 0.0


def _power(columns: Array, moments: Array) -> float:
    return float(np.einsum("ij,ij->", columns @ moments, columns))
