"""Element by element in TOSA: arithmetic, scaling, tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....compiler.ir.graph import Node, Value
from ....compiler.ir.ops.quantization import REACHED
from ....compiler.ir.rewrite import scalar
from ....compiler.ir.types import DType
from .contractions import average, with_bias
from .graph import NUMPY, Tensor
from .lowering import TYPES, Lowering, lowers
from .schema import ElementType, Op, Rounding

_ARITHMETIC = {"add": Op.ADD, "sub": Op.SUB, "mul": Op.MUL}
_EXTREMES = {"max": Op.MAXIMUM, "min": Op.MINIMUM}
_MOST_AXES = 4  # of a first operand that has one element
_ROUNDINGS = {"single": Rounding.SINGLE, "double": Rounding.DOUBLE}


@lowers("cast")
def cast(low: Lowering, node: Node) -> Tensor:
    """Bytes and halves as i32."""
    x = low.tensor(node.inputs[0])
    return low.graph.rescale(x, 1.0, TYPES[node.output.dtype])


@lowers("requantize")
def requantize(low: Lowering, node: Node) -> Tensor:
    """The step back to bytes, clamped where the range is not the whole one."""
    total, scale, zero = node.inputs
    assert scale.data is not None
    limits = node.attrs["low"], node.attrs["high"]
    whole = REACHED[node.output.dtype]
    if (mean := average(low, node)) is not None:
        return mean if limits == whole else low.graph.clamp(mean, *limits)
    source, zero_in = low.narrow(total)
    made = low.graph.rescale(
        source, scale.data.reshape(-1) if scale.data.size > 1 else float(scale.data.reshape(())),
        TYPES[node.output.dtype], zero_in=zero_in, zero_out=int(scalar(zero) or 0),
        rounding=_ROUNDINGS[node.attrs["rounding"]],
    )  # fmt: skip
    return made if limits == whole else low.graph.clamp(made, *limits)


@lowers("add", "sub", "mul")
def arithmetic(low: Lowering, node: Node) -> Tensor:
    """Of i32; a bias goes into its product."""
    if node.op == "add" and (made := with_bias(low, node)) is not None:
        return made
    shape = node.output.type.static_shape
    operands = _alike(low, _ranked(low, node.inputs, len(shape)))
    if node.op != "sub":
        operands = _whole_first(operands, shape)
    elif len(shape) > _MOST_AXES and set(operands[0].shape) == {1} != set(shape):
        operands[0] = low.graph.along_last(operands[0], shape)
    if node.op == "mul":
        operands.append(low.graph.number(0, ElementType.INT8))
    return low.emit(_ARITHMETIC[node.op], operands, node.output.shape, node.output.dtype)


def _whole_first(operands: list[Tensor], shape: tuple[int, ...]) -> list[Tensor]:
    """Operands that may be swapped, for a result of a shape: Vela 5.2 repeats the second one along
    any axes; the first one, for U55 and U65, not where it has one element on more than `_MOST_AXES`
    axes."""
    return operands if operands[0].shape == shape else operands[::-1]


def _alike(low: Lowering, operands: list[Tensor]) -> list[Tensor]:
    """Operands of which a constant is widened from what the other one is widened from, if it fits:
    an operator then reads both as they were before."""
    for number, constant in enumerate(operands):
        other = low.graph.makers.get(operands[1 - number])
        if constant.data is None or other is None or other.op is not Op.RESCALE:
            continue
        narrow = other.inputs[0].type
        limits = np.iinfo(NUMPY[narrow])
        if narrow is constant.type or not limits.min <= constant.data.min() <= limits.max:
            continue
        if constant.data.max() <= limits.max:
            small = low.graph.constant(constant.data, narrow)
            operands[number] = low.graph.rescale(small, 1.0, constant.type)
    return operands


@lowers("max", "min")
def extreme(low: Lowering, node: Node) -> Tensor:
    """A clip where one side is a constant number; TOSA compares i32 alone otherwise."""
    left, right = node.inputs
    dtype = node.output.dtype
    bound = scalar(right)
    if bound is not None and left.shape == node.output.shape:
        least, most = REACHED[dtype]
        limits = (int(bound), most) if node.op == "max" else (least, int(bound))
        return low.graph.clamp(low.tensor(left), *limits)
    shape = node.output.type.static_shape
    operands = _whole_first(_ranked(low, node.inputs, len(shape)), shape)
    if dtype is DType.I32:
        return low.emit(_EXTREMES[node.op], operands, shape, dtype)
    wide = [low.graph.rescale(x, 1.0, ElementType.INT32) for x in operands]
    made = low.emit(_EXTREMES[node.op], wide, shape, DType.I32)
    return low.graph.rescale(made, 1.0, TYPES[dtype])


def _ranked(low: Lowering, values: Sequence[Value], rank: int) -> list[Tensor]:
    """Tensors of one rank."""
    found = []
    for value in values:
        tensor = low.tensor(value)
        ones = (1,) * (rank - len(tensor.shape))
        found.append(low.graph.reshape(tensor, (*ones, *tensor.shape)))
    return found


@lowers("byte_table")
def byte_table(low: Lowering, node: Node) -> Tensor:
    """256 results, from that of -128 on."""
    values = np.asarray(node.attrs["values"], np.uint8).view(np.int8)
    table = low.graph.constant(np.roll(values, 128), ElementType.INT8)
    return low.emit(Op.TABLE, [low.tensor(node.inputs[0]), table], node.output.shape, DType.I8)


@lowers("interpolated_table")
def interpolated_table(low: Lowering, node: Node) -> Tensor:
    """513 results, from that of -32768 on."""
    table = low.graph.constant(np.asarray(node.attrs["values"]), ElementType.INT16)
    return low.emit(Op.TABLE, [low.tensor(node.inputs[0]), table], node.output.shape, DType.I32)
