"""Depthwise convolutions over blocks of channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, run_all
from kernels import fused_nodes
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.kernel.forms.channel_blocks import best_block, in_channel_blocks
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import Stage


def depthwise(channels: int, size: int) -> CaseBuilder:
    c = CaseBuilder("depthwise")
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "layout": "NHWC"}
    x = c.input(1, size, size, channels, name="x")
    y = c.op("conv", x, c.weight(3, 3, 1, channels), c.weight(channels), **window, groups=channels)
    c.output(c.op("max", y, c.scalar(0)))
    return c


def reduction(case: CaseBuilder) -> Stage:
    [node] = fused_nodes(case.graph())
    kernel = lower_region(node.regions[0]).kernel
    [stage] = in_channel_blocks(kernel, best_block(kernel)).stages
    return stage


@pytest.mark.parametrize(("channels", "block"), [(192, 64), (144, 48), (96, 48), (160, 32)])
def test_blocks_are_outermost(channels: int, block: int) -> None:
    extents = [axis.extent for axis in reduction(depthwise(channels, 40)).axes]
    assert extents == [channels // block, 40, 40, block]


@pytest.mark.parametrize(
    ("channels", "size"), [(64, 56), (192, 8), (116, 56)], ids=["one block", "small", "no divisor"]
)
def test_whole(channels: int, size: int) -> None:
    extents = [axis.extent for axis in reduction(depthwise(channels, size)).axes]
    assert extents == [size, size, channels]


def test_products_stay_whole() -> None:
    c = CaseBuilder("pointwise")
    window = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "layout": "NHWC"}
    c.output(c.op("conv", c.input(1, 56, 56, 64), c.weight(1, 1, 64, 192), **window, groups=1))
    assert 192 in [axis.extent for axis in reduction(c).axes]


def test_result(tmp_path: Path) -> None:
    setting = Setting("native", 2)
    if setting.missing():
        pytest.skip(setting.missing())
    case = depthwise(192, 40)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 40, 40, 192), np.float32)}
    [want] = run_graph(case.graph(), feed).values()
    results = run_all({"depthwise": Job(case.graph(), feed)}, setting, tmp_path)["depthwise"]
    if isinstance(results, Exception):
        raise results
    [got] = results.values()
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()
