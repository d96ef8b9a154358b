"""Trained models of this repository (`tests/models/train.py`), in every level and precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import needs_native

import tensmith

MODELS = Path(__file__).parents[1] / "models"
Array = np.ndarray[Any, Any]
OUT = "out:"


def stored(name: str) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Inputs, what the framework that trained the model made of them, and labels."""
    arrays = dict(np.load(MODELS / f"{name}.npz"))
    labels = arrays.pop("labels")
    outputs = {key.removeprefix(OUT): arrays.pop(key) for key in list(arrays) if OUT in key}
    return arrays, outputs, labels


@needs_native
@pytest.mark.parametrize("level", [0, 2, 3])
@pytest.mark.parametrize("name", ["reader", "drawing", "tissue"])
def test_answers_are_those_of_the_framework(name: str, level: int) -> None:
    inputs, wanted, _ = stored(name)
    found = tensmith.compile(MODELS / f"{name}.onnx", opt_level=level).load()(inputs)
    for key, array in wanted.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[key], array, 2e-4, 2e-4)
        else:
            np.testing.assert_array_equal(found[key].astype(array.dtype), array)


@needs_native
@pytest.mark.parametrize("name", ["reader", "drawing"])
def test_batches_of_one_and_of_many_agree(name: str) -> None:
    inputs, _, _ = stored(name)
    module = tensmith.compile(MODELS / f"{name}.onnx").load()
    together = module(inputs)["scores"]
    alone = [module({"rows": inputs["rows"][n : n + 1]})["scores"] for n in (0, 5, 63)]
    np.testing.assert_allclose(together[[0, 5, 63]], np.concatenate(alone), 1e-5, 1e-5)


@needs_native
@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
@pytest.mark.parametrize("name", ["reader", "drawing"])
def test_lower_precision_answers_alike(name: str, precision: str) -> None:
    inputs, wanted, labels = stored(name)
    rows = inputs["rows"]
    samples = [{"rows": rows[n : n + 4]} for n in range(0, 32, 4)]
    more: dict[str, Any] = {"calibration": samples} if precision == "int8" else {}
    artifact = tensmith.compile(
        MODELS / f"{name}.onnx", precision=precision, force_precision=True, **more
    )
    scores = artifact.load()(inputs)["scores"]
    exact = wanted["scores"]
    assert np.mean(scores.argmax(1) == exact.argmax(1)) >= 0.96
    assert np.mean(scores.argmax(1) == labels) >= 0.96
    noise = np.square(scores - exact).sum() / np.square(exact).sum()
    assert noise < (0.02 if precision == "int8" else 1e-3)
