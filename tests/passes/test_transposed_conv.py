"""Transposed convolutions as plain ones over all phases."""

from __future__ import annotations

import pytest
from rewriting import body, count, rewritten

from tensmith.compiler.ir.dims import Dim
from tensmith.passes.layout.transposed_conv import TransposedConv
from tensmith.passes.pipeline import SIMPLIFY


def _conv_transpose(
    size: Dim, kernel: int, stride: int, pads: tuple[int, int] = (0, 0), extra: int = 0, **more: int
) -> str:
    """Two spatial axes, the second of 5 elements with the kernel 3 and the stride 2."""
    groups, dilation = more.get("groups", 1), more.get("dilation", 1)
    out = (size - 1) * stride + (kernel - 1) * dilation + 1 + extra - sum(pads)
    attrs = (
        f"strides = ({stride}, 2), pads = ({pads[0]}, 1, {pads[1]}, 0), "
        f"dilations = ({dilation}, 1), groups = {groups}, output_padding = ({extra}, 0), "
        'layout = "NHWC"'
    )
    return body(
        f"%x: f32[2, {size}, 5, 4], %w: f32[{kernel}, 3, 4, 3], %b: f32[{3 * groups}]",
        f"%y: f32[2, {out}, 10, {3 * groups}] = conv_transpose(%x, %w, %b) {{{attrs}}}",
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "extra"),
    [
        (2, 2, (0, 0), 0),
        (3, 2, (1, 1), 1),
        (4, 2, (1, 1), 0),
        (4, 1, (0, 0), 0),
        (3, 1, (1, 2), 0),
        (5, 3, (4, 0), 1),
        (1, 3, (0, 0), 2),
        (2, 3, (3, 1), 2),
        (6, 2, (5, 5), 0),
        (3, 4, (2, 3), 3),
    ],
)
def test_one_convolution(kernel: int, stride: int, pads: tuple[int, int], extra: int) -> None:
    graph = rewritten(_conv_transpose(4, kernel, stride, pads, extra), TransposedConv(), *SIMPLIFY)
    assert count(graph)["conv_transpose"] == 0
    assert count(graph)["conv"] == 1


def test_groups() -> None:
    text = _conv_transpose(4, 4, 2, (1, 1), groups=2)
    assert count(rewritten(text, TransposedConv(), *SIMPLIFY))["conv_transpose"] == 0


def test_dilated_ones_stay() -> None:
    text = _conv_transpose(4, 3, 2, dilation=2)
    assert count(rewritten(text, TransposedConv(), *SIMPLIFY))["conv_transpose"] == 1


def test_symbolic_size() -> None:
    text = body(
        "%x: f32[n, s, 3, 4], %w: f32[4, 4, 4, 2]",
        "%y: f32[n, 2*s, 6, 2] = conv_transpose(%x, %w) {strides = (2, 2), pads = (1, 1, 1, 1), "
        'dilations = (1, 1), groups = 1, output_padding = (0, 0), layout = "NHWC"}',
    )
    assert count(rewritten(text, TransposedConv(), *SIMPLIFY))["conv"] == 1
