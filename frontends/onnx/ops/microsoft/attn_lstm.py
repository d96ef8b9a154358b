"""AttnLSTM of com.microsoft: an LSTM that attends to a memory at every step.

Semantics: microsoft/onnxruntime, contrib_ops/cpu/attnlstm. The attention is that of Bahdanau, Cho,
Bengio, "Neural machine translation by jointly learning to align and translate" (2015).
"""

from __future__ import annotations

from dataclasses import dataclass

from .....compiler.ir import DType, Value
from .....compiler.ir.assumptions import EQUAL
from .....compiler.ir.dims import product
from ...site import Site
from ...table import MICROSOFT, lowers
from ..shared.factors import FloatFactor
from ..standard.recurrent import (
    Cell,
    activations,
    check_lengths,
    directions,
    initial_states,
    lstm_step,
    run_steps,
)

_GATES = 4


@dataclass(frozen=True)
class _Memory:
    """keys, values: [batch, places, size]; query: [hidden, size] of keys; score: [size]; seen: bool
    [batch, places]. layer: what a state and what was read become together, or None: what was read.
    """

    keys: Value
    values: Value
    query: Value
    score: Value
    seen: Value | None
    layer: Value | None

    def read(self, s: Site, h: Value) -> Value:
        """What a state [batch, hidden] attends to: [batch, size]."""
        asked = s.emit("matmul", [h, self.query])
        batch, size = asked.shape
        near = s.op_("tanh", s.op_("add", self.keys, s.reshape(asked, (batch, 1, size))))
        scores = s.reduce("sum", s.op_("mul", near, self.score), [2], False)
        if self.seen is not None:
            scores = s.op_("where", self.seen, scores, float("-inf"))
        shares = s.emit("softmax", [scores], axis=1)
        row = s.reshape(shares, (batch, 1, shares.shape[1]))
        found = s.emit("matmul", [row, self.values])
        found = s.reshape(found, (batch, self.values.shape[2]))
        if self.layer is None:
            return found
        return s.emit("matmul", [s.emit("concat", [h, found], axis=1), self.layer])


@lowers("AttnLSTM", domain=MICROSOFT)
def attn_lstm(s: Site) -> list[Value]:
    x, hidden = s.input(0), s.integer("hidden_size")
    if x.type.rank != 3:
        raise ValueError(f"the input {x.type} does not have 3 dimensions")
    if s.optional(4) is not None:
        check_lengths(s, s.input(4), x.shape[0])
    if s.optional(12) is not None:
        _check_memories(s, s.input(12), s.input(11))
    sequences, finals = [], []
    for index in range(directions(s)):
        backward = s.text("direction", "forward") == "reverse" or index == 1
        stacked, last = _direction(s, x, index, hidden, backward)
        sequences.append(s.reshape(stacked, (x.shape[0], 1, x.shape[1], hidden)))
        finals.append([s.reshape(v, (1, x.shape[1], hidden)) for v in last[:2]])
    ends = [s.emit("concat", list(parts), axis=0) for parts in zip(*finals, strict=True)]
    return [s.emit("concat", sequences, axis=1), *ends]


def _check_memories(s: Site, lengths: Value, values: Value) -> None:
    """Make a run end with an error where a memory is empty, or has more places than there are."""
    most = s.cast(s.reshape(s.emitter.virtual([values.shape[1]]), ()), lengths.dtype)
    inside = s.op_("and", s.op_("gt", lengths, 0), s.op_("le", lengths, most))
    s.require_nonzero(inside, f"a memory is empty or longer than {values.shape[1]} places")


def _direction(
    s: Site, x: Value, index: int, hidden: int, backward: bool
) -> tuple[Value, list[Value]]:
    """All outputs [steps, batch, hidden] and the last states of one direction.

    The weights of the input [4 * hidden, size + attention] have those of what the step before read
    behind them: that is a state beside the recurrent one.
    """
    memory, width = _memory(s, index), x.shape[2]
    w, r = (s.transpose(s.take(s.input(place), 0, index), (1, 0)) for place in (1, 2))
    inputs = FloatFactor(s, s.slice(w, 0, 0, width)).times(x)
    of_memory = s.slice(w, 0, width, w.shape[0])
    if s.optional(3) is not None:
        row = s.take(s.input(3), 0, index)
        half = _GATES * hidden
        both = s.op_("add", s.slice(row, 0, 0, half), s.slice(row, 0, half, 2 * half))
        inputs = s.op_("add", inputs, both)
    peepholes = []
    if s.optional(7) is not None:
        row = s.take(s.input(7), 0, index)
        peepholes = [s.slice(row, 0, i * hidden, (i + 1) * hidden) for i in range(3)]
    cell = Cell(s, hidden, FloatFactor(s, r), activations(s, index), peepholes, None)

    def step(cell: Cell, gates: Value, states: list[Value]) -> list[Value]:
        told = s.op_("add", gates, s.emit("matmul", [states[2], of_memory]))
        h, c = lstm_step(cell, told, states[:2])
        return [h, c, memory.read(s, h)]

    first = s.expand(s.scalar(0, x.dtype), (x.shape[1], of_memory.shape[0]))
    states = [*initial_states(s, x, index, hidden, False), first]
    return run_steps(s, cell, step, inputs, states, backward)


def _memory(s: Site, index: int) -> _Memory:
    """That of one direction."""
    values, lengths, layer = s.input(11), s.optional(12), s.optional(13)
    query, key, score = (s.take(s.input(place), 0, index) for place in (8, 9, 10))
    seen = None
    if lengths is not None:
        batch, places = values.shape[:2]
        s.require(product(lengths.shape), EQUAL, batch, "a length for each memory")
        column = s.reshape(s.cast(lengths, DType.I64), (batch, 1))
        seen = s.op_("lt", s.iota((1, places), 1, DType.I64), column)
    mixed = None if layer is None else s.take(layer, 0, index)
    return _Memory(s.emit("matmul", [values, key]), values, query, score, seen, mixed)
