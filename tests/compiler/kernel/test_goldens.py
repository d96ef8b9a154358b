"""The text of some kernels, as it was looked over once; `--update-goldens` writes it anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kernels import fused_nodes
from suites.case import I64, CaseBuilder, N

from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import kernel_text

GOLDENS = Path(__file__).parent / "goldens"


def linear_relu(c: CaseBuilder) -> None:
    product = c.op("matmul", c.input(N, 64), c.weight(64, 48))
    c.output(c.op("max", c.op("add", product, c.weight(48)), c.scalar(0)))


def conv_residual(c: CaseBuilder) -> None:
    window = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "groups": 1}
    x = c.input(1, 16, 12, 12)
    once = c.op("max", c.op("conv", x, c.weight(16, 16, 3, 3), c.weight(16), **window), c.scalar(0))
    c.output(c.op("add", c.op("conv", once, c.weight(16, 16, 3, 3), **window), x))


def softmax(c: CaseBuilder) -> None:
    c.output(c.op("softmax", c.input(N, 4, 100), axis=2))


def layer_norm(c: CaseBuilder) -> None:
    x = c.input(N, 96)
    c.output(c.op("layer_norm", x, c.weight(96), c.weight(96), axis=1, epsilon=1e-5))


def attention(c: CaseBuilder) -> None:
    q, k, v = (c.input(2, 3, 10, 16) for _ in range(3))
    c.output(c.op("attention", q, k, v, scale=0.25))


def movement(c: CaseBuilder) -> None:
    x = c.input(4, 6, 10)
    part = c.op("slice", x, starts=(3, 0, 1), stops=(-1, 6, 9), steps=(-1, 2, 3))
    turned = c.op("transpose", part, perm=(2, 0, 1))
    c.output(c.op("reshape", turned, shape=(3, 12)), c.op("pad", x, pads=(0, 1, 0, 0, 2, 0)))
    c.output(c.op("concat", x, c.op("neg", x), axis=1))


def gather_and_scatter(c: CaseBuilder) -> None:
    table, i = c.input(50, 8), c.input(3, 2, dtype=I64, low=0, high=50)
    c.output(c.op("tanh", c.op("gather", table, i, axis=0)))
    c.output(c.op("scatter_nd", table, i, c.input(3), reduction="add"))


def pools(c: CaseBuilder) -> None:
    window = {"kernel": (3, 3), "strides": (2, 2), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
    x = c.input(1, 8, 9, 9)
    c.output(c.op("max_pool", x, **window), c.op("avg_pool", x, **window))


KERNELS: tuple[Callable[[CaseBuilder], None], ...] = (
    *(linear_relu, conv_residual, softmax, layer_norm, attention),
    *(movement, gather_and_scatter, pools),
)


@pytest.mark.parametrize("fill", KERNELS, ids=lambda fill: fill.__name__)
def test_kernel_text(fill: Callable[[CaseBuilder], None], update_goldens: bool) -> None:
    builder = CaseBuilder(fill.__name__)
    fill(builder)
    texts = [
        kernel_text(lower_region(node.regions[0]).kernel) for node in fused_nodes(builder.graph())
    ]
    path = GOLDENS / f"{fill.__name__}.txt"
    text = "\n\n".join(texts) + "\n"
    if update_goldens:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), "run with --update-goldens if the change is meant"
