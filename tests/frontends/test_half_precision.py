"""Operators on f16: in f32 and rounded once, as ONNX Runtime computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node, run_ort

Array = np.ndarray[Any, Any]
MICROSOFT = "com.microsoft"
ROWS, IMAGE, LENGTHS = (4, 64), (2, 8, 60), (6, 2, 8)
# name -> (node, shapes of its inputs, what the first one is multiplied with)
CASES: dict[str, tuple[onnx.NodeProto, tuple[tuple[int, ...], ...], float]] = {
    **{op: (node(op, "a"), (ROWS,), 3) for op in (
        "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Mish", "Gelu",
        "LogSoftmax")},
    "Gelu by tanh": (node("Gelu", "a", approximate="tanh"), (ROWS,), 3),
    "Sum": (node("Sum", "a b c"), (ROWS,) * 3, 3),
    "Mean": (node("Mean", "a b c"), (ROWS,) * 3, 3),
    "Gemm": (node("Gemm", "a b c", alpha=0.7, beta=1.3), ((7, 32), (32, 8), (8,)), 1),
    "InstanceNormalization": (node("InstanceNormalization", "a b c"), (IMAGE, (8,), (8,)), 20),
    "GroupNormalization": (
        node("GroupNormalization", "a b c", num_groups=4), (IMAGE, (8,), (8,)), 20),
    "MeanVarianceNormalization": (
        node("MeanVarianceNormalization", "a", axes=[0, 2]), (IMAGE,), 20),
    "LSTM": (node("LSTM", "a b c d", hidden_size=16),
             (LENGTHS, (1, 64, 8), (1, 64, 16), (1, 128)), 1),
    "GRU": (node("GRU", "a b c d", hidden_size=16), (LENGTHS, (1, 48, 8), (1, 48, 16), (1, 96)), 1),
    "BiasGelu": (node("BiasGelu", "a b", domain=MICROSOFT), (ROWS, ROWS[1:]), 1),
    "FastGelu": (node("FastGelu", "a b", domain=MICROSOFT), (ROWS, ROWS[1:]), 1),
    "QuickGelu": (node("QuickGelu", "a", domain=MICROSOFT), (ROWS,), 3),
    "SkipLayerNormalization": (
        node("SkipLayerNormalization", "a b c d", domain=MICROSOFT), (ROWS, ROWS, (64,), (64,)), 3),
}  # fmt: skip


def build(made: onnx.NodeProto, inputs: Mapping[str, Array], kind: int) -> onnx.ModelProto:
    return model([made], dict(inputs), ["y"], opset=21, types=[kind], domains=[MICROSOFT])


def places(values: Array) -> Array:
    """The number of each f16 among all of them in order."""
    bits = values.view(np.int16).astype(int)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


@pytest.mark.parametrize("name", CASES)
def test_rounded_once(name: str) -> None:
    made, shapes, scale = CASES[name]
    half = {
        letter: (floats(*shape, seed=seed) * (1 if seed else scale)).astype(np.float16)
        for seed, (letter, shape) in enumerate(zip("abcd", shapes, strict=False))
    }
    wide = {letter: array.astype(np.float32) for letter, array in half.items()}
    want = run_ort(build(made, wide, TensorProto.FLOAT), wide)["y"].astype(np.float16)
    got = run_graph(load_model(build(made, half, TensorProto.FLOAT16)), half)["y"]
    assert got.dtype == np.float16
    assert got.shape == want.shape
    # a matrix product is rounded as such, before what is added to it; in f32, too, tails cancel
    apart = np.abs(places(got) - places(want))
    assert apart[np.abs(want) > (0.5 if name == "Gemm" else 1e-3)].max() <= 1 + (name == "Gemm")


def test_types_that_are_mixed() -> None:
    """Statistics of a batch normalisation in f32 beside f16: only the first result is f16."""
    x, row = floats(2, 8, 5).astype(np.float16), np.abs(floats(8)) + 1
    inputs = {"x": x, "s": x[0, :, 0], "b": x[0, :, 1], "m": row, "v": row}
    made = node("BatchNormalization", "x s b m v", "y m1 v1", training_mode=1)
    kinds = [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT]
    proto = model([made], inputs, ["y", "m1", "v1"], opset=15, types=kinds)
    found = run_graph(load_model(proto), inputs)
    assert [array.dtype.name for array in found.values()] == ["float16", "float32", "float32"]


@pytest.mark.parametrize(
    ("made", "outputs"),
    [
        (node("SkipLayerNormalization", "x s g", "y m v t", domain=MICROSOFT), "ymvt"),
        (node("SkipLayerNormalization", "x s g", "y - v", domain=MICROSOFT), "yv"),
        (node("SkipSimplifiedLayerNormalization", "x s g", "y - v t", domain=MICROSOFT), "yvt"),
        (node("SimplifiedLayerNormalization", "x g", "y v"), "yv"),
    ],
)
def test_statistics_stay_in_full(made: onnx.NodeProto, outputs: str) -> None:
    """Means and inverse deviations are f32, as ONNX Runtime gives them."""
    shapes = {"x": (4, 64), "s": (4, 64), "g": (64,)}
    half = {
        name: floats(*shapes[name], seed=seed).astype(np.float16)
        for seed, name in enumerate(made.input)
    }
    kinds = [TensorProto.FLOAT if name in "mv" else TensorProto.FLOAT16 for name in outputs]
    proto = model([made], half, list(outputs), opset=17, types=kinds, domains=[MICROSOFT])
    check(proto, half, rtol=1e-3)
