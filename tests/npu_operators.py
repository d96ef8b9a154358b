"""Makers of small TOSA graphs, each of one or two operators."""

from __future__ import annotations

import numpy as np

from tensmith.backends.ethosu.tosa.graph import Tensor, TosaGraph
from tensmith.backends.ethosu.tosa.schema import ElementType, Op, Rounding

INT8, INT16, INT32 = ElementType.INT8, ElementType.INT16, ElementType.INT32
BOOL = ElementType.BOOL
SHAPE = (1, 8, 8, 16)


def conv(
    graph: TosaGraph,
    rng: np.random.Generator,
    shape=(8, 8, 16),
    outputs=24,
    kernel=(1, 1),
    stride=(1, 1),
    dilation=(1, 1),
    pad=(0, 0, 0, 0),
    depthwise=False,
    zero=-7,
    double=False,
    values=0,
    sparse=False,
) -> Tensor:
    """A convolution of an input of height, width and channels; pad: top, bottom, left, right.

    values: how many there are among the weights (0: all). sparse: of four inputs two count.
    """
    height, width, channels = shape
    x = graph.input((1, *shape), INT8)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    high = (height + pad[0] + pad[1] - spans[0]) // stride[0] + 1
    wide = (width + pad[2] + pad[3] - spans[1]) // stride[1] + 1
    made = channels * outputs if depthwise else outputs
    sizes = (*kernel, channels, outputs) if depthwise else (outputs, *kernel, channels)
    weights = rng.integers(-127, 128, sizes)
    if values:
        weights = rng.integers(-127, 128, values)[rng.integers(0, values, sizes)]
    if sparse:
        weights = weights * np.tile([1, 0, 0, 1], channels // 4)
    operands = [
        x,
        graph.constant(weights, INT8),
        graph.constant(rng.integers(-3000, 3000, made), INT32),
        graph.number(zero, INT8),
        graph.number(0, INT8),
    ]
    total = graph.emit(
        Op.DEPTHWISE_CONV2D if depthwise else Op.CONV2D, operands, (1, high, wide, made), INT32,
        pad=list(pad), stride=list(stride), dilation=list(dilation),
    )  # fmt: skip
    reach = np.sqrt(np.prod(sizes) / made) * 127 * 74
    scale = rng.uniform(60, 120, made) / reach
    rounding = Rounding.DOUBLE if double else Rounding.SINGLE
    return graph.rescale(total, scale, INT8, zero_out=4, rounding=rounding)


def given(graph: TosaGraph, rng: np.random.Generator, **arguments) -> None:
    graph.output(conv(graph, rng, **arguments))


def conv_by_input(graph: TosaGraph, rng: np.random.Generator, kernel: int) -> None:
    """A convolution whose weights are an input."""
    pad = kernel // 2
    operands = [
        graph.input((1, 7, 6, 16), INT8),
        graph.input((24, kernel, kernel, 16), INT8),
        graph.constant(rng.integers(-3000, 3000, 24), INT32),
        graph.number(-3, INT8),
        graph.number(0, INT8),
    ]
    total = graph.emit(
        Op.CONV2D, operands, (1, 7, 6, 24), INT32, pad=[pad] * 4, stride=[1, 1], dilation=[1, 1]
    )
    graph.output(graph.rescale(total, 0.004, INT8, zero_out=2))


def transposed_conv(graph: TosaGraph, rng: np.random.Generator) -> None:
    operands = [
        graph.input((1, 6, 6, 16), INT8),
        graph.constant(rng.integers(-127, 128, (8, 2, 2, 16)), INT8),
        graph.constant(rng.integers(-99, 99, 8), INT32),
        graph.number(5, INT8),
        graph.number(0, INT8),
    ]
    total = graph.emit(
        Op.TRANSPOSE_CONV2D, operands, (1, 12, 12, 8), INT32, out_pad=[0] * 4, stride=[2, 2]
    )
    graph.output(graph.rescale(total, np.full(8, 8e-4), INT8))


def max_pool(graph: TosaGraph, _: np.random.Generator, kernel, stride, pad, size) -> None:
    x = graph.input((1, *size, 16), INT8)
    shape = [
        (n + pad[2 * i] + pad[2 * i + 1] - kernel[i]) // stride[i] + 1 for i, n in enumerate(size)
    ]
    graph.output(
        graph.emit(
            Op.MAX_POOL2D, [x], (1, *shape, 16), INT8,
            kernel=list(kernel), stride=list(stride), pad=list(pad),
        )
    )  # fmt: skip


def average(
    graph: TosaGraph, _: np.random.Generator, kernel, stride, pad, size, zeros=(0, 0), type=INT8
) -> None:
    x = graph.input((1, *size, 16), type)
    shape = [
        (n + pad[2 * i] + pad[2 * i + 1] - kernel[i]) // stride[i] + 1 for i, n in enumerate(size)
    ]
    operands = [x, *(graph.number(zero, type) for zero in zeros)]
    graph.output(
        graph.emit(
            Op.AVG_POOL2D, operands, (1, *shape, 16), type,
            kernel=list(kernel), stride=list(stride), pad=list(pad),
        )
    )  # fmt: skip


def binary(
    graph: TosaGraph,
    _: np.random.Generator,
    op: Op,
    scales=(0.4 * 2**20, 0.5 * 2**20, 1.1 / 2**20),
    shapes=(SHAPE, SHAPE),
    type: ElementType = INT8,
    rounding: Rounding = Rounding.SINGLE,
) -> None:
    """Both operands scaled to 32 bits, the operator, its result scaled back."""
    zeros = (-3, 5, -7) if type is INT8 else (0, 0, 0)
    wide = [
        graph.rescale(
            graph.input(shape, type), scale, INT32, zero_in=zero, rounding=rounding
        )
        for shape, scale, zero in zip(shapes, scales[:2], zeros[:2], strict=True)
    ]  # fmt: skip
    made = np.broadcast_shapes(*shapes)
    operands = [*wide, graph.number(0, INT8)] if op is Op.MUL else wide
    total = graph.emit(op, operands, made, INT32)
    graph.output(graph.rescale(total, scales[2], type, zero_out=zeros[2], rounding=rounding))


def table8(graph: TosaGraph, _: np.random.Generator) -> None:
    values = np.clip(np.rint(127 * np.tanh(np.arange(-128, 128) / 40)), -128, 127)
    operands = [graph.input(SHAPE, INT8), graph.constant(values, INT8)]
    graph.output(graph.emit(Op.TABLE, operands, SHAPE, INT8))


def table16(graph: TosaGraph, _: np.random.Generator, wide: bool = False) -> None:
    values = np.rint(np.exp(np.linspace(-8, 0, 513)) * 32767)
    operands = [graph.input(SHAPE, INT16), graph.constant(values, INT16)]
    made = graph.emit(Op.TABLE, operands, SHAPE, INT32)
    graph.output(made if wide else graph.rescale(made, 1 / 128, INT16))


def conv_and_table(graph: TosaGraph, rng: np.random.Generator) -> None:
    values = graph.constant(rng.integers(-128, 128, 256), INT8)
    made = conv(graph, rng)
    graph.output(graph.emit(Op.TABLE, [made, values], made.shape, INT8))


def two_tables(graph: TosaGraph, rng: np.random.Generator) -> None:
    x = graph.input(SHAPE, INT8)
    for _ in range(3):
        values = graph.constant(rng.integers(-128, 128, 256), INT8)
        x = graph.emit(Op.TABLE, [x, values], SHAPE, INT8)
    graph.output(x)


def matmul(graph: TosaGraph, _: np.random.Generator) -> None:
    operands = [
        graph.input((2, 16, 24), INT8),
        graph.input((2, 24, 12), INT8),
        graph.number(3, INT8),
        graph.number(-2, INT8),
    ]
    total = graph.emit(Op.MATMUL, operands, (2, 16, 12), INT32)
    graph.output(graph.rescale(total, 1e-3, INT8, zero_out=1))


def transpose(graph: TosaGraph, _: np.random.Generator, perms, type: ElementType = INT8) -> None:
    x = graph.input((1, 6, 5, 16), type)
    shape = [x.shape[axis] for axis in perms]
    graph.output(graph.emit(Op.TRANSPOSE, [x], shape, type, perms=list(perms)))


def concat(graph: TosaGraph, _: np.random.Generator, axis: int) -> None:
    shapes = [[1, 6, 5, 16], [1, 6, 5, 16]]
    shapes[1][axis] = 8
    whole = list(shapes[0])
    whole[axis] += 8
    parts = [graph.input(shape, INT8) for shape in shapes]
    graph.output(graph.emit(Op.CONCAT, parts, whole, INT8, axis=axis))


def sliced(graph: TosaGraph, _: np.random.Generator) -> None:
    x = graph.input(SHAPE, INT8)
    operands = [x, graph.sizes([0, 2, 1, 4]), graph.sizes([1, 4, 6, 8])]
    graph.output(graph.emit(Op.SLICE, operands, (1, 4, 6, 8), INT8))


def padded(graph: TosaGraph, _: np.random.Generator) -> None:
    x = graph.input(SHAPE, INT8)
    operands = [x, graph.sizes([0, 0, 1, 2, 2, 1, 0, 0]), graph.number(-5, INT8)]
    graph.output(graph.emit(Op.PAD, operands, (1, 11, 11, 16), INT8))


def reduce_sum(graph: TosaGraph, _: np.random.Generator, axis: int) -> None:
    x = graph.rescale(graph.input(SHAPE, INT8), 1.0, INT32, zero_in=-3)
    shape = [1 if i == axis else n for i, n in enumerate(SHAPE)]
    total = graph.emit(Op.REDUCE_SUM, [x], shape, INT32, axis=axis)
    graph.output(graph.rescale(total, 0.06, INT8))


def reduce(graph: TosaGraph, _: np.random.Generator, op: Op, axis: int) -> None:
    x = graph.input(SHAPE, INT8)
    shape = [1 if i == axis else n for i, n in enumerate(SHAPE)]
    graph.output(graph.emit(op, [x], shape, INT8, axis=axis))


def argmax(graph: TosaGraph, _: np.random.Generator) -> None:
    x = graph.input(SHAPE, INT8)
    graph.output(graph.emit(Op.ARGMAX, [x], SHAPE[:3], INT32, axis=3))


def unary32(graph: TosaGraph, _: np.random.Generator, op: Op) -> None:
    x = graph.rescale(graph.input(SHAPE, INT8), 1.0, INT32, zero_in=-3)
    graph.output(graph.rescale(graph.emit(op, [x], SHAPE, INT32), 0.9, INT8))


def words(graph: TosaGraph, _: np.random.Generator, op: Op, **attributes) -> None:
    """An operator on two inputs of 32 bits, the second one small where it is a shift."""
    first, second = graph.input(SHAPE, INT32), graph.input(SHAPE, INT8)
    shifts = op.name.endswith("SHIFT")
    wide = graph.rescale(second, 1 / 16 if shifts else 2**20, INT32, zero_in=0)
    if shifts:
        wide = graph.emit(Op.ABS, [wide], SHAPE, INT32)
    else:
        first = graph.rescale(first, 1 / 4, INT32)
    graph.output(graph.emit(op, [first, wide], SHAPE, INT32, **attributes))


def clamp(graph: TosaGraph, rng: np.random.Generator) -> None:
    made = conv(graph, rng)
    low, high = (list(np.array([n], np.int8).tobytes()) for n in (-20, 60))
    graph.output(graph.emit(Op.CLAMP, [made], made.shape, INT8, min_val=low, max_val=high))


def residual(graph: TosaGraph, rng: np.random.Generator) -> None:
    """A convolution, another one of its result, and the sum of both."""
    first = conv(graph, rng, (16, 16, 16), 16, (3, 3), pad=(1, 1, 1, 1))
    operands = [
        first,
        graph.constant(rng.integers(-127, 128, (16, 3, 3, 16)), INT8),
        graph.constant(rng.integers(-3000, 3000, 16), INT32),
        graph.number(4, INT8),
        graph.number(0, INT8),
    ]
    total = graph.emit(
        Op.CONV2D, operands, first.shape, INT32, pad=[1] * 4, stride=[1, 1], dilation=[1, 1]
    )
    second = graph.rescale(total, 8e-4, INT8)
    wide = [graph.rescale(x, 2**19, INT32, zero_in=zero) for x, zero in ((first, 4), (second, 0))]
    added = graph.emit(Op.ADD, wide, first.shape, INT32)
    graph.output(graph.rescale(added, 1.3 / 2**20, INT8, zero_out=3))


def deep(graph: TosaGraph, rng: np.random.Generator) -> None:
    """More channels than a block takes, on both sides."""
    graph.output(conv(graph, rng, (6, 7, 90), 150, (3, 3), pad=(1, 1, 1, 1)))


def compared(graph: TosaGraph, _: np.random.Generator, op: Op) -> None:
    """One of two inputs, by what a comparison of them says."""
    x, y = (graph.input(SHAPE, INT8) for _ in range(2))
    wide = [graph.rescale(part, 1 / 16, INT32) for part in (x, y)]
    which = graph.emit(op, wide, SHAPE, BOOL)
    graph.output(graph.emit(Op.SELECT, [which, x, y], SHAPE, INT8))


def logical(graph: TosaGraph, _: np.random.Generator, op: Op) -> None:
    """A logical operator on two comparisons, and what it selects."""
    x, y = (graph.input(SHAPE, INT8) for _ in range(2))
    wide = [graph.rescale(part, 1.0, INT32) for part in (x, y)]
    zero = graph.rescale(graph.input(SHAPE, INT8), 1.0, INT32)
    bits = [graph.emit(Op.GREATER, [part, zero], SHAPE, BOOL) for part in wide]
    made = graph.emit(op, bits[:1] if op is Op.LOGICAL_NOT else bits, SHAPE, BOOL)
    graph.output(graph.emit(Op.SELECT, [made, x, y], SHAPE, INT8))


def any_of(graph: TosaGraph, _: np.random.Generator, op: Op) -> None:
    """Whether any, or all, of two channels are larger than others."""
    shape = (1, 8, 8, 2)
    wide = [graph.rescale(graph.input(shape, INT8), 1.0, INT32) for _ in range(2)]
    bits = graph.emit(Op.GREATER, wide, shape, BOOL)
    graph.output(graph.emit(op, [bits], (*shape[:3], 1), BOOL, axis=3))


def bitwise(graph: TosaGraph, _: np.random.Generator, op: Op, type: ElementType = INT8) -> None:
    count = 1 if op is Op.BITWISE_NOT else 2
    graph.output(graph.emit(op, [graph.input(SHAPE, type) for _ in range(count)], SHAPE, type))


def divided(graph: TosaGraph, _: np.random.Generator) -> None:
    divisor = graph.rescale(graph.input(SHAPE, INT8), 1.0, INT32, zero_in=-128)
    one = graph.constant(np.ones((1, 1, 1, 1)), INT32)
    divisor = graph.emit(Op.ADD, [divisor, one], SHAPE, INT32)
    graph.output(graph.emit(Op.INTDIV, [graph.input(SHAPE, INT32), divisor], SHAPE, INT32))


def gather(graph: TosaGraph, rng: np.random.Generator) -> None:
    indices = graph.constant(rng.integers(0, 16, (2, 5)), INT32)
    operands = [graph.input((2, 16, 24), INT8), indices]
    graph.output(graph.emit(Op.GATHER, operands, (2, 5, 24), INT8))


def scatter(graph: TosaGraph, rng: np.random.Generator) -> None:
    rows = np.stack([rng.permutation(16)[:5] for _ in range(2)])
    operands = [
        graph.input((2, 16, 24), INT8), graph.constant(rows, INT32), graph.input((2, 5, 24), INT8)
    ]  # fmt: skip
    graph.output(graph.emit(Op.SCATTER, operands, (2, 16, 24), INT8))


def resize(graph: TosaGraph, _: np.random.Generator, mode, scale, offset, border) -> None:
    """mode: 1 nearest, 2 bilinear; scale: numerator and denominator of y and x."""
    x = graph.input((1, 6, 7, 16), INT8)
    sizes = [
        ((n - 1) * scale[2 * i] - offset[i] + border[i]) // scale[2 * i + 1] + 1
        for i, n in enumerate(x.shape[1:3])
    ]
    operands = [x, graph.sizes(scale), graph.sizes(offset), graph.sizes(border)]
    type = INT8 if mode == 1 else INT32
    made = graph.emit(Op.RESIZE, operands, (1, *sizes, 16), type, mode=mode)
    if mode == 2:
        made = graph.rescale(made, 1 / (scale[0] * scale[2]), INT8)
    graph.output(made)


def reverse(graph: TosaGraph, _: np.random.Generator, axis: int) -> None:
    x = graph.input((1, 6, 5, 16), INT8)
    graph.output(graph.emit(Op.REVERSE, [x], x.shape, INT8, axis=axis))


def tile(graph: TosaGraph, _: np.random.Generator) -> None:
    operands = [graph.input((1, 3, 4, 8), INT8), graph.sizes([1, 2, 3, 1])]
    graph.output(graph.emit(Op.TILE, operands, (1, 6, 12, 8), INT8))


def chain(graph: TosaGraph, rng: np.random.Generator) -> None:
    """A convolution and elementwise operators behind it: one chain on an Ethos-U85."""
    made = conv(graph, rng, (9, 10, 24), 40, (3, 3), pad=(1, 1, 1, 1))
    wide = [
        graph.rescale(made, 2.0**19, INT32, zero_in=4),
        graph.rescale(graph.input(made.shape, INT8), 0.7 * 2**19, INT32),
    ]
    total = graph.emit(Op.ADD, wide, made.shape, INT32)
    summed = graph.rescale(total, 0.9 / 2**19, INT8)
    wide = [
        graph.rescale(summed, 1.0, INT32),
        graph.rescale(graph.input(made.shape, INT8), 1.0, INT32),
    ]
    product = graph.emit(Op.MUL, [*wide, graph.number(0, INT8)], made.shape, INT32)
    graph.output(graph.rescale(product, 0.01, INT8, zero_out=-3))
