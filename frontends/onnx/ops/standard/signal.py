"""Fourier transforms, windows and mel filters.

A transform whose length only a run knows is a product with a matrix of cosines and sines, whose
angles are reduced exactly (in integers) before they are rounded; `shared/fft.py` has the others.
"""

from __future__ import annotations

import math

import numpy as np

from .....compiler.ir import Dim, DType, Value, constant
from .....compiler.ir.assumptions import AT_MOST
from .....compiler.ir.dims import floordiv
from ...site import Site
from ...table import lowers
from ..shared.fft import Spectrum, fitted
from ..shared.fft import transform as fft
from ..shared.run_time import around_axis, chosen, is_known, shape_vector
from .sampling import number


def _waves(s: Site, rows: Dim, columns: Dim, period: Dim, dtype: DType) -> tuple[Value, Value]:
    """cos and sin of 2 pi r c / period for all rows and columns."""
    r, c = s.iota((rows, 1), 0, DType.I64), s.iota((1, columns), 1, DType.I64)
    whole = s.op_("mod", s.op_("mul", r, c), number(s, period, DType.I64))
    part = s.op_("div", s.cast(whole, DType.F64), number(s, period, DType.F64))
    angle = s.op_("mul", part, 2 * math.pi)
    return s.cast(s.op_("cos", angle), dtype), s.cast(s.op_("sin", angle), dtype)


def _in_parts(s: Site, x: Value) -> Value:
    """A signal whose last axis may hold 1 or 2 parts, as a run decides, with 2 of them."""
    parts = x.shape[-1]
    if isinstance(parts, int):
        return x
    s.require(1, AT_MOST, parts, f"1 <= {parts}, the parts of a number")
    pads = (0,) * (2 * x.type.rank - 1)
    return s.emit("pad", [x, s.scalar(0, x.dtype)], pads=(*pads, 2 - parts), mode="constant")


def transform(
    s: Site, x: Value, length: Dim | None, inverse: bool, onesided: bool
) -> tuple[Value, Dim]:
    """The Fourier transform of x[before, n, behind, 1 or 2] along n, and the length of that axis.

    The last axis holds real and imaginary parts. onesided: of a real signal only the first half
    of the spectrum, or back from it. Halves are computed with in f32: what lies between two stages
    is larger than what comes out.
    """
    if x.dtype in (DType.F16, DType.BF16):
        out, count = transform(s, s.cast(x, DType.F32), length, inverse, onesided)
        return s.cast(out, x.dtype), count
    parts = x.shape[3]
    to_real = inverse and onesided
    size = length
    if size is None:
        size = (x.shape[1] - 1) * 2 if to_real else x.shape[1]
    half = floordiv(size, 2) + 1
    if isinstance(size, int) and size > 0:
        return _of_known_length(s, x, size, inverse, onesided)
    if to_real:
        return _real_inverse(s, fitted(s, x, half), size), size
    x = fitted(s, x, size)
    count = half if onesided else size
    cos, sin = _waves(s, count, size, size, x.dtype)
    if not inverse:
        sin = s.op_("neg", sin)
    real = _along(s, cos, s.take(x, 3, 0))
    imaginary = _along(s, sin, s.take(x, 3, 0))
    if parts == 2:
        other = s.take(x, 3, 1)
        real = s.op_("sub", real, _along(s, sin, other))
        imaginary = s.op_("add", imaginary, _along(s, cos, other))
    shape = (*real.shape, 1)
    both = s.emit("concat", [s.reshape(v, shape) for v in (real, imaginary)], axis=3)
    return (s.op_("div", both, number(s, size, x.dtype)) if inverse else both), count


def _of_known_length(
    s: Site, x: Value, size: int, inverse: bool, onesided: bool
) -> tuple[Value, Dim]:
    """See `transform`."""
    before, count, behind, parts = x.shape
    x = s.reshape(s.transpose(x, (0, 2, 1, 3)), (before * behind, count, parts))
    half, to_real = size // 2 + 1, inverse and onesided
    most = half if to_real else size
    if not isinstance(count, int) or count > most:
        x, count = fitted(s, x, most), most
    if to_real:  # what is left out repeats the rest, conjugated
        once = [place in (0, size / 2) for place in range(count)]
        weights = np.where(once, 1.0, 2.0).reshape(1, count, 1)
        x = s.op_("mul", x, constant(weights.astype(x.dtype.numpy)))
    wanted = half if onesided and not inverse else size
    sign, scale = (1, 1 / size) if inverse else (-1, 1.0)
    spectrum = Spectrum(size, sign, count, int(parts), wanted, 1 if to_real else 2, scale)
    out = fft(s, x, spectrum)
    out = s.reshape(out, (before, behind, wanted, out.shape[2]))
    return s.transpose(out, (0, 2, 1, 3)), wanted


def _along(s: Site, matrix: Value, x: Value) -> Value:
    """matrix @ x[before, n, behind] along n."""
    wide = s.reshape(matrix, (1, *matrix.shape))
    return s.emit("matmul", [wide, x])


def _real_inverse(s: Site, x: Value, size: Dim) -> Value:
    """The real signal of `size` elements whose half spectrum is x[before, size / 2 + 1, ...]."""
    half = x.shape[1]
    cos, sin = _waves(s, size, half, size, x.dtype)
    line = s.iota((1, half), 1, DType.I64)
    middle = s.op_("eq", s.op_("mul", line, 2), number(s, size, DType.I64))
    once = s.op_("or", s.op_("eq", line, 0), middle)
    weight = s.op_("where", once, s.scalar(1.0, x.dtype), s.scalar(2.0, x.dtype))
    total = _along(s, s.op_("mul", cos, weight), s.take(x, 3, 0))
    if x.shape[3] == 2:
        other = _along(s, s.op_("mul", sin, weight), s.take(x, 3, 1))
        total = s.op_("sub", total, other)
    return s.reshape(s.op_("div", total, number(s, size, x.dtype)), (*total.shape, 1))


@lowers("DFT")
def fourier(s: Site) -> Value:
    x, given = _in_parts(s, s.input(0)), s.optional(1)
    length = None if given is None else s.dims(s.reshape(given, (1,)))[0]
    if length is not None:
        s.require(1, AT_MOST, length, f"1 <= {length}, the length of the transform")
    inverse, onesided = bool(s.integer("inverse", 0)), bool(s.integer("onesided", 0))
    rank = x.type.rank
    where = s.optional(2) if s.opset >= 20 else None
    if where is not None and not is_known(s, where):
        return _fourier_anywhere(s, x, where, length, inverse, onesided)
    axis = s.integer("axis", 1) if s.opset < 20 else -2
    if where is not None:
        (axis,) = s.numbers(where, "axis")
    axis = s.axis(axis, rank)
    if axis == rank - 1:
        raise ValueError("the last axis holds real and imaginary parts")
    flat = s.reshape(x, _around(x.shape, axis))
    out, count = transform(s, flat, length, inverse, onesided)
    return s.reshape(out, (*x.shape[:axis], count, *x.shape[axis + 1 : -1], out.shape[3]))


def _around(shape: tuple[Dim, ...], axis: int) -> tuple[Dim, Dim, Dim, Dim]:
    before: Dim = 1
    behind: Dim = 1
    for dim in shape[:axis]:
        before = before * dim
    for dim in shape[axis + 1 : -1]:
        behind = behind * dim
    return before, shape[axis], behind, shape[-1]


def _fourier_anywhere(
    s: Site, x: Value, axis: Value, length: Dim | None, inverse: bool, onesided: bool
) -> Value:
    """Along an axis that a run chooses."""
    rank = x.type.rank
    s.require_index(axis, rank, "the axis")
    axis = s.op_("where", s.op_("lt", axis, 0), s.op_("add", axis, rank), axis)
    outer = s.reshape(s.slice(x, rank - 1, 0, 1), x.shape[:-1])  # its shape is what counts
    split = around_axis(s, outer, axis).shape
    out, count = transform(s, s.reshape(x, (*split, x.shape[-1])), length, inverse, onesided)
    flags = chosen(s, axis, rank - 1)
    dims = shape_vector(s, x.shape[:-1])
    size = number(s, count, DType.I64)
    shape = s.dims(s.op_("where", s.op_("ne", flags, 0), size, dims))
    return s.reshape(out, (*shape, out.shape[3]))


@lowers("STFT")
def short_time_fourier(s: Site) -> Value:
    x, window, given = s.input(0), s.optional(2), s.optional(3)
    (step,) = s.dims(s.reshape(s.input(1), (1,)))
    if given is not None:
        (length,) = s.dims(s.reshape(given, (1,)))
    elif window is not None:
        length = window.shape[0]
    else:
        raise ValueError("neither a window nor a frame length is given")
    x = s.reshape(x, (*x.shape, 1)) if x.type.rank == 2 else _in_parts(s, x)
    batch, size, parts = x.shape
    s.require(1, AT_MOST, step, f"1 <= {step}, the step between frames")
    s.require(1, AT_MOST, length, f"1 <= {length}, the length of frames")
    s.require(length, AT_MOST, size, f"frames of {length} in a signal of {size}")
    frames = floordiv(size - length, step) + 1
    framed = _frames(s, x, frames, length, step)
    if window is not None:
        framed = s.op_("mul", framed, s.reshape(window, (1, 1, length, 1)))
    flat = s.reshape(framed, (batch * frames, length, 1, parts))
    out, count = transform(s, flat, None, False, bool(s.integer("onesided", 1)))
    return s.reshape(out, (batch, frames, count, 2))


def _frames(s: Site, x: Value, frames: Dim, length: Dim, step: Dim) -> Value:
    """Frames [batch, frames, length, parts] of x[batch, size, parts], by runs that none divides."""
    run = math.gcd(length, step) if isinstance(length, int) and isinstance(step, int) else 1
    batch, _, parts = x.shape
    step, runs = floordiv(step, run), floordiv(length, run)
    used = (frames - 1) * step + runs
    x = s.reshape(s.slice(x, 1, 0, used * run), (batch, used, run, parts))
    start = s.op_("mul", s.iota((frames, 1), 0, DType.I64), number(s, step, DType.I64))
    places = s.op_("add", start, s.iota((1, runs), 1, DType.I64))
    framed = s.emit("gather", [x, places], axis=1)
    return s.reshape(framed, (batch, frames, length, parts))


_COSINES = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}


@lowers(*_COSINES)
def window(s: Site) -> Value:
    """Cosine sums with the coefficients of the ONNX standard."""
    constant, first, second = _COSINES[s.op]
    (count,) = s.dims(s.reshape(s.input(0), (1,)))
    dtype = s.dtype("output_datatype", 1)
    period = number(s, count if s.integer("periodic", 1) else count - 1, DType.F64)
    line = s.iota((count,), 0, DType.F64)
    part = s.op_("div", line, s.op_("max", period, 1.0))

    def wave(times: int, factor: float) -> Value:
        return s.op_("mul", s.op_("cos", s.op_("mul", part, 2 * math.pi * times)), factor)

    total = s.op_("add", s.op_("sub", wave(2, second), wave(1, first)), constant)
    return s.cast(total, dtype)


@lowers("MelWeightMatrix")
def mel_weights(s: Site) -> Value:
    """Triangles between whole bins of the spectrum, evenly spaced in mels."""
    (bins,), (length,) = (s.dims(s.reshape(s.input(i), (1,))) for i in range(2))
    rate = s.cast(s.reshape(s.input(2), ()), DType.F64)
    edges = [s.cast(s.reshape(s.input(i), ()), DType.F64) for i in (3, 4)]
    scale = 2595 / math.log(10)
    low, high = (
        s.op_("mul", s.op_("log", s.op_("add", s.op_("div", edge, 700.0), 1.0)), scale)
        for edge in edges
    )
    spacing = s.op_("div", s.op_("sub", high, low), number(s, bins + 2, DType.F64))
    mels = s.op_("add", s.op_("mul", s.iota((bins + 2,), 0, DType.F64), spacing), low)
    hertz = s.op_("mul", s.op_("sub", s.op_("exp", s.op_("div", mels, scale)), 1.0), 700.0)
    places = s.op_("mul", hertz, number(s, length + 1, DType.F64))
    places = s.op_("floor", s.op_("div", places, rate))
    left, centre, right = (s.reshape(s.slice(places, 0, i, bins + i), (1, bins)) for i in range(3))
    line = s.iota((floordiv(length, 2) + 1, 1), 0, DType.F64)

    def over(top: Value, bottom: Value) -> Value:
        return s.op_("div", top, s.op_("max", bottom, 1.0))

    up = over(s.op_("sub", line, left), s.op_("sub", centre, left))
    rising = s.op_("and", s.op_("ge", line, left), s.op_("le", line, centre))
    peak = s.op_("and", s.op_("eq", line, centre), s.op_("eq", left, centre))
    out = s.op_("where", rising, s.op_("where", peak, 1.0, up), 0.0)
    down = over(s.op_("sub", right, line), s.op_("sub", right, centre))
    falling = s.op_("and", s.op_("ge", line, centre), s.op_("lt", line, right))
    return s.cast(s.op_("where", falling, down, out), s.dtype("output_datatype", 1))
