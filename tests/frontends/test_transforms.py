"""Fourier transforms against numpy in f64: ONNX Runtime's own, of lengths that are no powers of 2,
are 1e-4 of the peak off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.flops import node_flops
from tensmith.frontends.onnx import load_model

from .oracle import Array, floats, model, node

# of one stage, two and three; prime, and with a prime factor, too long for a stage
LENGTHS = [1, 2, 3, 31, 64, 210, 256, 400, 4096, 5 * 1031, 2053]


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


def complex_of(parts: Array) -> Array:
    """Numbers whose real and imaginary parts lie along the last axis; of one part, real ones."""
    wide = parts.astype(np.float64)
    return wide[..., 0] + 1j * wide[..., 1] if parts.shape[-1] == 2 else wide[..., 0]


def transformed(x: Array, length: int | None = None, **attributes: int) -> Array:
    """What DFT makes of x, computed by the imported graph."""
    constants = {} if length is None else {"n": np.int64(length)}
    inputs = "x" if length is None else "x n"
    types = [helper.np_dtype_to_tensor_dtype(x.dtype)]
    made = [node("DFT", inputs, **attributes)]
    proto = model(made, {"x": x}, ["y"], constants=constants, types=types)
    return np.asarray(run_graph(load_model(proto), {"x": x})["y"])


def assert_near(found: Array, wanted: Array) -> None:
    assert found.shape == (*wanted.shape, 2 if np.iscomplexobj(wanted) else 1)
    off = np.abs(complex_of(found) - wanted).max()
    assert off <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("size", LENGTHS)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
def test_known_lengths(size: int, parts: int, inverse: int) -> None:
    x = floats(2, size, parts)
    wanted = (np.fft.ifft if inverse else np.fft.fft)(complex_of(x), axis=1)
    assert_near(transformed(x, axis=1, inverse=inverse), wanted)


@pytest.mark.parametrize("size", [n for n in LENGTHS if n > 1])
def test_half_spectra(size: int) -> None:
    x = floats(3, size, 1)
    wanted = np.fft.rfft(complex_of(x), axis=1)
    assert_near(transformed(x, axis=1, onesided=1), wanted)
    halves = np.stack([wanted.real, wanted.imag], -1).astype(np.float32)
    halves += floats(*halves.shape, seed=1)  # imaginary parts at both ends do not count
    back = np.fft.irfft(complex_of(halves), n=size, axis=1)
    assert_near(transformed(halves, size, axis=1, inverse=1, onesided=1), back)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("length", "parts"), [(40, 1), (150, 2), (96, 2)])
def test_axes_and_lengths_that_cut_or_fill(axis: int, length: int, parts: int) -> None:
    x = floats(*(100 if place == axis else 3 for place in range(3)), parts)
    wanted = np.fft.fft(complex_of(x), n=length, axis=axis)
    assert_near(transformed(x, length, axis=axis), wanted)


def test_long_transforms_take_few_operations() -> None:
    """Of 4096 elements a product with the whole matrix takes 2^26, Cooley and Tukey's 2^18."""
    x = floats(1, 4096, 1)
    graph = load_model(model([node("DFT", "x", axis=1)], {"x": x}, ["y"]))
    assert sum(node_flops(made) for made in graph.nodes) < 1 << 23


@pytest.mark.parametrize(("length", "step"), [(64, 16), (60, 36), (33, 7), (64, 64)])
def test_frames_of_a_signal(length: int, step: int) -> None:
    x, window = floats(2, 500, 1), np.hanning(length).astype(np.float32)
    constants = {"k": np.int64(step), "w": window}
    proto = model([node("STFT", "x k w")], {"x": x}, ["y"], constants=constants)
    found = run_graph(load_model(proto), {"x": x})["y"]
    frames = np.lib.stride_tricks.sliding_window_view(x[..., 0], length, axis=1)[:, ::step]
    assert_near(np.asarray(found), np.fft.rfft(frames.astype(np.float64) * window, axis=2))


@pytest.mark.parametrize("size", [4099, 10007])
def test_long_primes_of_halves(size: int) -> None:
    """What Bluestein's algorithm has between its stages is beyond the largest of them."""
    x = floats(1, size, 1).astype(np.float16)
    found, wanted = transformed(x, axis=1), np.fft.fft(complex_of(x), axis=1)
    assert found.dtype == np.float16
    assert np.abs(complex_of(found) - wanted).max() <= 2**-11 * np.abs(wanted).max()


@pytest.mark.parametrize("declared", [4096, "n"])
@pytest.mark.parametrize("onesided", [0, 1])
def test_large_halves_whose_transform_is_small(declared: int | str, onesided: int) -> None:
    """Sums of them are beyond the largest, until they are divided by the length."""
    size = 4096 if declared == 4096 else 512
    x = np.zeros((1, size // 2 + 1 if onesided else size, 2), np.float16)
    x[0, [0, 16, 32], 0] = 60000
    dims = {"x": (1, x.shape[1] if declared == 4096 else declared, 2)}
    made = [node("DFT", "x", axis=1, inverse=1, onesided=onesided)]
    proto = model(made, {"x": x}, ["y"], types=[TensorProto.FLOAT16], dims=dims)
    found = np.asarray(run_graph(load_model(proto), {"x": x})["y"])
    wanted = (np.fft.irfft if onesided else np.fft.ifft)(complex_of(x), axis=1)
    assert np.abs(complex_of(found) - wanted).max() <= 2**-10 * np.abs(wanted).max()
