"""Rules of quantised networks."""

from __future__ import annotations

import numpy as np

from .builder import Builder, Value, largest


def _pair(b: Builder, kind: str, scale: float) -> tuple[Value, Value]:
    return b.constant(scale), b.constant(b.number(0, 9) if kind == "u8" else 0, kind)


def there_and_back(b: Builder) -> None:
    x = b.pick_float(1)
    if x is None or not b.features.quantised:
        return
    kind = b.choice(("u8", "i8"))
    scale, point = _pair(b, kind, 0.037 * max(1.0, x.bound))
    small = b.emit("QuantizeLinear", [x, scale, point], (kind, x.shape, 255.0))[0]
    if b.flip(0.3):
        b.keep(small)
    b.keep(b.emit("DequantizeLinear", [small, scale, point], ("f32", x.shape, 8 * x.bound))[0])


def quantised_linear(b: Builder) -> None:
    """A product between quantised operands, written with QuantizeLinear and DequantizeLinear."""
    x = b.pick_float(2, 3)
    if x is None or not b.features.quantised or not x.shape[-1].fixed:
        return
    scale, point = _pair(b, "u8", 0.021 * max(1.0, x.bound))
    small = b.emit("QuantizeLinear", [x, scale, point], ("u8", x.shape, 255.0))[0]
    real = b.emit("DequantizeLinear", [small, scale, point], ("f32", x.shape, x.bound))[0]
    width = b.number(1, 5)
    w = b.constant(b.rng.integers(-99, 99, (x.shape[-1].fixed, width)), "i8")
    wide = b.shape(x.shape[-1].fixed, width)
    weights = b.emit(
        "DequantizeLinear", [w, b.constant(0.0113), b.constant(0, "i8")], ("f32", wide, 1.2)
    )[0]
    shape = (*x.shape[:-1], b.fixed(width))
    bound = 2 * x.bound * x.shape[-1].fixed
    b.keep(b.emit("MatMul", [real, weights], ("f32", shape, bound))[0])


def _read(b: Builder, x: Value, kind: str = "u8") -> tuple[Value, Value, Value, Value]:
    """x in bytes and again in floats, with their scale and zero point."""
    scale, point = _pair(b, kind, 0.021 * max(1.0, x.bound))
    small = b.emit("QuantizeLinear", [x, scale, point], (kind, x.shape, 255.0))[0]
    real = b.emit("DequantizeLinear", [small, scale, point], ("f32", x.shape, x.bound))[0]
    return small, real, scale, point


def _written(b: Builder, made: Value) -> Value:
    """What a quantised layer made, in bytes and again in floats."""
    return _read(b, made, b.choice(("u8", "i8")))[1]


def quantised_convolution(b: Builder) -> None:
    """With a scale for each filter and a bias of 32 bits; activation and requantisation."""
    x = b.pick_float(4, 4)
    if x is None or not b.features.quantised or not x.shape[1].fixed:
        return
    if min(value for size in x.shape for value in size.values) < 1:
        return
    _, real, scale, _ = _read(b, x)
    channels, filters = x.shape[1].fixed, b.number(1, 4)
    kernel = b.choice((1, 3))
    w = b.constant(b.rng.integers(-99, 99, (filters, channels, kernel, kernel)), "i8")
    scales = b.constant(b.rng.uniform(0.004, 0.02, filters))
    points = b.constant(np.zeros(filters), "i8")
    weights = b.emit("DequantizeLinear", [w, scales, points], ("f32", w.shape, 2.0), axis=0)[0]
    inputs = [real, weights]
    if b.flip():
        both = b.emit("Mul", [scales, scale], ("f32", scales.shape, 1.0))[0]
        bias = b.constant(b.rng.integers(-300, 300, filters), "i32")
        inputs += b.emit("DequantizeLinear", [bias, both], ("f32", bias.shape, 8.0), axis=0)
    shape = (x.shape[0], b.fixed(filters), *x.shape[2:])
    bound = 2 * x.bound * channels * kernel**2 + 8
    made = b.emit("Conv", inputs, ("f32", shape, bound), pads=[kernel // 2] * 4)[0]
    if b.flip():
        made = b.same("Relu", made)
    b.keep(_written(b, made) if b.flip(0.7) else made)


def quantised_pointwise(b: Builder) -> None:
    """Sums, products, joins and pools between bytes."""
    x = b.pick_float(1, 4)
    if x is None or not b.features.quantised:
        return
    other = b.pick(lambda v: v.kind == "f32" and v.texts == x.texts) or x
    mine, own = _read(b, x)[1], _read(b, other, b.choice(("u8", "i8")))[1]
    op = b.choice(("Add", "Mul", "Concat", "Sigmoid", "Softmax", "Transpose"))
    if op in ("Add", "Mul"):
        bound = mine.bound * own.bound if op == "Mul" else mine.bound + own.bound
        made = b.emit(op, [mine, own], ("f32", x.shape, bound))[0]
    elif op == "Concat":
        axis = b.number(0, x.rank - 1)
        shape = (*x.shape[:axis], x.shape[axis] + x.shape[axis], *x.shape[axis + 1 :])
        if largest(shape) > 4096:
            return
        made = b.emit(op, [mine, own], ("f32", shape, max(mine.bound, own.bound)), axis=axis)[0]
    elif op == "Transpose":
        made = b.emit(op, [mine], ("f32", x.shape[::-1], mine.bound))[0]
    elif op == "Softmax" and any(0 in size.values for size in x.shape):
        return
    else:
        made = b.same(op, mine, 1.0)
    b.keep(_written(b, made))


def quantised_operator(b: Builder) -> None:
    """QLinearMatMul, QLinearConv and ConvInteger of bytes."""
    x = b.pick_float(2, 4)
    if x is None or not b.features.quantised or any(0 in size.values for size in x.shape):
        return
    small, _, scale, point = _read(b, x)
    depth = x.shape[-1].fixed
    if x.rank <= 3 and depth:
        width = b.number(1, 5)
        w = b.constant(b.rng.integers(-99, 99, (depth, width)), "i8")
        factor, zero = b.constant(0.0113), b.constant(0, "i8")
        wide, centre = b.constant(0.05 * max(1.0, x.bound)), b.constant(b.number(0, 9), "u8")
        shape = (*x.shape[:-1], b.fixed(width))
        inputs = [small, scale, point, w, factor, zero, wide, centre]
        made = b.emit("QLinearMatMul", inputs, ("u8", shape, 255.0))[0]
    elif x.rank == 4 and x.shape[1].fixed:
        filters = b.number(1, 3)
        w = b.constant(b.rng.integers(-99, 99, (filters, x.shape[1].fixed, 1, 1)), "i8")
        shape = (x.shape[0], b.fixed(filters), *x.shape[2:])
        if b.flip(0.4):
            found = b.emit("ConvInteger", [small, w, point], ("i32", shape, 1e6))[0]
            real = b.emit("Cast", [found], ("f32", shape, 1e6), to=1)[0]
            wide = b.constant(2e-4)
            b.keep(b.emit("Mul", [real, wide], ("f32", shape, 200.0))[0])
            return
        factor, zero = b.constant(np.full(filters, 0.0113)), b.constant(np.zeros(filters), "i8")
        wide, centre = b.constant(0.05 * max(1.0, x.bound)), b.constant(b.number(0, 9), "u8")
        bias = b.constant(b.rng.integers(-300, 300, filters), "i32")
        inputs = [small, scale, point, w, factor, zero, wide, centre, bias]
        made = b.emit("QLinearConv", inputs, ("u8", shape, 255.0))[0]
    else:
        return
    bound = 13 * max(1.0, x.bound)
    b.keep(b.emit("DequantizeLinear", [made, wide, centre], ("f32", made.shape, bound))[0])


RULES = {
    there_and_back: 1, quantised_linear: 1, quantised_convolution: 1, quantised_pointwise: 1,
    quantised_operator: 1,
}  # fmt: skip
