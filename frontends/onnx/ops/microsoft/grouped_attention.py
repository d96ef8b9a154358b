"""GroupQueryAttention of com.microsoft: what decoders of onnxruntime-genai are made of.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md. Rows of a batch may have caches of
different fill: `seqlens_k` says, for each, the number of its keys less one.
"""

from __future__ import annotations

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.dims import dmax
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.heads import (
    attend,
    divided,
    heads_of,
    lowest,
    merged,
    probabilities,
    rotated,
    scale_of,
    scores_of,
    split_last,
)
from ..standard.normalization import rms_norm

_BEFORE_SOFTMAX, _AFTER_SOFTMAX = 1, 2  # values of qk_output
_STEPS_OF_ROW = 16  # query_seqlens: how many steps of a row are no padding


@lowers("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(s: Site) -> list[Value]:
    _refuse(s)
    heads, groups = s.integer("num_heads"), s.integer("kv_num_heads")
    share = int(divided(s, heads, groups, "a number of heads"))  # type: ignore[arg-type]
    q, k, v = projections(s, heads, groups)
    batch, steps = q.shape[0], q.shape[2]
    total = s.dims(s.reshape(s.input(6), (1,)))[0]
    filled = _filled(s, batch, steps, total)
    if s.optional(14) is not None:
        common_epsilon = s.real("qk_norm_epsilon", 1e-6)
        q = rms_norm(s, q, s.input(14), [3], s.real("q_norm_epsilon", common_epsilon))
        k = rms_norm(s, k, s.input(15), [3], s.real("k_norm_epsilon", common_epsilon))
    if s.integer("do_rotary", 0):
        positions = _positions(s, filled, steps, total)
        turned = bool(s.integer("rotary_interleaved", 0))
        q, k = (rotated(s, x, s.input(7), s.input(8), positions, turned) for x in (q, k))
    keys, values = (
        _extended(s, s.optional(place), new, filled, total) for place, new in ((3, k), (4, v))
    )
    length = keys.shape[2]
    seen = _seen(s, filled, steps, length)
    mask = s.op_("where", seen, s.scalar(0.0, q.dtype), s.scalar(lowest(q.dtype), q.dtype))
    bias = s.optional(10)
    if bias is not None:
        wide = _widened(s, bias, length)
        apart = _grouped(s, wide, groups) if wide.shape[1] != 1 else _spread(s, wide)
        mask = s.op_("add", mask, s.cast(apart, mask.dtype))
    sink = s.optional(11)
    if sink is not None:
        sink = s.reshape(sink, (1, groups, share, 1, 1))
    elif s.integer("smooth_softmax", -1) == 1:
        sink = s.reshape(s.scalar(0.0, q.dtype), (1, 1, 1, 1, 1))
    queries = s.reshape(q, (batch, groups, share, *q.shape[2:]))
    common = [s.reshape(x, (batch, groups, 1, *x.shape[2:])) for x in (keys, values)]
    scale, cap = scale_of(s, q.shape[3]), s.real("softcap", 0.0)
    results = [keys, values]
    if s.wants(3):
        scores = scores_of(s, queries, common[0], scale, mask, cap)
        weights = probabilities(s, scores, sink)
        out = s.emit("matmul", [weights, common[1]])
        shown = weights if s.integer("qk_output", 0) == _AFTER_SOFTMAX else scores
        shown = s.reshape(s.op_("where", seen, shown, 0.0), (batch, heads, steps, length))
        results.append(s.slice(shown, 3, 0, total))
    else:
        out = attend(s, queries, common[0], common[1], scale, mask, cap, sink)
    joined = s.reshape(out, (batch, heads, steps, out.shape[4]))
    return [merged(s, joined), *results]


def _refuse(s: Site) -> None:
    if any(s.text(name, "NONE") != "NONE" for name in ("k_quant_type", "v_quant_type")):
        raise NotSupported("a quantised cache is not supported", "export with a float cache")
    if s.integer("sliding_window_cache", 0):
        raise NotSupported("a cache of window size is not supported", "export with a whole cache")
    if s.wants(3) and s.integer("qk_output", 0) not in (_BEFORE_SOFTMAX, _AFTER_SOFTMAX):
        raise ValueError("an output of scores needs a qk_output of 1 or 2")


def projections(s: Site, heads: int, groups: int) -> tuple[Value, Value, Value]:
    """Queries, keys and values [batch, heads, steps, size], packed in the first input or not."""
    query, key, value = s.input(0), s.optional(1), s.optional(2)
    if key is not None and value is not None:
        return heads_of(s, query, heads), heads_of(s, key, groups), heads_of(s, value, groups)
    size = divided(s, query.shape[2], heads + 2 * groups, "a packed projection")
    sizes = [size * heads, size * groups, size * groups]
    q, k, v = split_last(s, query, sizes)
    return heads_of(s, q, heads), heads_of(s, k, groups), heads_of(s, v, groups)


def _filled(s: Site, batch: Dim, steps: Dim, total: Dim) -> Value:
    """How many keys of the cache count for each row: [batch, 1]. None do in a first prompt."""
    lengths = s.reshape(s.cast(s.input(5), DType.I64), (batch, 1))
    if s.optional(_STEPS_OF_ROW) is not None:
        own = s.reshape(s.cast(s.input(_STEPS_OF_ROW), DType.I64), (batch, 1))
        return s.op_("max", s.op_("sub", s.op_("add", lengths, 1), own), 0)
    shift = s.reshape(s.emitter.virtual([1 - steps]), ())
    filled = s.op_("max", s.op_("add", lengths, shift), 0)
    if s.optional(3) is None:
        return s.op_("mul", filled, 0)
    return _unless_first(s, filled, s.scalar(0, DType.I64), steps, total)


def _positions(s: Site, filled: Value, steps: Dim, total: Dim) -> Value:
    """Where each step is turned as if it stood: [batch or 1, steps].

    Of positions that are given a first prompt follows the first alone.
    """
    step = s.iota((1, steps), 1, DType.I64)
    given = s.optional(9)
    if given is None:
        return s.op_("add", filled, step)
    first = s.op_("add", s.reshape(s.slice(s.slice(given, 0, 0, 1), 1, 0, 1), (1, 1)), step)
    return _unless_first(s, given, first, steps, total)


def _unless_first(s: Site, value: Value, first: Value, steps: Dim, total: Dim) -> Value:
    """A value, or what stands for it in a first prompt, where all keys are new."""
    new = s.reshape(s.emitter.virtual([total - steps]), ())
    return s.op_("where", s.op_("eq", new, 0), first, value)


def _extended(s: Site, past: Value | None, new: Value, filled: Value, total: Dim) -> Value:
    """The cache [batch, groups, length, size] with the new steps behind those that count.

    What is behind both is 0.
    """
    if past is None:
        return new
    batch, room, steps = past.shape[0], past.shape[2], new.shape[2]
    length = total if total == room + steps else dmax(room, total)
    end = s.op_("add", filled, s.reshape(s.emitter.virtual([steps]), ()))
    used = s.op_("lt", s.iota((1, length), 1, DType.I64), end)
    kept = with_new_steps(s, past, new, filled, length)
    return s.op_("where", s.reshape(used, (batch, 1, length, 1)), kept, 0.0)


def with_new_steps(s: Site, cache: Value, new: Value, filled: Value, length: Dim) -> Value:
    """A cache [batch, groups, length, size] with new steps behind those that count of an old one.

    filled: how many those are, [batch, 1]. What is behind the new ones is as it was, its last step
    where the old cache had none.
    """
    batch, _, room, _ = cache.shape
    place = s.iota((1, length), 1, DType.I64)
    after = s.op_("sub", place, filled)  # [batch, length]
    size, count = (s.reshape(s.emitter.virtual([dim]), ()) for dim in (room, new.shape[2]))
    fresh = s.op_("and", s.op_("ge", after, 0), s.op_("lt", after, count))
    last = s.op_("max", s.op_("sub", size, 1), 0)
    index = s.op_("where", fresh, s.op_("add", after, size), s.op_("min", place, last))
    index = s.reshape(s.expand(index, (batch, length)), (batch, length, 1))
    both = s.transpose(s.emit("concat", [cache, new], axis=2), (0, 2, 1, 3))
    picked = s.emit("gather_nd", [both, index], batch_dims=1)
    return s.transpose(picked, (0, 2, 1, 3))


def _seen(s: Site, filled: Value, steps: Dim, length: Dim) -> Value:
    """Which keys each step meets: [batch, 1, 1, steps, length]."""
    key = s.iota((1, 1, length), 2, DType.I64)
    column = s.reshape(filled, (filled.shape[0], 1, 1))
    step = s.op_("add", s.iota((1, steps, 1), 1, DType.I64), column)
    if s.integer("causal", 1):
        seen = s.op_("le", key, step)
        window = s.integer("local_window_size", -1)
        if window > 0:
            seen = s.op_("and", seen, s.op_("gt", key, s.op_("sub", step, window)))
    else:
        lengths = s.reshape(s.cast(s.input(5), DType.I64), (filled.shape[0], 1, 1))
        seen = s.expand(s.op_("le", key, lengths), (filled.shape[0], steps, length))
    return s.reshape(seen, (seen.shape[0], 1, 1, *seen.shape[1:]))


def _widened(s: Site, bias: Value, length: Dim) -> Value:
    """A bias over the keys that count, filled with zeros to the length of the cache."""
    missing = length - bias.shape[3]
    if missing == 0:
        return bias
    pads = (0, 0, 0, 0, 0, 0, 0, missing)
    return s.emit("pad", [bias, s.scalar(0, bias.dtype)], pads=pads, mode="constant")


def _grouped(s: Site, bias: Value, groups: int) -> Value:
    batch, heads, steps, total = bias.shape
    return s.reshape(bias, (batch, groups, divided(s, heads, groups, "a bias"), steps, total))


def _spread(s: Site, bias: Value) -> Value:
    return s.reshape(bias, (bias.shape[0], 1, *bias.shape[1:]))
