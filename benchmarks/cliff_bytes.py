"""Cases of `cliffs.py` in 8 bits that are no products of matrices: functions, recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cliff_cases import Array, Built, Node, case, drawn, model, node

MICROSOFT = "com.microsoft"


@case("function of bytes, Sigmoid", "Sigmoid")
@case("function of bytes, Tanh", "Tanh")
@case("function of bytes, HardSwish", "HardSwish")
@case("function of bytes, LeakyRelu", "LeakyRelu")
def function_of_bytes(op: str) -> Built:
    """One function between DequantizeLinear and QuantizeLinear."""
    constants: dict[str, Any] = {"s": np.float32(0.05), "t": np.float32(0.01), "z": np.uint8(120)}
    nodes: list[Node] = [
        node("DequantizeLinear", ["x", "s", "z"], ["real"]),
        node(op, ["real"], ["made"]),
        node("QuantizeLinear", ["made", "t", "z"], ["y"]),
    ]
    x: Array = np.random.default_rng(0).integers(0, 256, (1, 32, 56, 56)).astype(np.uint8)
    return model(nodes, {"x": x}, {}, ["y"], constants)


@case("LSTM of bytes, 128", 128)
@case("LSTM of bytes, 512", 512)
def lstm_of_bytes(hidden: int) -> Built:
    """50 steps of one sequence."""
    rng = np.random.default_rng(1)
    constants: dict[str, Any] = {}
    for name in ("w", "r"):
        constants[name] = rng.integers(-127, 128, (1, hidden, 4 * hidden)).astype(np.int8)
        constants[f"{name}s"] = np.full((1, 4 * hidden), 0.01 / hidden**0.5, np.float32)
        constants[f"{name}z"] = np.zeros((1, 4 * hidden), np.int8)
    inputs = ["x", "w", "r", "", "", "", "", "", "ws", "wz", "rs", "rz"]
    made = node("DynamicQuantizeLSTM", inputs, ["y"], domain=MICROSOFT, hidden_size=hidden)
    return model([made], {"x": drawn(50, 1, hidden)}, {}, ["y"], constants)
