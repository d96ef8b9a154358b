"""DecoderMaskedMultiHeadAttention of com.microsoft: one step of a decoder, as Whisper's.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md; what `cache_indirection` selects is read
off the CUDA kernel, since the one for CPUs takes the first key of a beam for all of them.
"""

from __future__ import annotations

from .....compiler.ir import Dim, Value
from .....compiler.ir.assumptions import EQUAL
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.heads import (
    added,
    divided,
    heads_of,
    merged,
    padding_mask,
    probabilities,
    scale_of,
    scores_of,
    split_last,
    steps_of_beams,
    written,
)

_PAST_KEY, _PAST_LENGTH, _BEAMS, _BEAM_OF_STEP, _BIAS = 5, 7, 8, 9, 10


@lowers("DecoderMaskedMultiHeadAttention", domain=MICROSOFT)
def decoder_masked_attention(s: Site) -> list[Value | None]:
    heads = s.integer("num_heads")
    q, k, v = _projections(s, heads)
    present: list[Value | None] = [None, None]
    if s.optional(_PAST_KEY) is not None:
        k, v, present = _with_cache(s, k, v)
    elif k.type.rank != 4 or v.type.rank != 4:
        raise ValueError(f"a key {k.type} of no cache has to have 4 dimensions")
    total = k.shape[2]
    mask = s.optional(3)
    hidden = None if mask is None else padding_mask(s, mask, q.shape[0], total, q.dtype)
    hidden = added(s, hidden, s.optional(4))
    scores = scores_of(s, q, k, scale_of(s, q.shape[3]), hidden)
    out = s.emit("matmul", [probabilities(s, scores, None), v])
    return [merged(s, out), *present, scores if s.wants(3) else None]


def _projections(s: Site, heads: int) -> tuple[Value, Value, Value]:
    """Queries, and keys and values of this step or, of 4 dimensions, of all steps."""
    query, key, value, bias = s.input(0), s.optional(1), s.optional(2), s.optional(_BIAS)
    if query.type.rank != 3:
        raise ValueError(f"a query {query.type} does not have 3 dimensions")
    s.require(query.shape[1], EQUAL, 1, "the query has to be of one step")
    if key is None or value is None:
        third = divided(s, query.shape[2], 3, "a packed projection")
        query, key, value = split_last(s, query, [third] * 3)
    parts = [query, key, value]
    start: Dim = 0
    for index, part in enumerate(parts):
        if bias is None or part.type.rank == 4:
            continue
        stop = start + part.shape[2]
        parts[index] = s.op_("add", part, s.slice(bias, 0, start, stop))
        start = stop
    q, k, v = (heads_of(s, part, heads) for part in parts)
    return q, k, v


def _with_cache(s: Site, k: Value, v: Value) -> tuple[Value, Value, list[Value | None]]:
    """Keys and values of all steps so far, and the caches with this step in its place."""
    if not s.integer("past_present_share_buffer", 0):
        raise NotSupported(
            "a cache that grows is not supported", "set past_present_share_buffer to 1"
        )
    given = s.optional(_PAST_LENGTH)
    if given is None:
        raise ValueError("past_sequence_length is missing beside a cache")
    (past,) = s.dims(s.reshape(given, (1,)))
    whole: list[Value] = []
    present: list[Value | None] = []
    for place, new in ((_PAST_KEY, k), (_PAST_KEY + 1, v)):
        cache = s.input(place)
        used, all_ = written(s, cache, new, past)
        present.append(all_)
        before = s.slice(cache, 2, 0, past)
        mine = _of_beams(s, before, past)
        whole.append(used if mine is before else s.emit("concat", [mine, new], axis=2))
    return whole[0], whole[1], present


def _of_beams(s: Site, before: Value, past: Dim) -> Value:
    """The earlier steps, each from the beam that it came from, where beams are told apart."""
    chosen, width = s.optional(_BEAM_OF_STEP), s.optional(_BEAMS)
    if chosen is None or width is None:
        if width is not None and s.known(width) is not None and s.numbers(width, "beams") != [1]:
            raise ValueError("cache_indirection is missing beside several beams")
        return before
    return steps_of_beams(s, before, past, chosen, s.reshape(width, ()))
