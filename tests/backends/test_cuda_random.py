"""Random ONNX models as a GPU runs them, in Triton's interpreter, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_runs import needs_triton
from random_models.check import BATCH, check
from random_models.gpu import on_gpu

pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of these tests")
AT_ONCE, ALWAYS, IN_ALL = 5, 10, 200


@needs_triton
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(first, marks=() if first < ALWAYS else pytest.mark.slow)
        for first in range(0, IN_ALL, AT_ONCE)
    ],
)
def test_models(first: int, tmp_path: Path) -> None:
    assert BATCH % AT_ONCE == 0, "seeds of one level are checked together"
    found = check(range(first, first + AT_ONCE), tmp_path, compiled=on_gpu)
    assert not found, "\n".join(map(str, found))
