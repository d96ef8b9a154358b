"""Cases of control flow: if, loop, scan, fused regions."""

from __future__ import annotations

from tensmith.compiler.ir.dims import symbol

from .case import BOOL, CLOSE, EXACT, F32, I64, SUM, Case, CaseBuilder, N
from .contractions import window


def _if(c: CaseBuilder) -> None:
    cond, x = c.input(dtype=BOOL, name="cond"), c.input(N, 3)
    one, other = c.region("then"), c.region("else")
    one.output(one.op("add", x, one.weight(3)))
    other.output(other.op("neg", other.op("mul", x, x)))
    node = c.node("if", [cond], {}, [one.graph(), other.graph()])
    c.output(c.op("exp", node.output))


def _if_shapes(c: CaseBuilder) -> None:
    cond, x = c.input(dtype=BOOL, name="cond"), c.input(N, 3)
    one, other = c.region("then"), c.region("else")
    one.output(one.op("concat", x, x, axis=0))
    rows = {"starts": (0, 0), "stops": (N, 1), "steps": (1, 1)}
    other.output(other.op("slice", x, **rows))
    attrs = {"bound": ("rows", "columns")}
    node = c.node("if", [cond], attrs, [one.graph(), other.graph()])
    c.output(c.op("reduce_sum", node.output, axes=(0, 1)), node.output)


def _if_bordered(c: CaseBuilder) -> None:
    """A branch reads, channels last, what a padded convolution beside it reads too."""
    cond, x = c.input(dtype=BOOL, name="cond"), c.input(1, 8, 6, 6)
    made = c.op("tanh", c.op("conv", x, c.weight(16, 8, 1, 1), **window(2, pads=(0,) * 4)))
    c.output(c.op("conv", made, c.weight(8, 16, 3, 3), **window(2, pads=(1,) * 4)))
    moved = c.op("transpose", made, perm=(0, 2, 3, 1))
    one, other = c.region("then"), c.region("else")
    one.output(one.op("neg", moved))
    other.output(other.op("abs", other.op("sub", moved, other.scalar(1))))
    c.output(c.node("if", [cond], {}, [one.graph(), other.graph()]).output)


def _cumulative(c: CaseBuilder, reverse: bool) -> None:
    start, steps = c.input(4, name="start"), c.input(N, 4, name="steps")
    body = c.region("body")
    total, item = body.input(4), body.input(4)
    new = body.op("add", total, item)
    body.output(new, body.op("mul", new, item))
    attrs = {"num_state": 1, "trip": N, "reverse_in": (reverse,), "reverse_out": (reverse,)}
    node = c.node("scan", [start, steps], attrs, [body.graph()])
    c.output(*node.outputs)


def _scan_forward(c: CaseBuilder) -> None:
    _cumulative(c, False)


def _scan_backward(c: CaseBuilder) -> None:
    _cumulative(c, True)


def _gate(b: CaseBuilder, gates: object, index: int, hidden: int) -> object:
    columns = {"starts": (0, index * hidden), "stops": (2, (index + 1) * hidden), "steps": (1, 1)}
    return b.op("slice", gates, **columns)  # type: ignore[arg-type]


def _lstm(c: CaseBuilder) -> None:
    """One layer: the input's projection outside, one step per scan iteration."""
    hidden, batch, features = 6, 2, 5
    x = c.input(N, batch, features)
    h0, c0 = c.input(batch, hidden, name="h0"), c.input(batch, hidden, name="c0")
    projected = c.op("matmul", x, c.weight(features, 4 * hidden))
    projected = c.op("add", projected, c.weight(4 * hidden))
    recurrent = c.weight(hidden, 4 * hidden)
    body = c.region("body")
    h, cell, step = body.input(batch, hidden), body.input(batch, hidden), body.input(batch, 24)
    gates = body.op("add", step, body.op("matmul", h, recurrent))
    i, o, f, g = (_gate(body, gates, k, hidden) for k in range(4))
    i, o, f = (body.op("sigmoid", v) for v in (i, o, f))  # type: ignore[arg-type]
    kept = body.op("mul", f, cell)
    new_cell = body.op("add", kept, body.op("mul", i, body.op("tanh", g)))  # type: ignore[arg-type]
    new_h = body.op("mul", o, body.op("tanh", new_cell))
    body.results = [new_h, new_cell, new_h]
    attrs = {"num_state": 2, "trip": N, "reverse_in": (False,), "reverse_out": (False,)}
    node = c.node("scan", [h0, c0, projected], attrs, [body.graph()])
    c.output(*node.outputs)


def _loop(c: CaseBuilder) -> None:
    trip, x = c.input(dtype=I64, name="trip"), c.input(3)
    body = c.region("body")
    step, cond, value = body.input(dtype=I64), body.input(dtype=BOOL), body.input(3)
    twice = body.op("add", value, x)
    scaled = body.op("mul", twice, body.op("cast", step, dtype=F32))
    body.results = [cond, twice, scaled]
    start = c.scalar(1, BOOL)
    node = c.node("loop", [trip, start, x], {"bound": ("steps",)}, [body.graph()])
    c.output(*node.outputs)


def _loop_while(c: CaseBuilder) -> None:
    """Doubles until the sum exceeds a limit: only the condition ends it."""
    x = c.input(4, low=0.5, high=1)
    body = c.region("body")
    body.input(dtype=I64)
    body.input(dtype=BOOL)
    value = body.input(4)
    twice = body.op("mul", value, body.scalar(2))
    total = body.op("reduce_sum", twice, axes=(0,))
    body.results = [body.op("lt", total, body.scalar(50)), twice]
    unbounded = c.scalar((1 << 63) - 1, I64)
    node = c.node("loop", [unbounded, c.scalar(1, BOOL), x], {}, [body.graph()])
    c.output(node.output)


def _loop_growing(c: CaseBuilder) -> None:
    """The carried value grows by a row in every step."""
    trip, x = c.input(dtype=I64, name="trip"), c.input(N, 2)
    body = c.region("body")
    body.input(dtype=I64)
    cond = body.input(dtype=BOOL)
    value = body.input(symbol("rows"), 2)
    more = body.op("concat", value, body.weight(1, 2), axis=0)
    body.results = [cond, more]
    attrs = {"bound": ("final",)}
    node = c.node("loop", [trip, c.scalar(1, BOOL), x], attrs, [body.graph()])
    c.output(c.op("neg", node.output))


def _fused(c: CaseBuilder) -> None:
    x, w = c.input(N, 8), c.weight(8, 5)
    bias = c.weight(5)
    body = c.region("kernel")
    a, b, d = body.input(N, 8), body.input(8, 5), body.input(5)
    linear = body.op("add", body.op("matmul", a, b), d)
    body.results = [body.op("max", linear, body.scalar(0))]
    node = c.node("fused", [x, w, bias], {}, [body.graph()])
    c.output(node.output)


CASES: list[Case] = [
    Case("if_then", _if, CLOSE, {"n": 4}, {"cond": True}),
    Case("if_else", _if, CLOSE, {"n": 4}, {"cond": False}),
    Case("if_shapes_then", _if_shapes, CLOSE, {"n": 3}, {"cond": True}),
    Case("if_shapes_else", _if_shapes, CLOSE, {"n": 3}, {"cond": False}),
    Case("if_bordered", _if_bordered, SUM, given={"cond": True}),
    Case("scan_forward", _scan_forward, CLOSE, {"n": 5}),
    Case("scan_backward", _scan_backward, CLOSE, {"n": 5}),
    Case("scan_one_step", _scan_forward, CLOSE, {"n": 1}),
    Case("scan_no_step", _scan_forward, EXACT, {"n": 0}),
    Case("scan_lstm", _lstm, SUM, {"n": 4}),
    Case("loop_counted", _loop, CLOSE, given={"trip": 4}),
    Case("loop_no_step", _loop, EXACT, given={"trip": 0}),
    Case("loop_while", _loop_while, CLOSE),
    Case("loop_growing", _loop_growing, EXACT, {"n": 2}, {"trip": 3}),
    Case("fused_linear", _fused, SUM, {"n": 3}),
]
