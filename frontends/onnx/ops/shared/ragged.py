"""Sequences of different lengths, one behind the other along the first axis, and what lies before
each of them: a state that an earlier call left."""

from __future__ import annotations

from dataclasses import dataclass

from .....compiler.ir import Dim, DType, Value
from ...site import Site


@dataclass(frozen=True)
class Ragged:
    """tokens: of all sequences; batch: how many these are. starts, lengths: i64 [batch]. row:
    the sequence of each token, local: its place in there, i64 [tokens]."""

    tokens: Dim
    batch: Dim
    starts: Value
    lengths: Value
    row: Value
    local: Value


def ragged(s: Site, tokens: Dim, bounds: Value) -> Ragged:
    """That of tokens whose sequences begin and end at some places, [batch + 1] of integers.

    A run ends where these are no rising numbers from 0 to the number of tokens.
    """
    if bounds.type.rank != 1:
        raise ValueError(f"bounds {bounds.type} of sequences are no vector")
    batch = bounds.shape[0] - 1
    wide = s.cast(bounds, DType.I64)
    starts, ends = s.slice(wide, 0, 0, batch), s.slice(wide, 0, 1, batch + 1)
    lengths = s.op_("sub", ends, starts)
    count = s.reshape(s.emitter.virtual([tokens]), (1,))
    edges = s.op_("and", s.op_("eq", s.slice(wide, 0, 0, 1), 0),
                  s.op_("eq", s.slice(wide, 0, batch, batch + 1), count))  # fmt: skip
    why = "bounds of sequences that do not rise from 0 to the number of tokens"
    s.require_nonzero(edges, why)
    s.require_nonzero(s.op_("gt", lengths, 0), why)
    token = s.iota((tokens, 1), 0, DType.I64)
    passed = s.op_("ge", token, s.reshape(ends, (1, batch)))
    row = s.reduce("sum", s.cast(passed, DType.I64), [1], False)
    first = s.emit("gather", [starts, row], axis=0)
    local = s.op_("sub", s.reshape(token, (tokens,)), first)
    return Ragged(tokens, batch, starts, lengths, row, local)


def uniform(s: Site, batch: Dim, steps: Dim) -> Ragged:
    """That of sequences of one length."""
    tokens = batch * steps
    token = s.iota((tokens,), 0, DType.I64)
    size = s.reshape(s.emitter.virtual([steps]), ())
    row = s.op_("div", token, size)
    starts = s.op_("mul", s.iota((batch,), 0, DType.I64), size)
    return Ragged(
        tokens, batch, starts, s.expand(size, (batch,)), row,
        s.op_("sub", token, s.op_("mul", row, size)),
    )  # fmt: skip


def behind_states(s: Site, states: Value, x: Value) -> Value:
    """States [batch, room, ...] and behind all of them tokens [tokens, ...]: what the places of
    `before` and `last_places` are in."""
    rest = x.shape[1:]
    flat = s.reshape(states, (states.shape[0] * states.shape[1], *rest))
    return s.emit("concat", [flat, x], axis=0)


def before(s: Site, r: Ragged, room: int, steps: int) -> Value:
    """Where the token is that stands some steps before each one: i64 [tokens]; in the state of its
    sequence, which holds `room` of them, where that is in front of the first."""
    token = s.iota((r.tokens,), 0, DType.I64)
    shift = s.reshape(s.emitter.virtual([r.batch * room - steps]), ())
    inside = s.op_("add", token, shift)
    in_state = s.op_("add", s.op_("mul", r.row, room), s.op_("add", r.local, room - steps))
    return s.op_("where", s.op_("ge", r.local, steps), inside, in_state)


def last_places(s: Site, r: Ragged, room: int, kept: Value) -> Value:
    """Where the last `room` tokens are after the first `kept` (i64 [batch, ...]) of each sequence:
    i64 [batch, ..., room]."""
    extra = kept.type.rank - 1
    shape = (r.batch, *[1] * extra, 1)
    slot = s.iota((*[1] * kept.type.rank, room), kept.type.rank, DType.I64)
    local = s.op_("add", s.op_("sub", s.reshape(kept, (*kept.shape, 1)), room), slot)
    row = s.iota(shape, 0, DType.I64)
    in_state = s.op_("add", s.op_("mul", row, room), s.op_("add", local, room))
    first = s.reshape(s.emitter.virtual([r.batch * room]), ())
    inside = s.op_("add", s.op_("add", local, s.reshape(r.starts, shape)), first)
    return s.op_("where", s.op_("ge", local, 0), inside, in_state)
