"""Operators of com.microsoft against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from .oracle import check, floats, model, node

MS = "com.microsoft"


def _check(nodes: list, inputs: dict, outputs: list, **constants: np.ndarray) -> None:
    check(model(nodes, inputs, outputs, constants=constants, domains=[MS]), inputs)


def test_gelu_family() -> None:
    x = floats(3, 8)
    nodes = [
        node("Gelu", "x", "a", domain=MS),
        node("BiasGelu", "x b", "c", domain=MS),
        node("FastGelu", "x b", "d", domain=MS),
        node("QuickGelu", "x", "e", domain=MS, alpha=1.5),
    ]
    _check(nodes, {"x": x}, list("acde"), b=floats(8, seed=1))


def test_skip_normalisations() -> None:
    x = floats(2, 3, 8)
    nodes = [
        node("SkipLayerNormalization", "x s g b t", "a - - sum", domain=MS, epsilon=1e-5),
        node("SkipSimplifiedLayerNormalization", "x s g", "c", domain=MS, epsilon=1e-5),
    ]
    constants = {name: floats(8, seed=i) for i, name in enumerate("gbt")}
    _check(nodes, {"x": x}, ["a", "sum", "c"], s=floats(2, 3, 8, seed=9), **constants)


def test_fused_operators() -> None:
    x, p = floats(3, 4), floats(1, 2, 5, 5)
    nodes = [
        node("FusedGemm", "x w c", "a", domain=MS, activation="Relu", transB=1, alpha=0.5),
        node("FusedMatMul", "x w", "b", domain=MS, transB=1, alpha=2.0),
        node("FusedConv", "p k", "d", domain=MS, activation="Relu"),
    ]
    _check(
        nodes,
        {"x": x, "p": p},
        ["a", "b", "d"],
        w=floats(5, 4, seed=1),
        c=floats(5, seed=2),
        k=floats(3, 2, 3, 3, seed=3),
    )


@pytest.mark.parametrize("zero_points", [False, True])
def test_four_bit_matmul(zero_points: bool) -> None:
    rng = np.random.default_rng(0)
    rows, depth, block = 6, 64, 32
    constants = {
        "w": rng.integers(0, 256, (rows, depth // block, block // 2)).astype(np.uint8),
        "s": floats(rows * depth // block, seed=1),
    }
    if zero_points:
        constants["z"] = rng.integers(0, 256, rows).astype(np.uint8)
    names = "x w s z" if zero_points else "x w s"
    quantised = node("MatMulNBits", names, domain=MS, N=rows, K=depth, block_size=block, bits=4)
    _check([quantised], {"x": floats(3, depth)}, ["y"], **constants)


def test_integer_products() -> None:
    x = floats(3, 4)
    b = np.random.default_rng(0).integers(-128, 127, (4, 5)).astype(np.int8)
    nodes = [node("DynamicQuantizeMatMul", "x b s z", "y", domain=MS)]
    _check(nodes, {"x": x}, ["y"], b=b, s=np.float32(0.02), z=np.int8(3))
