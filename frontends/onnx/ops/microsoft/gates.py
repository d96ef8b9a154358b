"""Gated sums, norms and activations of com.microsoft.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from .....compiler.ir import DType, Value
from .....compiler.ir.assumptions import EQUAL
from .....compiler.ir.dims import floordiv
from ...site import Site
from ...table import MICROSOFT, lowers
from ..standard.activations import softplus
from ..standard.normalization import rms_norm

_ACTIVATIONS = ("silu", "swish", "sigmoid")


@lowers("ScaledSiLU", domain=MICROSOFT)
def scaled_silu(s: Site) -> Value:
    """z * sigmoid(z) of z = x times a scalar input, or the attribute alpha, which are f32."""
    x, given = s.input(0), s.optional(1)
    if given is None:
        factor = s.scalar(s.real("alpha", 1.0), DType.F32)
    else:
        factor = s.cast(s.reshape(given, ()), DType.F32)
    z = s.cast(s.op_("mul", s.cast(x, DType.F32), factor), x.dtype)
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


@lowers("LinearAttentionGate", domain=MICROSOFT)
def linear_attention_gate(s: Site) -> list[Value | None]:
    """Decays scale * softplus(a + bias), and update rates sigmoid(b), in f32."""
    a, b = s.input(0), s.optional(3)
    wide, bias, scale = (s.cast(s.input(i), DType.F32) for i in range(3))
    z = s.op_("add", wide, bias)
    decay = s.op_("mul", softplus(s, z), scale)
    rate = None
    if s.wants(1):
        if b is None:
            raise ValueError("update rates need the input b")
        rate = s.cast(s.op_("sigmoid", s.cast(b, DType.F32)), b.dtype)
    return [s.cast(decay, a.dtype), rate]


def _streams(s: Site, x: Value) -> Value:
    """[..., branches, size] of grouped streams, or of flat ones with their number given."""
    count = s.integer("num_branches", 0)
    if count < 0:
        raise ValueError(f"{count} branches do not exist")
    if not count:
        if x.type.rank < 2:
            raise ValueError(f"streams {x.type} need two dimensions, or num_branches")
        return x
    width = x.shape[-1]
    size = floordiv(width, count)
    s.require(size * count, EQUAL, width, f"{x.type} is not {count} branches of one size")
    return s.reshape(x, (*x.shape[:-1], count, size))


def _gate(s: Site, gate: Value, streams: Value) -> Value:
    """A gate for each branch, or for each element, that broadcasts to the streams, in f32."""
    wide = gate.type.rank == streams.type.rank
    if not wide and gate.shape[-1] == streams.shape[-2]:
        gate = s.reshape(gate, (*gate.shape, 1))
    elif not wide:
        gate = s.reshape(gate, streams.shape)
    return s.cast(gate, DType.F32)


@lowers("BranchwiseRMSNorm", domain=MICROSOFT)
def branchwise_rms_norm(s: Site) -> Value:
    """The RMS norm of each branch, in f32, with a scale for a branch, or for each."""
    x, given = s.input(0), s.optional(1)
    streams = s.cast(_streams(s, x), DType.F32)
    rank = streams.type.rank
    one = s.scalar(1.0, DType.F32)
    normed = rms_norm(s, streams, one, [rank - 1], s.real("epsilon", 1e-5))
    if given is not None:
        scale = s.cast(given, DType.F32)
        if scale.type.rank == 1 and scale.shape[0] != streams.shape[-1]:
            scale = s.reshape(scale, streams.shape[-2:])
        normed = s.op_("mul", normed, scale)
    return s.cast(s.reshape(normed, x.shape), x.dtype)


@lowers("HyperConnectionPreMix", domain=MICROSOFT)
def hyper_connection_before(s: Site) -> Value:
    """What goes into a block: the sum of the branches, each times its gate."""
    x = s.input(0)
    streams = _streams(s, x)
    weighed = s.op_("mul", s.cast(streams, DType.F32), _gate(s, s.input(1), streams))
    summed = s.reduce("sum", weighed, [streams.type.rank - 2], keepdims=False)
    return s.cast(s.op_("mul", summed, s.real("reduction_scale", 1.0)), x.dtype)


@lowers("HyperConnectionPostMix", domain=MICROSOFT)
def hyper_connection_after(s: Site) -> Value:
    """The branches, mixed with each other, and a block's result times their gates."""
    x, block, mix = s.input(0), s.cast(s.input(1), DType.F32), s.optional(3)
    streams = s.cast(_streams(s, x), DType.F32)
    block = s.reshape(block, (*block.shape[:-1], 1, block.shape[-1]))
    added = s.op_("mul", _gate(s, s.input(2), streams), block)
    if mix is not None:
        rank = streams.type.rank
        order = (*range(rank - 2), rank - 1, rank - 2)
        streams = s.emit("matmul", [s.transpose(s.cast(mix, DType.F32), order), streams])
    return s.cast(s.reshape(s.op_("add", streams, added), x.shape), x.dtype)


@lowers("EngramGate", domain=MICROSOFT)
def engram_gate(s: Site) -> list[Value | None]:
    """A value that all branches share, times a gate for each from how near its key is to its query;
    and the RMS norm of that.
    """
    key, query, value = (s.cast(s.input(i), DType.F32) for i in range(3))
    if key.type.rank != 4 or value.type.rank != 3:
        raise ValueError(f"keys {key.type} and values {value.type} need 4 and 3 dimensions")
    epsilon, dtype, size = s.real("epsilon", 1e-5), s.input(0).dtype, key.shape[3]
    scales = [None if v is None else s.cast(v, DType.F32) for v in map(s.optional, range(3, 6))]
    if scales[0] is None or scales[1] is None:
        raise ValueError("the scales of keys and queries are missing")
    near = s.op_("mul", *(
        rms_norm(s, x, scale, [3], epsilon) for x, scale in ((key, scales[0]), (query, scales[1]))
    ))  # fmt: skip
    total = s.reduce("sum", near, [3])
    root = s.op_("sqrt", s.cast(s.reshape(s.emitter.virtual([size]), ()), DType.F32))
    dot = s.op_("div", total, root)
    least = s.op_("sqrt", s.op_("max", s.op_("abs", dot), 1e-6))
    gate = s.op_("sigmoid", s.op_("mul", s.op_("sign", dot), least))
    shared = s.reshape(value, (*value.shape[:2], 1, value.shape[2]))
    out = s.op_("mul", gate, shared)
    normed = None
    if s.wants(1):
        if scales[2] is None:
            raise ValueError("a norm of the gated value needs conv_norm_scale")
        normed = s.cast(rms_norm(s, out, scales[2], [3], epsilon), dtype)
    return [s.cast(out, dtype), normed]
