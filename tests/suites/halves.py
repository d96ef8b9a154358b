"""Cases of bf16 and f16 operands that are multiplied and added up in f32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensmith.compiler.ir import Dim, DType

from .case import BF16, BRAIN, F16, F32, HALF, I32, SUM, Case, CaseBuilder, N, Tolerance


def _dot2() -> Case:
    """Groups of two bf16 of which all have exponents somewhat below that of one."""

    def build(c: CaseBuilder) -> None:
        numbers = []
        for shape in ((5, 37), (37,)):
            drawn = c.input(*shape, dtype=I32, low=-(2**31), high=2**31 - 1)
            kept = c.op("bitand", drawn, c.scalar(0x83FF83FF - (1 << 32), I32))
            numbers.append(c.op("bitor", kept, c.scalar(0x3C003C00, I32)))
        c.output(c.op("dot2", *numbers))

    return Case("dot2", build, Tolerance(1e-6, 0))


def _matmul(
    name: str,
    a: tuple[Dim, ...],
    b: tuple[int, ...],
    left: DType = BF16,
    right: DType = BF16,
    **sizes: int,
) -> Case:
    def build(c: CaseBuilder) -> None:
        x, w = c.input(*a, dtype=left), c.weight(*b, dtype=right)
        c.output(c.op("matmul", x, w, accumulate=F32))

    return Case(f"half_matmul_{name}", build, SUM, sizes)


def _conv(
    name: str, x: tuple[int, ...], w: tuple[int, ...], half: DType = BF16, **more: Any
) -> Case:
    """With a bias in f32, and a result that is rounded after what follows the sum."""
    attrs = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), **more}

    def build(c: CaseBuilder) -> None:
        images = c.op("cast", c.input(*x), dtype=half)
        operands = (images, c.weight(*w, dtype=half), c.weight(w[0]))
        total = c.op("conv", *operands, accumulate=F32, **attrs)
        c.output(c.op("cast", c.op("max", total, c.scalar(0)), dtype=half))

    return Case(f"half_conv_{name}", build, BRAIN if half is BF16 else HALF)


def _products() -> Iterator[Case]:
    yield _matmul("groups", (13, 64), (64, 48))
    yield _matmul("odd_columns", (7, 32), (32, 35))
    yield _matmul("odd_depth", (7, 33), (33, 35))
    yield _matmul("one_row", (1, 128), (128, 96))
    yield _matmul("one_column", (9, 64), (64, 1))
    yield _matmul("batch", (2, 3, 5, 16), (16, 24))
    yield _matmul("rows_of_data", (N, 40), (40, 33), n=11)
    yield _matmul("deep", (6, 2048), (2048, 40))
    yield _matmul("matrices", (2, 5, 16), (2, 16, 20))
    for half in (BF16, F16):
        yield _matmul(f"weights_{half}", (3, 40), (40, 64), F32, half)
        yield _matmul(f"one_row_weights_{half}", (1, 512), (512, 96), F32, half)
        yield _conv(f"three_{half}", (1, 8, 9, 11), (24, 8, 3, 3), half)
    yield _matmul("f16", (7, 32), (32, 40), F16, F16)
    yield _conv("strided", (2, 16, 9, 11), (19, 16, 3, 3), strides=(2, 2))
    yield _conv("pointwise", (1, 32, 7, 7), (40, 32, 1, 1), pads=(0, 0, 0, 0))
    yield _conv("grouped", (1, 32, 7, 7), (32, 8, 3, 3), groups=4)
    yield _conv("depthwise", (1, 24, 7, 9), (24, 1, 3, 3), groups=24)
    yield _conv("few_channels", (1, 3, 12, 12), (16, 3, 3, 3), strides=(2, 2))


def _groups() -> Case:
    def build(c: CaseBuilder) -> None:
        left, right = c.input(2, N, 10, dtype=BF16), c.input(2, 10, 33, dtype=BF16)
        groups = [c.op("pack_groups", left, axis=-1), c.op("pack_groups", right, axis=-2)]
        c.output(c.op("matmul", *groups, product="dot2"))

    return Case("matmul_pairs", build, SUM, {"n": 5})


CASES: list[Case] = [_dot2(), _groups(), *_products()]
