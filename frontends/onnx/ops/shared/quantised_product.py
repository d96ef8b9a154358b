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
    [.., N, bytes]; None: `middle` of the numbers, which are unsigned.
    """

    bits: int
    block: int
    weights: Array
    scales: Array
    zeros: Array | None = None

    @property
    def depth(self) -> int:
        """Steps of a sum, the last block filled up."""
        return int(self.scales.shape[-1]) * self.block


def packed_product(s: Site, x: Value, form: PackedColumns) -> Value:
    """x [.., M, K] times the weights [.., K, N]; K may end within the last block.

    Computed in f32; the result has x's type.
    """
    wide = s.cast(x, DType.F32)
    rank, missing = x.type.rank, form.depth - x.shape[-1]
    if missing != 0:
        pads = [0] * (2 * rank)
        pads[-1] = missing
        wide = s.emit("pad", [wide], pads=tuple(pads), mode="constant")
    single = form.weights.ndim == 2
    if single:
        wide = s.reshape(wide, (product(x.shape[:-1]), form.depth))
    parts = (form.weights, form.scales) if form.zeros is None else (
        form.weights, form.scales, form.zeros)  # fmt: skip
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
