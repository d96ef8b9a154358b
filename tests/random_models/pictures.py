"""Rules of pictures: pools with places, windows padded by name, samples, regions, boxes."""

from __future__ import annotations

from math import ceil

import numpy as np

from .builder import Builder, Shape, Size, Value, largest


def _picture(b: Builder, low: int = 4, high: int = 4) -> Value | None:
    """A visible tensor of channels and an area that has elements in every call."""
    x = b.pick_float(low, high)
    if x is None or any(0 in size.values for size in x.shape):
        return None
    return x


def _keep(b: Builder, op: str, inputs: list[Value | None], shape: Shape, bound: float,
          **more: object) -> None:  # fmt: skip
    if largest(shape) <= 4096:
        b.keep(b.emit(op, inputs, ("f32", shape, bound), **more)[0])


def _named(size: Size, mode: str, kernel: int, stride: int, b: Builder) -> Size:
    """A dim behind windows that are padded by a name."""
    if mode == "VALID":
        values = tuple((value - kernel) // stride + 1 for value in size.values)
    else:
        values = tuple(ceil(value / stride) for value in size.values)
    if size.fixed is not None:
        return b.fixed(values[0])
    return size if values == size.values else Size(f"{mode}{kernel}{stride}({size.text})", values)


def windows(b: Builder) -> None:
    """Convolutions and pools with SAME and VALID padding."""
    x = _picture(b, 3, 4)
    if x is None or not x.shape[1].fixed:
        return
    mode = b.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
    space = x.shape[2:]
    kernel = [b.choice((1, 2, 3)) for _ in space]
    strides = [b.choice((1, 2)) for _ in space]
    if mode != "VALID":  # steps over elements want a padding below zero, which ONNX Runtime refuses
        strides = [min(pair) for pair in zip(strides, kernel, strict=True)]
    after = tuple(
        _named(size, mode, k, s, b) for size, k, s in zip(space, kernel, strides, strict=True)
    )
    if min(value for size in after for value in size.values) < 1:
        return
    more = {"auto_pad": mode, "kernel_shape": kernel, "strides": strides}
    if b.flip():
        filters = b.number(1, 4)
        w = b.weight(filters, x.shape[1].fixed, *kernel)
        bound = x.bound * x.shape[1].fixed * largest(b.shape(*kernel))
        _keep(b, "Conv", [x, w], (x.shape[0], b.fixed(filters), *after), bound, **more)
    else:
        op = b.choice(("MaxPool", "AveragePool"))
        _keep(b, op, [x], (*x.shape[:2], *after), x.bound, **more)


def pool_with_places(b: Builder) -> None:
    """MaxPool that says where, with dilations or up to the last window; and back by MaxUnpool."""
    x = _picture(b)
    if x is None:
        return
    if b.flip(0.4) and all(s.fixed and s.fixed % 2 == 0 for s in x.shape[2:]) and x.shape[1].fixed:
        half = (*x.shape[:2], *(b.fixed((s.fixed or 0) // 2) for s in x.shape[2:]))
        more = {"kernel_shape": [2, 2], "strides": [2, 2]}
        values, places = b.emit("MaxPool", [x], ("f32", half, x.bound), ("i64", half, 1e4), **more)
        _keep(b, "MaxUnpool", [values, places], x.shape, x.bound, **more)
        return
    kernel, stride, dilation = b.choice((2, 3)), b.choice((1, 2)), b.choice((1, 2))
    up = b.number(0, 1)

    def after(size: Size) -> Size:
        spans = [value - dilation * (kernel - 1) - 1 for value in size.values]
        values = tuple((-(-span // stride) if up else span // stride) + 1 for span in spans)
        if up:  # no window begins behind the end
            values = tuple(
                n - ((n - 1) * stride >= value)
                for n, value in zip(values, size.values, strict=True)
            )
        text = f"p{kernel}{stride}{dilation}{up}({size.text})"
        return b.fixed(values[0]) if size.fixed is not None else Size(text, values)

    space = tuple(map(after, x.shape[2:]))
    if min(value for size in space for value in size.values) < 1:
        return
    more = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "ceil_mode": up}
    shape = (*x.shape[:2], *space)
    if dilation == 1 and b.flip(0.3):
        _keep(b, "AveragePool", [x], shape, x.bound, count_include_pad=b.number(0, 1), **more)
        return
    results = [("f32", shape, x.bound), ("i64", shape, 1e4)]
    made = b.emit("MaxPool", [x], *results[: b.number(1, 2)], dilations=[dilation] * 2, **more)
    for value in made:
        b.keep(value)


def turned_windows(b: Builder) -> None:
    """ConvTranspose with pads, output padding, groups and dilations."""
    x = _picture(b)
    if x is None or not x.shape[1].fixed:
        return
    channels = x.shape[1].fixed
    group = b.choice([g for g in (1, 2, channels) if channels % g == 0])
    kernel, stride, dilation = b.choice((2, 3)), b.choice((1, 2, 3)), b.choice((1, 1, 2))
    pad = b.number(0, 1)
    more_behind = b.number(0, min(1, stride - 1))
    filters = b.number(1, 2)
    w = b.weight(channels, filters, kernel, kernel)

    def after(size: Size) -> Size:
        values = tuple(
            (value - 1) * stride + dilation * (kernel - 1) + 1 - 2 * pad + more_behind
            for value in size.values
        )
        text = f"u{kernel}{stride}{dilation}{pad}{more_behind}({size.text})"
        return b.fixed(values[0]) if size.fixed is not None else Size(text, values)

    space = tuple(map(after, x.shape[2:]))
    if min(value for size in space for value in size.values) < 1:
        return
    bound = x.bound * channels * kernel * kernel
    bias = b.weight(filters * group) if b.flip() else None
    shape = (x.shape[0], b.fixed(filters * group), *space)
    _keep(b, "ConvTranspose", [x, w, bias], shape, bound, group=group, pads=[pad] * 4,
          strides=[stride] * 2, dilations=[dilation] * 2,
          output_padding=[more_behind] * 2)  # fmt: skip


def grid_sample(b: Builder) -> None:
    x = _picture(b)
    if x is None:
        return
    rows, columns = b.number(1, 4), b.number(1, 4)
    batch = x.shape[0]
    table = b.constant(b.rng.uniform(-1.3, 1.3, (1, rows, columns, 2)))
    target = b.dims((batch, *b.shape(rows, columns, 2)))
    if target is None:
        return
    shape = (batch, *b.shape(rows, columns, 2))
    grid = b.emit("Expand", [table, target], ("f32", shape, 1.3))[0]
    modes = ("bilinear", "nearest", "bicubic") if b.opset < 20 else ("linear", "nearest", "cubic")
    more = {
        "mode": b.choice(modes),
        "padding_mode": b.choice(("zeros", "border", "reflection")),
        "align_corners": b.number(0, 1),
    }
    after = (*x.shape[:2], b.fixed(rows), b.fixed(columns))
    _keep(b, "GridSample", [x, grid], after, 2 * x.bound, **more)


def regions(b: Builder) -> None:
    """RoiAlign and MaxRoiPool of constant boxes."""
    x = _picture(b)
    if x is None or b.opset >= 22:
        return
    count = b.number(1, 3)
    least = min(value for size in x.shape[2:] for value in size.values)
    corners = np.sort(b.rng.uniform(0, least, (count, 2, 2)), axis=1).reshape(count, 4)
    batches = b.rng.integers(0, min(x.shape[0].values), count)
    pooled = [b.number(1, 3), b.number(1, 3)]
    shape = (b.fixed(count), x.shape[1], *map(b.fixed, pooled))
    if b.flip(0.3):
        boxes = b.constant(np.concatenate([batches[:, None], np.floor(corners)], 1))
        _keep(b, "MaxRoiPool", [x, boxes], shape, x.bound, pooled_shape=pooled)
        return
    more = {
        "coordinate_transformation_mode": b.choice(("half_pixel", "output_half_pixel")),
        "sampling_ratio": b.number(0, 2),
    }
    if more["sampling_ratio"] == 1:  # ONNX Runtime's maxima of other numbers are not the standard's
        more["mode"] = "max"
    inputs = [x, b.constant(corners), b.constant(batches, "i64")]
    _keep(b, "RoiAlign", inputs, shape, x.bound, output_height=pooled[0],
          output_width=pooled[1], **more)  # fmt: skip


def boxes(b: Builder) -> None:
    """NonMaxSuppression of computed scores; how many are left, and the sum of their places."""
    x = b.pick_float(1, 3)
    if x is None or not b.features.run_time_sizes or any(0 in s.values for s in x.shape):
        return
    count = b.number(3, 8)
    flat = b.emit("ReduceMean", [x], ("f32", (), x.bound), keepdims=0)[0]
    table = b.constant(b.rng.uniform(0.05, 0.95, (1, 1, count)))
    scores = b.emit("Add", [table, b.same("Tanh", flat, 1.0)], ("f32", table.shape, 2.0))[0]
    low = b.rng.uniform(0, 6, (1, count, 2))
    corners = np.concatenate([low, low + b.rng.uniform(1, 4, (1, count, 2))], -1)
    center = b.number(0, 1)
    limits = [b.constant(b.number(1, 5), "i64"), b.constant(0.31), b.constant(0.123)]
    inputs = [b.constant(corners), scores, *limits[: b.number(1, 3)]]
    unknown = (Size("?", (1,) * b.calls), b.fixed(3))
    found = b.emit("NonMaxSuppression", inputs, ("i64", unknown, 64.0), center_point_box=center)[0]
    if len(b.scopes) == 1 and b.flip(0.3):
        b.last.append(found)
    real = b.emit("Cast", [found], ("f32", unknown, 64.0), to=1)[0]
    b.keep(b.reduce("ReduceSum", real, [0], b.shape(3), 512.0, keep=False))


def transforms(b: Builder) -> None:
    """Fourier transforms, determinants, windows and reversed steps."""
    x = b.pick_float(2, 4)
    if x is None or any(0 in size.values for size in x.shape):
        return
    way = b.number(0, 3)
    if way == 0 and x.rank >= 2:
        side = min(x.shape[-1].fixed or 0, x.shape[-2].fixed or 0)
        if side and x.shape[-1].fixed == x.shape[-2].fixed and side <= 4:
            bound = float(np.prod([x.bound] * side)) * 24
            _keep(b, "Det", [x], x.shape[:-2], bound)
    elif way == 1:
        steps, batch = x.shape[:2]
        if batch.fixed is None:
            return
        lengths = b.constant(b.rng.integers(1, min(steps.values) + 1, batch.fixed), "i64")
        _keep(b, "ReverseSequence", [x, lengths], x.shape, x.bound, time_axis=0, batch_axis=1)
    elif way == 2 and b.opset < 20 and x.rank <= 3:
        one = (*x.shape, b.fixed(1))
        wide = b.emit("Unsqueeze", [x, b.constant([x.rank], "i64")], ("f32", one, x.bound))[0]
        half = b.number(0, 1)
        n = x.shape[1].fixed
        if n is None:
            return
        after = (x.shape[0], b.fixed(n // 2 + 1) if half else x.shape[1], *x.shape[2:], b.fixed(2))
        found = b.emit("DFT", [wide], ("f32", after, x.bound * n), axis=1, onesided=half)[0]
        # what is exactly 0 is rounding in other algorithms
        _keep(b, "Add", [found, b.constant(0.2113)], after, x.bound * n + 1)
    elif x.rank == 4:
        op = "GlobalLpPool" if b.opset < 22 and b.flip() else "MeanVarianceNormalization"
        if op == "GlobalLpPool":
            shape = (*x.shape[:2], *b.shape(1, 1))
            _keep(b, op, [x], shape, x.bound * largest(x.shape[2:]), p=b.number(1, 2))
        elif (x.shape[3].fixed or 0) > 1:  # no deviation may be 0
            row = b.weight(x.shape[3].fixed or 1, scale=2.0)
            apart = b.emit("Add", [x, row], ("f32", x.shape, x.bound + 2))[0]
            _keep(b, op, [apart], x.shape, 6.0, axes=[0, 2, 3])


RULES = {
    windows: 2, pool_with_places: 1, turned_windows: 1, grid_sample: 1, regions: 1, boxes: 1,
    transforms: 2,
}  # fmt: skip
