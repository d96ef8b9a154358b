"""A graph of TOSA operators as it is built, one operator behind the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....compiler.errors import InternalError
from ....compiler.ir.ops.fixed_point import multiplier_of
from .schema import FIELDS, ElementType, Op, Rounding

Array = np.ndarray[Any, Any]
NUMPY: dict[ElementType, np.dtype[Any]] = {
    ElementType.BOOL: np.dtype(np.uint8),
    ElementType.INT8: np.dtype(np.int8),
    ElementType.INT16: np.dtype(np.int16),
    ElementType.INT32: np.dtype(np.int32),
    ElementType.SHAPE: np.dtype(np.int64),
}

_VIEWS = (Op.RESHAPE, Op.IDENTITY)
_COPIES = (Op.CONCAT, Op.PAD, Op.SLICE, Op.TILE)
_WINDOWS = (Op.CONV2D, Op.DEPTHWISE_CONV2D, Op.MAX_POOL2D, Op.AVG_POOL2D)
_NOT_OF_SLICES = (  # operators that do not read a part of a tensor in its place
    Op.MATMUL, Op.TRANSPOSE_CONV2D, Op.ARGMAX, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.REDUCE_SUM,
)  # fmt: skip
_MOST_DILATION = 2  # of kernels that Vela does not divide
_LIMITED = (ElementType.INT8, ElementType.INT16)  # types that there are clamps of


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a graph. data: of constants."""

    name: str
    shape: tuple[int, ...]
    type: ElementType
    data: Array | None = None


@dataclass(frozen=True, eq=False)
class Operator:
    """One operation. location: what it was made for."""

    op: Op
    inputs: tuple[Tensor, ...]
    output: Tensor
    attributes: dict[str, Any]
    location: str = ""


@dataclass
class TosaGraph:
    """Operators in execution order; constants are made as they are needed. makers: the operators by
    what they make."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    location: str = ""
    makers: dict[Tensor, Operator] = field(default_factory=dict)
    _constants: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    _kept: dict[Tensor, Tensor] = field(default_factory=dict)
    _count: int = 0

    def input(self, shape: Sequence[int], type: ElementType) -> Tensor:
        """A further input."""
        tensor = self._tensor(shape, type, "input")
        self.inputs.append(tensor)
        return tensor

    def output(self, tensor: Tensor) -> None:
        """Give a tensor as the next output; as a copy, one that holds what another one or an input
        does, or a view of what something else reads, which Vela 5.2 leaves out of its outputs."""
        root = self._root(tensor)
        known = root in self.inputs or tensor.data is not None
        given = root in map(self._root, self.outputs)
        if known or given or (root is not tensor and self._is_read(root)):
            tensor = self.emit(Op.IDENTITY, [tensor], tensor.shape, tensor.type)
        self.outputs.append(tensor)

    def _root(self, tensor: Tensor) -> Tensor:
        """What a tensor is a view of; itself, where it is none."""
        while (made := self.makers.get(tensor)) is not None and made.op in _VIEWS:
            tensor = made.inputs[0]
        return tensor

    def _is_read(self, root: Tensor) -> bool:
        """Whether an operator that makes more than a view reads a tensor, or a view of it."""
        return any(
            operator.op not in _VIEWS and root in map(self._root, operator.inputs)
            for operator in self.operators
        )

    def constant(self, data: Array, type: ElementType) -> Tensor:
        """A constant; equal ones are one tensor."""
        array = np.asarray(data, NUMPY[type], order="C")
        key = (type, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._tensor(array.shape, type, "constant", array)
        return self._constants[key]

    def number(self, value: int, type: ElementType) -> Tensor:
        """A constant of one element, of rank 1."""
        return self.constant(np.array([value]), type)

    def sizes(self, values: Sequence[int]) -> Tensor:
        """A list of sizes, of places or of margins."""
        return self.constant(np.array(values, np.int64), ElementType.SHAPE)

    def emit(
        self,
        op: Op,
        inputs: Sequence[Tensor],
        shape: Sequence[int],
        type: ElementType,
        **attributes: Any,
    ) -> Tensor:
        """Append an operator; its result."""
        wanted = {known.name for known in FIELDS.get(op, ()) if known.value is None}
        if wanted != attributes.keys():
            raise InternalError(f"{op.name} takes the attributes {wanted}, not {[*attributes]}")
        if _reads_no_slices(op, inputs, attributes):
            inputs = [self._stored(x, (Op.SLICE,)) for x in inputs]
        output = self._tensor(shape, type, op.name.lower())
        made = Operator(op, tuple(inputs), output, attributes, self.location)
        self.operators.append(made)
        self.makers[output] = made
        return output

    def rescale(
        self,
        x: Tensor,
        scale: Array | float,
        type: ElementType,
        *,
        zero_in: int = 0,
        zero_out: int = 0,
        rounding: Rounding = Rounding.SINGLE,
    ) -> Tensor:
        """(x - zero_in) times a positive scale, one or one for each channel (the last axis),
        rounded, plus zero_out, saturated."""
        multipliers, shifts = multiplier_of(np.atleast_1d(np.asarray(scale)))
        if type is ElementType.INT32:
            x = self._stored(x)
        operands = [
            x,
            self.constant(multipliers, ElementType.INT32),
            self.constant(shifts, ElementType.INT8),
            self.number(zero_in, x.type),
            self.number(zero_out, type),
        ]
        return self.emit(
            Op.RESCALE, operands, x.shape, type,
            rounding_mode=rounding, per_channel=multipliers.size > 1,
        )  # fmt: skip

    def along_last(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """A tensor of one element, as often as a shape has places on its last axis of several.

        What is widened is repeated before it is.
        """
        made = self.makers.get(x)
        while made is not None and made.op in _VIEWS:
            made = self.makers.get(made.inputs[0])
        wide = made if made is not None and made.op is Op.RESCALE else None
        source = wide.inputs[0] if wide else x
        axis = max(axis for axis, size in enumerate(shape) if size > 1)
        sizes = [size if a == axis else 1 for a, size in enumerate(shape)]
        one = self.reshape(source, (1,) * len(sizes))
        row = self.emit(Op.TILE, [one, self.sizes(sizes)], sizes, source.type)
        if wide is None:
            return row
        operands = [self._stored(row), *wide.inputs[1:]]
        return self.emit(Op.RESCALE, operands, sizes, wide.output.type, **wide.attributes)

    def _stored(self, x: Tensor, copies: Sequence[Op] = _COPIES) -> Tensor:
        """A tensor that an operator stores which does more than to copy, with the same elements.

        Vela 5.2 lets copies for U55 and U65 widen what they copy, and then scales other elements;
        what reads a part of a tensor instead of a copy of it reads other elements in operators that
        it divides.
        """
        source: Tensor | None = x
        while source is not None and (made := self.makers.get(source)) is not None:
            if made.op in copies and x.type in _LIMITED:
                if x not in self._kept:
                    self._kept[x] = self.clamp(x, *_limits(x.type))
                return self._kept[x]
            source = made.inputs[0] if made.op in _VIEWS else None
        return x

    def clamp(self, x: Tensor, least: int, most: int) -> Tensor:
        """Elements of i8 or i16 within limits."""
        number = NUMPY[x.type].type
        return self.emit(
            Op.CLAMP, [x], x.shape, x.type,
            min_val=number(least).tobytes(), max_val=number(most).tobytes(),
        )  # fmt: skip

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The same elements in another shape."""
        if tuple(shape) == x.shape:
            return x
        if x.data is not None:
            return self.constant(x.data.reshape(tuple(shape)), x.type)
        return self.emit(Op.RESHAPE, [x, self.sizes(shape)], shape, x.type)

    def _tensor(
        self, shape: Sequence[int], type: ElementType, what: str, data: Array | None = None
    ) -> Tensor:
        self._count += 1
        return Tensor(f"{what}_{self._count}", tuple(int(n) for n in shape), type, data)


def _reads_no_slices(op: Op, inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> bool:
    """Whether an operator must not read parts of tensors that are not stored: those of
    `_NOT_OF_SLICES`, windows of wide dilations, and windows with margins of more than one image."""
    if op in _WINDOWS:
        wide = max(attributes.get("dilation", (1,))) > _MOST_DILATION
        return wide or (inputs[0].shape[0] > 1 and any(attributes["pad"]))
    return op in _NOT_OF_SLICES


def _limits(type: ElementType) -> tuple[int, int]:
    limits = np.iinfo(NUMPY[type])
    return int(limits.min), int(limits.max)
