"""One step of the standard's optimisers against their pseudo code in f64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import floats, model, node
from .ort_cases import OrtCase, check_all

DOMAIN = "ai.onnx.preview.training"
SHAPES = [(3,), (2, 4)]
RATE = 0.1
Step = Callable[..., Sequence[np.ndarray]]


def adagrad(t: int, x: Any, g: Any, h: Any) -> list[Any]:
    g = 0.01 * x + g
    h = h + g * g
    return [x - RATE / (1 + t * 0.2) * g / (np.sqrt(h) + 1e-5), h]


def adam(t: int, x: Any, g: Any, v: Any, h: Any) -> list[Any]:
    g = 0.01 * x + g
    v, h = 0.8 * v + 0.2 * g, 0.95 * h + 0.05 * g * g
    rate = RATE * np.sqrt(1 - 0.95**t) / (1 - 0.8**t) if t else RATE
    return [0.9 * (x - rate * v / (np.sqrt(h) + 1e-5)), v, h]


def momentum(t: int, x: Any, g: Any, v: Any, *, nesterov: bool = False) -> list[Any]:
    g = 0.01 * x + g
    v = 0.8 * v + (0.9 if t else 1) * g
    return [x - RATE * (g + 0.8 * v if nesterov else v), v]


def nesterov(t: int, *tensors: Any) -> list[Any]:
    return momentum(t, *tensors, nesterov=True)


ADAM = {"alpha": 0.8, "beta": 0.95, "norm_coefficient_post": 0.1, "epsilon": 1e-5}
OPTIMISERS: list[tuple[str, Step, int, dict[str, Any]]] = [
    ("Adagrad", adagrad, 3, {"decay_factor": 0.2, "epsilon": 1e-5}),
    ("Adam", adam, 4, ADAM),
    ("Momentum", momentum, 3, {"alpha": 0.8, "beta": 0.9, "mode": "standard"}),
    ("Momentum", nesterov, 3, {"alpha": 0.8, "beta": 0.9, "mode": "nesterov"}),
]


def case(op: str, step: Step, kinds: int, attributes: dict[str, Any], t: int) -> OrtCase:
    """Two tensors at once; the states are positive."""
    arrays = {"r": np.float32(RATE), "t": np.array(t, np.int64)}
    for kind in range(kinds):
        for number, shape in enumerate(SHAPES):
            drawn = floats(*shape, seed=10 * kind + number)
            arrays[f"x{kind}_{number}"] = drawn if kind < 2 else np.abs(drawn)
    results = [
        step(t, *(arrays[f"x{kind}_{number}"].astype(np.float64) for kind in range(kinds)))
        for number in range(len(SHAPES))
    ]
    outputs = [f"y{kind}_{number}" for kind in range(kinds - 1) for number in range(len(SHAPES))]
    wanted = [array.astype(np.float32) for kind in zip(*results, strict=True) for array in kind]
    update = node(
        op, " ".join(arrays), " ".join(outputs), domain=DOMAIN, norm_coefficient=0.01, **attributes
    )
    proto = model([update], arrays, outputs, domains=[DOMAIN])
    name = f"{step.__name__} after {t} steps"
    expected = dict(zip(outputs, wanted, strict=True))
    return OrtCase(name, proto, arrays, rtol=1e-5, atol=1e-6, expected=expected)


def test_against_the_pseudo_code(tmp_path: Path) -> None:
    check_all([case(*optimiser, t) for optimiser in OPTIMISERS for t in (0, 3)], tmp_path)


def test_gradients_are_refused() -> None:
    part = node("Gradient", "x", "y", domain=DOMAIN, xs=["x"], y="z")
    with pytest.raises(UnsupportedError, match="derivatives"):
        load_model(model([part], {"x": floats(2)}, ["y"], domains=[DOMAIN]))


def test_a_tensor_without_gradient_is_an_error() -> None:
    inputs = {"r": np.float32(1), "t": np.array(0), "x": floats(2), "g": floats(2)}
    part = node("Adagrad", "r t x g", "y", domain=DOMAIN)
    with pytest.raises(InvalidModelError):
        load_model(model([part], inputs, ["y"], domains=[DOMAIN]))
