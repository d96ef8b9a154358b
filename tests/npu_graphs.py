"""Small TOSA graphs of one or two operators each, with inputs: what an NPU has to compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import npu_operators
import numpy as np
from npu_operators import BOOL, INT8, INT16, INT32, SHAPE

from tensmith.backends.ethosu.tosa.graph import NUMPY, TosaGraph
from tensmith.backends.ethosu.tosa.schema import Op, Rounding

__all__ = ["BOOL", "CASES", "INT8", "INT16", "INT32", "SHAPE", "U85_CASES", "graph_of", "inputs_of"]
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


_SAME = (1, 1, 1, 1)
CASES: dict[str, Make] = {
    "conv 1x1": npu_operators.given,
    "conv 3x3 stride 2": partial(
        npu_operators.given,
        shape=(16, 16, 8),
        outputs=16,
        kernel=(3, 3),
        stride=(2, 2),
        pad=(1, 0, 1, 0),
    ),
    "conv dilation 2": partial(
        npu_operators.given,
        shape=(16, 16, 8),
        outputs=16,
        kernel=(3, 3),
        dilation=(2, 2),
        pad=(2,) * 4,
    ),
    "conv dilation 3": partial(
        npu_operators.given,
        shape=(11, 11, 8),
        outputs=16,
        kernel=(3, 3),
        dilation=(3, 3),
        pad=(3,) * 4,
    ),
    "conv 7x7 stride 2": partial(
        npu_operators.given,
        shape=(21, 21, 3),
        outputs=16,
        kernel=(7, 7),
        stride=(2, 2),
        pad=(3, 3, 3, 3),
    ),
    "conv 9x11": partial(
        npu_operators.given, shape=(12, 13, 5), outputs=7, kernel=(9, 11), pad=(4, 4, 5, 5)
    ),
    "conv stride 4": partial(
        npu_operators.given, shape=(16, 16, 3), outputs=16, kernel=(4, 4), stride=(4, 4)
    ),
    "conv stride 5": partial(
        npu_operators.given, shape=(22, 22, 12), outputs=20, kernel=(7, 7), stride=(5, 5)
    ),
    "conv dilation 4": partial(
        npu_operators.given, shape=(14, 13, 8), outputs=16, kernel=(3, 3), dilation=(4, 4)
    ),
    "conv of a large kernel": partial(
        npu_operators.given, shape=(70, 5, 4), outputs=8, kernel=(66, 2)
    ),
    "conv stride 3": partial(
        npu_operators.given, shape=(21, 21, 4), outputs=16, kernel=(3, 3), stride=(3, 3)
    ),
    "conv 10x4": partial(
        npu_operators.given,
        shape=(49, 10, 1),
        outputs=64,
        kernel=(10, 4),
        stride=(2, 2),
        pad=(4, 5, 1, 1),
    ),
    "conv of one row": partial(
        npu_operators.given, shape=(1, 40, 16), outputs=24, kernel=(1, 5), pad=(0, 0, 2, 2)
    ),
    "conv of many channels": npu_operators.deep,
    "conv rounded twice": partial(npu_operators.given, double=True),
    "conv of four values": partial(
        npu_operators.given, shape=(4, 5, 64), outputs=64, kernel=(3, 3), pad=(1,) * 4, values=4
    ),
    "conv of sixteen values": partial(
        npu_operators.given, shape=(6, 7, 64), outputs=128, values=16
    ),
    "conv of sparse weights": partial(
        npu_operators.given, shape=(6, 7, 128), outputs=64, sparse=True
    ),
    "conv 3x3 of sparse weights": partial(
        npu_operators.given, shape=(6, 7, 32), outputs=48, kernel=(3, 3), pad=(1,) * 4, sparse=True
    ),
    "conv of any values": partial(
        npu_operators.given, shape=(4, 5, 64), outputs=64, kernel=(3, 3), pad=(1,) * 4
    ),
    "fully connected, wide": partial(npu_operators.given, shape=(1, 1, 512), outputs=256),
    "fully connected": partial(npu_operators.given, shape=(1, 1, 130), outputs=70),
    "depthwise": partial(
        npu_operators.given, shape=(16, 16, 24), outputs=1, kernel=(3, 3), pad=_SAME, depthwise=True
    ),
    "depthwise stride 2": partial(
        npu_operators.given,
        shape=(17, 17, 40),
        outputs=1,
        kernel=(3, 3),
        stride=(2, 2),
        depthwise=True,
    ),
    "depthwise multiplier": partial(
        npu_operators.given, shape=(9, 9, 1), outputs=8, kernel=(3, 3), pad=_SAME, depthwise=True
    ),
    "depthwise multiplier of many": partial(
        npu_operators.given, shape=(6, 6, 4), outputs=2, kernel=(3, 3), pad=_SAME, depthwise=True
    ),
    "depthwise 1x9": partial(
        npu_operators.given,
        shape=(1, 40, 16),
        outputs=1,
        kernel=(1, 9),
        pad=(0, 0, 4, 4),
        depthwise=True,
    ),
    "transposed conv": npu_operators.transposed_conv,
    "max pool": partial(
        npu_operators.max_pool, kernel=(3, 3), stride=(2, 2), pad=(0,) * 4, size=(17, 17)
    ),
    "max pool padded": partial(
        npu_operators.max_pool, kernel=(3, 3), stride=(1, 1), pad=_SAME, size=(9, 8)
    ),
    "average padded": partial(
        npu_operators.average, kernel=(3, 3), stride=(1, 1), pad=_SAME, size=(9, 9)
    ),
    "average padded, zero points": partial(
        npu_operators.average, kernel=(3, 3), stride=(1, 1), pad=_SAME, size=(9, 9), zeros=(3, 3)
    ),
    "average of all": partial(
        npu_operators.average,
        kernel=(7, 7),
        stride=(1, 1),
        pad=(0,) * 4,
        size=(7, 7),
        zeros=(-9, -9),
    ),
    "average stride 2": partial(
        npu_operators.average, kernel=(2, 2), stride=(2, 2), pad=(0,) * 4, size=(8, 8)
    ),
    "average of 16 bits": partial(
        npu_operators.average, kernel=(4, 2), stride=(4, 2), pad=(0,) * 4, size=(8, 8), type=INT16
    ),
    "add": partial(npu_operators.binary, op=Op.ADD),
    "add, one scale exact": partial(
        npu_operators.binary, op=Op.ADD, scales=(2**19, 0.3 * 2**20, 1.1 / 2**20)
    ),
    "add, other scale exact": partial(
        npu_operators.binary, op=Op.ADD, scales=(0.3 * 2**20, 2**19, 1.1 / 2**20)
    ),
    "add, rounded twice": partial(npu_operators.binary, op=Op.ADD, rounding=Rounding.DOUBLE),
    "add of 16 bits": partial(
        npu_operators.binary, op=Op.ADD, scales=(2**14, 0.3 * 2**15, 1.1 / 2**15), type=INT16
    ),
    "add channels": partial(npu_operators.binary, op=Op.ADD, shapes=(SHAPE, (1, 1, 1, 16))),
    "add to a column": partial(npu_operators.binary, op=Op.ADD, shapes=((1, 8, 1, 16), SHAPE)),
    "sub": partial(npu_operators.binary, op=Op.SUB),
    "sub from a broadcast one": partial(
        npu_operators.binary, op=Op.SUB, shapes=((1, 1, 1, 16), SHAPE)
    ),
    "mul": partial(npu_operators.binary, op=Op.MUL, scales=(1.0, 1.0, 0.007)),
    "mul by one number": partial(
        npu_operators.binary, op=Op.MUL, scales=(1.0, 1.0, 0.007), shapes=(SHAPE, (1, 1, 1, 1))
    ),
    "mul of 16 bits": partial(
        npu_operators.binary, op=Op.MUL, scales=(1.0, 1.0, 2.0**-15), type=INT16
    ),
    "maximum": partial(npu_operators.binary, op=Op.MAXIMUM, scales=(1.0, 1.0, 1.0)),
    "minimum": partial(npu_operators.binary, op=Op.MINIMUM, scales=(1.0, 1.0, 1.0)),
    "table of 8 bits": npu_operators.table8,
    "table of 16 bits": npu_operators.table16,
    "conv and table": npu_operators.conv_and_table,
    "three tables": npu_operators.two_tables,
    "clamp": npu_operators.clamp,
    "matmul": npu_operators.matmul,
    "transpose WC": partial(npu_operators.transpose, perms=(0, 1, 3, 2)),
    "transpose to channels first": partial(npu_operators.transpose, perms=(0, 3, 1, 2)),
    "transpose HW of 16 bits": partial(npu_operators.transpose, perms=(0, 2, 1, 3), type=INT16),
    "concat channels": partial(npu_operators.concat, axis=3),
    "concat rows": partial(npu_operators.concat, axis=1),
    "slice": npu_operators.sliced,
    "pad": npu_operators.padded,
    "sum of channels": partial(npu_operators.reduce_sum, axis=3),
    "sum of a column": partial(npu_operators.reduce_sum, axis=1),
    "maximum of channels": partial(npu_operators.reduce, op=Op.REDUCE_MAX, axis=3),
    "maximum of a column": partial(npu_operators.reduce, op=Op.REDUCE_MAX, axis=1),
    "argmax": npu_operators.argmax,
    "abs": partial(npu_operators.unary32, op=Op.ABS),
    "clz": partial(npu_operators.unary32, op=Op.CLZ),
    "add of 32 bits": partial(npu_operators.words, op=Op.ADD),
    "sub of 32 bits": partial(npu_operators.words, op=Op.SUB),
    "maximum of 32 bits": partial(npu_operators.words, op=Op.MAXIMUM),
    "shift left": partial(npu_operators.words, op=Op.LOGICAL_LEFT_SHIFT),
    "shift right, rounded": partial(npu_operators.words, op=Op.ARITHMETIC_RIGHT_SHIFT, round=True),
    "residual": npu_operators.residual,
    "tile": npu_operators.tile,
    "reverse H": partial(npu_operators.reverse, axis=1),
    "reverse W": partial(npu_operators.reverse, axis=2),
    "chain": npu_operators.chain,
    "table of 16 bits to 32": partial(npu_operators.table16, wide=True),
}
# What only the Ethos-U85 has.
U85_CASES: dict[str, Make] = {
    "depthwise stride 4": partial(
        npu_operators.given,
        shape=(17, 17, 16),
        outputs=1,
        kernel=(5, 5),
        stride=(4, 4),
        depthwise=True,
    ),
    "conv by an input": partial(npu_operators.conv_by_input, kernel=1),
    "conv 3x3 by an input": partial(npu_operators.conv_by_input, kernel=3),
    "reverse C": partial(npu_operators.reverse, axis=3),
    "transpose HW": partial(npu_operators.transpose, perms=(0, 2, 1, 3)),
    "transpose HC": partial(npu_operators.transpose, perms=(0, 3, 2, 1)),
    "transpose WCH": partial(npu_operators.transpose, perms=(0, 2, 3, 1)),
    "transpose of 32 bits": partial(npu_operators.transpose, perms=(0, 3, 1, 2), type=INT32),
    "equal": partial(npu_operators.compared, op=Op.EQUAL),
    "greater": partial(npu_operators.compared, op=Op.GREATER),
    "greater or equal": partial(npu_operators.compared, op=Op.GREATER_EQUAL),
    "logical and": partial(npu_operators.logical, op=Op.LOGICAL_AND),
    "logical or": partial(npu_operators.logical, op=Op.LOGICAL_OR),
    "logical xor": partial(npu_operators.logical, op=Op.LOGICAL_XOR),
    "logical not": partial(npu_operators.logical, op=Op.LOGICAL_NOT),
    "any": partial(npu_operators.any_of, op=Op.REDUCE_ANY),
    "all": partial(npu_operators.any_of, op=Op.REDUCE_ALL),
    "bitwise and": partial(npu_operators.bitwise, op=Op.BITWISE_AND),
    "bitwise or of 32 bits": partial(npu_operators.bitwise, op=Op.BITWISE_OR, type=INT32),
    "bitwise xor of 16 bits": partial(npu_operators.bitwise, op=Op.BITWISE_XOR, type=INT16),
    "bitwise not": partial(npu_operators.bitwise, op=Op.BITWISE_NOT),
    "division": npu_operators.divided,
    "shift right": partial(npu_operators.words, op=Op.ARITHMETIC_RIGHT_SHIFT, round=False),
    "logical shift right": partial(npu_operators.words, op=Op.LOGICAL_RIGHT_SHIFT),
    "gather": npu_operators.gather,
    "scatter": npu_operators.scatter,
    "resize nearest": partial(
        npu_operators.resize, mode=1, scale=(4, 2, 4, 2), offset=(0, 0), border=(2, 2)
    ),
    "resize nearest by 3/2": partial(
        npu_operators.resize, mode=1, scale=(3, 2, 3, 2), offset=(0, 0), border=(1, 0)
    ),
    "resize bilinear": partial(
        npu_operators.resize, mode=2, scale=(4, 2, 4, 2), offset=(0, 0), border=(2, 2)
    ),
    "resize bilinear, half pixels": partial(
        npu_operators.resize, mode=2, scale=(4, 2, 8, 2), offset=(-1, -3), border=(1, 3)
    ),
    "minimum of channels": partial(npu_operators.reduce, op=Op.REDUCE_MIN, axis=3),
    "minimum of a row": partial(npu_operators.reduce, op=Op.REDUCE_MIN, axis=2),
}
