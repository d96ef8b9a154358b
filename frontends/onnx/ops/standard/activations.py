"""Activation functions, each by its definition in the ONNX standard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .....compiler.ir import DType, Value
from .....compiler.ir.dims import product
from ...site import NotSupported, Site
from ...table import lowers
from .math import SQRT_HALF, lowest

# Selu constants: Klambauer et al., Self-Normalizing Neural Networks, as ONNX rounds them.
SELU_ALPHA = 1.67326319217681884765625
SELU_GAMMA = 1.05070102214813232421875


def relu(s: Site, x: Value) -> Value:
    """max(x, 0)."""
    return s.op_("max", x, 0)


def leaky_relu(s: Site, x: Value, alpha: float) -> Value:
    """x, or alpha x below zero."""
    return s.op_("where", s.op_("lt", x, 0), s.op_("mul", x, alpha), x)


def elu(s: Site, x: Value, alpha: float) -> Value:
    """x, or alpha (e^x - 1) below zero."""
    below = s.op_("mul", s.op_("sub", s.op_("exp", s.op_("min", x, 0.0)), 1.0), alpha)
    return s.op_("where", s.op_("lt", x, 0.0), below, x)


def hard_sigmoid(s: Site, x: Value, alpha: float, beta: float) -> Value:
    """alpha x + beta, kept within 0 and 1."""
    line = s.op_("add", s.op_("mul", x, alpha), beta)
    return s.op_("min", s.op_("max", line, 0.0), 1.0)


def hard_swish(s: Site, x: Value) -> Value:
    """x times x / 6 + 1 / 2, kept within 0 and 1."""
    return s.op_("mul", x, hard_sigmoid(s, x, 1 / 6, 0.5))


def softplus(s: Site, x: Value) -> Value:
    """log(1 + e^x), written so that e^x cannot overflow."""
    tail = s.op_("log", s.op_("add", s.op_("exp", s.op_("neg", s.op_("abs", x))), 1.0))
    return s.op_("add", s.op_("max", x, 0.0), tail)


def softsign(s: Site, x: Value) -> Value:
    """x / (1 + |x|)."""
    return s.op_("div", x, s.op_("add", s.op_("abs", x), 1.0))


def thresholded_relu(s: Site, x: Value, alpha: float) -> Value:
    """x above alpha, else 0."""
    return s.op_("where", s.op_("gt", x, alpha), x, 0.0)


def gelu(s: Site, x: Value, approximate: str = "none") -> Value:
    """x times the normal distribution function, exactly or by its tanh approximation."""
    if approximate == "none":
        inner = s.op_("erf", s.op_("mul", x, SQRT_HALF))
    elif approximate == "tanh":
        cubic = s.op_("mul", s.op_("mul", s.op_("mul", x, x), x), 0.044715)
        inner = s.op_("tanh", s.op_("mul", s.op_("add", x, cubic), math.sqrt(2 / math.pi)))
    else:
        raise ValueError(f"approximate '{approximate}' is neither none nor tanh")
    return s.op_("mul", s.op_("mul", x, 0.5), s.op_("add", inner, 1.0))


def swish(s: Site, x: Value, alpha: float = 1.0) -> Value:
    """x sigmoid(alpha x)."""
    inner = x if alpha == 1.0 else s.op_("mul", x, alpha)
    return s.op_("mul", x, s.op_("sigmoid", inner))


_BY_NAME: dict[str, tuple[Callable[..., Value], tuple[float, ...]]] = {
    "relu": (relu, ()),
    "tanh": (lambda s, x: s.op_("tanh", x), ()),
    "sigmoid": (lambda s, x: s.op_("sigmoid", x), ()),
    "affine": (lambda s, x, a, b: s.op_("add", s.op_("mul", x, a), b), (1.0, 0.0)),
    "leakyrelu": (leaky_relu, (0.01,)),
    "thresholdedrelu": (thresholded_relu, (1.0,)),
    "scaledtanh": (
        lambda s, x, a, b: s.op_("mul", s.op_("tanh", s.op_("mul", x, b)), a),
        (1.0, 1.0),
    ),
    "hardsigmoid": (hard_sigmoid, (0.2, 0.5)),
    "hardswish": (lambda s, x, *unused: hard_swish(s, x), ()),
    "elu": (elu, (1.0,)),
    "softsign": (softsign, ()),
    "softplus": (softplus, ()),
}


def parameters(name: str) -> tuple[float, ...]:
    """Default parameters of an activation that is named in an attribute.

    Raises NotSupported for an unknown name.
    """
    if name.lower() not in _BY_NAME:
        raise NotSupported(f"activation '{name}' is not supported")
    return _BY_NAME[name.lower()][1]


def by_name(s: Site, name: str, x: Value, values: Sequence[float]) -> Value:
    """The activation that an attribute (of LSTM, FusedConv, ...) names, applied to x."""
    defaults = parameters(name)
    return _BY_NAME[name.lower()][0](s, x, *(list(values) + list(defaults[len(values) :])))


@lowers("Relu")
def lower_relu(s: Site) -> Value:
    return relu(s, s.input(0))


@lowers("LeakyRelu")
def lower_leaky_relu(s: Site) -> Value:
    return leaky_relu(s, s.input(0), s.real("alpha", 0.01))


@lowers("PRelu")
def lower_prelu(s: Site) -> Value:
    x, slope = s.input(0), s.input(1)
    if s.opset < 7 and slope.type.rank == 1 and x.type.rank > 1:  # one slope per channel
        slope = s.reshape(slope, (*slope.shape, *(1,) * (x.type.rank - 2)))
    return s.op_("where", s.op_("lt", x, 0), s.op_("mul", x, slope), x)


@lowers("Elu")
def lower_elu(s: Site) -> Value:
    return elu(s, s.input(0), s.real("alpha", 1.0))


@lowers("Celu")
def lower_celu(s: Site) -> Value:
    x, alpha = s.input(0), s.real("alpha", 1.0)
    grown = s.op_("exp", s.op_("div", s.op_("min", x, 0.0), alpha))
    below = s.op_("mul", s.op_("sub", grown, 1.0), alpha)
    return s.op_("add", s.op_("max", x, 0.0), below)


@lowers("Selu")
def lower_selu(s: Site) -> Value:
    inner = elu(s, s.input(0), s.real("alpha", SELU_ALPHA))
    return s.op_("mul", inner, s.real("gamma", SELU_GAMMA))


@lowers("HardSigmoid")
def lower_hard_sigmoid(s: Site) -> Value:
    return hard_sigmoid(s, s.input(0), s.real("alpha", 0.2), s.real("beta", 0.5))


@lowers("HardSwish")
def lower_hard_swish(s: Site) -> Value:
    return hard_swish(s, s.input(0))


@lowers("Softplus")
def lower_softplus(s: Site) -> Value:
    return softplus(s, s.input(0))


@lowers("Softsign")
def lower_softsign(s: Site) -> Value:
    return softsign(s, s.input(0))


@lowers("Mish")
def lower_mish(s: Site) -> Value:
    x = s.input(0)
    return s.op_("mul", x, s.op_("tanh", softplus(s, x)))


@lowers("ThresholdedRelu")
def lower_thresholded_relu(s: Site) -> Value:
    return thresholded_relu(s, s.input(0), s.real("alpha", 1.0))


@lowers("Gelu")
def lower_gelu(s: Site) -> Value:
    return gelu(s, s.input(0), s.text("approximate", "none"))


@lowers("Swish")
def lower_swish(s: Site) -> Value:
    return swish(s, s.input(0), s.real("alpha", 1.0))


@lowers("Shrink")
def lower_shrink(s: Site) -> Value:
    x, bias, lambd = s.input(0), s.real("bias", 0.0), s.real("lambd", 0.5)
    up, down = s.op_("add", x, bias), s.op_("sub", x, bias)
    inner = s.op_("where", s.op_("gt", x, lambd), down, 0)
    return s.op_("where", s.op_("lt", x, -lambd), up, inner)


@lowers("Softmax", "LogSoftmax", "Hardmax")
def lower_softmax(s: Site) -> Value:
    x = s.input(0)
    axis = s.axis(s.integer("axis", -1 if s.opset >= 13 else 1), max(x.type.rank, 1))
    shape = x.shape
    if s.opset < 13 and axis != x.type.rank - 1:
        # all axes from `axis` on are one
        x, axis = flatten_from(s, x, axis), 1
    if s.op == "Softmax":
        out = s.emit("softmax", [x], axis=axis)
    elif s.op == "LogSoftmax":
        out = log_softmax(s, x, axis)
    else:
        rows = x
        if not isinstance(x.shape[axis], int):  # for an empty axis; behind others it never wins
            low = s.reshape(lowest(s, x.dtype), (1,) * x.type.rank)
            row = [1 if place == axis else dim for place, dim in enumerate(x.shape)]
            rows = s.emit("concat", [x, s.expand(low, row)], axis=axis)
        best = s.emit("argmax", [rows], axis=axis, keepdims=True)
        hit = s.op_("eq", s.iota(x.shape, axis, DType.I64), best)
        out = s.cast(hit, x.dtype)
    return s.reshape(out, shape)


def flatten_from(s: Site, x: Value, axis: int) -> Value:
    """The value as a matrix: axes before `axis`, and the rest."""
    return s.reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))


def log_softmax(s: Site, x: Value, axis: int) -> Value:
    """x - max - log(sum(exp(x - max))) along an axis."""
    centred = s.op_("sub", x, s.reduce("max", x, [axis]))
    total = s.reduce("sum", s.op_("exp", centred), [axis])
    return s.op_("sub", centred, s.op_("log", total))
