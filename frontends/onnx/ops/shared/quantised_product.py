"""Products with constant weights of few bits, which stay packed as the file has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from .....compiler.ir.dims import product
from .....compiler.ir.ops.quantised_product import QUANTISED_MATMUL
from ...site import Site

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PackedColumns:
    """Weights whose columns lie one after the other, each in whole blocks.

    weights: u8 [.., N, K * bits / 8]. scales: floats [.., N, blocks]. zeros: as the scales, or u8
    [.., N, bytes]; None: `middle` of the numbers, which are unsigned. steps: of a sum, K, which may
    end within the last block.
    """

    bits: int
    block: int
    weights: Array
    scales: Array
    steps: int
    zeros: Array | None = None

    @property
    def depth(self) -> int:
        """Steps of a sum, the last block filled up."""
        return int(self.scales.shape[-1]) * self.block


def packed_product(s: Site, x: Value, form: PackedColumns) -> Value:
    """x [.., M, K] times the weights [.., K, N].

    Computed in f32; the result has x's type. Raises ValueError where x's last axis is known not to
    be of K steps; where it is left open, a run checks that.
    """
    x = s.sized(x, -1, form.steps)
    wide = s.cast(x, DType.F32)
    rank, missing = x.type.rank, form.depth - form.steps
    if missing:
        pads = [0] * (2 * rank)
        pads[-1] = missing
        wide = s.emit("pad", [wide], pads=tuple(pads), mode="constant")
    single = form.weights.ndim == 2
    if single:
        wide = s.reshape(wide, (product(x.shape[:-1]), form.depth))
    parts = [form.weights, form.scales]
    if form.zeros is not None:
        narrow = form.zeros.dtype == np.uint8
        parts.append(form.zeros if narrow else form.zeros.astype(np.float32))
    out = s.emit(
        QUANTISED_MATMUL,
        [wide, *map(constant, parts)],
        bits=form.bits,
        block=form.block,
        depth=form.depth,
        columns=int(form.weights.shape[-2]),
        zero=1 << (form.bits - 1),
    )
    if single:
        out = s.reshape(out, (*x.shape[:-1], out.shape[-1]))
    return s.cast(out, x.dtype)
