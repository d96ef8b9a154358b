"""Cases of operators in company: what networks have and fusion works on."""

from __future__ import annotations

from collections.abc import Callable

from tensmith.compiler.ir import Value
from tensmith.compiler.ir.dims import Dim

from .case import CLOSE, EXACT, F16, F32, HALF, I64, SUM, U8, Case, CaseBuilder, N, S
from .contractions import window


def _relu(c: CaseBuilder, x: Value) -> Value:
    return c.op("max", x, c.scalar(0))


def _conv3x3(c: CaseBuilder, x: Value, i: int, o: int) -> Value:
    return c.op("conv", x, c.weight(o, i, 3, 3), c.weight(o), **window(2, pads=(1, 1, 1, 1)))


def _residual(c: CaseBuilder) -> None:
    x = c.input(1, 8, 7, 9)
    y = _relu(c, _conv3x3(c, x, 8, 8))
    c.output(_relu(c, c.op("add", _conv3x3(c, y, 8, 8), x)))


def _batch_norm(c: CaseBuilder) -> None:
    x = c.input(N, 3, 8, 8)
    y = c.op("conv", x, c.weight(6, 3, 3, 3), **window(2, strides=(2, 2), pads=(1, 1, 1, 1)))
    scaled = c.op("mul", y, c.weight(6, 1, 1, low=0.5, high=2))
    c.output(_relu(c, c.op("add", scaled, c.weight(6, 1, 1))))


def _separable(c: CaseBuilder) -> None:
    x = c.input(1, 8, 10, 10)
    deep = c.op("conv", x, c.weight(8, 1, 3, 3), **window(2, pads=(1, 1, 1, 1), groups=8))
    low = c.op("min", _relu(c, deep), c.scalar(6))
    c.output(c.op("conv", low, c.weight(17, 8, 1, 1), **window(2)))


def _hard_swish(c: CaseBuilder) -> None:
    x = _conv3x3(c, c.input(1, 3, 6, 6), 3, 5)
    gate = c.op("min", _relu(c, c.op("add", x, c.scalar(3))), c.scalar(6))
    c.output(c.op("mul", x, c.op("mul", gate, c.scalar(1 / 6))))


def _squeeze_excite(c: CaseBuilder) -> None:
    x = c.input(2, 8, 5, 6)
    mean = c.op("reduce_mean", x, axes=(2, 3), keepdims=True)
    low = _relu(c, c.op("conv", mean, c.weight(4, 8, 1, 1), **window(2)))
    gate = c.op("sigmoid", c.op("conv", low, c.weight(8, 4, 1, 1), **window(2)))
    c.output(c.op("mul", x, gate))


def _pool_branch(c: CaseBuilder) -> None:
    x = c.input(1, 4, 9, 9)
    pooled = c.op("max_pool", x, kernel=(3, 3), **window(2, pads=(1, 1, 1, 1)))
    c.output(c.op("concat", _conv3x3(c, x, 4, 5), pooled, axis=1))


def _linear_gelu(c: CaseBuilder) -> None:
    x = c.input(N, S, 12)
    y = c.op("add", c.op("matmul", x, c.weight(12, 20)), c.weight(20))
    half = c.op("mul", y, c.scalar(0.5))
    erf = c.op("erf", c.op("div", y, c.scalar(2**0.5)))
    c.output(c.op("mul", half, c.op("add", erf, c.scalar(1))))


def _linear_residual(c: CaseBuilder) -> None:
    x = c.input(5, 33)
    y = c.op("add", c.op("matmul", x, c.weight(33, 33)), c.weight(33))
    c.output(c.op("add", x, y))


def _layer_norm(c: CaseBuilder) -> None:
    x = c.input(N, 4, 24)
    centred = c.op("sub", x, c.op("reduce_mean", x, axes=(2,), keepdims=True))
    square = c.op("mul", centred, centred)
    variance = c.op("reduce_mean", square, axes=(2,), keepdims=True)
    deviation = c.op("sqrt", c.op("add", variance, c.scalar(1e-5)))
    normal = c.op("div", centred, deviation)
    c.output(c.op("add", c.op("mul", normal, c.weight(24)), c.weight(24)))


def _softmax(c: CaseBuilder) -> None:
    x = c.input(3, 21)
    e = c.op("exp", c.op("sub", x, c.op("reduce_max", x, axes=(1,), keepdims=True)))
    c.output(c.op("div", e, c.op("reduce_sum", e, axes=(1,), keepdims=True)))


def _heads(c: CaseBuilder, x: Value, perm: tuple[int, ...]) -> Value:
    y = c.op("add", c.op("matmul", x, c.weight(12, 12)), c.weight(12))
    return c.op("transpose", c.op("reshape", y, shape=(N, S, 3, 4)), perm=perm)


def _self_attention(c: CaseBuilder) -> None:
    x, mask = c.input(N, S, 12), c.input(N, 1, 1, S)
    q = _heads(c, x, (0, 2, 1, 3))
    k = _heads(c, x, (0, 2, 3, 1))
    v = _heads(c, x, (0, 2, 1, 3))
    scores = c.op("add", c.op("mul", c.op("matmul", q, k), c.scalar(0.5)), mask)
    mixed = c.op("matmul", c.op("softmax", scores, axis=3), v)
    joined = c.op("reshape", c.op("transpose", mixed, perm=(0, 2, 1, 3)), shape=(N, S, 12))
    c.output(c.op("add", c.op("matmul", joined, c.weight(12, 12)), x))


def _transposed_weight(c: CaseBuilder) -> None:
    x, w = c.input(6, 19), c.input(23, 19)
    c.output(c.op("matmul", x, c.op("transpose", w, perm=(1, 0))))


def _transposed_left(c: CaseBuilder) -> None:
    x, y = c.input(19, 6), c.input(19, 23)
    c.output(c.op("matmul", c.op("transpose", x, perm=(1, 0)), y))


def _two_layers(c: CaseBuilder) -> None:
    x = c.input(1, 40)
    y = _relu(c, c.op("add", c.op("matmul", x, c.weight(40, 50)), c.weight(50)))
    c.output(c.op("softmax", c.op("matmul", y, c.weight(50, 10)), axis=1))


def _slices_and_concats(c: CaseBuilder) -> None:
    x = c.input(N, 10)
    left = c.op("slice", x, starts=(0, 0), stops=(N, 4), steps=(1, 1))
    right = c.op("slice", x, starts=(0, 4), stops=(N, 10), steps=(1, 1))
    swapped = c.op("concat", right, c.op("neg", left), axis=1)
    c.output(c.op("mul", swapped, c.op("add", x, c.scalar(1))))


def _rotary(c: CaseBuilder) -> None:
    x = c.input(1, 2, S, 8)
    low = c.op("slice", x, starts=(0, 0, 0, 0), stops=(1, 2, S, 4), steps=(1,) * 4)
    high = c.op("slice", x, starts=(0, 0, 0, 4), stops=(1, 2, S, 8), steps=(1,) * 4)
    turned = c.op("concat", c.op("neg", high), low, axis=3)
    place = c.op("cast", c.op("iota", shape=(S, 1)), dtype=F32)
    angle = c.op("mul", place, c.weight(8, low=0, high=1))
    cos, sin = c.op("mul", x, c.op("cos", angle)), c.op("mul", turned, c.op("sin", angle))
    c.output(c.op("add", cos, sin))


def _embedding(c: CaseBuilder) -> None:
    words = c.input(N, S, dtype=I64, low=0, high=30)
    token = c.op("gather", c.weight(30, 8), words, axis=0)
    place = c.op("gather", c.weight(16, 8), c.op("iota", shape=(S,)), axis=0)
    x = c.op("add", token, place)
    c.output(c.op("layer_norm", x, c.weight(8), c.weight(8), axis=2, epsilon=1e-12))


def _quantised(c: CaseBuilder) -> None:
    """Quantise to u8 and back around a linear layer, as in a QDQ model."""
    x = c.input(4, 16)
    scaled = c.op("round", c.op("div", x, c.scalar(0.02)))
    shifted = c.op("add", scaled, c.scalar(128))
    clipped = c.op("min", c.op("max", shifted, c.scalar(0)), c.scalar(255))
    stored = c.op("cast", clipped, dtype=U8)
    back = c.op("sub", c.op("cast", stored, dtype=F32), c.scalar(128))
    c.output(c.op("matmul", c.op("mul", back, c.scalar(0.02)), c.weight(16, 8)))


def _diamond(c: CaseBuilder) -> None:
    x = c.input(3, 37)
    e = c.op("exp", x)
    a, b = c.op("sin", e), c.op("sqrt", e)
    c.output(c.op("add", a, b), e, c.op("reduce_sum", c.op("mul", a, b), axes=(1,)))


def _broadcast_chain(c: CaseBuilder) -> None:
    x, row, column = c.input(6, 7), c.input(7), c.input(6, 1)
    y = c.op("mul", c.op("add", x, row), column)
    c.output(c.op("where", c.op("gt", y, c.scalar(0)), y, c.op("mul", y, c.scalar(0.01))))


def _global_pool(c: CaseBuilder) -> None:
    x = c.input(N, 6, 4, 4)
    mean = c.op("reduce_mean", x, axes=(2, 3))
    c.output(c.op("add", c.op("matmul", mean, c.weight(6, 11)), c.weight(11)))


def _pixel_shuffle(c: CaseBuilder) -> None:
    x = _conv3x3(c, c.input(1, 2, 4, 5), 2, 8)
    y = c.op("reshape", x, shape=(1, 2, 2, 2, 4, 5))
    y = c.op("transpose", y, perm=(0, 1, 4, 2, 5, 3))
    c.output(c.op("reshape", y, shape=(1, 2, 8, 10)))


def _pad_then_conv(c: CaseBuilder) -> None:
    x = c.op("pad", c.input(1, 3, 5, 5), pads=(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    c.output(c.op("tanh", c.op("conv", x, c.weight(4, 3, 3, 3), **window(2))))


def _half(c: CaseBuilder) -> None:
    x = c.input(4, 16, dtype=F16)
    y = c.op("matmul", x, c.weight(16, 9, dtype=F16))
    c.output(c.op("max", c.op("add", y, c.weight(9, dtype=F16)), c.scalar(0, F16)))


def _passed_through(c: CaseBuilder) -> None:
    """Outputs that are a view of an input, and a constant."""
    x = c.input(2, 6)
    c.output(c.op("reshape", x, shape=(3, 4)), c.weight(3))


def _linear(c: CaseBuilder, x: Value, i: int, o: int) -> Value:
    return c.op("add", c.op("matmul", x, c.weight(i, o)), c.weight(o))


def _overwritten(c: CaseBuilder) -> None:
    """Operands that are read for the last time, at the places that are written."""
    x = _linear(c, c.input(N, 24), 24, 24)
    y = c.op("add", x, _linear(c, x, 24, 24))
    z = c.op("softmax", y, axis=1)
    both = c.op("add", c.op("exp", z), c.op("reshape", c.op("reshape", z, shape=(N, 4, 6)),
                                            shape=(N, 24)))  # fmt: skip
    c.output(_linear(c, both, 24, 5))


def _not_overwritten(c: CaseBuilder) -> None:
    """Operands that are read at other places than are written, or again afterwards."""
    x = _linear(c, c.input(9, 9), 9, 9)
    turned = c.op("add", x, c.op("transpose", x, perm=(1, 0)))
    y = _linear(c, turned, 9, 9)
    top = c.op("slice", y, starts=(0, 0), stops=(1, 9), steps=(1, 1))
    z = _linear(c, c.op("sub", y, top), 9, 9)
    late = c.op("reshape", z, shape=(81,))
    w = _linear(c, c.op("tanh", z), 9, 9)
    c.output(c.op("add", w, c.op("reshape", late, shape=(9, 9))))


def _joined_channels(c: CaseBuilder) -> None:
    """Branches joined by channels, read by a padded convolution, a pool and a plain one."""
    x = c.input(1, 3, 9, 8)
    parts = [_relu(c, _conv3x3(c, x, 3, o)) for o in (8, 16, 3)]
    whole = c.op("concat", *parts, axis=1)
    pooled = c.op("max_pool", parts[1], kernel=(2, 2), **window(2, strides=(2, 2)))
    c.output(_conv3x3(c, whole, 27, 5), pooled, c.op("mul", parts[0], c.scalar(2)))


def _dense_block(c: CaseBuilder) -> None:
    x = _relu(c, _conv3x3(c, c.input(N, 3, 6, 6), 3, 8))
    first = _relu(c, _conv3x3(c, x, 8, 8))
    both = c.op("concat", x, first, axis=1)
    second = _relu(c, _conv3x3(c, both, 16, 8))
    c.output(c.op("concat", both, second, c.op("neg", x), axis=1))


def _joined_heads(c: CaseBuilder) -> None:
    """Rows of several linear layers one after another, as detectors join their scales."""
    x = c.input(1, 12, 10)
    scores = [_linear(c, x, 10, o) for o in (4, 6, 2)]
    rows = [c.op("reshape", s, shape=(1, 6 * o, 2)) for s, o in zip(scores, (4, 6, 2), strict=True)]
    rows.append(c.weight(1, 3, 2))
    c.output(c.op("sigmoid", c.op("concat", *rows, rows[0], axis=1)), scores[2])


def _cache(c: CaseBuilder) -> None:
    past, x = c.input(N, 2, S, 8), c.input(N, 1, 16)
    fresh = c.op("reshape", _linear(c, x, 16, 16), shape=(N, 1, 2, 8))
    key = c.op("concat", past, c.op("transpose", fresh, perm=(0, 2, 1, 3)), axis=2)
    scores = c.op("matmul", key, c.op("transpose", key, perm=(0, 1, 3, 2)))
    c.output(key, c.op("softmax", scores, axis=3))


def _joined_features(c: CaseBuilder) -> None:
    """Features of symbolic rows joined side by side, twice, in both orders."""
    x = c.input(N, S, 12)
    a, b = c.op("tanh", _linear(c, x, 12, 16)), _linear(c, x, 12, 9)
    mixed = c.op("concat", a, b, a, axis=2)
    c.output(_linear(c, mixed, 41, 7), c.op("concat", b, a, axis=2))


def _gates(rows: Dim, depth: int, hidden: int, parts: int) -> Callable[[CaseBuilder], None]:
    """Parts of one product that meet again, as in a recurrent cell; both it and a state."""

    def build(c: CaseBuilder) -> None:
        h, state = c.input(rows, depth), c.input(rows, hidden)
        total = c.op("matmul", h, c.weight(depth, parts * hidden))
        total = c.op("add", total, c.input(rows, parts * hidden))
        total = c.op("add", total, c.weight(parts * hidden))
        for part in range(parts):
            attrs = {
                "starts": (0, part * hidden),
                "stops": (rows, (part + 1) * hidden),
                "steps": (1, 1),
            }
            gate = c.op("sigmoid" if part % 2 else "tanh", c.op("slice", total, **attrs))
            state = c.op("mul" if part % 2 else "add", state, gate)
        c.output(state, c.op("tanh", state))

    return build


def _gated(c: CaseBuilder) -> None:
    x = c.input(40, 70)
    gate, up = (c.op("matmul", x, c.weight(70, 66)) for _ in range(2))
    c.output(c.op("mul", c.op("mul", gate, c.op("sigmoid", gate)), up))


def _norm_of_many_uses(c: CaseBuilder) -> None:
    """Several results read the normalised rows, and one of them another result."""
    x = c.input(N, 20)
    centred = c.op("sub", x, c.op("reduce_mean", x, axes=(1,), keepdims=True))
    spread = c.op("reduce_mean", c.op("mul", centred, centred), axes=(1,), keepdims=True)
    normal = c.op("div", centred, c.op("sqrt", c.op("add", spread, c.scalar(1e-3))))
    first = c.op("mul", normal, c.scalar(0.25))
    c.output(first, c.op("tanh", normal), c.op("add", first, c.op("exp", normal)))


CASES: list[Case] = [
    Case("conv_residual", _residual, SUM),
    Case("conv_batch_norm", _batch_norm, SUM, {"n": 2}),
    Case("conv_separable", _separable, SUM),
    Case("conv_hard_swish", _hard_swish, SUM),
    Case("squeeze_excite", _squeeze_excite, SUM),
    Case("pool_branch", _pool_branch, SUM),
    Case("linear_gelu", _linear_gelu, SUM, {"n": 2, "s": 3}),
    Case("linear_residual", _linear_residual, SUM),
    Case("layer_norm_decomposed", _layer_norm, SUM, {"n": 2}),
    Case("softmax_decomposed", _softmax, CLOSE),
    Case("self_attention", _self_attention, SUM, {"n": 2, "s": 5}),
    Case("self_attention_one", _self_attention, SUM, {"n": 1, "s": 1}),
    Case("matmul_transposed_weight", _transposed_weight, SUM),
    Case("matmul_transposed_left", _transposed_left, SUM),
    Case("two_layers", _two_layers, SUM),
    Case("slices_and_concats", _slices_and_concats, CLOSE, {"n": 3}),
    Case("rotary", _rotary, CLOSE, {"s": 6}),
    Case("embedding", _embedding, SUM, {"n": 2, "s": 5}),
    Case("quantised_linear", _quantised, SUM),
    Case("diamond", _diamond, SUM),
    Case("broadcast_chain", _broadcast_chain, CLOSE),
    Case("global_pool", _global_pool, SUM, {"n": 3}),
    Case("pixel_shuffle", _pixel_shuffle, SUM),
    Case("pad_then_conv", _pad_then_conv, SUM),
    Case("half_linear", _half, HALF),
    Case("passed_through", _passed_through, EXACT),
    Case("overwritten", _overwritten, SUM, {"n": 5}),
    Case("not_overwritten", _not_overwritten, SUM),
    Case("joined_channels", _joined_channels, SUM),
    Case("dense_block", _dense_block, SUM, {"n": 2}),
    Case("dense_block_one", _dense_block, SUM, {"n": 1}),
    Case("joined_heads", _joined_heads, SUM),
    Case("cache", _cache, SUM, {"n": 2, "s": 5}),
    Case("cache_empty", _cache, SUM, {"n": 1, "s": 0}),
    Case("joined_features", _joined_features, SUM, {"n": 2, "s": 3}),
    Case("gates", _gates(1, 36, 20, 4), SUM),
    Case("gates_batch", _gates(N, 36, 24, 3), SUM, {"n": 5}),
    Case("gates_deep", _gates(2, 700, 33, 2), SUM),
    Case("gated_layer", _gated, SUM),
    Case("norm_of_many_uses", _norm_of_many_uses, SUM, {"n": 3}),
]
