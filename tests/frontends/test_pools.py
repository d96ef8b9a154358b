"""Pools of small sizes against ONNX Runtime: windows that fit, are cut off, or are not there."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import RunError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node, run_ort
from .ort_cases import OrtCase, check_all

GRID = list(product((2, 3, 5), (1, 2, 3), ([0, 0], [1, 1], [0, 2]), (0, 1), (1, 2), range(1, 8)))


def pool(op: str, row: Any, dims: list[int | str] | None = None) -> OrtCase:
    """One pool over [1, 2, size]; MaxPool with places."""
    kernel, stride, pads, ceil_mode, dilation, size = row
    outputs = ["y", "i"] if op == "MaxPool" else ["y"]
    made = node(op, "x", " ".join(outputs), kernel_shape=[kernel], strides=[stride], pads=pads,
                ceil_mode=ceil_mode, dilations=[dilation])  # fmt: skip
    x = floats(1, 2, size)
    types = [TensorProto.FLOAT, TensorProto.INT64][: len(outputs)]
    proto = model([made], {"x": x}, outputs, types=types, opset=19, dims={"x": dims or x.shape})
    return OrtCase(f"{op} {row}", proto, {"x": x})


def outcome(run: Any) -> dict[str, np.ndarray] | None:
    """What a call gives; None where it is refused."""
    try:
        return dict(run())
    except Exception:
        return None


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_every_size(op: str) -> None:
    wrong, compared = [], 0
    for row in GRID:
        case = pool(op, row)
        inputs = dict(case.inputs)
        want = outcome(lambda case=case, inputs=inputs: run_ort(case.proto, inputs))
        if want is None:
            continue
        alone = np.abs(want["y"]) > 1e9  # of padding alone; ONNX Runtime has no place for it
        got = run_graph(load_model(case.proto), inputs)
        compared += 1
        for name, array in want.items():
            found = np.where(alone, array, got[name]) if name == "i" else got[name]
            if array.shape != found.shape or not np.allclose(found, array, 1e-4, 1e-5):
                wrong.append(f"{case.name} {name}: {got[name].tolist()}, not {array.tolist()}")
    assert compared > 500
    assert not wrong, "\n".join(wrong)


def test_compiled(tmp_path: Path) -> None:
    rows = [(2, 2, [0, 0], 0, 1, 1), (5, 3, [0, 0], 0, 1, 2), (3, 2, [1, 1], 1, 1, 4),
            (2, 3, [0, 0], 1, 2, 5), (3, 3, [0, 0], 0, 2, 3)]  # fmt: skip
    ops = ("MaxPool", "AveragePool", "LpPool")
    cases = [pool(op, row) for op, row in product(ops, rows)]
    for size in (3, 4, 6):
        case = pool("LpPool", (3, 2, [1, 1], 1, 1, size), [1, 2, "n"])
        cases.append(OrtCase(f"{case.name} of n", case.proto, case.inputs))
    for size, dims in ((2, None), (3, None), (3, [1, 2, "n"])):  # the second: of padding alone
        case = pool("AveragePool", (2, 1, [1, 1], 0, 4, size), dims)
        cases.append(OrtCase(f"{case.name} of {dims}", case.proto, case.inputs))
    case = pool("MaxPool", (2, 1, [1, 1], 0, 4, 3))  # ONNX Runtime's place for it is none
    least = {"y": np.full((1, 2, 1), np.finfo(np.float32).min)}
    cases.append(OrtCase(f"{case.name} alone", case.proto, case.inputs, expected=least))
    check_all(cases, tmp_path)


def test_averages_that_count_padding() -> None:
    """Of a window that is cut off."""

    rows = [([4], [3], [0, 0], [1]), ([4], [3], [1, 0], [1]), ([2], [2], [1, 1], [4]),
            ([4, 3], [3, 2], [1, 0, 0, 1], [1, 2])]  # fmt: skip
    for (kernel, strides, pads, dilations), opset in product(rows, (17, 19)):
        x = floats(1, 2, *[2] * len(kernel))
        made = node("AveragePool", "x", kernel_shape=kernel, strides=strides, pads=pads,
                    count_include_pad=1)  # fmt: skip
        if opset == 19:
            made.attribute.append(helper.make_attribute("dilations", dilations))
        proto = model([made], {"x": x}, ["y"], opset=opset)
        want = run_ort(proto, {"x": x})["y"]
        np.testing.assert_allclose(run_graph(load_model(proto), {"x": x})["y"], want, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_regions_that_end_between_elements(scale: float) -> None:
    """Ends are rounded away from 0."""
    x = floats(1, 2, 8, 8)
    rois = np.float32([[0, 0.5, 1, 2.5, 6.5], [0, -0.5, 1.5, 9, 9], [0, 1, 1, 5, 5]])
    made = node("MaxRoiPool", "x r", pooled_shape=[2, 2], spatial_scale=scale)
    check(model([made], {"x": x}, ["y"], constants={"r": rois}, opset=7), {"x": x})


def test_maxima_go_back_to_where_a_pool_found_them(tmp_path: Path) -> None:
    """Two pools and back; rows and columns that no window covers stay zeros."""
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        node("Shape", "x", "first"),
        node("MaxPool", "x", "a i", **window),
        node("Shape", "a", "second"),
        node("MaxPool", "a", "b j", **window),
        node("MaxUnpool", "b j second", "c", **window),
        node("MaxUnpool", "c i first", **window),
    ]
    found = []
    for height, width in ((7, 9), (4, 8), (5, 6)):
        inputs = {"x": floats(2, 3, height, width)}
        proto = model(nodes, inputs, ["y"], opset=11, dims={"x": ["N", 3, "H", "W"]})
        found.append(OrtCase(f"{height} {width}", proto, inputs))
    check_all(found, tmp_path)


def test_maxima_go_back_into_a_shape_that_a_run_gives(tmp_path: Path) -> None:
    """Five rows and columns, of which two windows cover four: places count through all five."""
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [node("MaxPool", "x", "a i", **window), node("MaxUnpool", "a i s", **window)]
    inputs = {"x": floats(2, 1, 5, 5), "s": np.int64([2, 1, 5, 5])}
    proto = model(nodes, inputs, ["y"], opset=11)
    check_all([OrtCase("given", proto, inputs)], tmp_path)
    with pytest.raises(RunError, match="give its shape"):
        run_graph(load_model(proto), {**inputs, "s": np.int64([2, 1, 6, 5])})


@pytest.mark.parametrize(
    ("strides", "dilations", "pads"),
    [([1, 1], [1, 1], [1, 1, 1, 1]), ([2, 3], [1, 1], [0, 1, 2, 0]), ([1, 2], [2, 1], [3, 0, 0, 1]),
     ([3, 3], [1, 1], [0, 0, 0, 0])],
)  # fmt: skip
def test_blocks_are_added_as_planes(
    strides: list[int], dilations: list[int], pads: list[int]
) -> None:
    """Blocks that overlap, that leave gaps, and that lie outside of the image in part."""
    sizes, block = [9, 8], [2, 3]
    counts = [
        (n + pads[i] + pads[2 + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i, n in enumerate(sizes)
    ]
    x = floats(2, 3 * 6, counts[0] * counts[1])
    made = node("Col2Im", "x s b", strides=strides, dilations=dilations, pads=pads)
    constants = {"s": np.array(sizes), "b": np.array(block)}
    graph = check(model([made], {"x": x}, ["y"], constants=constants, opset=18), {"x": x})
    assert not any(item.op == "scatter_elements" for item in graph.walk())


@pytest.mark.parametrize("time", [0, 1])
def test_sequences_are_reversed_by_whole_rows(time: int) -> None:
    x, lengths = floats(4, 4, 3), np.array([1, 4, 2, 3])
    made = node("ReverseSequence", "x n", time_axis=time, batch_axis=1 - time)
    proto = model([made], {"x": x, "n": lengths}, ["y"])
    graph = check(proto, {"x": x, "n": lengths}, rtol=0, atol=0)
    (gather,) = (item for item in graph.walk() if item.op == "gather")
    assert gather.inputs[1].shape == (4, 4)


def test_regions_are_searched_one_axis_after_the_other() -> None:
    """Not every element of the picture for every bin."""
    x, rois = floats(1, 2, 9, 7), np.float32([[0, 1, 0, 5, 8], [0, 7, 7, 7, 7], [0, 20, 1, 30, 4]])
    made = node("MaxRoiPool", "x r", pooled_shape=[3, 2], spatial_scale=1.0)
    graph = check(model([made], {"x": x}, ["y"], constants={"r": rois}, opset=7), {"x": x})
    ranks = [item.inputs[0].type.rank for item in graph.walk() if item.op == "reduce_max"]
    assert max(ranks) == 5
