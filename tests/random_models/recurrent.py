"""Rules of recurrent layers in all combinations of attributes, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .builder import Builder, Shape, Size, Value

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Unbounded activations square what they keep in each step, and exceed f32. Where no `clip` is given
# ONNX Runtime clips their inputs at the largest f32, the standard at nothing: infinities of both
# signs meet in the next product, which is NaN. Of what f64 gives, 1e100, neither is right. And
# the Softplus of ONNX Runtime's layers is infinite from 89 on, not its operand.
MOST_STEPS = 8
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
# with alpha and beta where they take some: ONNX Runtime's defaults for Affine and ScaledTanh are 0,
# not those of the operators of these names
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "Sigmoid": (), "Tanh": (), "Relu": (), "Softsign": (), "Softplus": (), "Elu": (0.7,),
    "LeakyRelu": (0.1,), "ThresholdedRelu": (0.3,), "HardSigmoid": (0.3, 0.4), "Affine": (0.8, 0.1),
    "ScaledTanh": (0.9, 0.6),
}  # fmt: skip


def _state(b: Builder, shape: Shape, given: Sequence[Value]) -> Value | None:
    """A state before the first step: left out, constant, expanded, sliced, computed, or the last
    state of another layer."""
    way = b.number(0, 5)
    same = [value for value in given if value.texts == tuple(size.text for size in shape)]
    if same and b.flip():
        return b.choice(same)
    fixed = [size.fixed for size in shape]
    if way == 0:
        return None
    if way == 1 and None not in fixed:
        return b.weight(*(size or 0 for size in fixed))
    if way == 2:
        found = b.pick(lambda v: v.kind == "f32" and v.texts == tuple(s.text for s in shape))
        if found is not None:
            return b.same("Tanh", found, 1.0) if b.flip() else found
    target = b.dims(shape)
    if target is None:
        return None
    row = b.weight(1, 1, shape[2].fixed or 1)
    if way == 3:
        row = b.same("Sin", row, 1.0)
    whole = b.emit("Expand", [row, target], ("f32", shape, 1.0))[0]
    if way != 4:
        return whole
    twice = (shape[0] + shape[0], *shape[1:])
    pair = b.emit("Concat", [whole, b.same("Neg", whole)], ("f32", twice, 1.0), axis=0)[0]
    start = b.number(0, 1) * (shape[0].fixed or 1)
    ends = [b.constant([n], "i64") for n in (start, start + (shape[0].fixed or 1), 0)]
    return b.emit("Slice", [pair, *ends], ("f32", shape, 1.0))[0]


def _attributes(b: Builder, op: str, directions: int) -> dict[str, object]:
    found: dict[str, object] = {}
    if b.flip(0.4):
        names = [b.choice(tuple(ACTIVATIONS)) for _ in range(FUNCTIONS[op] * directions)]
        found["activations"] = names
        numbers = [ACTIVATIONS[name] for name in names]
        for place, kind in enumerate(("activation_alpha", "activation_beta")):
            given = [item[place] for item in numbers if len(item) > place]
            if given:
                found[kind] = given
    if b.flip(0.3):
        found["clip"] = b.choice((0.4, 1.5))
    if op == "GRU":
        found["linear_before_reset"] = b.number(0, 1)
    if op == "LSTM" and b.flip(0.2):
        found["input_forget"] = 1
    return found


def _lengths(b: Builder, steps: Size, batch: Size) -> Value | None:
    if min(steps.values) < 1:
        return None
    target = b.dims([batch]) if batch.fixed is None or b.flip(0.2) else None
    if target is not None:  # one that a call brings, for all of the batch
        numbers = [[b.number(1, own)] for own in steps.values]
        one = b.run_time(numbers, "i32") if b.features.amounts else b.constant([1], "i32")
        return b.emit("Expand", [one, target], ("i32", (batch,), 8.0))[0]
    if batch.fixed is None:
        return None
    return b.constant(b.rng.integers(1, min(steps.values) + 1, batch.fixed), "i32")


def _weights(b: Builder, *sizes: int) -> Value:
    """Constant ones; some are computed from such."""
    found = b.weight(*sizes, scale=0.6)
    if b.flip(0.9):
        return found
    return b.same("Neg", found)


def layer(b: Builder, x: Value, op: str, states: Sequence[Value]) -> list[Value]:
    """One layer over x [steps, batch, size]: all outputs and the last states."""
    direction = b.choice(("forward", "reverse", "bidirectional", "bidirectional"))
    directions = 2 if direction == "bidirectional" else 1
    hidden, gates, size = b.number(1, 5), GATES[op], x.shape[2].fixed or 1
    steps, batch = x.shape[:2]
    inputs: list[Value | None] = [
        x,
        _weights(b, directions, gates * hidden, size),
        _weights(b, directions, gates * hidden, hidden),
        b.weight(directions, 2 * gates * hidden) if b.flip(0.7) else None,
        _lengths(b, steps, batch) if b.flip(0.3) else None,
    ]
    state = (b.fixed(directions), batch, b.fixed(hidden))
    inputs += [_state(b, state, states) for _ in range(2 if op == "LSTM" else 1)]
    if op == "LSTM" and b.flip(0.3):
        inputs.append(b.weight(directions, 3 * hidden))
    outputs = (steps, b.fixed(directions), batch, b.fixed(hidden))
    results = [("f32", outputs, 4.0), ("f32", state, 4.0)]
    if op == "LSTM":
        results.append(("f32", state, 8.0))
    return b.emit(
        op,
        inputs,
        *results,
        hidden_size=hidden,
        direction=direction,
        **_attributes(b, op, directions),
    )


def recurrent(b: Builder) -> None:
    """One to three layers; the outputs of one, with directions side by side, are the next's."""
    if not b.features.recurrent:
        return
    x = b.pick(
        lambda v: v.kind == "f32" and v.rank == 3 and v.small and v.shape[2].fixed is not None
        and min(s for size in v.shape for s in size.values) > 0 and v.bound <= 8
        and max(v.shape[0].values) <= MOST_STEPS
    )  # fmt: skip
    if x is None:
        return
    states: list[Value] = []
    for _ in range(b.number(1, 3)):
        y, *ends = layer(b, x, b.choice(tuple(GATES)), states)
        states += ends
        steps, directions, batch, hidden = y.shape
        if directions.fixed == 1 and b.flip():
            x = b.emit(
                "Squeeze", [y, b.constant([1], "i64")], ("f32", (steps, batch, hidden), 4.0)
            )[0]
            continue
        turned = (steps, batch, directions, hidden)
        apart = b.emit("Transpose", [y], ("f32", turned, 4.0), perm=[0, 2, 1, 3])[0]
        wide = (steps, batch, b.fixed((directions.fixed or 1) * (hidden.fixed or 1)))
        target = b.constant(np.array([0, 0, -1]), "i64")
        x = b.emit("Reshape", [apart, target], ("f32", wide, 4.0))[0]
    for value in (x, *states[-2:]):
        b.keep(value)


RULES = {recurrent: 7}
