"""com.microsoft's forms of standard operators, and operators that ended early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tensmith.compiler.errors import RunError

from .amounts import i64
from .oracle import check, floats, node
from .sweeps import Sweep, differences

MS = "com.microsoft"
Array = np.ndarray


def ms(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> list[onnx.NodeProto]:
    return [node(op, inputs, outputs, domain=MS, **attributes)]


def twins() -> list[Sweep]:
    x = floats(2, 3, 4)
    grid = floats(1, 3, 2, 2, seed=1)
    grids = [{"x": floats(1, 2, h, w), "w": grid} for h, w in ((4, 5), (1, 1))]
    amounts = ((1, 0, 0, 2), (0, -1, 2, -2))
    pads = [{"x": floats(3, 4), "p": i64(p), "v": floats(1)} for p in amounts]
    bounds = np.array([[1, 4], [0, 0], [2, 1.5]], np.float32)
    ranges = [{"a": np.array(a), "b": np.array(b)} for a, b in bounds]
    diagonals = [{"x": x, "k": i64(k)} for k in (1, -9)]
    words = [np.array(words, np.float32) for words in ((3, 1, 3, 2), (5,), ())]
    rows = [(floats(4, 3), floats(2, 3, seed=1)), (floats(1, 3), floats(0, 3))]
    short = np.arange(-3, 3).astype(np.int16)
    more = {"domains": [MS]}
    return [
        Sweep("triangle", ms("Trilu", "x", upper=0), [{"x": x}], **more),
        Sweep("moved triangle", ms("Trilu", "x k"), diagonals, **more),
        *(
            Sweep(f"grid {mode}", ms("GridSample", "x w", mode=mode), grids, last="w", **more)
            for mode in ("bilinear", "nearest", "bicubic")
        ),
        Sweep("tuples", ms("GatherND", "x i"), [{"x": x, "i": i64([1, -1])}], **more),
        Sweep("pads", ms("Pad", "x p v"), pads, **more),
        Sweep("pads in a row", ms("Pad", "x p", mode="edge"), [{"x": floats(3, 4)}],
              constants={"p": i64([[1, 0, 2, 0]])}, **more),
        Sweep("range", ms("Range", "a b"), ranges, fixed="a b", **more),
        Sweep("range by steps", ms("Range", "a b d"),
              [{"a": i64(9), "b": i64(b), "d": i64(-2)} for b in (2, 9)], fixed="a b d", **more),
        Sweep("unique", ms("Unique", "x", "y i n"), [{"x": w} for w in words], "y i n", **more),
        *(
            Sweep(f"dims {axis}", ms("ExpandDims", "x a"), [{"x": x}],
                  constants={"a": np.int32(axis)}, **more)
            for axis in (0, 2, -1)
        ),
        Sweep("inverses", ms("Inverse", "x"), [{"x": m} for m in (
            floats(2, 3, 3), floats(1, 1, 1), floats(0, 2, 2), np.eye(4, dtype=np.float32)[None],
            floats(1, 20, 20), floats(2, 2, 3)
        )], rtol=1e-3, atol=1e-3, answered={5: "it is not square"}, **more),
        Sweep("short integers", ms("MatMulInteger16", "x w"),
              [{"x": short.reshape(2, 3), "w": short.reshape(3, 2)}], **more),
        *(
            Sweep(f"distances {metric}", ms("CDist", "a b", metric=metric),
                  [{"a": a, "b": b} for a, b in rows], last="a b", **more)
            for metric in ("sqeuclidean", "euclidean")
        ),
    ]  # fmt: skip


def early() -> list[Sweep]:
    feeds = [{"x": floats(n, 3, h, w)} for n, h, w in ((1, 5, 6), (2, 4, 4), (0, 5, 5))]
    made = [
        node("Affine", "x", alpha=2.0, beta=0.5),
        node("Affine", "x", alpha=2.0),
        node("Affine", "x", beta=0.5),
        node("Scale", "x", scale=3.0),
        node("ScaledTanh", "x", alpha=2.0, beta=0.5),
        node("ParametricSoftplus", "x", alpha=2.0, beta=0.5),
        node("ImageScaler", "x", scale=2.0, bias=[1.0, 2.0, 3.0]),
        node("Crop", "x", border=[1, 0, 2, 1]),
        node("Crop", "x", border=[1, 2, 9, 9], scale=[2, 3]),
    ]
    found = [
        Sweep(f"{n.op_type} {i}", [n], feeds, channels="x", opset=9) for i, n in enumerate(made)
    ]
    for across in (0, 1):  # whether the mean is of all channels, too
        for over in (0, 1):  # whether it is divided by the deviation
            means = node("MeanVarianceNormalization", "x", across_channels=across,
                         normalize_variance=over)  # fmt: skip
            found.append(Sweep(f"means {across} {over}", [means], feeds[:2], opset=8))
    plain = [node("MeanVarianceNormalization", "x")]
    return [*found, Sweep("means", plain, feeds[:2], opset=8)]


@pytest.mark.parametrize("table", [twins, early])
def test_as_in_onnx_runtime(tmp_path: Path, table: Any) -> None:
    sweeps = table()
    wrong = differences(sweeps, tmp_path, [], reference=True)
    assert not wrong, "\n".join(wrong)


def test_a_crop_that_is_larger_than_the_image() -> None:
    sweep = Sweep(
        "crop", [node("Crop", "x", border=[4, 4, 4, 4])], [{"x": floats(1, 1, 9, 9)}], opset=9
    )
    check(sweep.proto(), dict(sweep.feeds[0]))
    with pytest.raises(RunError, match="border"):
        check(sweep.proto(), {"x": floats(1, 1, 7, 9)}, expected={})
