"""Random numbers: a function of a seed and the element's place, alike on every target and thread.

The function is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", 2014). Without a seed the node's name gives one, so that a model repeats itself.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.dims import product
from ...site import Site
from ...table import lowers

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _seed(s: Site) -> int:
    if s.has("seed"):
        if s.op == "Dropout":
            return s.integer("seed")
        (bits,) = struct.unpack("<I", struct.pack("<f", s.real("seed")))
        return int(bits)
    name = s.node.name or next(iter(s.node.output), "")
    return zlib.crc32(name.encode())


def _bits(s: Site, shape: Sequence[Dim], stream: int) -> Value:
    """64 random bits per element; streams are independent of each other."""
    start = (_seed(s) * _GOLDEN ^ (stream + 1) * _SECOND) & _MASK
    place = s.iota((product(shape),), 0, DType.U64)
    state = s.op_("add", s.op_("mul", place, _GOLDEN), start)
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        state = s.op_("mul", s.op_("bitxor", state, s.op_("shr", state, shift)), factor)
    return s.reshape(s.op_("bitxor", state, s.op_("shr", state, 31)), shape)


def uniform(s: Site, shape: Sequence[Dim], dtype: DType, stream: int = 0) -> Value:
    """Numbers in [0, 1), of f64 or f32."""
    digits = 53 if dtype is DType.F64 else 24
    whole = s.cast(s.op_("shr", _bits(s, shape, stream), 64 - digits), dtype)
    return s.op_("mul", whole, 2.0**-digits)


def _normal(s: Site, shape: Sequence[Dim], dtype: DType) -> Value:
    """Standard normal numbers by the method of Box and Muller."""
    one = s.op_("sub", 1.0, uniform(s, shape, dtype, 0))
    radius = s.op_("sqrt", s.op_("mul", s.op_("log", one), -2.0))
    angle = s.op_("mul", uniform(s, shape, dtype, 1), 2 * math.pi)
    return s.op_("mul", radius, s.op_("cos", angle))


def _wide(dtype: DType) -> DType:
    return DType.F64 if dtype is DType.F64 else DType.F32


@lowers("RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike")
def random(s: Site) -> Value:
    if s.op.endswith("Like"):
        shape = s.input(0).shape
        dtype = s.dtype("dtype") if s.has("dtype") else s.input(0).dtype
    else:
        shape, dtype = tuple(s.ints("shape")), s.dtype("dtype", 1)
    if s.op.startswith("RandomUniform"):
        low, high = s.real("low", 0.0), s.real("high", 1.0)
        values = s.op_("add", s.op_("mul", uniform(s, shape, _wide(dtype)), high - low), low)
    else:
        mean, scale = s.real("mean", 0.0), s.real("scale", 1.0)
        values = s.op_("add", s.op_("mul", _normal(s, shape, _wide(dtype)), scale), mean)
    return s.cast(values, dtype)


@lowers("Bernoulli")
def bernoulli(s: Site) -> Value:
    """1 with the probability that the input says, else 0."""
    x = s.input(0)
    dtype = s.dtype("dtype") if s.has("dtype") else x.dtype
    wide = _wide(x.dtype)
    hit = s.op_("lt", uniform(s, x.shape, wide), s.cast(x, wide))
    return s.cast(hit, dtype)


@lowers("Multinomial")
def multinomial(s: Site) -> Value:
    """Classes drawn by how many cumulated probabilities a uniform number reaches."""
    x, count = s.input(0), s.integer("sample_size", 1)
    if x.type.rank != 2:
        raise ValueError(f"{x.type} is no batch of log-probabilities")
    wide = s.cast(x, _wide(x.dtype))
    total = s.emit("cumsum", [s.emit("softmax", [wide], axis=1)], axis=1)
    batch, classes = x.shape
    drawn = uniform(s, (batch, count, 1), wide.dtype)
    passed = s.op_("ge", drawn, s.reshape(total, (batch, 1, classes)))
    label = s.reduce("sum", s.cast(passed, DType.I64), [2], keepdims=False)
    last = s.op_("sub", s.reshape(s.emitter.virtual([classes]), ()), 1)
    return s.cast(s.op_("min", label, last), s.dtype("dtype", 6))


@lowers("Dropout")
def dropout(s: Site) -> list[Value]:
    """In training, elements are dropped with probability `ratio` and the others scaled up."""
    x, training = s.input(0), s.optional(2) if s.opset >= 12 else None
    if training is None or (training.data is not None and not bool(training.data)):
        if not s.wants(1):
            return [x]
        # before opset 12 a mask is of training alone, and ONNX Runtime has zeros for it
        mask = s.expand(s.scalar(s.opset >= 12, DType.BOOL), x.shape)
        return [x, mask if s.opset >= 10 else s.cast(mask, x.dtype)]
    dtype = _wide(x.dtype)
    given = s.optional(1)
    ratio = s.scalar(0.5, dtype) if given is None else s.cast(s.reshape(given, ()), dtype)
    on = s.reshape(training, ())
    kept = s.op_("ge", uniform(s, x.shape, dtype), ratio)
    kept = s.op_("or", kept, s.op_("not", on))
    scale = s.op_("where", on, s.op_("div", 1.0, s.op_("sub", 1.0, ratio)), 1.0)
    scaled = s.op_("mul", x, s.cast(scale, x.dtype))
    return [s.op_("where", kept, scaled, 0), kept]
