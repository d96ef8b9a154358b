"""NGramHashMapping and VarlenNGramHashMapping of com.microsoft: rows of a table for n-grams.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md, and its kernels for CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.dims import product
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.ragged import Ragged, before, behind_states, last_places, ragged, uniform


@dataclass(frozen=True)
class _History:
    """Ids of tokens, and of what each sequence had before.

    line: ids behind the states; segments: the same of numbers of segments, where there are some;
    none: stands for what is not there, of rank 0. room: ids of a state. ended: whether an id of the
    state, or a token, that is `none` ends what was before it.
    """

    r: Ragged
    line: Value
    segments: Value | None
    room: int
    none: Value
    ended: bool


@lowers("NGramHashMapping", domain=MICROSOFT)
def ngram_hashes(s: Site) -> list[Value | None]:
    """For ids [batch, steps]: [batch, steps, heads], and the ids that the next call begins with."""
    ids = s.input(0)
    if ids.type.rank != 2:
        raise ValueError(f"ids {ids.type} do not have 2 dimensions")
    r = uniform(s, *ids.shape)
    history = _history(s, r, ids, segments=s.optional(6), earlier=None, names=(3, 5))
    found = _hashes(s, history, s.input(1), s.input(2), s.optional(4))
    out = s.reshape(found, (*ids.shape, found.shape[1]))
    return [out, _state(s, history, r.lengths, history.line) if s.wants(1) else None]


def _history(
    s: Site,
    r: Ragged,
    ids: Value,
    *,
    segments: Value | None,
    earlier: Value | None,
    names: tuple[int, int],
) -> _History:
    """names: of the inputs that are the ids before, and the id of an end."""
    room = s.integer("max_ngram_size") - 1
    if room < 1:
        raise ValueError(f"n-grams of {room + 1} ids do not exist")
    past, end = (s.optional(place) for place in names)
    none = s.scalar(s.integer("pad_id"), ids.dtype) if end is None else s.reshape(end, ())
    if past is None:
        past = s.expand(none, (r.batch, room))
    line = behind_states(s, s.sized(past, 1, room), s.reshape(ids, (r.tokens,)))
    marks = None
    if segments is not None:
        flat = s.cast(s.reshape(segments, (r.tokens,)), DType.I64)
        if earlier is None:
            first = s.emit("gather", [flat, r.starts], axis=0)
            earlier = s.expand(s.reshape(first, (r.batch, 1)), (r.batch, room))
        marks = behind_states(s, s.cast(s.sized(earlier, 1, room), DType.I64), flat)
    ended = end is not None and bool(s.integer("reset_on_eos", 0))
    return _History(r, line, marks, room, none, ended)


def _hashes(s: Site, h: _History, factors: Value, sizes: Value, offsets: Value | None) -> Value:
    """The numbers of the n-grams of 2, 3, ... ids, for some heads each: [tokens, heads]."""
    heads = s.integer("n_head_per_ngram")
    wanted = h.room * heads
    sizes = s.sized(sizes, 0, wanted)
    s.require_nonzero(s.op_("gt", sizes, 0), "a vocabulary without words")
    parts: list[Value] = []
    mixed, broken = _times(s, h, 0, factors), s.scalar(False, DType.BOOL)
    for steps in range(1, h.room + 1):
        broken = s.op_("or", broken, _breaks(s, h, steps))
        mixed = s.op_("bitxor", mixed, _times(s, h, steps, factors, broken))
        begin = (steps - 1) * heads
        column = s.reshape(mixed, (h.r.tokens, 1))
        parts.append(s.op_("mod", column, s.slice(sizes, 0, begin, begin + heads)))
    found = s.emit("concat", parts, axis=1)
    return found if offsets is None else s.op_("add", found, s.sized(offsets, 0, wanted))


def _at(s: Site, h: _History, line: Value, steps: int) -> Value:
    return s.emit("gather", [line, before(s, h.r, h.room, steps)], axis=0)


def _times(s: Site, h: _History, steps: int, factors: Value, broken: Value | None = None) -> Value:
    """The ids some steps before, those of another sequence replaced, times their factor."""
    ids = _at(s, h, h.line, steps)
    if broken is not None:
        ids = s.op_("where", broken, h.none, ids)
    return s.op_("mul", ids, s.reshape(s.slice(factors, 0, steps, steps + 1), ()))


def _breaks(s: Site, h: _History, steps: int) -> Value:
    """Whether something else begins between the id some steps before and the one behind it."""
    found = s.expand(s.scalar(False, DType.BOOL), (h.r.tokens,))
    if h.ended:
        found = s.op_("eq", _at(s, h, h.line, steps), h.none)
    if h.segments is not None:
        pair = (_at(s, h, h.segments, steps - i) for i in range(2))
        found = s.op_("or", found, s.op_("ne", *pair))
    return found


def _state(s: Site, h: _History, kept: Value, line: Value) -> Value:
    """The last ids after the first `kept` tokens of each sequence."""
    return s.emit("gather", [line, last_places(s, h.r, h.room, kept)], axis=0)


@lowers("VarlenNGramHashMapping", domain=MICROSOFT)
def ngram_hashes_of_sequences(s: Site) -> list[Value | None]:
    """For ids [tokens] of sequences that lie one behind the other: [tokens, heads]."""
    ids = s.input(0)
    r = ragged(s, product(ids.shape), s.input(3))
    history = _history(s, r, ids, segments=s.optional(7), earlier=s.optional(8), names=(4, 6))
    found = _hashes(s, history, s.input(1), s.input(2), s.optional(5))
    marks = None
    if s.wants(2):
        if history.segments is None:
            raise NotSupported("segments are asked for where none are given", "give segment_ids")
        marks = s.cast(_state(s, history, r.lengths, history.segments), DType.I32)
    taken = None
    room: Dim = s.integer("state_update_capacity", 0)
    if s.wants(3) and room:
        number = s.op_("add", s.iota((1, room), 1, DType.I64), 1)
        count = captured(s, r, s.optional(9), room)
        kept = s.op_("min", number, s.reshape(r.lengths, (r.batch, 1)))
        states = _state(s, history, kept, history.line)
        pad = s.scalar(s.integer("pad_id"), ids.dtype)
        used = s.reshape(s.op_("le", number, count), (r.batch, room, 1))
        taken = s.op_("where", used, states, pad)
    present = _state(s, history, r.lengths, history.line)
    return [found, present, marks, taken]


def captured(s: Site, r: Ragged, count: Value | None, room: Dim) -> Value:
    """Of how many first tokens of each sequence something is kept: i64 [batch, 1]."""
    if count is None:
        raise ValueError("capture_count is missing")
    most = s.op_("min", r.lengths, s.reshape(s.emitter.virtual([room]), ()))
    given = s.op_("max", s.op_("min", s.cast(count, DType.I64), most), 0)
    return s.reshape(given, (r.batch, 1))
