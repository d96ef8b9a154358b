"""Rules of elements of other types: integers of all widths, floats of 16 and 64 bits."""

from __future__ import annotations

import numpy as np

from .builder import KINDS, Builder, Value

INTEGERS = ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64")
ALONG = ("ReduceMax", "ReduceMin", "ReduceSum", "CumSum", "ArgMax", "MatMul")
UNSIGNED = ("u8", "u16", "u32", "u64")
HALF_UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Sqrt", "Erf", "Softplus")


def _cast(b: Builder, x: Value, kind: str, bound: float | None = None) -> Value:
    own = x.bound if bound is None else bound
    return b.emit("Cast", [x], (kind, x.shape, own), to=KINDS[kind][0])[0]


def integral(b: Builder) -> None:
    """An integer type of a float tensor, without anything that is near a step or does not fit."""
    x = b.pick_float()
    if x is None or not b.features.kinds:
        return
    kind = b.choice(INTEGERS)
    low = 0.0 if kind in UNSIGNED else -90.0
    wide = b.emit("Mul", [x, b.constant(1.37)], ("f32", x.shape, 1.37 * x.bound))[0]
    moved = b.emit("Add", [wide, b.constant(0.2113)], ("f32", x.shape, wide.bound + 1))[0]
    held = b.emit("Clip", [moved, b.constant(low), b.constant(90.4)], ("f32", x.shape, 90.4))[0]
    b.keep(_cast(b, held, kind, min(moved.bound, 91.0)))


def whole(b: Builder) -> None:
    """Operators that take integers, and a float tensor of what comes out now and then."""
    x = b.pick(lambda v: v.kind in INTEGERS and v.small and v.bound <= 1000)
    if x is None or not b.features.kinds:
        return
    wide = x.kind in ("i32", "i64")
    ops = ["Mod", "Equal", "Greater", "Sign", "Abs"]
    ops += ["Min", "Max", "Clip"] if x.kind not in ("i16", "u16") else []
    ops += ["Where"] if x.kind not in ("i16", "u16", "u64") else []
    ops += ["Add", "Sub", "Mul", "Div"] if wide else []
    ops += ["Pow", *ALONG] if wide else []
    ops += ["BitShift"] if x.kind in UNSIGNED else []
    if b.opset >= 18:
        ops += ["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"]
    made = _of_integers(b, x, b.choice(ops))
    if made is not None:
        b.keep(made)
        if made.kind in INTEGERS and b.flip():
            b.keep(_cast(b, made, "f32"))


def _of_integers(b: Builder, x: Value, op: str) -> Value | None:
    same = (x.kind, x.shape, x.bound)
    other = b.pick(lambda v: v.kind == x.kind and v.texts == x.texts and v.bound <= 1000)
    if other is None or b.flip():
        other = b.constant(b.choice((1, 2, 3, 5)), x.kind)
    if op in ("Sign", "Abs"):
        if x.kind in UNSIGNED and op == "Abs":
            return None
        return b.same(op, x)
    if op == "BitwiseNot":
        return b.emit(op, [x], (x.kind, x.shape, 2.0**31 if x.kind in UNSIGNED else x.bound + 1))[0]
    if op == "Mod":
        return b.emit(op, [x, b.constant(b.choice((2, 3, 7)), x.kind)], same)[0]
    if op == "Div":
        return b.emit(op, [x, b.constant(b.choice((2, 3, -5)), x.kind)], same)[0]
    if op == "BitShift":
        amount = b.constant(b.number(0, 3), x.kind)
        way = b.choice(("LEFT", "RIGHT"))
        bound = 255.0 if x.kind == "u8" else 8 * x.bound
        return b.emit(op, [x, amount], (x.kind, x.shape, bound), direction=way)[0]
    if op in ("Equal", "Greater"):
        return b.emit(op, [x, other], ("bool", x.shape, 1.0))[0]
    if op == "Clip":
        return b.emit(op, [x, b.constant(1, x.kind), b.constant(5, x.kind)], same)[0]
    if op == "Where":
        mask = b.emit("Greater", [x, b.constant(2, x.kind)], ("bool", x.shape, 1.0))[0]
        return b.emit(op, [mask, x, other], (x.kind, x.shape, max(x.bound, other.bound)))[0]
    if op == "Pow":
        return b.emit(op, [x, b.constant(2, x.kind)], (x.kind, x.shape, x.bound**2))[0]
    if op == "Mul":
        return b.emit(op, [x, other], (x.kind, x.shape, x.bound * other.bound))[0]
    if op in ALONG:
        return _along(b, x, op)
    return b.emit(op, [x, other], (x.kind, x.shape, x.bound + other.bound))[0]


def _along(b: Builder, x: Value, op: str) -> Value | None:
    """Of integers, along an axis."""
    if x.rank == 0 or any(0 in size.values for size in x.shape):
        return None
    axis = b.number(0, x.rank - 1)
    bound = x.bound * max(x.shape[axis].values)
    if op == "CumSum":
        at = b.constant(b.axis(axis, x.rank), "i64")
        return b.emit(op, [x, at], (x.kind, x.shape, bound))[0]
    if op == "MatMul":
        depth = x.shape[-1].fixed
        if x.rank < 2 or not depth:
            return None
        w = b.constant(b.rng.integers(-3, 4, (depth, 3)), x.kind)
        shape = (*x.shape[:-1], b.fixed(3))
        return b.emit(op, [x, w], (x.kind, shape, 3 * x.bound * depth))[0]
    shape = (*x.shape[:axis], b.fixed(1), *x.shape[axis + 1 :])
    if op == "ArgMax":
        return b.emit(op, [x], ("i64", shape, 16.0), axis=b.axis(axis, x.rank))[0]
    return b.reduce(op, x, [b.axis(axis, x.rank)], shape, bound, keep=True)


def halves(b: Builder) -> None:
    """A stretch of float16, or through bfloat16 and back."""
    x = b.pick(lambda v: v.kind in ("f32", "f16") and v.small and v.bound <= 100)
    if x is None or not b.features.kinds:
        return
    if x.kind == "f32" and b.flip(0.3):
        b.keep(_cast(b, _cast(b, x, "bf16"), "f32"))
        return
    h = x if x.kind == "f16" else _cast(b, x, "f16")
    for _ in range(b.number(1, 3)):
        h = _half(b, h)
    b.keep(h if b.flip(0.3) else _cast(b, h, "f32"))


def _half(b: Builder, h: Value) -> Value:
    way = b.number(0, 4)
    if way == 0:
        op = b.choice(HALF_UNARY)
        if h.bound > 2:  # what saturates has many equal elements
            h = b.emit("Mul", [h, b.constant(2 / h.bound, "f16")], ("f16", h.shape, 2.0))[0]
        if op in ("Exp", "Sqrt"):
            h = b.same("Sigmoid", h, 1.0)
        return b.same(op, h, min(h.bound + 1, 4.0) if op in ("Exp", "Sqrt") else h.bound + 1)
    if way == 1 and h.rank and not any(0 in size.values for size in h.shape):
        return b.same("Softmax", h, 1.0, axis=b.number(-h.rank, h.rank - 1))
    depth = h.shape[-1].fixed if h.rank >= 2 else None
    if way == 2 and depth:
        w = b.constant(b.rng.uniform(-1, 1, (depth, 3)) / depth, "f16")
        return b.emit("MatMul", [h, w], ("f16", (*h.shape[:-1], b.fixed(3)), h.bound))[0]
    op = b.choice(("Add", "Mul", "Sub", "Max", "Min"))
    number = b.constant(b.choice((0.5, -1.25, 0.75)), "f16")
    return b.emit(op, [h, number], ("f16", h.shape, h.bound * 1.25 + 1.25))[0]


def double(b: Builder) -> None:
    """A stretch of float64."""
    x = b.pick(lambda v: v.kind in ("f32", "f64") and v.small and v.rank > 0 and v.bound <= 100)
    if x is None or not b.features.kinds:
        return
    d = x if x.kind == "f64" else _cast(b, x, "f64")
    depth = d.shape[-1].fixed if d.rank >= 2 else None
    empty = any(0 in size.values for size in d.shape)
    way = b.number(0, 3)
    if way == 0 and depth:
        w = b.constant(b.rng.uniform(-1, 1, (depth, 4)), "f64")
        d = b.emit("MatMul", [d, w], ("f64", (*d.shape[:-1], b.fixed(4)), d.bound * depth))[0]
    elif way == 1 and not empty:
        d = b.same(b.choice(("Softmax", "LogSoftmax")), d, 2 * d.bound + 8, axis=-1)
    elif way == 2 and not empty:
        axis = b.number(0, d.rank - 1)
        shape = (*d.shape[:axis], b.fixed(1), *d.shape[axis + 1 :])
        op = b.choice(("ReduceSum", "ReduceMean", "ReduceMax"))
        d = b.reduce(op, d, [axis], shape, d.bound * max(d.shape[axis].values), keep=True)
    else:
        number = b.constant(b.choice((0.3, -1.7)), "f64")
        op = b.choice(("Add", "Mul", "Sub"))
        d = b.emit(op, [d, number], ("f64", d.shape, 2 * d.bound + 2))[0]
    b.keep(d if b.flip(0.4) else _cast(b, d, "f32"))


def special(b: Builder) -> None:
    """Which elements are not numbers, or infinite; remainders of floats; signs of zero."""
    x = b.pick_float()
    if x is None:
        return
    way = b.number(0, 2)
    if way == 0:
        zero = b.emit("Sub", [x, x], ("f32", x.shape, 0.0))[0]
        held = b.emit("Max", [x, zero], ("f32", x.shape, x.bound))[0]
        odd = b.emit("Div", [held, zero], ("f32", x.shape, 1.0))[0]  # NaN and infinity
        op = b.choice(("IsNaN", "IsInf"))
        b.keep(b.emit(op, [odd], ("bool", x.shape, 1.0))[0])
    elif way == 1:
        number = b.constant(b.choice((0.7, -1.3)))
        b.keep(b.emit("Mod", [x, number], ("f32", x.shape, 1.3), fmod=1)[0])
    else:
        to = b.constant(np.zeros(1), b.choice(("i32", "f64", "i64")))
        wide = b.emit("Mul", [x, b.constant(1.37)], ("f32", x.shape, 1.37 * x.bound))[0]
        moved = b.emit("Add", [wide, b.constant(0.2113)], ("f32", x.shape, wide.bound + 1))[0]
        b.keep(b.emit("CastLike", [moved, to], (to.kind, x.shape, moved.bound))[0])


RULES = {integral: 2, whole: 4, halves: 2, double: 2, special: 1}
