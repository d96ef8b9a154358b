"""TOSA graphs in Arm's reference model, and in Vela; both may be absent."""

from __future__ import annotations

import contextlib
import importlib.util
import os

import numpy as np
import pytest

from tensmith.backends.ethosu.vela_package import reason_unavailable

needs_vela = pytest.mark.skipif(reason_unavailable() is not None, reason=str(reason_unavailable()))
needs_model = pytest.mark.skipif(
    importlib.util.find_spec("tosa_reference_model") is None,
    reason="the TOSA reference model is not installed: pip install --no-deps tosa-tools",
)


def reference_run(blob: bytes, inputs) -> list[np.ndarray]:
    """The outputs of a TOSA file in the reference model."""
    import tosa_reference_model

    with quiet():
        outputs, status = tosa_reference_model.run(blob, list(inputs), tosa_level="EIGHTK")
    assert str(status).endswith("TOSA_VALID"), status
    return [np.asarray(array) for array in outputs]


@contextlib.contextmanager
def quiet():
    """What Arm's tools print, of versions for instance, goes nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    out = os.dup(1)
    os.dup2(nowhere, 2)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.dup2(out, 1)
        for number in (kept, out, nowhere):
            os.close(number)
