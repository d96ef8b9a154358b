"""Rules of operators of com.microsoft, as optimised files have them."""

from __future__ import annotations

from .builder import Builder, Value, largest

DOMAIN = "com.microsoft"


def _picked(b: Builder, low: int = 1, high: int = 4) -> Value | None:
    if not b.features.contrib:
        return None
    x = b.pick_float(low, high)
    return None if x is None or any(0 in size.values for size in x.shape) else x


def activation(b: Builder) -> None:
    x = _picked(b)
    if x is None:
        return
    op = b.choice(("Gelu", "FastGelu", "QuickGelu", "BiasGelu"))
    width = x.shape[-1].fixed
    if op == "BiasGelu" and not width:
        return
    inputs = [x]
    if width and (op == "BiasGelu" or (op == "FastGelu" and b.flip())):
        inputs.append(b.weight(width))
    more = {"alpha": 1.3} if op == "QuickGelu" else {}
    result = ("f32", x.shape, x.bound + 1)
    b.keep(b.emit(op, inputs, result, domain=DOMAIN, **more)[0])


def skip_norm(b: Builder) -> None:
    x = _picked(b, 3, 3)
    if x is None or (x.shape[-1].fixed or 0) < 2:
        return
    width = x.shape[-1].fixed or 1
    skip = b.pick(lambda v: v.kind == "f32" and v.texts == x.texts and v is not x) or x
    plain = b.flip()
    op = "SkipLayerNormalization" if plain else "SkipSimplifiedLayerNormalization"
    inputs = [x, skip, b.weight(width), *([b.weight(width)] if plain else [])]
    result = ("f32", x.shape, 4.0)
    b.keep(b.emit(op, inputs, result, domain=DOMAIN, epsilon=1e-2)[0])


def product(b: Builder) -> None:
    """FusedMatMul, either operand turned, with a factor."""
    x = _picked(b, 2, 4)
    if x is None:
        return
    turned_x, turned_w = b.number(0, 1), b.number(0, 1)
    rows, depth = (x.shape[-1], x.shape[-2]) if turned_x else x.shape[-2:]
    if not depth.fixed:
        return
    width = b.number(1, 6)
    w = b.weight(width, depth.fixed) if turned_w else b.weight(depth.fixed, width)
    shape = (*x.shape[:-2], rows, b.fixed(width))
    bound = x.bound * depth.fixed
    if largest(shape) <= 4096:
        more = {"transA": turned_x, "transB": turned_w, "alpha": b.choice((1.0, 0.5))}
        result = ("f32", shape, bound)
        b.keep(b.emit("FusedMatMul", [x, w], result, domain=DOMAIN, **more)[0])


RULES = {activation: 1, skip_norm: 1, product: 1}
