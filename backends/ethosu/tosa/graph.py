"""A graph of TOSA operators as it is built, one operator behind the other."""

from __future__ import annotations

from collections.abc import Sequence
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
    _count: int = 0

    def input(self, shape: Sequence[int], type: ElementType) -> Tensor:
        """A further input."""
        tensor = self._tensor(shape, type, "input")
        self.inputs.append(tensor)
        return tensor

    def output(self, tensor: Tensor) -> None:
        """Give a tensor as the next output; one that is given already, or an input, as a copy."""
        if tensor in self.outputs or tensor in self.inputs or tensor.data is not None:
            tensor = self.emit(Op.IDENTITY, [tensor], tensor.shape, tensor.type)
        self.outputs.append(tensor)

    def constant(self, data: Array, type: ElementType) -> Tensor:
        """A constant; equal ones are one tensor."""
        array = np.ascontiguousarray(data, NUMPY[type])
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

    def _stored(self, x: Tensor) -> Tensor:
        """A tensor that an operator stores which does more than to copy, with the same elements.

        Vela 5.2 lets copies for U55 and U65 widen what they copy, and then scales other elements.
        """
        source: Tensor | None = x
        while source is not None and (made := self.makers.get(source)) is not None:
            if made.op in _COPIES and x.type in _LIMITED:
                least, most = np.iinfo(NUMPY[x.type]).min, np.iinfo(NUMPY[x.type]).max
                limits = {
                    "min_val": NUMPY[x.type].type(least).tobytes(),
                    "max_val": NUMPY[x.type].type(most).tobytes(),
                }
                return self.emit(Op.CLAMP, [x], x.shape, x.type, **limits)
            source = made.inputs[0] if made.op in _VIEWS else None
        return x

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
