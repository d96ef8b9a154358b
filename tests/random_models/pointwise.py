"""Rules of operators that work element by element."""

from __future__ import annotations

import numpy as np

from .builder import Builder, Shape, Size, Value, largest

BOUNDED = ("Tanh", "Sigmoid", "Erf", "Sin", "Cos", "Softsign", "HardSigmoid", "Sign")
PLAIN = ("Neg", "Abs", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "HardSwish",
         "Identity", "ThresholdedRelu", "Shrink")  # fmt: skip
ROUNDING = ("Floor", "Ceil", "Round")
COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")


def unary(b: Builder) -> None:
    x = b.pick_float()
    if x is None:
        return
    op = b.choice((*BOUNDED, *PLAIN))
    b.keep(b.same(op, x, 1.0 if op in BOUNDED else 1.1 * x.bound + 1))


def guarded(b: Builder) -> None:
    """Functions that are not defined everywhere, on what they take."""
    x = b.pick_float()
    if x is None:
        return
    op = b.choice(("Log", "Sqrt", "Reciprocal", "Exp", "Asin", "Acos", "Atanh", "Acosh", "Asinh",
                   "Sinh", "Cosh", "Tan", "Atan", "Pow"))  # fmt: skip
    if op in ("Exp", "Sinh", "Cosh", "Tan", "Asin", "Acos", "Atanh"):
        x = b.same("Tanh", x, 1.0)
        if op in ("Asin", "Acos", "Atanh"):
            x = b.emit("Mul", [x, b.constant(0.75)], ("f32", x.shape, 0.75))[0]
    elif op not in ("Asinh", "Atan"):
        magnitude = b.same("Abs", x)
        low = 1.5 if op == "Acosh" else 0.25
        x = b.emit("Add", [magnitude, b.constant(low)], ("f32", x.shape, x.bound + low))[0]
    if op == "Pow":
        power = float(b.choice((-1.0, 0.5, 2.0, 3.0, 0.3)))
        bound = max(x.bound**power, 0.25**power)
        b.keep(b.emit("Pow", [x, b.constant(power)], ("f32", x.shape, bound))[0])
        return
    b.keep(b.same(op, x, x.bound + 4))


def rounding(b: Builder) -> None:
    x = b.pick_float()
    if x is not None:
        b.keep(b.same(b.choice(ROUNDING), _apart(b, x), x.bound + 1))


def _apart(b: Builder, x: Value) -> Value:
    """x moved, so that what saturates does not lie where a step is, an ulp to either side."""
    wide = b.emit("Mul", [x, b.constant(1.37, x.kind)], (x.kind, x.shape, 1.37 * x.bound))[0]
    moved = b.constant(0.2113, x.kind)
    return b.emit("Add", [wide, moved], (x.kind, x.shape, 1.37 * x.bound + 1))[0]


def _partner(b: Builder, x: Value) -> tuple[Value, Shape] | None:
    """Something that broadcasts with x, and the shape of the result."""
    way = b.number(0, 4)
    if way == 0:
        return b.constant(float(b.choice((0.5, -1.5, 2.0, 3.0)))), x.shape
    if way == 1 and x.fixed_axes:
        axis = b.choice(x.fixed_axes)
        sizes = [1] * x.rank
        sizes[axis] = x.shape[axis].fixed or 0
        return b.weight(*sizes[axis if b.flip() else 0 :]), x.shape
    if way == 2:  # a row, a column or an element of x by reduction
        axes = [axis for axis in range(x.rank) if b.flip()]
        if not axes or 0 in (v for axis in axes for v in x.shape[axis].values):
            return None
        shape = tuple(b.fixed(1) if i in axes else size for i, size in enumerate(x.shape))
        return b.reduce("ReduceMax", x, axes, shape, x.bound, keep=True), x.shape
    other = b.pick(lambda v: v.kind == "f32" and _broadcast(b, v, x) is not None)
    if other is None:
        return None
    shape = _broadcast(b, other, x)
    return None if shape is None or largest(shape) > 4096 else (other, shape)


def _broadcast(b: Builder, one: Value, other: Value) -> Shape | None:
    """The shape of a broadcast; dims agree by name, or are 1 by declaration or, with `ones`, in
    the calls where they do not agree."""
    rank = max(one.rank, other.rank)
    pads = [(b.fixed(1),) * (rank - v.rank) + v.shape for v in (one, other)]
    found = []
    for left, right in zip(*pads, strict=True):
        if left.text == "1" or right.text in ("1", left.text):
            found.append(right if left.text == "1" else left)
            continue
        pairs = list(zip(left.values, right.values, strict=True))
        if b.features.twins and all(a == c for a, c in pairs):
            found.append(right if right.fixed is not None else left)
            continue
        if not b.features.ones or any(a != c and 1 not in (a, c) for a, c in pairs):
            return None
        sizes = tuple(c if a == 1 else a for a, c in pairs)
        found.append(Size(f"with({left.text},{right.text})", sizes))
    return tuple(found)


def binary(b: Builder) -> None:
    x = b.pick_float()
    pair = _partner(b, x) if x else None
    if x is None or pair is None:
        return
    other, shape = pair
    op = b.choice(("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "PRelu", "Add", "Mul"))
    bound = x.bound * other.bound if op in ("Mul", "PRelu") else x.bound + other.bound
    operands = [x, other] if b.flip() or op == "PRelu" else [other, x]
    if op == "PRelu" and shape != x.shape:
        return
    if op == "Div":
        positive = b.same("Abs", operands[1])
        one = b.constant(1.0)
        operands[1] = b.emit("Add", [positive, one], ("f32", positive.shape, positive.bound + 1))[0]
        bound = operands[0].bound
    b.keep(b.emit(op, operands, ("f32", shape, bound))[0])


def variadic(b: Builder) -> None:
    x = b.pick_float()
    if x is None:
        return
    others = [b.pick(lambda v: v.kind == "f32" and v.texts == x.texts) for _ in range(2)]
    values = [x, *(v for v in others if v is not None)]
    bound = sum(v.bound for v in values)
    b.keep(b.emit(b.choice(("Sum", "Mean", "Max", "Min")), values, ("f32", x.shape, bound))[0])


def clip(b: Builder) -> None:
    x = b.pick_float()
    if x is None:
        return
    low = b.constant(-float(b.choice((0.5, 1, 2)))) if b.flip(0.7) else None
    high = b.constant(float(b.choice((0.5, 1, 2)))) if b.flip(0.7) else None
    if low is None and high is None:
        return
    b.keep(b.emit("Clip", [x, low, high], ("f32", x.shape, x.bound))[0])


def compare(b: Builder) -> None:
    x = b.pick_float()
    pair = _partner(b, x) if x else None
    if x is None or pair is None:
        return
    b.keep(b.emit(b.choice(COMPARISONS), [x, pair[0]], ("bool", pair[1], 1.0))[0])


def logic(b: Builder) -> None:
    x = b.pick(lambda v: v.kind == "bool")
    if x is None:
        return
    other = b.pick(lambda v: v.kind == "bool" and v.texts == x.texts)
    if other is None or b.flip(0.3):
        b.keep(b.same("Not", x))
    else:
        b.keep(b.emit(b.choice(("And", "Or", "Xor")), [x, other], ("bool", x.shape, 1.0))[0])


def where(b: Builder) -> None:
    condition = b.pick(lambda v: v.kind == "bool")
    if condition is None:
        return
    x = b.pick(lambda v: v.kind == "f32" and _broadcast(b, v, condition) is not None)
    if x is None:
        return
    pair = _partner(b, x)
    if pair is None:
        return
    whole = Value("", "f32", pair[1])
    shape = _broadcast(b, whole, condition)
    if shape is None or largest(shape) > 4096:
        return
    operands = [x, pair[0]] if b.flip() else [pair[0], x]
    bound = max(x.bound, pair[0].bound)
    b.keep(b.emit("Where", [condition, *operands], ("f32", shape, bound))[0])


def cast(b: Builder) -> None:
    x = b.pick(lambda v: v.small and v.kind in ("f32", "f64", "i64", "i32", "bool", "u8", "i8"))
    if x is None:
        return
    kinds = {"f32": ("i64", "i32", "bool", "f64"), "f64": ("f32",), "bool": ("f32", "i64", "i32")}
    kind = b.choice(kinds.get(x.kind, ("f32", "f32", "i64", "bool")))
    if x.is_float and kind in ("i64", "i32"):
        x = _apart(b, x)
    code = {"f32": 1, "i32": 6, "i64": 7, "bool": 9, "f64": 11}[kind]
    b.keep(b.emit("Cast", [x], (kind, x.shape, x.bound), to=code)[0])


def integers(b: Builder) -> None:
    """Arithmetic of integers, kept small."""
    x = b.pick(lambda v: v.kind in ("i64", "i32") and v.small)
    if x is None:
        return
    other = b.pick(lambda v: v.kind == x.kind and v.texts == x.texts)
    if other is None or b.flip():
        other = b.constant(b.choice((2, 3, -1, 5)), x.kind)
    op = b.choice(("Add", "Sub", "Mul", "Mod", "Div", "Max", "Min", "Abs", "Neg"))
    if op in ("Abs", "Neg"):
        b.keep(b.same(op, x))
        return
    if op in ("Div", "Mod"):
        other = b.constant(b.choice((2, 3, 5, -3)), x.kind)
    result = b.emit(op, [x, other], (x.kind, x.shape, x.bound))[0]
    if op == "Mul" or b.flip(0.3):
        seven = b.constant(7, x.kind)
        result = b.emit("Mod", [result, seven], (x.kind, x.shape, 7.0))[0]
    b.keep(result)


def doubles(b: Builder) -> None:
    x = b.pick(lambda v: v.kind == "f64" and v.small)
    if x is None:
        return
    op = b.choice(("Exp", "Tanh", "Neg", "Floor", "Abs"))
    x = _apart(b, x) if op == "Floor" else x
    if op == "Exp":
        x = b.same("Tanh", x, 1.0)
    made = b.same(op, x, x.bound + 2)
    scaled = b.emit("Mul", [made, b.constant(0.7, "f64")], ("f64", x.shape, made.bound))[0]
    b.keep(b.emit("Cast", [scaled], ("f32", x.shape, made.bound), to=1)[0])


def source(b: Builder) -> None:
    """A new tensor that depends on sizes only."""
    x = b.pick(lambda v: 1 <= v.rank <= 3 and v.small)
    wanted = b.dims(x.shape) if x else None
    if x is None or wanted is None:
        return
    if b.flip():
        from onnx import numpy_helper

        fill = numpy_helper.from_array(np.float32([0.5]))
        b.keep(b.emit("ConstantOfShape", [wanted], ("f32", x.shape, 0.5), value=fill)[0])
        return
    axis = b.number(0, x.rank - 1)
    index = b.constant(axis, "i64")
    end = b.emit("Gather", [wanted, index], ("i64", (), 8.0), axis=0)[0]
    ends = [b.constant(0, "i64"), end, b.constant(1, "i64")]
    b.keep(b.emit("Range", ends, ("i64", (x.shape[axis],), 16.0))[0])


RULES = {
    unary: 6, guarded: 3, rounding: 1, binary: 8, variadic: 1, clip: 1, compare: 3, logic: 2,
    where: 5, cast: 3, integers: 3, doubles: 1, source: 1,
}  # fmt: skip
