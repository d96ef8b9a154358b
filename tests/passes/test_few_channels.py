"""Convolutions that make few channels stay channels-first where that saves more than it costs."""

from __future__ import annotations

import pytest
from suites.case import CaseBuilder

from tensmith.compiler.ir import Dim, Graph, Value
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.layout.choose_layouts import ChooseLayouts


def conv(c: CaseBuilder, x: Value, out: int, taps: int, stride: int = 1) -> Value:
    weight = c.weight(out, int(x.shape[1]), taps, taps)  # type: ignore[arg-type]
    pads = (taps // 2,) * 4
    return c.op("conv", x, weight, strides=(stride, stride), pads=pads, dilations=(1, 1))


def layouts(graph: Graph) -> list[str]:
    """Of the convolutions, in order, after the pass."""
    run_passes(graph, (ChooseLayouts(),))
    return [node.attrs["layout"] for node in graph.nodes if node.op == "conv"]


@pytest.mark.parametrize(
    ("channels", "out", "taps", "stride", "width", "kept"),
    [
        (4, 4, 3, 1, 40, True),
        (4, 4, 3, 1, symbol("w"), True),
        (1, 16, 5, 1, 40, True),
        (64, 3, 3, 1, 64, True),
        (16, 16, 3, 1, 40, False),  # channels fill the lanes
        (4, 4, 3, 1, 20, False),  # the width does not
        (4, 4, 3, 2, 40, False),  # elements of a stride lie apart
    ],
)
def test_alone(channels: int, out: int, taps: int, stride: int, width: Dim, kept: bool) -> None:
    c = CaseBuilder("alone")
    c.output(c.op("tanh", conv(c, c.input(1, channels, 40, width), out, taps, stride)))
    assert layouts(c.graph()) == ["NCHW" if kept else "NHWC"]


def test_behind_another() -> None:
    """A transpose of all that it reads pays for many taps, not for one."""
    for taps, kept in ((3, "NCHW"), (1, "NHWC")):
        c = CaseBuilder("behind")
        wide = conv(c, c.input(1, 3, 64, 64), 64, 3)
        c.output(conv(c, c.op("max", wide, c.scalar(0)), 3, taps))
        assert layouts(c.graph()) == ["NHWC", kept]


def test_chain_of_few_channels_has_no_transposes() -> None:
    c = CaseBuilder("chain")
    x = c.input(1, 2, 64, 64)
    for out in (4, 8, 4, 1):
        x = c.op("tanh", conv(c, x, out, 3))
    c.output(x)
    graph = c.graph()
    assert layouts(graph) == ["NCHW"] * 4
    assert not any(node.op == "transpose" for node in graph.nodes)
