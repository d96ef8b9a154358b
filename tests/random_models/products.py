"""Rules of matrix products, convolutions and pooling."""

from __future__ import annotations

from .builder import Builder, Shape, Size, Value, largest


def _keep(b: Builder, op: str, inputs: list[Value | None], shape: Shape, bound: float,
          **more: object) -> None:  # fmt: skip
    if largest(shape) <= 4096:
        b.keep(b.emit(op, inputs, ("f32", shape, bound), **more)[0])


def matmul(b: Builder) -> None:
    x = b.pick_float(2)
    if x is None:
        return
    depth, way = x.shape[-1], b.number(0, 3)
    bound = x.bound * max(1, *depth.values)
    if way == 0 and depth.fixed:
        width = b.number(1, 9)
        batch = [size.fixed or 1 for size in x.shape[:-2]] if b.flip(0.2) else []
        weight = b.weight(*batch, depth.fixed, width)
        if any(size.fixed is None for size in x.shape[:-2]) and batch:
            batch = []
            weight = b.weight(depth.fixed, width)
        _keep(b, "MatMul", [x, weight], (*x.shape[:-1], b.fixed(width)), bound)
        return
    if way == 1 and depth.fixed:
        _keep(b, "MatMul", [x, b.weight(depth.fixed)], x.shape[:-1], bound)
        return

    def fits(v: Value) -> bool:
        return v.kind == "f32" and v.small and v.rank >= 2 and v.texts[-2] == depth.text and (
            v.rank == 2 or v.texts[:-2] == x.texts[:-2]
        )  # fmt: skip

    other = b.pick(fits)
    if other is None:
        perm = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
        turned = tuple(x.shape[axis] for axis in perm)
        other = b.emit("Transpose", [x], ("f32", turned, x.bound), perm=perm)[0]
    bound *= other.bound
    _keep(b, "MatMul", [x, other], (*x.shape[:-1], other.shape[-1]), bound)


def gemm(b: Builder) -> None:
    x = b.pick_float(2, 2)
    if x is None:
        return
    turned_x, turned_w = b.number(0, 1), b.number(0, 1)
    rows, depth = x.shape[::-1] if turned_x else x.shape
    if not depth.fixed:
        return
    width = b.number(1, 9)
    w = b.weight(width, depth.fixed) if turned_w else b.weight(depth.fixed, width)
    way = b.number(0, 3)
    c = [None, b.weight(width), b.weight(1, width), b.constant(0.5)][way]
    flags = {"transA": turned_x, "transB": turned_w}
    if b.flip(0.3):
        flags |= {"alpha": 0.5, "beta": 2.0}
    bound = x.bound * depth.fixed + 2
    _keep(b, "Gemm", [x, w, c], (rows, b.fixed(width)), bound, **flags)


def einsum(b: Builder) -> None:
    """Of one or two operands: what both have, what is summed up, and the order are random."""
    x = b.pick_float(2, 4)
    if x is None or any(0 in size.values for size in x.shape):
        return
    letters = "abcd"[: x.rank]
    sizes = dict(zip(letters, x.shape, strict=True))
    inputs, terms = [x], [letters]
    if b.flip(0.8):
        other = _factor(b, x, sizes)
        if other is None:
            return
        inputs.append(other[0])
        terms.append(other[1])
    free = sorted(set("".join(terms)))
    kept = [letter for letter in free if b.flip(0.65)] or free[:1]
    kept = [kept[int(place)] for place in b.rng.permutation(len(kept))]
    summed = largest([sizes[letter] for letter in free if letter not in kept])
    bound = summed
    for value in inputs:
        bound = bound * value.bound
    shape = tuple(sizes[letter] for letter in kept)
    equation = ",".join(terms) + "->" + "".join(kept)
    if len(kept) > 5 or largest([sizes[letter] for letter in free]) > 8192:
        return
    if len(terms) == 1 and x.rank > 2 and b.flip(0.3):
        equation, shape = f"...{letters[-1]}->...", x.shape[:-1]
        bound = x.bound * max(x.shape[-1].values)
    _keep(b, "Einsum", inputs, shape, bound, equation=equation)


def _factor(b: Builder, x: Value, sizes: dict[str, Size]) -> tuple[Value, str] | None:
    """A second operand: some axes of x, and one of its own."""
    letters = list(sizes)
    chosen = [letter for letter in letters if sizes[letter].fixed is not None and b.flip()]
    if not chosen or b.flip(0.3):
        same = b.pick(lambda v: v.kind == "f32" and v.texts == x.texts)
        return (same, "".join(letters)) if same is not None else None
    own = b.number(1, 4)
    sizes["e"] = b.fixed(own)
    term = [*chosen, "e"]
    term = [term[int(place)] for place in b.rng.permutation(len(term))]
    return b.weight(*(sizes[letter].fixed or 1 for letter in term)), "".join(term)


def _window(b: Builder, size: Size, kernel: int, stride: int, dilation: int, pads: int) -> Size:
    def after(value: int) -> int:
        return (value + pads - dilation * (kernel - 1) - 1) // stride + 1

    values = tuple(map(after, size.values))
    if size.fixed is not None:
        return b.fixed(values[0])
    if values == size.values and stride == 1:
        return size
    return Size(f"w{kernel}{stride}{dilation}{pads}({size.text})", values)


def _spatial(b: Builder, x: Value) -> tuple[dict[str, list[int]], Shape] | None:
    """Attributes of windows over the axes behind the first two, and the sizes after them."""
    space = x.shape[2:]
    kernel = [b.choice((1, 2, 3)) for _ in space]
    strides = [b.choice((1, 1, 2)) for _ in space]
    dilations = [b.choice((1, 1, 1, 2)) for _ in space]
    low = [b.number(0, size - 1) if size > 1 else 0 for size in kernel]
    high = [b.number(0, size - 1) if size > 1 else 0 for size in kernel]
    after = tuple(
        _window(b, size, k, s, d, before + behind)
        for size, k, s, d, before, behind in zip(
            space, kernel, strides, dilations, low, high, strict=True
        )
    )
    if min(value for size in after for value in size.values) < 1:
        return None
    attributes = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": [*low, *high],
    }
    return attributes, after


def conv(b: Builder) -> None:
    x = b.pick_float(3, 4)
    if x is None or not x.shape[1].fixed:
        return
    found = _spatial(b, x)
    if found is None:
        return
    attributes, after = found
    channels = x.shape[1].fixed
    group = b.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
    filters = group * b.number(1, 3)
    w = b.weight(filters, channels // group, *attributes["kernel_shape"])
    bias = b.weight(filters) if b.flip() else None
    bound = x.bound * channels / group * largest(b.shape(*attributes["kernel_shape"])) + 1
    shape = (x.shape[0], b.fixed(filters), *after)
    _keep(b, "Conv", [x, w, bias], shape, bound, group=group, **attributes)


def conv_transpose(b: Builder) -> None:
    x = b.pick_float(3, 4)
    if x is None or not x.shape[1].fixed or min(v for s in x.shape for v in s.values) < 1:
        return
    space = x.shape[2:]
    kernel = [b.choice((2, 3)) for _ in space]
    stride = b.choice((1, 2))
    filters, channels = b.number(1, 3), x.shape[1].fixed
    w = b.weight(channels, filters, *kernel)
    after = tuple(
        b.fixed((size.fixed - 1) * stride + k)
        if size.fixed is not None
        else Size(f"t{k}{stride}({size.text})", tuple((v - 1) * stride + k for v in size.values))
        for size, k in zip(space, kernel, strict=True)
    )
    bound = x.bound * channels * largest(b.shape(*kernel))
    shape = (x.shape[0], b.fixed(filters), *after)
    more = {"kernel_shape": kernel, "strides": [stride] * len(space)}
    _keep(b, "ConvTranspose", [x, w], shape, bound, **more)


def pool(b: Builder) -> None:
    x = b.pick_float(3, 4)
    if x is None or min(v for s in x.shape[1:] for v in s.values) < 1:
        return
    if b.flip(0.3):
        op = b.choice(("GlobalAveragePool", "GlobalMaxPool"))
        shape = (*x.shape[:2], *(b.fixed(1) for _ in x.shape[2:]))
        _keep(b, op, [x], shape, x.bound)
        return
    found = _spatial(b, x)
    if found is None:
        return
    attributes, after = found
    del attributes["dilations"]
    again = tuple(
        _window(b, size, k, s, 1, low + high)
        for size, k, s, low, high in zip(
            x.shape[2:],
            attributes["kernel_shape"],
            attributes["strides"],
            attributes["pads"][: len(after)],
            attributes["pads"][len(after) :],
            strict=True,
        )
    )
    op = b.choice(("MaxPool", "AveragePool", "LpPool"))
    more = {"count_include_pad": b.number(0, 1)} if op == "AveragePool" else {}
    count = largest(b.shape(*attributes["kernel_shape"]))
    bound = x.bound * (count if op == "LpPool" else 1)
    _keep(b, op, [x], (*x.shape[:2], *again), bound, **attributes, **more)


def integer_product(b: Builder) -> None:
    """MatMulInteger of what is quantised on the way."""
    x = b.pick_float(2, 3)
    if x is None or not b.features.quantised or not x.shape[-1].fixed or 0 in x.shape[-2].values:
        return
    quantised, scale, point = b.emit(
        "DynamicQuantizeLinear", [x], ("u8", x.shape, 255.0), ("f32", (), 1.0), ("u8", (), 255.0)
    )
    width = b.number(1, 5)
    w = b.constant(b.rng.integers(-9, 9, (x.shape[-1].fixed, width)), "i8")
    shape = (*x.shape[:-1], b.fixed(width))
    found = b.emit("MatMulInteger", [quantised, w, point], ("i32", shape, 1e4))[0]
    real = b.emit("Cast", [found], ("f32", shape, 1e4), to=1)[0]
    bound = 9 * x.bound * x.shape[-1].fixed
    b.keep(b.emit("Mul", [real, scale], ("f32", shape, bound))[0])


RULES = {
    matmul: 6, gemm: 2, einsum: 1, conv: 4, conv_transpose: 1, pool: 2, integer_product: 1,
}  # fmt: skip
