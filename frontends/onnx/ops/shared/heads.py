"""What the attention operators of com.microsoft share: heads, masks, rotations, the product."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.assumptions import AT_MOST
from .....compiler.ir.dims import floordiv
from ...site import NotSupported, Site

Scale = float | Value  # of scores; a value of rank 0 where only a run knows the size of a head
_LOWEST = {DType.F16: -65504.0, DType.BF16: -3.3e38, DType.F32: -3.4e38, DType.F64: -3.4e38}


def lowest(dtype: DType) -> float:
    """A number that, added to a score, leaves it no weight."""
    return _LOWEST[dtype]


def divided(s: Site, size: Dim, parts: int, what: str) -> Dim:
    """size / parts. Raises ValueError when it is not whole."""
    if parts < 1 or (isinstance(size, int) and size % parts):
        raise ValueError(f"{what} of {size} does not divide into {parts}")
    return floordiv(size, parts)


def heads_of(s: Site, x: Value, heads: int) -> Value:
    """[batch, steps, heads * size] as [batch, heads, steps, size]; 4 dimensions stay."""
    if x.type.rank == 4:
        return x
    if x.type.rank != 3:
        raise ValueError(f"{x.type} has neither 3 nor 4 dimensions")
    batch, steps, hidden = x.shape
    size = divided(s, hidden, heads, "a hidden size")
    return s.transpose(s.reshape(x, (batch, steps, heads, size)), (0, 2, 1, 3))


def merged(s: Site, x: Value) -> Value:
    """[batch, heads, steps, size] as [batch, steps, heads * size]."""
    batch, heads, steps, size = x.shape
    return s.reshape(s.transpose(x, (0, 2, 1, 3)), (batch, steps, heads * size))


def scale_of(s: Site, size: Dim) -> Scale:
    """The attribute scale, or 1 / sqrt(size of a head), which a run computes where it knows the
    size first."""
    given = s.real("scale", 0.0)
    if given:
        return given
    if isinstance(size, int):
        if size < 1:
            raise ValueError(f"heads of size {size}")
        return 1.0 / math.sqrt(size)
    wide = s.cast(s.reshape(s.emitter.virtual([size]), ()), DType.F32)
    return s.op_("div", 1.0, s.op_("sqrt", wide))


def _scaled(s: Site, q: Value, scale: Scale) -> tuple[Value, float]:
    """Queries and a scale that is known: what a run computes is in the queries."""
    if isinstance(scale, Value):
        return s.op_("mul", q, s.cast(scale, q.dtype)), 1.0
    return q, scale


def added(s: Site, a: Value | None, b: Value | None) -> Value | None:
    """The sum of two masks of which either may be absent."""
    if a is None or b is None:
        return b if a is None else a
    return s.op_("add", a, s.cast(b, a.dtype))


def attend(
    s: Site,
    q: Value,
    k: Value,
    v: Value,
    scale: Scale,
    mask: Value | None = None,
    softcap: float = 0.0,
    sink: Value | None = None,
) -> Value:
    """softmax(q k' * scale + mask) v over the last two axes.

    softcap: scores become softcap tanh(score / softcap) before the mask. sink: one more score,
    that broadcasts to [..., 1] of the scores and whose share goes nowhere.
    """
    if not softcap and sink is None:
        q, scale = _scaled(s, q, scale)
        operands = [q, k, v] if mask is None else [q, k, v, s.cast(mask, q.dtype)]
        return s.emit("attention", operands, scale=scale)
    weights = probabilities(s, scores_of(s, q, k, scale, mask, softcap), sink)
    return s.emit("matmul", [weights, v])


def scores_of(
    s: Site, q: Value, k: Value, scale: Scale, mask: Value | None, softcap: float = 0.0
) -> Value:
    """What the softmax of an attention is taken of."""
    q, scale = _scaled(s, q, scale)
    rank = k.type.rank
    turned = s.transpose(k, [*range(rank - 2), rank - 1, rank - 2])
    scores = s.op_("mul", s.emit("matmul", [q, turned]), scale)
    if softcap:
        scores = s.op_("mul", s.op_("tanh", s.op_("div", scores, softcap)), softcap)
    return scores if mask is None else s.op_("add", scores, s.cast(mask, scores.dtype))


def probabilities(s: Site, scores: Value, sink: Value | None) -> Value:
    """The softmax of scores along the last axis, with a sink as a further score."""
    last = scores.type.rank - 1
    if sink is None:
        return s.emit("softmax", [scores], axis=last)
    column = s.expand(s.cast(sink, scores.dtype), (*scores.shape[:-1], 1))
    both = s.emit("softmax", [s.emit("concat", [scores, column], axis=last)], axis=last)
    return s.slice(both, last, 0, scores.shape[-1])


def causal_mask(s: Site, steps: Dim, total: Dim, past: Dim, dtype: DType) -> Value:
    """[steps, total]: step i sees keys up to i + past; of keys across, the last step sees all.

    The latter as ONNX Runtime's kernel for CPUs has it.
    """
    key = s.iota((1, total), 1, DType.I64)
    step = s.iota((steps, 1), 0, DType.I64)
    offset, last = (s.reshape(s.emitter.virtual([dim]), ()) for dim in (past, steps - 1))
    seen = s.op_("le", key, s.op_("add", step, offset))
    if total != steps + past:
        seen = s.op_("or", seen, s.op_("eq", step, last))
    return s.op_("where", seen, s.scalar(0.0, dtype), s.scalar(lowest(dtype), dtype))


def padding_mask(s: Site, mask: Value, batch: Dim, total: Dim, dtype: DType) -> Value:
    """A mask input as numbers to add to scores [batch, heads, steps, total].

    mask: 0 and 1 [batch, total] or [batch, steps, total]; or key lengths [batch], ends and starts
    of the keys [2 * batch], or lengths and their sums [3 * batch + 2], of which the first count.
    """
    fill = s.real("mask_filter_value", -10000.0)
    rank = mask.type.rank
    if rank == 1:
        keep = _within(s, s.cast(mask, DType.I64), batch, total)
    elif rank in (2, 3):
        shape = (mask.shape[0], *([1] * (4 - rank)), *mask.shape[1:])
        keep = s.op_("ne", s.reshape(mask, shape), 0)
    else:
        raise NotSupported(f"a mask {mask.type} is not supported", "use one of 1 to 3 dimensions")
    return s.op_("where", keep, s.scalar(0.0, dtype), s.scalar(fill, dtype))


def _within(s: Site, ends: Value, batch: Dim, total: Dim) -> Value:
    key = s.iota((1, 1, 1, total), 3, DType.I64)
    if ends.shape[0] == batch:
        return s.op_("lt", key, s.reshape(ends, (batch, 1, 1, 1)))
    if ends.shape[0] == batch * 3 + 2:
        return s.op_("lt", key, s.reshape(s.slice(ends, 0, 0, batch), (batch, 1, 1, 1)))
    if ends.shape[0] != batch * 2:
        raise NotSupported(f"a mask {ends.type} is not supported", "use one of 2 dimensions")
    end = s.reshape(s.slice(ends, 0, 0, batch), (batch, 1, 1, 1))
    start = s.reshape(s.slice(ends, 0, batch, batch * 2), (batch, 1, 1, 1))
    return s.op_("and", s.op_("lt", key, end), s.op_("ge", key, start))


def rotated(
    s: Site, x: Value, cos: Value, sin: Value, positions: Value, interleaved: bool
) -> Value:
    """Rotary embedding of x [batch, heads, steps, size].

    cos, sin: [longest, half of the rotated part]; positions: [batch or 1, steps].
    """
    half = rotated_half(cos)
    shape = (positions.shape[0], 1, positions.shape[1], half)
    c, d = (s.reshape(s.emit("gather", [t, positions], axis=0), shape) for t in (cos, sin))
    return turned(s, x, c, d, interleaved)


def rotated_half(cos: Value) -> Dim:
    """Half of the size that a table of cosines turns."""
    if cos.type.rank != 2:
        raise ValueError(f"a cache {cos.type} is no matrix")
    half: Dim = cos.shape[1]
    return half


def turned(s: Site, x: Value, c: Value, d: Value, interleaved: bool) -> Value:
    """x [batch, heads, steps, size] turned by angles of cosines and sines c and d.

    c, d: [batch or 1, 1, steps, half of the rotated part].
    """
    half, size = c.shape[3], x.shape[-1]
    turning = s.slice(x, 3, 0, 2 * half)
    if interleaved:
        apart = s.reshape(turning, (*x.shape[:3], half, 2))
        a, b = (s.reshape(s.slice(apart, 4, i, i + 1), (*x.shape[:3], half)) for i in (0, 1))
    else:
        a, b = s.slice(turning, 3, 0, half), s.slice(turning, 3, half, 2 * half)
    real = s.op_("sub", s.op_("mul", a, c), s.op_("mul", b, d))
    other = s.op_("add", s.op_("mul", a, d), s.op_("mul", b, c))
    if interleaved:
        wide = [s.reshape(part, (*part.shape, 1)) for part in (real, other)]
        out = s.reshape(s.emit("concat", wide, axis=4), turning.shape)
    else:
        out = s.emit("concat", [real, other], axis=3)
    if size == 2 * half:
        return out
    return s.emit("concat", [out, s.slice(x, 3, 2 * half, size)], axis=3)


def written(s: Site, cache: Value, new: Value, past: Dim) -> tuple[Value, Value]:
    """New steps in a cache [batch, heads, room, size] of which `past` steps count.

    Returns the steps up to the last new one, and the whole cache.
    """
    room, end = cache.shape[2], past + new.shape[2]
    why = f"a cache of {room} steps has no room for {new.shape[2]} more"
    s.require(end, AT_MOST, room, why)
    used = s.emit("concat", [s.slice(cache, 2, 0, past), new], axis=2)
    return used, s.emit("concat", [used, s.slice(cache, 2, end, room)], axis=2)


def steps_of_beams(s: Site, before: Value, past: Dim, chosen: Value, beams: Value) -> Value:
    """The steps of a cache [batch * beams, heads, past, size], each from the beam it came from.

    chosen: [batch, beams, longest], the beam (of the same batch) of every step.
    """
    rows = before.shape[0]
    if chosen.type.rank != 3:
        raise ValueError(f"cache_indirection {chosen.type} does not have 3 dimensions")
    steps = s.cast(s.reshape(s.slice(chosen, 2, 0, past), (rows, past)), DType.I64)
    width = s.cast(beams, DType.I64)
    row = s.iota((rows, 1), 0, DType.I64)
    first = s.op_("mul", s.op_("div", row, width), width)
    step = s.expand(s.iota((1, past), 1, DType.I64), (rows, past))
    index = [s.reshape(at, (rows, past, 1)) for at in (s.op_("add", first, steps), step)]
    ordered = s.transpose(before, (0, 2, 1, 3))
    picked = s.emit("gather_nd", [ordered, s.emit("concat", index, axis=2)], batch_dims=0)
    return s.transpose(picked, (0, 2, 1, 3))


def split_last(s: Site, x: Value, sizes: Sequence[Dim]) -> list[Value]:
    """Consecutive parts of the last axis."""
    parts, start = [], 0
    for size in sizes:
        parts.append(s.slice(x, x.type.rank - 1, start, start + size))
        start = start + size  # type: ignore[assignment]
    return parts
