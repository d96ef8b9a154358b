"""Rules of quantised networks."""

from __future__ import annotations

from .builder import Builder, Value


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


RULES = {there_and_back: 1, quantised_linear: 1}
