"""LSTM, GRU and RNN: one matmul for the inputs of all steps, then a scan over the steps.

Gate orders and equations are those of the ONNX standard: LSTM i o f c, GRU z r h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .....compiler.ir import Dim, DType, Graph, TensorType, Value
from ...site import Site
from ...table import lowers
from ..shared.factors import Factor, FloatFactor
from .activations import by_name, parameters
from .sampling import number

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
Activation = Callable[[Value], Value]
Step = Callable[["Cell", Value, list[Value]], list[Value]]
Weights = Callable[[int, int], Factor]


def _kind(s: Site) -> str:
    """What an operator's cell is like."""
    return str(s.op.removeprefix("Attn"))


@dataclass
class Cell:
    """The weights of one direction: recurrent [hidden, gates * hidden] and what steps need."""

    site: Site
    hidden: int
    recurrent: Factor
    activations: list[Activation]
    peepholes: list[Value]  # LSTM: of the gates i, o, f; [hidden] each
    recurrent_bias: Value | None  # GRU with linear_before_reset: of gate h
    by_range: bool = False  # what a state is multiplied by depends on that of the whole batch

    def gate(self, gates: Value, index: int) -> Value:
        """Columns of one gate."""
        start = index * self.hidden
        return self.site.slice(gates, 1, start, start + self.hidden)


@lowers("LSTM", "GRU", "RNN")
def recurrent(s: Site) -> list[Value]:
    hidden, gates = s.integer("hidden_size"), _GATES[s.op]
    wanted = (directions(s), gates * hidden, hidden)
    weights = {1: _fitted(s, s.input(1), wanted[:2]), 2: _fitted(s, s.input(2), wanted)}
    return lowered(s, lambda place, index: FloatFactor.of_direction(s, weights[place], index))


def _fitted(s: Site, weights: Value, sizes: Sequence[int]) -> Value:
    """W or R, of which the attributes say the first sizes."""
    if weights.type.rank != 3:
        raise ValueError(f"weights {weights.type} have not 3 dimensions")
    for axis, size in enumerate(sizes):
        weights = s.sized(weights, axis, size)
    return weights


def directions(s: Site) -> int:
    """How many directions a node has, 1 or 2. Raises ValueError for a name that is none."""
    direction = s.text("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"direction '{direction}' does not exist")
    return 2 if direction == "bidirectional" else 1


def lowered(s: Site, weights: Weights, *, by_range: bool = False) -> list[Value]:
    """The results of a recurrent operator.

    weights: (1 for what multiplies the input or 2 for what multiplies the state, direction) -> the
    factor [., gates * hidden]. by_range: products depend on the range of all they read; sequences
    of unlike lengths are then laid out step by step as ONNX Runtime does, the last ones of each
    first for the backward direction, and zeros for the state of those that have ended.
    """
    x, hidden, count = s.input(0), s.integer("hidden_size"), directions(s)
    if x.type.rank != 3:
        raise ValueError(f"the input {x.type} does not have 3 dimensions")
    batch_first = bool(s.integer("layout", 0))
    x = s.transpose(x, (1, 0, 2)) if batch_first else x
    if s.optional(4) is not None:
        check_lengths(s, s.input(4), x.shape[0])
    sequences, finals = [], []
    for index in range(count):
        backward = s.text("direction", "forward") == "reverse" or index == 1
        states = initial_states(s, x, index, hidden, batch_first)
        mirrored = by_range and backward and s.optional(4) is not None
        read = _mirrored(s, x, s.input(4)) if mirrored else x
        turns = backward and not mirrored
        stacked, last = _direction(s, read, index, states, turns, weights, by_range=by_range)
        stacked = _mirrored(s, stacked, s.input(4)) if mirrored else stacked
        sequences.append(s.reshape(stacked, (x.shape[0], 1, x.shape[1], hidden)))
        finals.append([s.reshape(v, (1, x.shape[1], hidden)) for v in last])
    y = s.emit("concat", sequences, axis=1)
    ends = [s.emit("concat", list(parts), axis=0) for parts in zip(*finals, strict=True)]
    if batch_first:
        y = s.transpose(y, (2, 0, 1, 3))
        ends = [s.transpose(value, (1, 0, 2)) for value in ends]
    return [y, *ends]


def check_lengths(s: Site, lengths: Value, steps: Dim) -> None:
    """Make a run end with an error where a length is not within 0 to `steps`."""
    most = s.cast(s.reshape(s.emitter.virtual([steps]), ()), lengths.dtype)
    inside = s.op_("and", s.op_("ge", lengths, 0), s.op_("le", lengths, most))
    s.require_nonzero(inside, f"a length is negative or more than {steps} steps")


def initial_states(s: Site, x: Value, index: int, hidden: int, batch_first: bool) -> list[Value]:
    """The states before the first step, [batch, hidden] each.

    A sequence without steps starts with zeros, whatever is given, and so ends with them: as ONNX
    Runtime has it.
    """
    steps, batch = x.shape[:2]
    states = []
    for place in (5, 6) if _kind(s) == "LSTM" else (5,):
        given = s.optional(place)
        if given is None:
            zero = s.scalar(0, s.input(0).dtype)
            states.append(s.expand(zero, (batch, hidden)))
        else:
            given = s.transpose(given, (1, 0, 2)) if batch_first else given
            first = s.reshape(s.take(given, 0, index), (batch, hidden))
            begins = _begins(s, steps, batch)
            states.append(first if begins is None else s.op_("where", begins, first, 0))
    return states


def _begins(s: Site, steps: Dim, batch: Dim) -> Value | None:
    """Whether a sequence has any steps, of one value or [batch, 1]; None: all have."""
    lengths = s.optional(4)
    if lengths is not None:
        return s.op_("gt", s.reshape(lengths, (batch, 1)), 0)
    if isinstance(steps, int) and steps > 0:
        return None
    return s.op_("gt", s.reshape(s.emitter.virtual([steps]), ()), 0)


def _direction(
    s: Site,
    x: Value,
    index: int,
    states: list[Value],
    backward: bool,
    weights: Weights,
    *,
    by_range: bool,
) -> tuple[Value, list[Value]]:
    """All outputs [steps, batch, hidden] and the last states of one direction."""
    hidden, gates = s.integer("hidden_size"), _GATES[s.op]
    bias = s.optional(3)
    inputs = weights(1, index).times(x)
    recurrent_bias = None
    if bias is not None:
        row = s.take(bias, 0, index)
        mine = s.slice(row, 0, 0, gates * hidden)
        theirs = s.slice(row, 0, gates * hidden, 2 * gates * hidden)
        if s.op == "GRU" and s.integer("linear_before_reset", 0):
            recurrent_bias = s.slice(theirs, 0, 2 * hidden, 3 * hidden)
            zero = s.expand(s.scalar(0, row.dtype), (hidden,))
            theirs = s.emit("concat", [s.slice(theirs, 0, 0, 2 * hidden), zero], axis=0)
        inputs = s.op_("add", inputs, s.op_("add", mine, theirs))
    peepholes = []
    if s.op == "LSTM" and s.optional(7) is not None:
        row = s.take(s.input(7), 0, index)
        peepholes = [s.slice(row, 0, i * hidden, (i + 1) * hidden) for i in range(3)]
    cell = Cell(
        s,
        hidden,
        weights(2, index),
        activations(s, index),
        peepholes,
        recurrent_bias,
        by_range,
    )
    step = {"LSTM": lstm_step, "GRU": _gru, "RNN": _rnn}[s.op]
    return run_steps(s, cell, step, inputs, states, backward)


def activations(s: Site, index: int) -> list[Activation]:
    """The direction's activation functions, with the clipping of their inputs."""
    defaults = _DEFAULTS[_kind(s)]
    names = s.texts("activations", defaults * (index + 1))
    alphas, betas = iter(s.floats("activation_alpha", [])), iter(s.floats("activation_beta", []))
    if len(names) < len(defaults) * (index + 1):
        raise ValueError(f"{len(names)} activations are too few")
    limit = s.real("clip", 0.0)
    chosen: list[Activation] = []
    for name in names[: len(defaults) * (index + 1)]:
        wanted = parameters(name)
        values = [
            next(source, default) for source, default in zip((alphas, betas), wanted, strict=False)
        ]

        # as in ONNX Runtime, what LSTM's last function gets (the cell) is not clipped
        gate = limit > 0 and not (_kind(s) == "LSTM" and len(chosen) % 3 == 2)

        def activation(
            x: Value, name: str = name, values: Sequence[float] = values, clips: bool = gate
        ) -> Value:
            if clips:
                x = s.op_("min", s.op_("max", x, -limit), limit)
            return by_name(s, name, x, values)

        chosen.append(activation)
    return chosen[-len(defaults) :]


def run_steps(
    s: Site, cell: Cell, step: Step, inputs: Value, states: list[Value], backward: bool
) -> tuple[Value, list[Value]]:
    """The first state after every step, stacked, and the last states.

    step: gives the states after one step from inputs[step] and those before. Where the node has
    lengths, states stay as they are behind the end of a sequence, and what is stacked is 0.
    """
    trip = inputs.shape[0]
    lengths = s.optional(4)
    if trip == 1 and lengths is None:
        after = step(cell, s.take(inputs, 0, 0), states)
        return s.reshape(after[0], (1, *after[0].shape)), after
    scanned = [inputs] if lengths is None else [inputs, s.iota((trip,), 0, DType.I64)]
    inner = [Value(value.type) for value in states]
    inner += [Value(TensorType(v.dtype, v.shape[1:])) for v in scanned]
    s.emitter.enter()
    before = inner[: len(states)]
    if lengths is not None:
        column = s.reshape(s.cast(lengths, DType.I64), (inputs.shape[1], 1))
        if cell.by_range:
            before[0] = s.op_("where", s.op_("le", inner[-1], column), before[0], 0)
    after = step(cell, inner[len(states)], before)
    output = after[0]
    if lengths is not None:
        alive = s.op_("lt", inner[-1], column)
        output = s.op_("where", alive, after[0], 0)
        after = [
            s.op_("where", alive, new, old)
            for new, old in zip(after, inner[: len(states)], strict=True)
        ]
    nodes, _ = s.emitter.leave()
    region = Graph(inner, [*after, output], nodes, f"{s.op.lower()}_step")
    results = s.emitter.emit_node(
        "scan",
        [*states, *scanned],
        {
            "num_state": len(states),
            "reverse_in": (backward,) * len(scanned),
            "reverse_out": (backward,),
            "trip": trip,
        },
        regions=[region],
    )
    return results[-1], results[:-1]


def lstm_step(cell: Cell, inputs: Value, states: list[Value]) -> list[Value]:
    """The hidden state and the cell [batch, hidden] from those before, and the gates of the input
    [batch, 4 * hidden]."""
    s, (h, c) = cell.site, states
    f, g, out = cell.activations
    gates = s.op_("add", inputs, cell.recurrent.times(h))
    i_in, o_in, f_in, c_in = (cell.gate(gates, index) for index in range(4))
    if cell.peepholes:
        i_in = s.op_("add", i_in, s.op_("mul", cell.peepholes[0], c))
        f_in = s.op_("add", f_in, s.op_("mul", cell.peepholes[2], c))
    i = f(i_in)
    forget = s.op_("sub", 1.0, i) if s.integer("input_forget", 0) else f(f_in)
    after = s.op_("add", s.op_("mul", forget, c), s.op_("mul", i, g(c_in)))
    if cell.peepholes:
        o_in = s.op_("add", o_in, s.op_("mul", cell.peepholes[1], after))
    return [s.op_("mul", f(o_in), out(after)), after]


def _gru(cell: Cell, inputs: Value, states: list[Value]) -> list[Value]:
    s, h, hidden = cell.site, states[0], cell.hidden
    f, g = cell.activations
    both = cell.recurrent.columns(0, 2 * hidden)
    last = cell.recurrent.columns(2 * hidden, 3 * hidden)
    gates = s.op_("add", s.slice(inputs, 1, 0, 2 * hidden), both.times(h))
    z, r = f(cell.gate(gates, 0)), f(cell.gate(gates, 1))
    if s.integer("linear_before_reset", 0):
        linear = last.times(h)
        if cell.recurrent_bias is not None:
            linear = s.op_("add", linear, cell.recurrent_bias)
        linear = s.op_("mul", r, linear)
    else:
        linear = last.times(s.op_("mul", r, h))
    new = g(s.op_("add", cell.gate(inputs, 2), linear))
    kept = s.op_("mul", z, h)
    return [s.op_("add", s.op_("mul", s.op_("sub", 1.0, z), new), kept)]


def _rnn(cell: Cell, inputs: Value, states: list[Value]) -> list[Value]:
    s = cell.site
    total = s.op_("add", inputs, cell.recurrent.times(states[0]))
    return [cell.activations[0](total)]


@lowers("ReverseSequence")
def reverse_sequence(s: Site) -> Value:
    """Element t of a sequence of length n goes to n - 1 - t; what is behind n stays."""
    x, lengths = s.input(0), s.input(1)
    time, batch = s.integer("time_axis", 0), s.integer("batch_axis", 1)
    if {time, batch} != {0, 1} or x.type.rank < 2:
        raise ValueError(f"time axis {time} and batch axis {batch} must be 0 and 1")
    check_lengths(s, lengths, x.shape[time])
    return _mirrored(s, x, lengths, time)


def _mirrored(s: Site, x: Value, lengths: Value, time: int = 0) -> Value:
    """Sequences back to front, each within its length. time: the axis of steps, 0 or 1."""
    row = (x.shape[0], 1) if time == 0 else (1, x.shape[1])
    steps = s.iota(row, time, DType.I64)
    line = (1, x.shape[1]) if time == 0 else (x.shape[0], 1)
    ends = s.reshape(s.cast(lengths, DType.I64), line)
    mirrored = s.op_("sub", s.op_("sub", ends, 1), steps)
    places = s.op_("where", s.op_("lt", steps, ends), mirrored, steps)
    order = s.iota(line, 1 - time, DType.I64)  # of the sequences; whole rows are moved
    inner, outer = (order, places) if time == 0 else (places, order)
    flat = s.op_("add", s.op_("mul", outer, number(s, x.shape[1], DType.I64)), inner)
    rows = s.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
    return s.emit("gather", [rows, flat], axis=0)
