"""Discrete results, bit for bit as ONNX Runtime has them, of compiled models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tensmith.backends.x86.targets import native_target
from tensmith.driver import api

from .oracle import run_ort
from .steps import all_cases

pytestmark = pytest.mark.skipif(native_target() is None, reason="needs an x86-64-v3 machine")


def check(seed: int, level: int, folder: Path) -> None:
    steps = all_cases(seed)
    proto = steps.model()
    want = run_ort(proto, steps.inputs)
    path, library = folder / "steps.onnx", folder / "steps.so"
    onnx.save(proto, path)
    api.compile(path, opt_level=level).save(library)
    got = api.load(library)(steps.inputs)
    wrong = [
        f"{name}: {np.sum(got[name] != array)} of {array.size} differ"
        for name, array in want.items()
        if not np.array_equal(got[name], array, equal_nan=array.dtype.kind == "f")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("level", [0, 2])
def test_as_the_model_says(tmp_path: Path, level: int) -> None:
    check(level, level, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 28))
def test_many(tmp_path: Path, seed: int) -> None:
    check(seed, seed % 4, tmp_path)
