"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.dims import floordiv
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers


def per_channel(s: Site, value: Value, rank: int, axis: int = 1) -> Value:
    """A vector of one element per channel, shaped to broadcast along `axis` of a tensor."""
    shape: list[Dim] = [1] * rank
    shape[axis] = value.type.elements
    return s.reshape(value, shape)


@lowers("BatchNormalization")
def batch_normalization(s: Site) -> list[Value]:
    """x times one constant per channel plus another: scale / sqrt(var + eps) and its shift."""
    x, scale, bias, mean, variance = (s.input(i) for i in range(5))
    per_element = s.opset < 9 and not s.integer("spatial", 1) and x.type.rank > 2
    # before version 14, a node that trains is one that has all five outputs
    trains = s.integer("training_mode", 0) if s.opset >= 14 else s.opset >= 7 and s.wants(4)
    if trains and per_element:
        raise NotSupported("training with statistics per element (spatial=0) is not supported")
    if trains:
        return _training_batch_normalization(s, x, scale, bias, mean, variance)
    if per_element and len(scale.shape) != x.type.rank - 1:
        raise ValueError(f"with spatial=0, {scale.type} is no scale for every element of {x.type}")
    dtype = variance.dtype
    spread = s.op_("sqrt", s.op_("add", variance, s.real("epsilon", 1e-5)))
    factor = s.op_("div", s.cast(scale, dtype), spread)
    shift = s.op_("sub", s.cast(bias, dtype), s.op_("mul", mean, factor))
    if not per_element:
        factor, shift = (per_channel(s, value, x.type.rank) for value in (factor, shift))
    out = s.op_("add", s.op_("mul", s.cast(x, dtype), factor), shift)
    return [s.cast(out, x.dtype)]


def _training_batch_normalization(
    s: Site, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> list[Value]:
    """With the batch's own statistics; the running ones move towards them.

    The last two results, of versions before 14, are what ONNX Runtime saves for the backward pass:
    the batch's mean and 1 / sqrt(variance + epsilon).
    """
    rank, momentum = x.type.rank, s.real("momentum", 0.9)
    axes = [axis for axis in range(rank) if axis != 1]
    wide = s.cast(x, mean.dtype)
    own_mean = s.reduce("mean", wide, axes)
    centred = s.op_("sub", wide, own_mean)
    own_variance = s.reduce("mean", s.op_("mul", centred, centred), axes)
    spread = s.op_("sqrt", s.op_("add", own_variance, s.real("epsilon", 1e-5)))
    out = s.op_("div", centred, spread)
    out = s.op_("mul", out, per_channel(s, s.cast(scale, mean.dtype), rank))
    out = s.op_("add", out, per_channel(s, s.cast(bias, mean.dtype), rank))
    results = [s.cast(out, x.dtype)]
    for running, own in ((mean, own_mean), (variance, own_variance)):
        moved = s.op_("mul", s.reshape(own, running.shape), 1.0 - momentum)
        results.append(s.op_("add", s.op_("mul", running, momentum), moved))
    if s.wants(4):
        saved = (own_mean, s.op_("div", 1.0, spread))
        results += [s.reshape(value, mean.shape) for value in saved]
    return results


def standardised(
    s: Site, x: Value, axes: Sequence[int], epsilon: float
) -> tuple[Value, Value, Value]:
    """(x - mean) / sqrt(variance + epsilon) over axes, the mean, and 1 / sqrt(...)."""
    mean = s.reduce("mean", x, axes)
    centred = s.op_("sub", x, mean)
    variance = s.reduce("mean", s.op_("mul", centred, centred), axes)
    inverse = s.op_("div", 1.0, s.op_("sqrt", s.op_("add", variance, epsilon)))
    return s.op_("mul", centred, inverse), mean, inverse


@lowers("InstanceNormalization")
def instance_normalization(s: Site) -> Value:
    x, scale, bias = s.input(0), s.input(1), s.input(2)
    rank = x.type.rank
    out, _, _ = standardised(s, x, range(2, rank), s.real("epsilon", 1e-5))
    out = s.op_("mul", out, per_channel(s, scale, rank))
    return s.op_("add", out, per_channel(s, bias, rank))


@lowers("GroupNormalization")
def group_normalization(s: Site) -> Value:
    x, scale, bias = s.input(0), s.input(1), s.input(2)
    groups, rank = s.integer("num_groups"), x.type.rank
    channels = x.shape[1]
    if groups < 1 or (isinstance(channels, int) and channels % groups):
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
    size = floordiv(channels, groups)
    wide = s.cast(x, DType.F32) if s.integer("stash_type", 1) == 1 else x
    apart = s.reshape(wide, (x.shape[0], groups, size, *x.shape[2:]))
    out, _, _ = standardised(s, apart, range(2, rank + 1), s.real("epsilon", 1e-5))
    out = s.cast(out, x.dtype)
    if s.opset < 21:  # one scale and bias per group
        out = s.op_("mul", out, per_channel(s, scale, rank + 1))
        return s.reshape(s.op_("add", out, per_channel(s, bias, rank + 1)), x.shape)
    out = s.op_("mul", s.reshape(out, x.shape), per_channel(s, scale, rank))
    return s.op_("add", out, per_channel(s, bias, rank))


@lowers("LayerNormalization")
@lowers("LayerNormalization", domain=MICROSOFT)
def layer_normalization(s: Site) -> list[Value]:
    x, scale, bias = s.input(0), s.input(1), s.optional(2)
    axis = s.axis(s.integer("axis", -1), x.type.rank)
    epsilon = s.real("epsilon", 1e-5)
    operands = [x, scale] if bias is None else [x, scale, bias]
    results = [s.emit("layer_norm", operands, axis=axis, epsilon=epsilon)]
    if s.wants(1) or s.wants(2):
        wide = s.cast(x, DType.F32) if s.integer("stash_type", 1) == 1 else x
        _, mean, inverse = standardised(s, wide, range(axis, x.type.rank), epsilon)
        results += [mean, inverse]
    return results


def rms_norm(s: Site, x: Value, scale: Value, axes: Sequence[int], epsilon: float) -> Value:
    """x / sqrt(mean(x^2) + epsilon) times a scale; statistics in f32 or wider."""
    wide = x if x.dtype is DType.F64 else s.cast(x, DType.F32)
    out = s.cast(s.op_("mul", wide, _inverse_power(s, wide, axes, epsilon)), x.dtype)
    return s.op_("mul", out, s.cast(scale, x.dtype))


def _inverse_power(s: Site, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """1 / sqrt(mean(x^2) + epsilon)."""
    power = s.reduce("mean", s.op_("mul", x, x), axes)
    return s.op_("div", 1.0, s.op_("sqrt", s.op_("add", power, epsilon)))


@lowers("RMSNormalization", "SimplifiedLayerNormalization")
@lowers("SimplifiedLayerNormalization", domain=MICROSOFT)
def rms_normalization(s: Site) -> list[Value]:
    """The RMS norm and, of SimplifiedLayerNormalization, one over the root that it divides by."""
    x, epsilon = s.input(0), s.real("epsilon", 1e-5)
    axes = range(s.axis(s.integer("axis", -1), x.type.rank), x.type.rank)
    results = [rms_norm(s, x, s.input(1), axes, epsilon)]
    if s.wants(1):
        wide = x if x.dtype is DType.F64 else s.cast(x, DType.F32)
        results.append(_inverse_power(s, wide, axes, epsilon))
    return results


@lowers("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(s: Site) -> list[Value | None]:
    """The norm of x + skip (+ bias); output 3 is that sum."""
    total = s.op_("add", s.input(0), s.input(1))
    simplified = s.op.startswith("SkipSimplified")
    extra = s.optional(3 if simplified else 4)
    if extra is not None:
        total = s.op_("add", total, extra)
    epsilon = s.real("epsilon", 1e-12)
    last = total.type.rank - 1
    mean, inverse = _statistics(s, total, simplified, epsilon)
    if simplified:
        out = rms_norm(s, total, s.input(2), [last], epsilon)
    else:
        beta = s.optional(3)
        operands = [total, s.input(2)] if beta is None else [total, s.input(2), beta]
        out = s.emit("layer_norm", operands, axis=last, epsilon=epsilon)
    return [out, mean, inverse, total]


def _statistics(
    s: Site, x: Value, simplified: bool, epsilon: float
) -> tuple[Value | None, Value | None]:
    """The mean of the last axis and one over its deviation, where they are wanted, in f32.

    The mean of a norm without one is 0.
    """
    if not s.wants(1) and not s.wants(2):
        return None, None
    wide, last = s.cast(x, DType.F32), x.type.rank - 1
    if not simplified:
        _, mean, inverse = standardised(s, wide, [last], epsilon)
        return mean, inverse
    inverse = _inverse_power(s, wide, [last], epsilon)
    return s.expand(s.scalar(0.0, DType.F32), inverse.shape), inverse


@lowers("LpNormalization")
def lp_normalization(s: Site) -> Value:
    x, p = s.input(0), s.integer("p", 2)
    axis = s.axis(s.integer("axis", -1), x.type.rank)
    if p == 1:
        norm = s.reduce("sum", s.op_("abs", x), [axis])
    elif p == 2:
        norm = s.op_("sqrt", s.reduce("sum", s.op_("mul", x, x), [axis]))
    else:
        raise ValueError(f"p is {p}, neither 1 nor 2")
    # a vector of zeros stays one
    return s.op_("div", x, s.op_("where", s.op_("eq", norm, 0.0), 1.0, norm))


@lowers("MeanVarianceNormalization")
def mean_variance_normalization(s: Site) -> Value:
    """x less its mean, over its deviation; up to opset 8 an experimental operator of images."""
    x = s.input(0)
    if s.opset < 9:
        apart = [] if s.integer("across_channels", 0) else [1]
        axes = [axis for axis in range(x.type.rank) if axis not in apart]
    else:
        axes = s.axes(s.ints("axes", [0, 2, 3]), x.type.rank)
    centred = s.op_("sub", x, s.reduce("mean", x, axes))
    if s.opset < 9 and not s.integer("normalize_variance", 1):
        return centred
    variance = s.reduce("mean", s.op_("mul", centred, centred), axes)
    return s.op_("div", centred, s.op_("add", s.op_("sqrt", variance), 1e-9))


@lowers("LRN")
def local_response_normalization(s: Site) -> Value:
    """x / (bias + alpha / size * sum of squares over neighbouring channels) ^ beta."""
    x, size = s.input(0), s.integer("size")
    rank = x.type.rank
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    pads = [0] * (2 * rank)
    pads[1], pads[rank + 1] = before, after
    square = s.emit(
        "pad", [s.op_("mul", x, x), s.scalar(0, x.dtype)], pads=tuple(pads), mode="constant"
    )
    total = s.slice(square, 1, 0, x.shape[1])
    for offset in range(1, size):
        total = s.op_("add", total, s.slice(square, 1, offset, offset + x.shape[1]))
    scaled = s.op_("mul", total, s.real("alpha", 1e-4) / size)
    base = s.op_("add", scaled, s.real("bias", 1.0))
    return s.op_("div", x, s.op_("pow", base, s.real("beta", 0.75)))
