"""Operators on 8-bit integers of com.microsoft: most are dequantise, compute, quantise.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .....compiler.ir import DType, Value
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.factors import ByteFactor
from ..standard.activations import flatten_from, leaky_relu
from ..standard.matmul import swap_last
from ..standard.nn import centred
from ..standard.pooling import max_pool, window_means
from ..standard.quantization import dequantize, qlinear_conv, quantize, requantize, saturated
from ..standard.recurrent import lowered


def _single(s: Site, value: Value | None) -> Value | None:
    return None if value is None else s.reshape(value, ())


def _real(s: Site, at: int) -> Value:
    """Inputs at, at + 1, at + 2: numbers, scale and zero point."""
    scale = s.reshape(s.input(at + 1), ())
    return dequantize(s, s.input(at), scale, _single(s, s.optional(at + 2)))


def _quantised(s: Site, x: Value, at: int, dtype: DType) -> Value:
    """x by the scale and zero point that are inputs at, at + 1."""
    zero = _single(s, s.optional(at + 1))
    return quantize(s, x, s.reshape(s.input(at), ()), zero, dtype)


@lowers("QLinearSigmoid", "QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_activation(s: Site) -> Value:
    x = _real(s, 0)
    if s.op == "QLinearSigmoid":
        out = s.op_("sigmoid", x)
    else:
        out = leaky_relu(s, x, s.real("alpha", 0.01))
    return _quantised(s, out, 3, s.input(0).dtype)


@lowers("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(s: Site) -> Value:
    x = _real(s, 0)
    shape = x.shape
    axis = s.axis(s.integer("axis", -1), x.type.rank)
    if s.integer("opset") < 13:
        x, axis = flatten_from(s, x, axis), 1
    out = s.reshape(s.emit("softmax", [x], axis=axis), shape)
    return _quantised(s, out, 3, s.input(0).dtype)


@lowers("QLinearWhere", domain=MICROSOFT)
def qlinear_where(s: Site) -> Value:
    out = s.op_("where", s.input(0), _real(s, 1), _real(s, 4))
    return _quantised(s, out, 7, s.input(1).dtype)


@lowers("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(s: Site) -> Value:
    """Each part is brought to the scale of the result on its own."""
    if len(s.inputs) % 3 != 2:
        raise ValueError(f"{len(s.inputs)} inputs are not a scale, a zero point and triples")
    parts = [_quantised(s, _real(s, at), 0, s.input(1).dtype) for at in range(2, len(s.inputs), 3)]
    return s.emit("concat", parts, axis=s.axis(s.integer("axis"), parts[0].type.rank))


@lowers("QLinearReduceMean", domain=MICROSOFT)
def qlinear_reduce_mean(s: Site) -> Value:
    x = _real(s, 0)
    axes = s.axes(s.ints("axes"), x.type.rank)
    out = s.reduce("mean", x, axes, bool(s.integer("keepdims", 1)))
    return _quantised(s, out, 3, s.input(0).dtype)


def _channels_first(s: Site, x: Value) -> Value:
    rank = x.type.rank
    return s.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def _channels_last(s: Site, x: Value) -> Value:
    rank = x.type.rank
    return s.transpose(x, [0, *range(2, rank), 1])


def _turned(s: Site, lower: Callable[[Site], Value]) -> Value:
    """An operator on channels that come first, on an input where they may come last."""
    if not s.integer("channels_last", 0):
        return lower(s)
    s.inputs[0] = _channels_first(s, s.input(0))
    return _channels_last(s, lower(s))


@lowers("QLinearConv", domain=MICROSOFT)
def channels_last_conv(s: Site) -> Value:
    return _turned(s, qlinear_conv)


@lowers("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(s: Site) -> Value:
    """The zero point is added before the mean is rounded, which decides ties."""

    def lower(site: Site) -> Value:
        dtype = site.input(0).dtype
        site.inputs[0] = _real(site, 0)
        steps = site.op_("div", window_means(site, whole=True), site.reshape(site.input(3), ()))
        zero = _single(site, site.optional(4))
        if zero is not None:
            steps = site.op_("add", steps, site.cast(zero, steps.dtype))
        return saturated(site, site.op_("round", steps), dtype)

    return _turned(s, lower)


@lowers("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(s: Site) -> Value:
    def lower(site: Site) -> Value:
        x = _real(site, 0)
        out = site.reduce("mean", x, range(2, x.type.rank))
        return _quantised(site, out, 3, site.input(0).dtype)

    return _turned(s, lower)


@lowers("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(s: Site) -> Value:
    s.inputs[0] = _channels_first(s, s.input(0))
    return _channels_last(s, max_pool(s)[0])


@lowers("QGemm", domain=MICROSOFT)
def q_gemm(s: Site) -> Value:
    """Matrix product of 8-bit integers; its bias has the scale of the product."""
    a = centred(s, s.input(0), _single(s, s.optional(2)), DType.I32)
    b = s.input(3)
    turned = bool(s.integer("transB", 0))
    b = centred(s, b, s.optional(5), DType.I32, 0 if turned else 1)
    a = swap_last(s, a) if s.integer("transA", 0) else a
    total = s.emit("matmul", [a, swap_last(s, b) if turned else b])
    if s.optional(6) is not None:
        total = s.op_("add", total, s.input(6))
    scale = s.op_("mul", s.reshape(s.input(1), ()), s.real("alpha", 1.0))
    scale = s.op_("mul", s.input(4), scale)
    if s.optional(7) is None:
        return s.op_("mul", s.cast(total, scale.dtype), scale)
    zero = s.optional(8)
    return requantize(s, total, scale, s.input(7), zero or s.scalar(0, DType.U8))


@lowers("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(s: Site) -> Sequence[Value]:
    """An LSTM whose products are of bytes: the input is quantised once, the state in each step."""
    if s.inputs[0] is None:
        raise NotSupported("it has no input")
    factors = {place: _packed(s, place, at) for place, at in ((1, 8), (2, 10))}
    s.inputs = [_within(s), *s.inputs[1:8]]
    s.op = "LSTM"
    return lowered(s, lambda place, index: factors[place][index], by_range=True)


def _within(s: Site) -> Value:
    """The input, zero behind the longest sequence: no result depends on that, nor may its range."""
    x, lengths = s.input(0), s.optional(4)
    if lengths is None or x.type.rank != 3:
        return x
    longest = s.reshape(s.reduce("max", s.cast(lengths, DType.I64), (0,)), (1, 1, 1))
    steps = s.reshape(s.iota((x.shape[0],), 0, DType.I64), (x.shape[0], 1, 1))
    return s.op_("where", s.op_("lt", steps, longest), x, 0)


def _packed(s: Site, place: int, at: int) -> list[ByteFactor]:
    """The weights [directions, depth, columns] that are input `place`; scales and zero points are
    inputs at, at + 1: one for each direction, or for each of its columns."""
    packed, scale, zero = s.input(place), s.input(at), s.input(at + 1)
    if packed.type.rank != 3:
        raise ValueError(f"a weight {packed.type} does not have 3 dimensions")
    directions, columns = packed.shape[0], packed.shape[2]
    hidden = s.integer("hidden_size")
    if columns != 4 * hidden or (place == 2 and packed.shape[1] != hidden):
        raise ValueError(f"a weight {packed.type} does not fit hidden_size {hidden}")
    for parameter in (scale, zero):
        if parameter.shape not in ((directions,), (directions, columns)):
            raise ValueError(f"a scale or zero point {parameter.type} does not fit {packed.type}")
    shape = (directions, 1, zero.shape[1] if zero.type.rank == 2 else 1)
    offset = s.reshape(s.cast(zero, DType.I32), shape)
    wide = s.op_("sub", s.cast(packed, DType.I32), offset)
    return [
        ByteFactor(s, s.take(wide, 0, index), s.take(scale, 0, index))
        for index in range(int(directions))
    ]
