"""Mixtures of experts of com.microsoft: MoE and QMoE.

Every expert is computed for every token, and what a token is not routed to has weight 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from .....compiler.ir.ops.packed import digits
from .....compiler.ir.ops.quantised_product import BITS
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.quantised_product import PackedColumns, packed_product
from ..standard.activations import gelu, relu, swish
from ..standard.matmul import swap_last

Array = np.ndarray[Any, Any]


Weight = Value | PackedColumns  # of all experts: [experts, columns, depth]
Linear = tuple[Weight, Value | None]


def best(s: Site, scores: Value, k: Value | int) -> Value:
    """Which of the last axis are among the k highest; of equal ones the first count.

    scores: [rows, count]. Raises NotSupported where the count is not known.
    """
    rows, count = scores.shape
    if not isinstance(count, int):
        raise NotSupported("the number of experts is not known", "pin the shapes of the model")
    one, other = s.reshape(scores, (rows, count, 1)), s.reshape(scores, (rows, 1, count))
    earlier = constant(np.tril(np.ones((count, count), bool), -1))
    tie = s.op_("and", s.op_("eq", other, one), earlier)
    better = s.op_("or", s.op_("gt", other, one), tie)
    rank = s.reduce("sum", s.cast(better, DType.I32), [2], False)
    return s.op_("lt", rank, k)


def routing(s: Site, logits: Value, weights: Value | None) -> Value:
    """The share of each expert in each token [tokens, experts]; 0 for all but the best k."""
    if s.integer("use_sparse_mixer", 0):
        raise NotSupported("the sparse mixer is not supported")
    chosen = best(s, logits, s.integer("k", 1))
    if weights is not None:
        share = s.op_("where", chosen, weights, 0.0)
    elif s.integer("normalize_routing_weights", 0):
        return s.emit("softmax", [s.op_("where", chosen, logits, -1e30)], axis=1)
    else:
        share = s.op_("where", chosen, s.emit("softmax", [logits], axis=1), 0.0)
    if weights is not None and s.integer("normalize_routing_weights", 0):
        total = s.op_("max", s.reduce("sum", share, [1]), 1e-6)
        share = s.op_("div", share, total)
    return share


def mixture(
    s: Site,
    x: Value,
    share: Value,
    up: Linear,
    down: Linear,
    third: Linear | None,
) -> Value:
    """The experts' answers to x, weighted by their shares.

    up: weights [experts, inner (twice that for a fused gate), hidden] and a bias; down: [experts,
    hidden, inner]; third: the second factor of a gate, formed like up.
    """
    flat = s.reshape(x, (share.shape[0], x.shape[-1]))
    inner = _linear(s, flat, *up)
    inner = _activated(s, inner, None if third is None else _linear(s, flat, *third))
    out = _linear(s, inner, *down)  # [experts, tokens, hidden]
    part = s.reshape(s.transpose(share, (1, 0)), (share.shape[1], share.shape[0], 1))
    return s.reshape(s.reduce("sum", s.op_("mul", out, part), [0], False), x.shape)


def _linear(s: Site, x: Value, weight: Weight, bias: Value | None) -> Value:
    if isinstance(weight, PackedColumns):
        wide = x if x.type.rank > 2 else s.reshape(x, (1, *x.shape))
        out = packed_product(s, wide, weight)
    else:
        out = s.emit("matmul", [x, swap_last(s, weight)])
    if bias is None:
        return out
    return s.op_("add", out, s.reshape(bias, (bias.shape[0], 1, bias.shape[1])))


def _activated(s: Site, x: Value, other: Value | None) -> Value:
    name = s.text("activation_type", "relu")
    if name == "swiglu":
        return _swiglu(s, x, other)
    if name == "relu":
        out = relu(s, x)
    elif name == "gelu":
        out = gelu(s, x, "tanh")
    elif name == "silu":
        out = swish(s, x)
    elif name == "identity":
        out = x
    elif name == "relu2":
        out = relu(s, x)
        out = s.op_("mul", out, out)
    elif name == "geglu":
        gate, linear = _gate_and_linear(s, x, other)
        return s.op_("mul", gelu(s, gate, "tanh"), linear)
    else:
        raise ValueError(f"activation_type '{name}' does not exist")
    return out if other is None else s.op_("mul", out, other)


def _gate_and_linear(s: Site, x: Value, other: Value | None) -> tuple[Value, Value]:
    """The two factors of a gate: two products, or the halves of one, or its columns in turns."""
    fusion = s.integer("swiglu_fusion", 0)
    size = x.shape[2]
    if fusion == 0:
        if other is None:
            raise ValueError("a gate needs a third weight, or a fused one")
        return x, other
    if not isinstance(size, int) or size % 2:
        raise ValueError(f"a fused gate of width {size} is not even")
    if fusion == 1:
        return s.slice(x, 2, 0, size, 2), s.slice(x, 2, 1, size, 2)
    return s.slice(x, 2, 0, size // 2), s.slice(x, 2, size // 2, size)


def _swiglu(s: Site, x: Value, other: Value | None) -> Value:
    """gate sigmoid(alpha gate) (linear + beta), with both clamped to a limit.

    `swiglu_limit_after_activation` clamps the first factor instead of the gate in it.
    """
    gate, linear = _gate_and_linear(s, x, other)
    limit = s.real("swiglu_limit") if s.has("swiglu_limit") else None
    late = bool(s.integer("swiglu_limit_after_activation", 0))
    if limit is not None:
        gate = gate if late else s.op_("min", gate, limit)
        linear = s.op_("min", s.op_("max", linear, -limit), limit)
    shifted = s.op_("add", linear, s.real("activation_beta", 0.0))
    opened = swish(s, gate, s.real("activation_alpha", 1.0))
    if limit is not None and late:
        opened = s.op_("min", opened, limit)
    return s.op_("mul", opened, shifted)


@lowers("MoE", domain=MICROSOFT)
def mixture_of_experts(s: Site) -> Value:
    x, up, down, third = s.input(0), s.input(2), s.input(4), s.optional(6)
    hidden, inner = x.shape[-1], down.shape[1]
    if down.shape[2] == hidden != inner:  # early files declare other dims for the same elements
        experts = down.shape[0]
        down = s.reshape(down, (experts, hidden, inner))
        up = s.reshape(up, (experts, up.shape[2], hidden))
        third = None if third is None else s.reshape(third, (experts, third.shape[2], hidden))
    return mixture(
        s,
        x,
        routing(s, s.input(1), None),
        (up, s.optional(3)),
        (down, s.optional(5)),
        None if third is None else (third, s.optional(7)),
    )


@lowers("QMoE", domain=MICROSOFT)
def quantised_mixture(s: Site) -> Value:
    if s.text("quant_type", "int") != "int":
        raise NotSupported("experts of few-bit floats are not supported", "quantise to integers")
    if s.integer("weights_prepacked", -1) == 1:
        raise NotSupported("the weights are laid out for another device", "export them unpacked")
    x = s.input(0)
    up, down, third = (_expert_weight(s, number) for number in range(3))
    if up is None or down is None:
        raise ValueError("the weights of the experts are missing")
    gate = None if third is None else (third, s.optional(10))
    share = routing(s, s.input(1), s.optional(14))
    return mixture(s, x, share, (up, s.optional(4)), (down, s.optional(7)), gate)


def _expert_weight(s: Site, number: int) -> PackedColumns | None:
    """Weight `number` (0 to 2) of all experts."""
    place = 2 + 3 * number
    if s.optional(place) is None:
        return None
    bits = s.integer(f"fc{number + 1}_expert_weight_bits", s.integer("expert_weight_bits", 4))
    if bits not in BITS:
        raise NotSupported(f"experts of {bits} bits are not supported")
    packed = s.constant(s.input(place), "a weight").view(np.uint8)
    experts, rows, size = packed.shape
    block = s.integer("block_size", 0)
    if not block:  # one scale for a row, which is filled up to whole words
        packed = np.pad(packed, ((0, 0), (0, 0), (0, -size % 4)))
        block = packed.shape[2] * 8 // bits
    if block * bits % 32:
        raise ValueError(f"blocks of {block} numbers of {bits} bits")
    blocks = -(-size * 8 // (bits * block))
    missing = blocks * block * bits // 8 - packed.shape[2]
    packed = np.pad(packed, ((0, 0), (0, 0), (0, missing))) if missing else packed
    scales = s.constant(s.input(place + 1), "the scales").reshape(experts, rows, blocks)
    zeros, given = None, s.optional(11 + number)
    if given is not None:
        zeros = s.constant(given, "the zero points").view(np.uint8)
        if zeros.ndim == 2:
            flat = digits(zeros.reshape(experts, -1), bits)
            zeros = flat[:, :rows, None]
        zeros = zeros.reshape(experts, rows, -1)
    return PackedColumns(bits, block, packed, scales, size * 8 // bits, zeros)
