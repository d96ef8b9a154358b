"""Packed constants: every element is where the re-indexed kernel reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import fused_nodes, positions, reference, region_inputs, store
from suites.case import CaseBuilder, N

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph, Node
from tensmith.compiler.kernel.forms.form import form_of
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.interpret import interpret
from tensmith.compiler.kernel.schedule.heuristic import default_schedule
from tensmith.compiler.kernel.schedule.packing import Packing, pack
from tensmith.passes.grouping.conv_bands import ConvBands

TARGET = resolve_target("x86-64-v3")[1]


@given(st.integers(1, 9), st.integers(1, 70), st.sampled_from([1, 4, 8, 16, 48]))
def test_panels(rows: int, columns: int, width: int) -> None:
    packing = Packing(rows, columns, width)
    data = np.arange(1, rows * columns + 1, dtype=np.float32).reshape(rows, columns)
    packed = packing.apply(data)
    assert packed.size == packing.elements
    row, column = np.indices((rows, columns))
    start = column // width * width
    np.testing.assert_array_equal(packed[row * width + column + start * (rows - 1)], data)
    assert np.count_nonzero(packed) == rows * columns, "what is behind the last column is zero"


@given(st.integers(1, 5), st.integers(1, 40), st.sampled_from([4, 16, 24]))
def test_neighbouring_rows_side_by_side(pairs: int, columns: int, width: int) -> None:
    rows = 2 * pairs
    packing = Packing(rows, columns, width, steps=2)
    data = np.arange(1, rows * columns + 1, dtype=np.int32).reshape(rows, columns)
    packed = packing.apply(data)
    row, column = np.indices((rows, columns))
    start = column // width * width
    place = row // 2 * 2 * width + 2 * column + row % 2 + start * (rows - 2)
    np.testing.assert_array_equal(packed[place], data)
    assert packed.size == packing.elements
    assert np.count_nonzero(packed) == rows * columns


def linear(rows: int, depth: int, columns: int) -> Graph:
    c = CaseBuilder("linear")
    x = c.input(rows or N, depth)
    product = c.op("matmul", x, c.weight(depth, columns))
    c.output(c.op("max", c.op("add", product, c.weight(columns)), c.scalar(0)))
    return c.graph()


def batched(count: int, rows: int, depth: int, columns: int) -> Graph:
    c = CaseBuilder("batched")
    c.output(c.op("matmul", c.input(count, rows, depth), c.weight(count, depth, columns)))
    return c.graph()


def conv(channels: int, filters: int, size: int) -> Graph:
    c = CaseBuilder("conv")
    window = {"strides": (1, 2), "dilations": (1, 1), "pads": (0, 1, 1, 0), "groups": 1}
    x, w = c.input(2, channels, 7, 6), c.weight(filters, channels, size, size)
    c.output(c.op("conv", x, w, c.weight(filters), **window))
    return c.graph()


def bands(channels: int, wide: int) -> Iterator[Node]:
    """A 1x1 and a depthwise convolution that are computed in bands."""
    c = CaseBuilder("bands")
    plain = {"strides": (1, 1), "dilations": (1, 1)}
    x = c.op("max", c.input(1, channels, 6, 5), c.scalar(0))
    y = c.op("conv", x, c.weight(wide, channels, 1, 1), **plain, pads=(0,) * 4, groups=1)
    c.output(c.op("conv", y, c.weight(wide, 1, 3, 3), **plain, pads=(1,) * 4, groups=wide))
    graph = c.graph()
    list(fused_nodes(graph))
    assert ConvBands(TARGET).run(graph)
    yield from (node for node in graph.walk() if node.op == "fused")


def check(nodes: Iterable[Node], sizes: dict[str, int]) -> int:
    """Interpret every kernel that reads packed operands; how many operands are packed."""
    count = 0
    for node in nodes:
        region = node.regions[0]
        lowered = lower_region(region, form_of(node))
        constants = dict(zip(region.inputs, node.inputs, strict=True))
        params = dict(zip(lowered.inputs, lowered.kernel.params, strict=False))
        held = {
            params[inner].name: outer.data
            for inner, outer in constants.items()
            if outer.data is not None and inner in params
        }
        schedule = default_schedule(lowered.kernel, TARGET)
        kernel, packings = pack(lowered.kernel, schedule, {n: d.size for n, d in held.items()})
        count += len(packings)
        inputs = region_inputs(region, sizes, 0)
        inputs |= {i.name: o.data for i, o in constants.items() if o.data is not None}
        arrays = {params[v].name: store(v.type, sizes, inputs[v.name]) for v in lowered.inputs}
        arrays |= {name: packing.apply(held[name]) for name, packing in packings.items()}
        outputs = kernel.params[len(lowered.inputs) :]
        for buffer, value in zip(outputs, lowered.outputs, strict=True):
            arrays[buffer.name] = store(value.type, sizes)
        panels = {
            own.tile.vector: own.tile.lanes * (own.panel or own.tile.vectors)
            for own in schedule.stages
        }
        interpret(kernel, arrays, sizes, panels)
        for buffer, value, want in zip(
            outputs, lowered.outputs, reference(region, inputs, sizes), strict=True
        ):
            got = arrays[buffer.name][positions(value.type, sizes)]
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    return count


@given(st.sampled_from([0, 1, 5]), st.integers(1, 12), st.integers(2, 60))
def test_matmul_reads_packed_weights(rows: int, depth: int, columns: int) -> None:
    check(fused_nodes(linear(rows, depth, columns)), {"n": 3})


@given(st.integers(1, 5), st.integers(2, 40), st.sampled_from([1, 3]))
def test_conv_reads_packed_filters(channels: int, filters: int, size: int) -> None:
    check(fused_nodes(conv(channels, filters, size)), {})


@given(st.integers(2, 4), st.integers(2, 9), st.integers(1, 5), st.integers(2, 60))
def test_several_matrices(count: int, rows: int, depth: int, columns: int) -> None:
    check(fused_nodes(batched(count, rows, depth, columns)), {})


@given(st.sampled_from([300, 512]), st.sampled_from([32, 33, 70, 200]))
def test_one_row_reads_several_panels(depth: int, columns: int) -> None:
    assert check(fused_nodes(linear(1, depth, columns)), {}) == 1


def test_blocks_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensmith.compiler.kernel.forms.bands_choice.MIN_BETWEEN_BYTES", 0)
    for wide, packed in ((96, 2), (144, 2), (192, 2), (48, 2)):
        assert check(bands(5, wide), {}) == packed


def test_weights_are_packed() -> None:
    assert check(fused_nodes(linear(5, 8, 60)), {}) == 1
    assert check(fused_nodes(conv(3, 40, 3)), {}) == 1
    assert check(fused_nodes(batched(3, 8, 5, 60)), {}) == 1
