"""Rules of operators of opset 18 and later."""

from __future__ import annotations

import numpy as np

from .builder import Builder, Shape, Value, largest


def _keep(b: Builder, op: str, inputs: list[Value | None], shape: Shape, bound: float,
          **more: object) -> None:  # fmt: skip
    if largest(shape) <= 4096:
        b.keep(b.emit(op, inputs, ("f32", shape, bound), **more)[0])


def _picked(b: Builder, opset: int, low: int = 0, high: int = 5) -> Value | None:
    if b.opset < opset:
        return None
    x = b.pick_float(low, high)
    return None if x is None or any(0 in size.values for size in x.shape) else x


def activation(b: Builder) -> None:
    x = _picked(b, 18)
    if x is None:
        return
    if b.opset >= 20 and b.flip():
        b.keep(b.same("Gelu", x, x.bound, approximate=b.choice(("none", "tanh"))))
    else:
        b.keep(b.same("Mish", x, x.bound))


def center(b: Builder) -> None:
    """CenterCropPad to sizes that a call brings."""
    x = _picked(b, 18, 1, 4)
    if x is None or not b.features.amounts:
        return
    axis = b.number(0, x.rank - 1)
    wanted = [[b.number(1, 7)] for _ in range(b.calls)]
    shape = (*x.shape[:axis], b.size([own[0] for own in wanted]), *x.shape[axis + 1 :])
    _keep(b, "CenterCropPad", [x, b.amounts(wanted)], shape, x.bound,
          axes=[b.axis(axis, x.rank)])  # fmt: skip


def columns(b: Builder) -> None:
    """Col2Im of what has a fixed shape."""
    x = _picked(b, 18, 3, 3)
    if x is None or len(x.fixed_axes) < 3:
        return
    _, depth, blocks = (size.fixed or 0 for size in x.shape)
    kernel = 2 if depth % 2 == 0 else 1
    width = blocks + kernel - 1
    image, block = b.constant([1, width], "i64"), b.constant([1, kernel], "i64")
    shape = (x.shape[0], b.fixed(depth // kernel), b.fixed(1), b.fixed(width))
    _keep(b, "Col2Im", [x, image, block], shape, 2 * x.bound)


def extremes_scattered(b: Builder) -> None:
    """ScatterElements and ScatterND that multiply, or keep the greater or the less; several updates
    of one place."""
    x = _picked(b, 18, 1, 3)
    if x is None or len(x.fixed_axes) < x.rank:
        return
    way = b.choice(("mul", "max", "min", "add"))
    sizes = [size.fixed or 1 for size in x.shape]
    axis = b.number(0, x.rank - 1)
    bound = (x.bound + 1) * 4
    if b.flip():
        count = list(sizes)
        count[axis] = b.number(1, 3)
        low = -sizes[axis] if b.flip() else 0
        places = b.rng.integers(low, sizes[axis], count)
        inputs = [x, b.constant(places, "i64"), b.weight(*count)]
        _keep(b, "ScatterElements", inputs, x.shape, bound, axis=b.axis(axis, x.rank),
              reduction=way)  # fmt: skip
    else:
        depth = b.number(1, x.rank)
        count = b.number(1, 3)
        pairs = np.stack([b.rng.integers(-n, n, count) for n in sizes[:depth]], -1)
        inputs = [x, b.constant(pairs, "i64"), b.weight(count, *sizes[depth:])]
        _keep(b, "ScatterND", inputs, x.shape, bound, reduction=way)


def group_norm(b: Builder) -> None:
    x = _picked(b, 21, 3, 4)
    if x is None or not x.shape[1].fixed or largest(x.shape[2:]) < 2:
        return
    if min(value for size in x.shape[2:] for value in size.values) < 2:
        return
    channels = x.shape[1].fixed
    groups = b.choice([g for g in (1, 2, channels) if channels % g == 0])
    inputs = [x, b.weight(channels), b.weight(channels)]
    _keep(b, "GroupNormalization", inputs, x.shape, 6.0, num_groups=groups, epsilon=1e-2)


def rms_norm(b: Builder) -> None:
    x = _picked(b, 23, 2, 4)
    if x is None or not x.shape[-1].fixed:
        return
    _keep(b, "RMSNormalization", [x, b.weight(x.shape[-1].fixed)], x.shape, 4.0, epsilon=1e-2)


def attend(b: Builder) -> None:
    """The operator Attention, of [batch, heads, steps, width]."""
    q = _picked(b, 23, 4, 4)
    if q is None or not q.shape[-1].fixed or not q.shape[1].fixed:
        return
    q = b.same("Tanh", q, 1.0)
    k, v = (b.same(op, q, 1.0) for op in ("Neg", "Sin"))
    more: dict[str, object] = {"is_causal": b.number(0, 1)}
    if b.flip(0.3):
        more["scale"] = 0.4
    if b.flip(0.2):
        more["softcap"] = 2.0
    _keep(b, "Attention", [q, k, v], q.shape, 1.0, **more)


def antialiased(b: Builder) -> None:
    """Pictures made smaller with all they hold."""
    x = _picked(b, 18, 4, 4)
    if x is None or len(x.fixed_axes) < 4:
        return
    n, c, h, w = (size.fixed or 1 for size in x.shape)
    after = [n, c, b.number(1, h), b.number(1, w)]
    more = {"mode": b.choice(("linear", "cubic")), "antialias": 1}
    _keep(b, "Resize", [x, None, None, b.constant(after, "i64")], b.shape(*after),
          1.5 * x.bound, **more)  # fmt: skip


RULES = {
    activation: 1, center: 1, columns: 1, extremes_scattered: 2, group_norm: 1, rms_norm: 1,
    attend: 1, antialiased: 1,
}  # fmt: skip
