"""Small TOSA graphs of one or two operators each, with inputs: what an NPU has to compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tensmith.backends.ethosu.tosa.graph import NUMPY, Tensor, TosaGraph
from tensmith.backends.ethosu.tosa.schema import ElementType, Op, Rounding

INT8, INT16, INT32 = ElementType.INT8, ElementType.INT16, ElementType.INT32
SHAPE = (1, 8, 8, 16)
Make = Callable[[TosaGraph, np.random.Generator], None]


def inputs_of(graph: TosaGraph, seed: int) -> list[np.ndarray]:
    """Values over the whole range of the inputs' types."""
    rng = np.random.default_rng(seed)
    made = []
    for tensor in graph.inputs:
        limits = np.iinfo(NUMPY[tensor.type])
        values = rng.integers(limits.min, limits.max, tensor.shape, endpoint=True)
        made.append(values.astype(limits.dtype))
    return made


def graph_of(make: Make, seed: int = 0) -> TosaGraph:
    """A graph; its constants come from the seed."""
    graph = TosaGraph(location="operator")
    make(graph, np.random.default_rng(seed))
    return graph


def _conv(
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
) -> Tensor:
    """A convolution of an input of height, width and channels; pad: top, bottom, left, right."""
    height, width, channels = shape
    x = graph.input((1, *shape), INT8)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    high = (height + pad[0] + pad[1] - spans[0]) // stride[0] + 1
    wide = (width + pad[2] + pad[3] - spans[1]) // stride[1] + 1
    made = channels * outputs if depthwise else outputs
    sizes = (*kernel, channels, outputs) if depthwise else (outputs, *kernel, channels)
    operands = [
        x,
        graph.constant(rng.integers(-127, 128, sizes), INT8),
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


def _given(graph: TosaGraph, rng: np.random.Generator, **arguments) -> None:
    graph.output(_conv(graph, rng, **arguments))


def _transposed_conv(graph: TosaGraph, rng: np.random.Generator) -> None:
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


def _max_pool(graph: TosaGraph, _: np.random.Generator, kernel, stride, pad, size) -> None:
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


def _average(
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


def _binary(
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


def _table8(graph: TosaGraph, _: np.random.Generator) -> None:
    values = np.clip(np.rint(127 * np.tanh(np.arange(-128, 128) / 40)), -128, 127)
    operands = [graph.input(SHAPE, INT8), graph.constant(values, INT8)]
    graph.output(graph.emit(Op.TABLE, operands, SHAPE, INT8))


def _table16(graph: TosaGraph, _: np.random.Generator) -> None:
    values = np.rint(np.exp(np.linspace(-8, 0, 513)) * 32767)
    operands = [graph.input(SHAPE, INT16), graph.constant(values, INT16)]
    wide = graph.emit(Op.TABLE, operands, SHAPE, INT32)
    graph.output(graph.rescale(wide, 1 / 128, INT16))


def _conv_and_table(graph: TosaGraph, rng: np.random.Generator) -> None:
    values = graph.constant(rng.integers(-128, 128, 256), INT8)
    made = _conv(graph, rng)
    graph.output(graph.emit(Op.TABLE, [made, values], made.shape, INT8))


def _two_tables(graph: TosaGraph, rng: np.random.Generator) -> None:
    x = graph.input(SHAPE, INT8)
    for _ in range(3):
        values = graph.constant(rng.integers(-128, 128, 256), INT8)
        x = graph.emit(Op.TABLE, [x, values], SHAPE, INT8)
    graph.output(x)


def _matmul(graph: TosaGraph, _: np.random.Generator) -> None:
    operands = [
        graph.input((2, 16, 24), INT8),
        graph.input((2, 24, 12), INT8),
        graph.number(3, INT8),
        graph.number(-2, INT8),
    ]
    total = graph.emit(Op.MATMUL, operands, (2, 16, 12), INT32)
    graph.output(graph.rescale(total, 1e-3, INT8, zero_out=1))


def _transpose(graph: TosaGraph, _: np.random.Generator, perms, type: ElementType = INT8) -> None:
    x = graph.input((1, 6, 5, 16), type)
    shape = [x.shape[axis] for axis in perms]
    graph.output(graph.emit(Op.TRANSPOSE, [x], shape, type, perms=list(perms)))


def _concat(graph: TosaGraph, _: np.random.Generator, axis: int) -> None:
    shapes = [[1, 6, 5, 16], [1, 6, 5, 16]]
    shapes[1][axis] = 8
    whole = list(shapes[0])
    whole[axis] += 8
    parts = [graph.input(shape, INT8) for shape in shapes]
    graph.output(graph.emit(Op.CONCAT, parts, whole, INT8, axis=axis))


def _slice(graph: TosaGraph, _: np.random.Generator) -> None:
    x = graph.input(SHAPE, INT8)
    operands = [x, graph.sizes([0, 2, 1, 4]), graph.sizes([1, 4, 6, 8])]
    graph.output(graph.emit(Op.SLICE, operands, (1, 4, 6, 8), INT8))


def _pad(graph: TosaGraph, _: np.random.Generator) -> None:
    x = graph.input(SHAPE, INT8)
    operands = [x, graph.sizes([0, 0, 1, 2, 2, 1, 0, 0]), graph.number(-5, INT8)]
    graph.output(graph.emit(Op.PAD, operands, (1, 11, 11, 16), INT8))


def _reduce_sum(graph: TosaGraph, _: np.random.Generator, axis: int) -> None:
    x = graph.rescale(graph.input(SHAPE, INT8), 1.0, INT32, zero_in=-3)
    shape = [1 if i == axis else n for i, n in enumerate(SHAPE)]
    total = graph.emit(Op.REDUCE_SUM, [x], shape, INT32, axis=axis)
    graph.output(graph.rescale(total, 0.06, INT8))


def _reduce(graph: TosaGraph, _: np.random.Generator, op: Op, axis: int) -> None:
    x = graph.input(SHAPE, INT8)
    shape = [1 if i == axis else n for i, n in enumerate(SHAPE)]
    graph.output(graph.emit(op, [x], shape, INT8, axis=axis))


def _argmax(graph: TosaGraph, _: np.random.Generator) -> None:
    x = graph.input(SHAPE, INT8)
    graph.output(graph.emit(Op.ARGMAX, [x], SHAPE[:3], INT32, axis=3))


def _unary32(graph: TosaGraph, _: np.random.Generator, op: Op) -> None:
    x = graph.rescale(graph.input(SHAPE, INT8), 1.0, INT32, zero_in=-3)
    graph.output(graph.rescale(graph.emit(op, [x], SHAPE, INT32), 0.9, INT8))


def _words(graph: TosaGraph, _: np.random.Generator, op: Op, **attributes) -> None:
    """An operator on two inputs of 32 bits, the second one small where it is a shift."""
    first, second = graph.input(SHAPE, INT32), graph.input(SHAPE, INT8)
    shifts = op in (Op.ARITHMETIC_RIGHT_SHIFT, Op.LOGICAL_LEFT_SHIFT)
    wide = graph.rescale(second, 1 / 16 if shifts else 2**20, INT32, zero_in=0)
    if shifts:
        wide = graph.emit(Op.ABS, [wide], SHAPE, INT32)
    else:
        first = graph.rescale(first, 1 / 4, INT32)
    graph.output(graph.emit(op, [first, wide], SHAPE, INT32, **attributes))


def _clamp(graph: TosaGraph, rng: np.random.Generator) -> None:
    made = _conv(graph, rng)
    low, high = (list(np.array([n], np.int8).tobytes()) for n in (-20, 60))
    graph.output(graph.emit(Op.CLAMP, [made], made.shape, INT8, min_val=low, max_val=high))


def _residual(graph: TosaGraph, rng: np.random.Generator) -> None:
    """A convolution, another one of its result, and the sum of both."""
    first = _conv(graph, rng, (16, 16, 16), 16, (3, 3), pad=(1, 1, 1, 1))
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


def _deep(graph: TosaGraph, rng: np.random.Generator) -> None:
    """More channels than a block takes, on both sides."""
    graph.output(_conv(graph, rng, (6, 7, 90), 150, (3, 3), pad=(1, 1, 1, 1)))


_SAME = (1, 1, 1, 1)
U55_CASES: dict[str, Make] = {
    "conv 1x1": _given,
    "conv 3x3 stride 2": partial(
        _given, shape=(16, 16, 8), outputs=16, kernel=(3, 3), stride=(2, 2), pad=(1, 0, 1, 0)
    ),
    "conv dilation 2": partial(
        _given, shape=(16, 16, 8), outputs=16, kernel=(3, 3), dilation=(2, 2), pad=(2,) * 4
    ),
    "conv dilation 3": partial(
        _given, shape=(11, 11, 8), outputs=16, kernel=(3, 3), dilation=(3, 3), pad=(3,) * 4
    ),
    "conv 7x7 stride 2": partial(
        _given, shape=(21, 21, 3), outputs=16, kernel=(7, 7), stride=(2, 2), pad=(3, 3, 3, 3)
    ),
    "conv 9x11": partial(_given, shape=(12, 13, 5), outputs=7, kernel=(9, 11), pad=(4, 4, 5, 5)),
    "conv stride 4": partial(_given, shape=(16, 16, 3), outputs=16, kernel=(4, 4), stride=(4, 4)),
    "conv stride 3": partial(_given, shape=(21, 21, 4), outputs=16, kernel=(3, 3), stride=(3, 3)),
    "conv 10x4": partial(
        _given, shape=(49, 10, 1), outputs=64, kernel=(10, 4), stride=(2, 2), pad=(4, 5, 1, 1)
    ),
    "conv of one row": partial(
        _given, shape=(1, 40, 16), outputs=24, kernel=(1, 5), pad=(0, 0, 2, 2)
    ),
    "conv of many channels": _deep,
    "conv rounded twice": partial(_given, double=True),
    "fully connected": partial(_given, shape=(1, 1, 130), outputs=70),
    "depthwise": partial(
        _given, shape=(16, 16, 24), outputs=1, kernel=(3, 3), pad=_SAME, depthwise=True
    ),
    "depthwise stride 2": partial(
        _given, shape=(17, 17, 40), outputs=1, kernel=(3, 3), stride=(2, 2), depthwise=True
    ),
    "depthwise multiplier": partial(
        _given, shape=(9, 9, 1), outputs=8, kernel=(3, 3), pad=_SAME, depthwise=True
    ),
    "depthwise multiplier of many": partial(
        _given, shape=(6, 6, 4), outputs=2, kernel=(3, 3), pad=_SAME, depthwise=True
    ),
    "depthwise 1x9": partial(
        _given, shape=(1, 40, 16), outputs=1, kernel=(1, 9), pad=(0, 0, 4, 4), depthwise=True
    ),
    "transposed conv": _transposed_conv,
    "max pool": partial(_max_pool, kernel=(3, 3), stride=(2, 2), pad=(0,) * 4, size=(17, 17)),
    "max pool padded": partial(_max_pool, kernel=(3, 3), stride=(1, 1), pad=_SAME, size=(9, 8)),
    "average padded": partial(_average, kernel=(3, 3), stride=(1, 1), pad=_SAME, size=(9, 9)),
    "average padded, zero points": partial(
        _average, kernel=(3, 3), stride=(1, 1), pad=_SAME, size=(9, 9), zeros=(3, 3)
    ),
    "average of all": partial(
        _average, kernel=(7, 7), stride=(1, 1), pad=(0,) * 4, size=(7, 7), zeros=(-9, -9)
    ),
    "average stride 2": partial(_average, kernel=(2, 2), stride=(2, 2), pad=(0,) * 4, size=(8, 8)),
    "average of 16 bits": partial(
        _average, kernel=(4, 2), stride=(4, 2), pad=(0,) * 4, size=(8, 8), type=INT16
    ),
    "add": partial(_binary, op=Op.ADD),
    "add, one scale exact": partial(_binary, op=Op.ADD, scales=(2**19, 0.3 * 2**20, 1.1 / 2**20)),
    "add, other scale exact": partial(_binary, op=Op.ADD, scales=(0.3 * 2**20, 2**19, 1.1 / 2**20)),
    "add, rounded twice": partial(_binary, op=Op.ADD, rounding=Rounding.DOUBLE),
    "add of 16 bits": partial(
        _binary, op=Op.ADD, scales=(2**14, 0.3 * 2**15, 1.1 / 2**15), type=INT16
    ),
    "add channels": partial(_binary, op=Op.ADD, shapes=(SHAPE, (1, 1, 1, 16))),
    "add to a column": partial(_binary, op=Op.ADD, shapes=((1, 8, 1, 16), SHAPE)),
    "sub": partial(_binary, op=Op.SUB),
    "sub from a broadcast one": partial(_binary, op=Op.SUB, shapes=((1, 1, 1, 16), SHAPE)),
    "mul": partial(_binary, op=Op.MUL, scales=(1.0, 1.0, 0.007)),
    "mul by one number": partial(
        _binary, op=Op.MUL, scales=(1.0, 1.0, 0.007), shapes=(SHAPE, (1, 1, 1, 1))
    ),
    "mul of 16 bits": partial(_binary, op=Op.MUL, scales=(1.0, 1.0, 2.0**-15), type=INT16),
    "maximum": partial(_binary, op=Op.MAXIMUM, scales=(1.0, 1.0, 1.0)),
    "minimum": partial(_binary, op=Op.MINIMUM, scales=(1.0, 1.0, 1.0)),
    "table of 8 bits": _table8,
    "table of 16 bits": _table16,
    "conv and table": _conv_and_table,
    "three tables": _two_tables,
    "clamp": _clamp,
    "matmul": _matmul,
    "transpose WC": partial(_transpose, perms=(0, 1, 3, 2)),
    "transpose to channels first": partial(_transpose, perms=(0, 3, 1, 2)),
    "transpose HW of 16 bits": partial(_transpose, perms=(0, 2, 1, 3), type=INT16),
    "concat channels": partial(_concat, axis=3),
    "concat rows": partial(_concat, axis=1),
    "slice": _slice,
    "pad": _pad,
    "sum of channels": partial(_reduce_sum, axis=3),
    "sum of a column": partial(_reduce_sum, axis=1),
    "maximum of channels": partial(_reduce, op=Op.REDUCE_MAX, axis=3),
    "maximum of a column": partial(_reduce, op=Op.REDUCE_MAX, axis=1),
    "argmax": _argmax,
    "abs": partial(_unary32, op=Op.ABS),
    "clz": partial(_unary32, op=Op.CLZ),
    "add of 32 bits": partial(_words, op=Op.ADD),
    "sub of 32 bits": partial(_words, op=Op.SUB),
    "maximum of 32 bits": partial(_words, op=Op.MAXIMUM),
    "shift left": partial(_words, op=Op.LOGICAL_LEFT_SHIFT),
    "shift right, rounded": partial(_words, op=Op.ARITHMETIC_RIGHT_SHIFT, round=True),
    "residual": _residual,
}
