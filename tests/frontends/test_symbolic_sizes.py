"""Sizes computed from sizes: what exporters write for dynamic maps, signals and sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import tensmith
from tensmith.compiler.ir.dims import size_of
from tensmith.frontends.onnx import load_model

from .oracle import Array, check, floats, model, node, run_ort

FAR = np.array([np.iinfo(np.int64).max])


def _compiled(proto: onnx.ModelProto, feeds: list[dict[str, Array]], folder: Path) -> None:
    """Compile once and compare every run with ONNX Runtime."""
    onnx.save(proto, folder / "model.onnx")
    module = tensmith.compile(folder / "model.onnx").load()
    for feed in feeds:
        check(proto, feed)
        found = module(feed)
        for name, want in run_ort(proto, feed).items():
            assert found[name].shape == want.shape
            np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=1e-5)


def test_the_last_step_of_a_dynamic_length(tmp_path: Path) -> None:
    proto = model(
        [
            node("Slice", "x last far axis", "step"),
            node("Sub", "x step", "apart"),
            node("CumSum", "x axis0", "sums"),
            node("Slice", "sums last far axis", "whole"),
            node("Div", "sums whole", "share"),
        ],
        {"x": floats(2, 5)},
        ["apart", "share"],
        constants={
            "last": np.array([-1]),
            "far": FAR,
            "axis": np.array([1]),
            "axis0": np.int64(1),
        },
        dims={"x": ["b", "t"]},
    )
    feeds = [{"x": np.abs(floats(2, t)) + 1} for t in (5, 1, 12, 0)]
    _compiled(proto, feeds, tmp_path)


def test_padding_that_the_size_decides(tmp_path: Path) -> None:
    """Strided windows that cover the map whole, beside some whose padding is a number."""
    same = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    fixed = {"pads": [1, 1, 1, 1], "strides": [2, 2]}
    proto = model(
        [
            node("Conv", "x w", "a", **same),
            node("Relu", "a", "map"),
            node("Conv", "map d", "b", group=4, **same),
            node("Conv", "map d", "c", group=4, **fixed),
            node("AveragePool", "map", "e", kernel_shape=[3, 3], **same),
            node("Sum", "b c e", "y"),
        ],
        {"x": floats(1, 3, 8, 8)},
        ["y"],
        constants={"w": floats(4, 3, 3, 3), "d": floats(4, 1, 3, 3, seed=1)},
        dims={"x": ["n", 3, "h", "w"]},
    )
    sizes = [(1, 8, 8), (2, 9, 7), (1, 1, 2), (0, 5, 5)]
    _compiled(proto, [{"x": floats(n, 3, h, w)} for n, h, w in sizes], tmp_path)


def _padded_to_frames(layers: int) -> onnx.ModelProto:
    """Convolutions, each of a signal that is padded up to whole frames by float arithmetic."""
    taps, x = 4, "x"
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Array] = {
        "length_axis": np.array([2]),
        "one": np.float32(1),
        "int_one": np.int64(1),
        "axis": np.array([0]),
    }
    for n in range(layers):
        stride = 2 if n % 3 == 2 else 1
        constants |= {
            f"w{n}": floats(3, 3, taps, seed=n) * 0.4,
            f"stride{n}": np.float32(stride),
            f"step{n}": np.int64(stride),
            f"less{n}": np.int64(-stride),
            f"left{n}": np.array([0, 0, taps - stride, 0, 0]),
        }
        nodes += [
            node("Shape", x, f"shape{n}"),
            node("Gather", f"shape{n} length_axis", f"vector{n}"),
            node("Squeeze", f"vector{n}", f"length{n}"),
            node("Add", f"length{n} less{n}", f"room{n}"),
            node("Cast", f"room{n}", f"real{n}", to=TensorProto.FLOAT),
            node("Div", f"real{n} stride{n}", f"steps{n}"),
            node("Add", f"steps{n} one", f"frames{n}"),
            node("Ceil", f"frames{n}", f"up{n}"),
            node("Cast", f"up{n}", f"whole{n}", to=TensorProto.INT64),
            node("Mul", f"whole{n} step{n}", f"ideal{n}"),
            node("Sub", f"ideal{n} length{n}", f"extra{n}"),
            node("Unsqueeze", f"extra{n} axis", f"right{n}"),
            node("Concat", f"left{n} right{n}", f"pads{n}", axis=0),
            node("Pad", f"{x} pads{n}", f"padded{n}"),
            node("Conv", f"padded{n} w{n}", f"y{n}", strides=[stride]),
        ]
        x = f"y{n}"
    dims = {"x": [1, 3, "t"]}
    return model(nodes, {"x": floats(1, 3, 20)}, [x], constants=constants, dims=dims)


def test_sizes_of_stacked_layers_stay_small() -> None:
    graph = load_model(_padded_to_frames(24))
    assert graph.outputs[0].shape[:2] == (1, 3)
    assert all(size_of(dim) < 200 for node in graph.nodes for v in node.outputs for dim in v.shape)


def test_signals_padded_to_whole_frames(tmp_path: Path) -> None:
    feeds = [{"x": floats(1, 3, t, seed=t)} for t in (20, 41)]
    _compiled(_padded_to_frames(4), feeds, tmp_path)


@pytest.mark.parametrize("hop", [2, 320])
def test_rows_by_frames_of_a_signal(tmp_path: Path, hop: int) -> None:
    proto = model(
        [
            node("Shape", "signal", "shape"),
            node("Gather", "shape one", "t"),
            node("Div", "t hop", "frames"),
            node("Concat", "frames rest", "sizes", axis=0),
            node("Reshape", "x sizes", "apart"),
            node("Transpose", "apart", "y", perm=[1, 0, 2]),
        ],
        {"x": floats(12, 8), "signal": floats(1, 6)},
        ["y"],
        constants={
            "one": np.array([1]),
            "hop": np.array([hop]),
            "rest": np.array([-1, 8]),
        },
        dims={"x": ["n", 8], "signal": ["b", "t"]},
    )
    feeds = [{"x": floats(12, 8), "signal": floats(1, hop * k + 1)} for k in (3, 4)]
    _compiled(proto, feeds, tmp_path)


@pytest.mark.parametrize("end", [np.iinfo(np.int64).min, np.iinfo(np.int64).max, -(2**31)])
@pytest.mark.parametrize("step", [-1, -2])
def test_backwards_from_a_computed_place(tmp_path: Path, end: int, step: int) -> None:
    """To the beginning, however far before it (or behind it) the end is said to be."""
    proto = model(
        [
            node("Shape", "x", "n", start=0, end=1),
            node("Sub", "n three", "from"),
            node("Slice", "x from end axis step"),
        ],
        {"x": floats(5, 2)},
        ["y"],
        constants={
            "three": np.array([3]), "end": np.array([end]), "axis": np.array([0]),
            "step": np.array([step]),
        },
        dims={"x": ["n", 2]},
    )  # fmt: skip
    _compiled(proto, [{"x": floats(size, 2)} for size in (3, 4, 5, 8)], tmp_path)


def _windows(window: int) -> onnx.ModelProto:
    """A map padded to whole windows, rolled, cut into windows, multiplied, and put together."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Split", "shape ones", "b h w c"),
        node("Mod", "h window", "over_h"),
        node("Sub", "window over_h", "left_h"),
        node("Mod", "left_h window", "pad_h"),
        node("Mod", "w window", "over_w"),
        node("Sub", "window over_w", "left_w"),
        node("Mod", "left_w window", "pad_w"),
        node("Concat", "zeros pad_h pad_w zero", "pads", axis=0),
        node("Pad", "x pads", "padded"),
        node("Slice", "padded two far one", "bottom"),
        node("Slice", "padded zero two one", "top"),
        node("Concat", "bottom top", "rolled", axis=1),
        node("Shape", "rolled", "whole"),
        node("Split", "whole ones", "wb wh ww wc"),
        node("Div", "wh window", "rows"),
        node("Div", "ww window", "columns"),
        node("Concat", "wb rows window columns window wc", "apart", axis=0),
        node("Reshape", "rolled apart", "six"),
        node("Transpose", "six", "turned", perm=[0, 1, 3, 2, 4, 5]),
        node("Concat", "rest square wc", "flat", axis=0),
        node("Reshape", "turned flat", "windows"),
        node("MatMul", "windows weight", "product"),
        node("Concat", "wb rows columns window window wc", "back", axis=0),
        node("Reshape", "product back", "six_back"),
        node("Transpose", "six_back", "turned_back", perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", "turned_back whole", "map"),
        node("Concat", "h w", "ends", axis=0),
        node("Slice", "map zeros2 ends axes", "y"),
    ]
    constants = {
        "ones": np.ones(4, np.int64),
        "window": np.array([window]),
        "zeros": np.zeros(5, np.int64),
        "zeros2": np.zeros(2, np.int64),
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "far": FAR,
        "rest": np.array([-1]),
        "square": np.array([window * window]),
        "axes": np.array([1, 2]),
        "weight": floats(4, 4),
    }
    dims = {"x": ["n", "height", "width", 4]}
    return model(nodes, {"x": floats(1, 4, 4, 4)}, ["y"], constants=constants, dims=dims)


def test_windows_of_a_map_of_any_size(tmp_path: Path) -> None:
    proto = _windows(4)
    graph = load_model(proto)
    sizes = [dim for node in graph.nodes for v in node.outputs for dim in v.shape]
    assert max(map(size_of, sizes)) < 24
    feeds = [{"x": floats(n, h, w, 4)} for n, h, w in ((1, 10, 13), (2, 8, 4))]
    _compiled(proto, feeds, tmp_path)


def _computed_pads() -> list[onnx.NodeProto]:
    """A length's pads, one of them computed in floating point, as exporters put them together."""
    return [
        node("Shape", "x", "length", start=2, end=3),
        node("Cast", "length", "real", to=TensorProto.FLOAT),
        node("Div", "real stride", "frames"),
        node("Ceil", "frames", "rounded"),
        node("Mul", "rounded stride", "ideal"),
        node("Cast", "ideal", "whole", to=TensorProto.INT32),
        node("Cast", "whole", "wide", to=TensorProto.INT64),
        node("Sub", "wide length", "extra"),
        node("Concat", "two extra zeros", "backward", axis=0),
        node("Reshape", "backward pairs", "table"),
        node("Slice", "table last before axis last", "turned"),
        node("Transpose", "turned", "columns", perm=[1, 0]),
        node("Reshape", "columns flat", "pads"),
    ]


def test_numbers_among_computed_ones_stay_numbers(tmp_path: Path) -> None:
    """Pads and shapes of which a run computes one element: the other sizes are known."""
    proto = model(
        [
            *_computed_pads(),
            node("Pad", "x pads", "padded", mode="reflect"),
            node("Shape", "padded", "whole_length", start=2, end=3),
            node("Slice", "padded begin whole_length axis2", "same"),
            node("Concat", "copy three rest", "shape", axis=0),
            node("Reshape", "same shape", "y"),
        ],
        {"x": floats(2, 6, 9)},
        ["y", "same"],
        constants={
            "stride": np.array([4], np.float32), "two": np.array([2]),
            "zeros": np.zeros(4, np.int64), "pairs": np.array([-1, 2]),
            "last": np.array([-1]), "axis": np.array([0]),
            "before": np.array([-FAR[0]]), "flat": np.array([-1]), "begin": np.array([0]),
            "axis2": np.array([2]), "copy": np.array([0]), "three": np.array([3]),
            "rest": np.array([-1]),
        },
        dims={"x": ["b", 6, "t"]},
    )  # fmt: skip
    graph = load_model(proto)
    (same,) = [value for value in graph.outputs if value.name == "same"]
    assert list(map(str, same.shape[:2])) == ["b", "6"]
    assert not any(node.op == "slice" and node.output is same for node in graph.nodes)
    assert sum(len(n.attrs["symbols"]) for n in graph.nodes if n.op == "read_dims") == 2
    _compiled(proto, [{"x": floats(b, 6, t)} for b, t in ((2, 9), (1, 12), (3, 7))], tmp_path)


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT8])
def test_casts_that_wrap_are_not_looked_through(kind: int) -> None:
    """-254 is 2 in eight bits, and -254 in thirty-two, where it crops everything."""
    proto = model(
        [
            node("Cast", "n", "small", to=kind),
            node("Cast", "small", "wide", to=TensorProto.INT64),
            node("Concat", "wide one", "pads", axis=0),
            node("Pad", "x pads"),
        ],
        {"x": floats(300), "n": np.array([-254])},
        ["y"],
        constants={"one": np.array([1])},
    )
    check(proto, {"x": floats(300), "n": np.array([-254])})
