"""Fourier transforms against numpy in f64: ONNX Runtime's own, of lengths that are no powers of 2,
are 1e-4 of the peak off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tensmith

from .oracle import floats, model, node


@pytest.mark.parametrize("size", [400, 1023])
def test_angles_are_reduced_exactly(size: int, tmp_path: Path) -> None:
    x = floats(2, size, 1)
    path = tmp_path / "dft.onnx"
    onnx.save(model([node("DFT", "x", axis=1)], {"x": x}, ["y"]), path)
    library = path.with_suffix(".so")
    tensmith.compile(path).save(library)
    with tensmith.load(library) as module:
        found = module({"x": x})["y"]
    wanted = np.fft.fft(x[..., 0].astype(np.float64), axis=1)
    off = np.abs(found[..., 0] + 1j * found[..., 1] - wanted).max()
    assert off < 1e-6 * np.abs(wanted).max()
