"""Recurrent layers of com.microsoft on sequences of different lengths, one behind the other.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md, and its kernels for CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.assumptions import EQUAL
from .....compiler.ir.dims import floordiv, product
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.ragged import Ragged, before, behind_states, last_places, ragged, uniform
from ..standard.activations import softplus, swish
from .ngrams import captured
from .operators import by_function

_RULES = ("linear", "gated", "delta", "gated_delta")


@lowers("VarlenCausalConvWithState", domain=MICROSOFT)
def causal_conv_of_sequences(s: Site) -> list[Value | None]:
    """A depthwise convolution along time [tokens, channels] that sees the past of its sequence."""
    x, weight, bias, state = s.input(0), s.input(1), s.optional(3), s.input(4)
    if s.optional(6) is not None or s.optional(7) is not None:
        raise NotSupported("weights that change from token to token", "export them written out")
    apart, taps = s.integer("dilation", 1), weight.shape[2]
    if apart < 1 or not isinstance(taps, int) or weight.type.rank != 3 or x.type.rank != 2:
        raise ValueError(f"{x.type} and {weight.type}, {apart} apart, make no convolution of lines")
    r, room = ragged(s, x.shape[0], s.input(2)), (taps - 1) * apart
    rows = s.transpose(s.cast(s.sized(state, 2, room), DType.F32), (0, 2, 1))
    line = behind_states(s, rows, s.cast(x, DType.F32))
    factors = s.cast(s.reshape(weight, (weight.shape[0], taps)), DType.F32)
    total = s.scalar(0.0, DType.F32) if bias is None else s.cast(bias, DType.F32)
    for tap in range(taps):
        place = before(s, r, room, (taps - 1 - tap) * apart)
        there = s.emit("gather", [line, place], axis=0)
        total = s.op_("add", total, s.op_("mul", there, s.take(factors, 1, tap)))
    name = s.text("activation", "none")
    if name in ("silu", "swish"):
        total = swish(s, total)
    elif name != "none":
        raise ValueError(f"activation '{name}' does not exist")
    last = s.emit("gather", [line, last_places(s, r, room, r.lengths)], axis=0)
    results: list[Value | None] = [
        s.cast(total, x.dtype),
        s.cast(s.transpose(last, (0, 2, 1)), state.dtype),
    ]
    capacity = s.integer("state_update_capacity", 0)
    if s.wants(2) and capacity:
        results.append(_first_tokens(s, r, x, captured(s, r, s.optional(5), capacity), capacity))
    return results


def _first_tokens(s: Site, r: Ragged, x: Value, count: Value, capacity: int) -> Value:
    """The first tokens of each sequence, `count` of them, and zeros: [batch, capacity, ...]."""
    number = s.iota((1, capacity), 1, DType.I64)
    used = s.op_("lt", number, count)
    place = s.op_("where", used, s.op_("add", s.reshape(r.starts, (r.batch, 1)), number), 0)
    found = s.emit("gather", [x, place], axis=0)
    ones = [1] * (x.type.rank - 1)
    return s.op_("where", s.reshape(used, (r.batch, capacity, *ones)), found, 0)


@dataclass(frozen=True)
class _Heads:
    """Queries and keys [tokens, heads, size], values [tokens, value heads, size], in f32."""

    q: Value
    k: Value
    v: Value

    @property
    def share(self) -> Dim:
        """How many value heads have one query and key."""
        return floordiv(self.v.shape[1], self.k.shape[1])


@lowers("GatedDeltaNet", domain=MICROSOFT)
def gated_delta_net(s: Site) -> list[Value | None]:
    """The layer of ai.onnx (LinearAttention, opset 27) for sequences of any lengths, whose states
    [batch, heads, value size, key size] are f32."""
    rule = s.text("update_rule", "gated_delta")
    if rule not in _RULES:
        raise ValueError(f"update_rule '{rule}' is none of {', '.join(_RULES)}")
    if s.integer("state_update_capacity", 0):
        raise NotSupported("states of the steps between", "export with state_update_capacity 0")
    heads = _heads(s)
    tokens, count, width = heads.q.shape[0], heads.v.shape[1], heads.k.shape[2]
    given, state = s.optional(3), s.optional(6)
    if given is not None:
        r = ragged(s, tokens, given)
    elif state is not None:
        r = uniform(s, state.shape[0], floordiv(tokens, state.shape[0]))
        s.require(r.tokens, EQUAL, tokens, "as many tokens for each state")
    else:
        raise ValueError("neither bounds of sequences nor states are given")
    decay = _decay(s, tokens, count, width) if "gated" in rule else None
    rate = _rate(s, tokens, count) if "delta" in rule else None
    if s.integer("qk_l2_norm", 0):
        heads = _Heads(_unit(s, heads.q), _unit(s, heads.k), heads.v)
    out, last = _recurrence(s, r, heads, decay, rate, state)
    shape = (*s.input(0).shape[:-2], count, heads.v.shape[2])
    if s.optional(1) is None:
        shape = (*s.input(0).shape[:-1], count, heads.v.shape[2])
    return [s.cast(s.reshape(out, shape), s.input(0).dtype), last]


def _heads(s: Site) -> _Heads:
    """From three inputs, or from one that holds all, which the state tells how to divide."""
    query, key, value = s.input(0), s.optional(1), s.optional(2)
    if key is not None and value is not None:
        q, k, v = (
            s.reshape(part, (product(part.shape[:-2]), *part.shape[-2:]))
            for part in (query, key, value)
        )
    else:
        if s.optional(6) is None:
            raise ValueError("a packed query needs initial_state")
        _, count, size, width = s.input(6).shape
        flat = s.reshape(query, (product(query.shape[:-1]), query.shape[-1]))
        keys = floordiv(flat.shape[1] - count * size, 2)
        s.require(keys * 2 + count * size, EQUAL, flat.shape[1], f"{query.type} is not divided")
        parts = [s.slice(flat, 1, 0, keys), s.slice(flat, 1, keys, keys * 2),
                 s.slice(flat, 1, keys * 2, flat.shape[1])]  # fmt: skip
        q, k = (
            s.reshape(part, (flat.shape[0], floordiv(keys, width), width)) for part in parts[:2]
        )
        v = s.reshape(parts[2], (flat.shape[0], count, size))
    state = s.optional(6)
    if state is not None and isinstance(state.shape[1], int):
        v = s.sized(v, 1, state.shape[1])
    if not all(isinstance(part.shape[1], int) for part in (q, v)):
        raise NotSupported("a number of heads that only a run knows", "pin it with --shape")
    s.require(q.shape[1], EQUAL, k.shape[1], "as many heads of queries as of keys")
    return _Heads(*(s.cast(part, DType.F32) for part in (q, k, v)))


def _decay(s: Site, tokens: Dim, count: Dim, width: Dim) -> Value:
    """Logarithms of what is kept of a state: f32 [tokens, heads, 1 or key size]."""
    given = s.input(4)
    size = floordiv(given.type.elements, tokens * count)
    g = s.reshape(s.cast(given, DType.F32), (tokens, count, size))
    kind = s.text("gate_activation", "none")
    if kind == "none":
        return g
    log, bias = s.optional(7), s.optional(8)
    if bias is not None:
        wide = s.reshape(bias, (1, count, floordiv(bias.type.elements, count)))
        g = s.op_("add", g, s.cast(wide, DType.F32))
    if log is None:
        raise ValueError(f"gate_activation '{kind}' needs a_log")
    speed = s.op_("exp", s.cast(s.reshape(log, (1, count, 1)), DType.F32))
    if kind in ("softplus", "qwen"):
        return s.op_("neg", s.op_("mul", speed, softplus(s, g)))
    if kind not in ("sigmoid", "kda"):
        raise ValueError(f"gate_activation '{kind}' does not exist")
    gate = s.op_("sigmoid", s.op_("mul", speed, g))
    return s.op_("mul", gate, s.real("gate_lower_bound", -5.0))


def _rate(s: Site, tokens: Dim, count: Dim) -> Value:
    rate = s.reshape(s.cast(s.input(5), DType.F32), (tokens, count, 1))
    kind = s.text("beta_activation", "none")
    if kind not in ("none", "sigmoid"):
        raise ValueError(f"beta_activation '{kind}' does not exist")
    return s.op_("sigmoid", rate) if kind == "sigmoid" else rate


def _unit(s: Site, x: Value) -> Value:
    """Rows over their length."""
    total = s.reduce("sum", s.op_("mul", x, x), [2])
    return s.op_("mul", x, s.op_("div", 1.0, s.op_("sqrt", s.op_("add", total, 1e-6))))


def _recurrence(
    s: Site, r: Ragged, heads: _Heads, decay: Value | None, rate: Value | None, state: Value | None
) -> tuple[Value, Value]:
    """The layer's result [tokens, heads, size], and the states after the last tokens.

    Sequences are filled up to one length; steps beyond their ends leave the state as it is.
    """
    grid = _Grid.of(s, r)
    count, size, width = heads.v.shape[1], heads.v.shape[2], heads.k.shape[2]
    q, k = (_spread(s, part, heads.share) for part in (heads.q, heads.k))
    parts = [grid.filled(s, part) for part in (q, k, heads.v)]
    inputs: list[Value | None] = [
        s.reshape(part, (r.batch, grid.steps, count * part.shape[3])) for part in parts
    ]
    if state is None:
        state = s.expand(s.scalar(0.0, DType.F32), (r.batch, count, size, width))
    inputs.append(s.transpose(state, (0, 1, 3, 2)))
    for part in (decay, rate):
        flat = None if part is None else grid.filled(s, part)
        wide = None if flat is None else s.reshape(flat, (*flat.shape[:2], product(flat.shape[2:])))
        inputs.append(wide)
    make = onnx.helper.make_attribute
    attributes = {
        "q_num_heads": make("q_num_heads", int(count)),
        "kv_num_heads": make("kv_num_heads", int(count)),
        "update_rule": make("update_rule", s.text("update_rule", "gated_delta")),
        "scale": make("scale", s.real("scale", 0.0)),
    }
    out, last = by_function(s, "LinearAttention", inputs, attributes)
    rows = s.reshape(out, (r.batch * grid.steps, count, size))
    return s.emit("gather", [rows, grid.places], axis=0), s.transpose(last, (0, 1, 3, 2))


def _spread(s: Site, x: Value, share: Dim) -> Value:
    """Every head [tokens, heads, size] as often as value heads have it."""
    if share == 1:
        return x
    tokens, count, size = x.shape
    wide = s.expand(s.reshape(x, (tokens, count, 1, size)), (tokens, count, share, size))
    return s.reshape(wide, (tokens, count * share, size))


@dataclass(frozen=True)
class _Grid:
    """Sequences side by side, filled up to `steps`. token: i64 [batch, steps], of each step, that
    of another beyond the end; used: bool, whether there is one. places: i64 [tokens], the step of
    each token in the flat grid."""

    steps: Dim
    token: Value
    used: Value
    places: Value

    @staticmethod
    def of(s: Site, r: Ragged) -> _Grid:
        (steps,) = s.dims(s.reduce("max", r.lengths, [0]))
        number = s.iota((1, steps), 1, DType.I64)
        used = s.op_("lt", number, s.reshape(r.lengths, (r.batch, 1)))
        start = s.reshape(r.starts, (r.batch, 1))
        token = s.op_("where", used, s.op_("add", start, number), 0)
        width = s.reshape(s.emitter.virtual([steps]), ())
        return _Grid(steps, token, used, s.op_("add", s.op_("mul", r.row, width), r.local))

    def filled(self, s: Site, x: Value) -> Value:
        """Tokens [tokens, heads, size] as [batch, steps, heads, size], zeros beyond the ends."""
        found = s.emit("gather", [x, self.token], axis=0)
        return s.op_("where", s.reshape(self.used, (*self.used.shape, 1, 1)), found, 0.0)
