"""Cases of integers of few bits, several in a byte, and of products with such weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tensmith.compiler.ir import Dim, DType, constant
from tensmith.compiler.ir.ops.quantised_product import WeightFormat

from .case import EXACT, F16, F32, SUM, U8, Case, CaseBuilder, N

U32 = DType.U32


def _digit(bits: int) -> Case:
    def build(c: CaseBuilder) -> None:
        words = c.input(5, 33, dtype=U32, low=0, high=1 << 32)
        places = c.weight(33, dtype=U32, low=0, high=32 // bits)
        c.output(c.op(f"digit{bits}", words, places))

    return Case(f"digit{bits}", build, EXACT)


def _unpack(dtype: DType, shape: tuple[int, ...]) -> Case:
    def build(c: CaseBuilder) -> None:
        count = -(-int(np.prod(shape)) * int(dtype.value[1:]) // 8)
        numbers = c.op(
            "unpack", c.weight(count, dtype=U8, low=0, high=256), dtype=dtype, shape=shape
        )
        scale = c.input(shape[-1], low=1, high=2)
        c.output(c.op("dequantize", numbers, scale, constant(np.array(1).astype(dtype.numpy))))

    return Case(f"unpack_{dtype}", build, EXACT)


def _product(
    name: str,
    rows: tuple[Dim, ...],
    form: WeightFormat,
    zeros: str = "",
    scale: DType = F32,
    batch: tuple[int, ...] = (),
    **sizes: int,
) -> Case:
    """rows: of the data, with axes in front of them. zeros: "packed", "floats" or none."""

    def build(c: CaseBuilder) -> None:
        weights = c.weight(*batch, *form.packed(form.depth), dtype=U8, low=0, high=256)
        operands = [c.input(*rows, form.depth), weights]
        operands.append(c.weight(*batch, *form.plain(form.blocks), dtype=scale, low=0.01, high=0.2))
        if zeros == "packed":
            operands.append(c.weight(*batch, *form.packed(form.blocks), dtype=U8, low=0, high=256))
        elif zeros:
            operands.append(c.weight(*batch, *form.plain(form.blocks), low=0, high=3))
        fields = ("bits", "block", "depth", "columns", "signed", "by_column", "zero")
        attrs: dict[str, Any] = {key: getattr(form, key) for key in fields}
        total = c.op("quantised_matmul", *operands, **attrs)
        c.output(c.op("add", total, c.weight(form.columns)))

    return Case(f"quantised_matmul_{name}", build, SUM, sizes)


def _products() -> Iterator[Case]:
    for bits in (2, 4, 8):
        middle = 1 << (bits - 1)
        plain = WeightFormat(bits, 32, 96, 40, zero=middle)
        yield _product(f"{bits}_bits", (5,), plain)
        yield _product(f"{bits}_bits_one_row", (1,), plain, "packed")
        yield _product(f"{bits}_bits_float_zeros", (17,), plain, "floats")
        rows = WeightFormat(bits, 16, 64, 33, signed=True, by_column=False)
        yield _product(f"{bits}_bits_signed_rows", (3,), rows)
        yield _product(f"{bits}_bits_signed_rows_zeros", (N,), rows, "packed", n=6)
        whole = WeightFormat(bits, 80, 80, 48, zero=1)
        yield _product(f"{bits}_bits_one_scale", (N,), whole, n=1)
        yield _product(f"{bits}_bits_one_scale_zeros", (9,), whole, "packed", F16)
        apart = WeightFormat(bits, 32, 64, 24, matrices=3, zero=middle)
        yield _product(f"{bits}_bits_matrices", (3, 5), apart, "packed", batch=(3,))
        yield _product(f"{bits}_bits_matrices_of_one", (1, 4), apart, batch=(3,))
    yield _product("half_scales", (2, 7), WeightFormat(4, 64, 128, 20, zero=8), scale=F16)
    yield _product("one_column", (4,), WeightFormat(4, 32, 32, 1, zero=8), "packed")
    yield _product("deep", (N,), WeightFormat(4, 128, 1024, 72, zero=8), "packed", n=13)


CASES: list[Case] = [
    _digit(2),
    _digit(4),
    _unpack(DType.I4, (5, 7)),
    _unpack(DType.U4, (4, 8)),
    _unpack(DType.I2, (3, 9)),
    _unpack(DType.U2, (2, 17)),
    *_products(),
]
