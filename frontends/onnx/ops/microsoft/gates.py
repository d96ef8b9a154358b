"""Gated sums, norms and activations of com.microsoft.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from .....compiler.ir import DType, Value
from .....compiler.ir.assumptions import EQUAL
from .....compiler.ir.dims import floordiv
from ...site import Site
from ...table import MICROSOFT, lowers
from ..standard.normalization import rms_norm

_ACTIVATIONS = ("silu", "swish", "sigmoid")


@lowers("ScaledSiLU", domain=MICROSOFT)
def scaled_silu(s: Site) -> Value:
    """z * sigmoid(z) of z = x times a scalar input, or the attribute alpha."""
    x, given = s.input(0), s.optional(1)
    if given is None:
        z = s.op_("mul", x, s.real("alpha", 1.0))
    else:
        z = s.op_("mul", x, s.cast(s.reshape(given, ()), x.dtype))
    return s.op_("mul", z, s.op_("sigmoid", z))


@lowers("GatedAdd", domain=MICROSOFT)
def gated_add(s: Site) -> Value:
    """x + y * gate, a gate for each row: given, or the sigmoid of a projection."""
    x, y, gate, weight = s.input(0), s.input(1), s.input(2), s.optional(3)
    if weight is not None:
        gate = s.op_("sigmoid", s.emit("matmul", [gate, weight]))
    return s.op_("add", x, s.op_("mul", y, gate))


@lowers("GatedRMSNorm", domain=MICROSOFT)
def gated_rms_norm(s: Site) -> Value:
    """The RMS norm of groups of as many elements as the scale has, times the gate's activation."""
    x, scale, gate = (s.cast(s.input(i), DType.F32) for i in range(3))
    name = s.text("activation", "silu")
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation '{name}' is none of {', '.join(_ACTIVATIONS)}")
    size, width = scale.shape[0], x.shape[-1]
    groups = floordiv(width, size)
    why = f"{x.type} is no whole groups of {size}: give a scale whose length divides the last axis"
    s.require(groups * size, EQUAL, width, why)
    grouped = s.reshape(x, (*x.shape[:-1], groups, size))
    normed = rms_norm(s, grouped, scale, [x.type.rank], s.real("epsilon", 1e-5))
    opened = s.op_("sigmoid", gate)
    if name != "sigmoid":
        opened = s.op_("mul", gate, opened)
    out = s.op_("mul", s.reshape(normed, x.shape), opened)
    return s.cast(out, s.input(0).dtype)
