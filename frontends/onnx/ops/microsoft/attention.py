"""Attention, MultiHeadAttention, QAttention and rotary embeddings of com.microsoft.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .....compiler.ir import Dim, Value, constant
from .....compiler.ir.assumptions import EQUAL
from .....compiler.ir.dims import floordiv
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.heads import (
    added,
    attend,
    causal_mask,
    divided,
    heads_of,
    merged,
    padding_mask,
    probabilities,
    rotated,
    rotated_half,
    scale_of,
    scores_of,
    split_last,
    steps_of_beams,
    turned,
    written,
)
from ..standard.quantization import dequantize


def _mask(
    s: Site, padding: Value | None, bias: Value | None, q: Value, total: Dim, past: Dim
) -> Value | None:
    """All that is added to the scores [batch, heads, steps, total], `past` of them of a cache."""
    batch, _, steps, _ = q.shape
    mask = None if padding is None else padding_mask(s, padding, batch, total, q.dtype)
    mask = added(s, mask, bias)
    if s.integer("unidirectional", 0):
        mask = added(s, mask, causal_mask(s, steps, total, past, q.dtype))
    return mask


def _extended(s: Site, past: Value | None, new: Value) -> Value:
    """Keys or values [batch, heads, steps, size] behind those of earlier steps."""
    return new if past is None else s.emit("concat", [past, new], axis=2)


@lowers("Attention", domain=MICROSOFT)
def attention(s: Site) -> list[Value]:
    x, weights = s.input(0), s.input(1)
    if s.integer("do_rotary", 0):
        raise NotSupported("rotation inside of Attention is not supported", "export it unfused")
    packed = s.emit("matmul", [x, weights])
    if s.optional(2) is not None:
        packed = s.op_("add", packed, s.input(2))
    length = s.input(6) if s.integer("past_present_share_buffer", 0) else None
    return _packed_attention(s, packed, s.optional(3), s.optional(4), s.optional(5), length)


_SHARE = "export with past and present of different length"


def _with_past(
    s: Site, caches: Sequence[Value | None], new: Sequence[Value], length: Value | None
) -> tuple[list[Value], list[Value], Dim]:
    """Keys and values behind those of caches, the caches after that, and their steps before.

    length: how many steps of a cache count that is written in place; None: all do.
    """
    if caches[0] is None or caches[1] is None or length is None:
        whole = [_extended(s, cache, part) for cache, part in zip(caches, new, strict=True)]
        return whole, whole, 0 if caches[0] is None else caches[0].shape[2]
    (past,) = s.dims(s.reshape(length, (1,)))
    pairs = [written(s, caches[i], new[i], past) for i in range(2)]  # type: ignore[arg-type]
    return [used for used, _ in pairs], [present for _, present in pairs], past


def _packed_attention(
    s: Site,
    packed: Value,
    padding: Value | None,
    past: Value | None,
    bias: Value | None,
    length: Value | None = None,
) -> list[Value]:
    """Attention on projected queries, keys and values side by side; its output and present."""
    heads = s.integer("num_heads")
    third = divided(s, packed.shape[2], 3, "a projection") if not s.has("qkv_hidden_sizes") else 0
    sizes: Sequence[Dim] = s.ints("qkv_hidden_sizes", []) or [third] * 3
    if len(sizes) != 3:
        raise ValueError(f"qkv_hidden_sizes {list(map(str, sizes))} are not three")
    q, k, v = (heads_of(s, part, heads) for part in split_last(s, packed, sizes))
    caches = [None if past is None else s.take(past, 0, i) for i in range(2)]
    (k, v), present, earlier = _with_past(s, caches, (k, v), length)
    mask = _mask(s, padding, bias, q, k.shape[2], earlier)
    out = [merged(s, attend(s, q, k, v, scale_of(s, q.shape[3]), mask))]
    if s.wants(1):
        both = [s.reshape(part, (1, *part.shape)) for part in present]
        out.append(s.emit("concat", both, axis=0))
    return out


@lowers("QAttention", domain=MICROSOFT)
def q_attention(s: Site) -> list[Value]:
    """Attention whose input and weight are 8-bit integers."""
    if s.integer("do_rotary", 0) or s.integer("past_present_share_buffer", 0):
        raise NotSupported("rotation and caches written in place are not supported", _SHARE)
    x, w = (
        dequantize(s, part, _scalar(s, s.input(3 + i)), _zero(s, s.optional(6 + i), part))
        for i, part in enumerate((s.input(0), s.input(1)))
    )
    packed = s.op_("add", s.emit("matmul", [x, w]), s.input(2))
    return _packed_attention(s, packed, s.optional(5), s.optional(8), None)


def _scalar(s: Site, value: Value) -> Value:
    return s.reshape(value, ()) if value.type.elements == 1 else value


def _zero(s: Site, value: Value | None, of: Value) -> Value:
    return s.scalar(0, of.dtype) if value is None else _scalar(s, value)


@lowers("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(s: Site) -> list[Value | None]:
    q, k, v = _separate(s)
    caches = (s.optional(6), s.optional(7))
    (k, v), present, earlier = _with_past(s, caches, (k, v), s.optional(8))
    k, v = (_of_beams(s, whole, earlier) for whole in (k, v))
    mask = _mask(s, s.optional(4), s.optional(5), q, k.shape[2], earlier)
    scale = scale_of(s, q.shape[3])
    if s.wants(3):
        weights = probabilities(s, scores_of(s, q, k, scale, mask), None)
        out = s.emit("matmul", [weights, v])
        return [merged(s, out), *present, weights]
    return [merged(s, attend(s, q, k, v, scale, mask)), *present]


def _of_beams(s: Site, whole: Value, past: Dim) -> Value:
    """Keys or values of all steps, of which those of the cache are of the beams they came from."""
    chosen = s.optional(9)
    if chosen is None or past == 0:
        return whole
    beams = s.reshape(s.emitter.virtual([chosen.shape[1]]), ())
    before = steps_of_beams(s, s.slice(whole, 2, 0, past), past, chosen, beams)
    return s.emit("concat", [before, s.slice(whole, 2, past, whole.shape[2])], axis=2)


def _separate(s: Site) -> tuple[Value, Value, Value]:
    """Queries, keys and values [batch, heads, steps, size] of the input forms, bias added."""
    query, key, value = s.input(0), s.optional(1), s.optional(2)
    heads = s.integer("num_heads")
    if key is None:
        if query.type.rank != 5:
            raise ValueError(f"a packed query {query.type} does not have 5 dimensions")
        parts = [s.take(query, 3, i) for i in range(3)]
    elif value is None:
        if key.type.rank != 5:
            raise ValueError(f"a packed key {key.type} does not have 5 dimensions")
        parts = [query, s.take(key, 3, 0), s.take(key, 3, 1)]
    else:
        parts = [query, key, value]
    bias = s.optional(3)
    if bias is not None:
        parts = _biased(s, parts, bias, heads)
    packed = (key is None, value is None, value is None)
    q, k, v = (
        s.transpose(part, (0, 2, 1, 3))
        if apart and part.type.rank == 4
        else heads_of(s, part, heads)
        for part, apart in zip(parts, packed, strict=True)
    )
    return q, k, v


def _biased(s: Site, parts: Sequence[Value], bias: Value, heads: int) -> list[Value]:
    """The projections with their bias; keys and values that come from a cache have none."""
    out, start = [], 0
    given = s.optional(1)
    cached = given is not None and given.type.rank == 4
    hidden = s.input(0).shape[2] if s.input(0).type.rank == 3 else None
    for index, part in enumerate(parts):
        if cached and index:
            out.append(part)
            continue
        flat = part.shape[2] if part.type.rank == 3 else part.shape[2] * part.shape[3]
        if index and part.type.rank == 4 and hidden is None and not isinstance(flat, int):
            raise NotSupported("the size of its heads is not known", "pin the input shapes")
        mine = s.slice(bias, 0, start, start + flat)
        start = start + flat
        if part.type.rank == 4:
            mine = s.reshape(mine, part.shape[2:])
        out.append(s.op_("add", part, mine))
    return out


@lowers("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(s: Site) -> Value:
    x, position, cos, sin = (s.input(i) for i in range(4))
    wide = _rotary_heads(s, x, cos)
    steps = wide.shape[2]
    if position.type.rank not in (1, 2):
        raise ValueError(f"positions {position.type} have neither 1 dimension nor 2")
    if position.type.rank == 1:  # the first position of all rows
        position = s.op_("add", s.iota((1, steps), 1, position.dtype), s.reshape(position, (1, 1)))
    out = rotated(s, wide, cos, sin, position, bool(s.integer("interleaved", 0)))
    return out if x.type.rank == 4 else merged(s, out)


def _rotary_heads(s: Site, x: Value, cos: Value) -> Value:
    """What is to be turned, as [batch, heads, steps, size].

    `scale` and `is_packed_batching` change nothing in ONNX Runtime's kernels for CPUs.
    """
    if x.type.rank == 4:
        return x
    heads = s.integer("num_heads", 0)
    if not heads:
        size = s.integer("rotary_embedding_dim", 0) or cos.shape[1] * 2
        batch, steps, hidden = x.shape
        count = floordiv(hidden, size)
        s.require(count * size, EQUAL, hidden, f"{x.type} is no whole heads of {size}")
        return s.transpose(s.reshape(x, (batch, steps, count, size)), (0, 2, 1, 3))
    return heads_of(s, x, heads)


@lowers("MRotaryEmbedding", domain=MICROSOFT)
def multimodal_rotary_embedding(s: Site) -> Value:
    """A rotation whose angles are those of three positions, of time, height and width; scaled.

    Wang et al., Qwen2-VL (2024), section 2.1: each has a part of the angles, side by side or, from
    Qwen3-VL on, in turns.
    """
    x, position, cos, sin = (s.input(i) for i in range(4))
    wide = _rotary_heads(s, x, cos)
    if position.type.rank != 3:
        raise ValueError(f"positions {position.type} do not have 3 dimensions")
    streams = _streams_of_angles(s, rotated_half(cos))
    angles = []
    for table in (cos, sin):
        picked = s.emit("gather", [table, s.sized(position, 0, 3)], axis=0)
        time, height, width = (s.take(picked, 0, i) for i in range(3))
        rest = s.op_("where", s.op_("eq", streams, 1), height, time)
        mixed = s.op_("where", s.op_("eq", streams, 2), width, rest)
        if s.real("scale", 1.0) != 1:
            mixed = s.op_("mul", mixed, s.real("scale"))
        angles.append(s.reshape(mixed, (mixed.shape[0], 1, *mixed.shape[1:])))
    out = turned(s, wide, angles[0], angles[1], bool(s.integer("interleaved", 0)))
    return out if x.type.rank == 4 else merged(s, out)


def _streams_of_angles(s: Site, half: Dim) -> Value:
    """Which of the three positions each angle comes from: i64 [half]."""
    sizes, layout = s.ints("mrope_section"), s.integer("mrope_layout", 0)
    if len(sizes) != 3 or min(sizes) < 0 or layout not in (0, 1):
        raise ValueError(f"mrope_section {sizes} in layout {layout} does not exist")
    s.require(half, EQUAL, sum(sizes), f"mrope_section {sizes} does not make {half} angles")
    streams = np.repeat(np.arange(3), sizes) if layout == 0 else np.zeros(sum(sizes), np.int64)
    if layout == 1:
        for stream in (1, 2):
            streams[stream : sizes[stream] * 3 : 3] = stream
    return constant(streams.astype(np.int64))
