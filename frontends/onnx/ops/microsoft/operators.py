"""Operators of com.microsoft that optimised and quantised files hold.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from .....compiler.ir import DType, Value
from .....compiler.ir.dims import product
from ...containers import Content
from ...reading.schemas import body_of
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers, refuses
from ..shared.heads import divided
from ..standard.activations import by_name, gelu, swish
from ..standard.matmul import gemm
from ..standard.quantization import dequantize

_RECURRENT_OPSET = 27  # of ai.onnx, the first with these layers


@lowers("Gelu", "BiasGelu", "FastGelu", domain=MICROSOFT)
def contrib_gelu(s: Site) -> Value:
    x, bias = s.input(0), s.optional(1)
    if bias is not None:
        x = s.op_("add", x, bias)
    return gelu(s, x, "tanh" if s.op == "FastGelu" else "none")


@lowers("QuickGelu", domain=MICROSOFT)
def quick_gelu(s: Site) -> Value:
    return swish(s, s.input(0), s.real("alpha", 1.702))


@lowers("FusedGemm", domain=MICROSOFT)
def fused_gemm(s: Site) -> Value:
    out = gemm(s)
    if not s.has("activation"):
        return out
    values = [
        s.real(f"activation_{name}", 0.0)
        for name in ("alpha", "beta", "gamma")
        if s.has(f"activation_{name}")
    ]
    return by_name(s, s.text("activation"), out, values)


@lowers("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(s: Site) -> list[Value | None]:
    """Layer norm of the sum of word, position and segment embeddings."""
    ids, segments, words, positions = s.input(0), s.optional(1), s.input(2), s.input(3)
    tables = (words, positions, s.optional(4))
    return _embedded(s, ids, segments, tables, (s.input(5), s.input(6)), s.optional(7))


@lowers("QEmbedLayerNormalization", domain=MICROSOFT)
def q_embed_layer_normalization(s: Site) -> list[Value | None]:
    """The same with 8-bit tables, scale and shift; their scales and zeros follow at 8 and 13."""

    def table(place: int, number: int) -> Value | None:
        if s.optional(place) is None:
            return None
        scale, zero = s.input(8 + number), s.input(13 + number)
        return dequantize(s, s.input(place), s.reshape(scale, ()), s.reshape(zero, ()))

    words, positions, segments, gamma, beta = (table(2 + i, i) for i in range(5))
    if words is None or positions is None or gamma is None or beta is None:
        raise ValueError("an embedding table is missing")
    tables = (words, positions, segments)
    return _embedded(s, s.input(0), s.optional(1), tables, (gamma, beta), s.optional(7))


def _embedded(
    s: Site,
    ids: Value,
    segments: Value | None,
    tables: tuple[Value, Value, Value | None],
    affine: tuple[Value, Value],
    mask: Value | None,
) -> list[Value | None]:
    words, positions, parts = tables
    batch, steps = ids.shape
    place = s.optional(8) if s.op == "EmbedLayerNormalization" else None
    if place is None:
        place = s.iota((1, steps), 1, DType.I64)
    total = s.op_(
        "add",
        s.emit("gather", [words, ids], axis=0),
        s.emit("gather", [positions, place], axis=0),
    )
    if segments is not None and parts is not None:
        total = s.op_("add", total, s.emit("gather", [parts, segments], axis=0))
    epsilon = s.real("epsilon", 1e-12)
    out = s.emit("layer_norm", [total, *affine], axis=2, epsilon=epsilon)
    count: Value | None = None
    if s.wants(1):
        if mask is None:
            count = s.expand(s.scalar(0, DType.I32), (batch,))
        else:
            count = s.reduce("sum", s.cast(mask, DType.I32), [1], False)
    return [out, count, total]


@lowers("LinearAttention", domain=MICROSOFT)
def linear_attention(s: Site) -> Sequence[Content | None]:
    """By the function that ai.onnx defines the operator of the same name by."""
    if s.integer("state_window", 0):
        raise NotSupported("windows of states are not supported", "export with state_window 0")
    kept = {k: v for k, v in s.attributes.items() if k != "state_window"}
    inputs = list(s.inputs)
    heads, groups = s.integer("q_num_heads"), s.integer("kv_num_heads")
    if heads < groups:  # each query meets several keys, which the function does not say
        inputs[0] = _repeated_heads(s, s.input(0), heads, groups)
        kept["q_num_heads"] = onnx.helper.make_attribute("q_num_heads", groups)
    return by_function(s, s.op, inputs, kept)


def by_function(
    s: Site,
    operator: str,
    inputs: Sequence[Value | None],
    attributes: Mapping[str, onnx.AttributeProto],
) -> list[Any]:
    """The results of an operator of ai.onnx by its definition as a function."""
    node = onnx.NodeProto(op_type=operator, name=s.node.name)
    node.input.extend("" if value is None else f"input_{i}" for i, value in enumerate(inputs))
    node.output.extend(f"output_{i}" for i in range(2))
    for attribute in attributes.values():
        node.attribute.add().CopyFrom(attribute)
    types = [None if value is None else value.type for value in inputs]
    body = body_of(node, "", _RECURRENT_OPSET, types)
    if body is None:
        raise NotSupported("the onnx package does not define it", "install onnx 1.23 or newer")
    return s.importer.inline(body, inputs, dict(attributes), {"": _RECURRENT_OPSET})


def _repeated_heads(s: Site, x: Value, heads: int, wanted: int) -> Value:
    """[batch, steps, heads * size] with every head as often as makes the wanted number."""
    batch, steps, width = x.shape
    size, often = (
        divided(s, width, heads, "queries"),
        divided(s, wanted, heads, "a number of heads"),
    )
    apart = s.reshape(x, (batch, steps, heads, 1, size))
    wide = s.expand(apart, (batch, steps, heads, often, size))
    return s.reshape(wide, (batch, steps, wanted * size))


# Attributes of CausalConvWithState by which kernels for CUDA alone read and keep other parts, and
# what says that they do not.
_PARTS = {
    "state_window": 0,
    "state_update_capacity": 0,
    "state_channels_last": -1,
    "state_length": 0,
    "input_channel_offset": 0,
    "input_channels": 0,
}


@lowers("CausalConvWithState", domain=MICROSOFT)
def causal_conv_with_state(s: Site) -> list[Value]:
    """A depthwise convolution along time that sees the past alone, and the steps that the next
    call begins with.
    """
    for name, plain in _PARTS.items():
        if s.integer(name, plain) != plain:
            raise NotSupported(f"{name} is not supported", f"export with {name} {plain}")
    if s.integer("ndim", 1) != 1:
        raise NotSupported("more than one axis of places is not supported", "export with ndim 1")
    x, weight, bias, past = s.input(0), s.input(1), s.optional(2), s.optional(3)
    last, shape = bool(s.integer("channels_last", 0)), x.shape
    x = _channels_first(s, x, last)
    channels, taps, apart = weight.shape[0], weight.shape[2], s.integer("dilation", 1)
    if apart < 1 or weight.type.rank != 3 or x.type.rank != 3 or not isinstance(channels, int):
        raise ValueError(f"{x.type} and {weight.type}, {apart} apart, make no convolution of lines")
    state = (taps - 1) * apart
    if past is None:
        past = s.expand(s.scalar(0, x.dtype), (x.shape[0], x.shape[1], state))
    else:
        past = s.sized(_channels_first(s, past, last), 2, state)
    line = s.emit("concat", [past, x], axis=2)
    operands = [line, weight] if bias is None else [line, weight, bias]
    how = {"strides": (1,), "dilations": (apart,), "pads": (0, 0), "groups": channels}
    out = s.emit("conv", operands, **how)
    name = s.text("activation", "none")
    if name in ("silu", "swish"):
        out = swish(s, out)
    elif name != "none":
        raise ValueError(f"activation '{name}' does not exist")
    length = line.shape[2]
    present = s.slice(line, 2, length - state, length)
    if not last:
        return [out, present]
    return [
        s.reshape(s.transpose(part, (0, 2, 1)), (part.shape[0], part.shape[2], *shape[2:]))
        for part in (out, present)
    ]


def _channels_first(s: Site, x: Value, last: bool) -> Value:
    """[batch, channels, steps] of that or of [batch, steps, channels...]."""
    if not last:
        return x
    flat = s.reshape(x, (x.shape[0], x.shape[1], product(x.shape[2:])))
    return s.transpose(flat, (0, 2, 1))


_SEARCHES = ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch")


@refuses(*_SEARCHES, domain=MICROSOFT)
def whole_searches(s: Site) -> Value:
    raise NotSupported(
        "it holds the whole search over a decoder", "export the decoder alone and search outside"
    )


@refuses("Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Upsample",
         "ReorderInput", "ReorderOutput", domain="com.microsoft.nchwc")  # fmt: skip
def machine_bound(s: Site) -> Value:
    raise NotSupported(
        "this file was laid out for one machine by ONNX Runtime",
        "use the model before that, or optimise it no further than ORT_ENABLE_EXTENDED",
    )
