"""Pools of small sizes against ONNX Runtime: windows that fit, are cut off, or are not there."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import floats, model, node, run_ort
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
        if want is None or np.abs(want["y"]).max(initial=0) > 1e9:
            continue  # refused, or a window of padding alone
        got = run_graph(load_model(case.proto), inputs)
        compared += 1
        for name, array in want.items():
            near = array.shape == got[name].shape and np.allclose(got[name], array, 1e-4, 1e-5)
            if not near and not np.isnan(got[name]).any():
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
    check_all(cases, tmp_path)


def test_averages_that_count_padding() -> None:
    """Of a window that is cut off."""

    def averages(pads: list[int], opset: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        x = floats(1, 2, 2)
        made = node("AveragePool", "x", kernel_shape=[4], strides=[3], pads=pads,
                    count_include_pad=1)  # fmt: skip
        return model([made], {"x": x}, ["y"], opset=opset), {"x": x}

    for pads, opset in (([0, 0], 17), ([1, 0], 17), ([0, 0], 19)):
        proto, inputs = averages(pads, opset)
        want = run_ort(proto, inputs)["y"]
        np.testing.assert_allclose(run_graph(load_model(proto), inputs)["y"], want, rtol=1e-5)
    with pytest.raises(UnsupportedError, match="does not fit"):
        load_model(averages([1, 0], 19)[0])
