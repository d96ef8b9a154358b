"""Constant right factors of products, of floats or of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .....compiler.ir import DType, Value
from ...site import Site
from ..standard.quantization import dynamic_u8


class Factor(Protocol):
    """A matrix [depth, columns] that data [..., depth] are multiplied by."""

    def times(self, x: Value) -> Value:
        """The product, in floats."""
        ...

    def columns(self, start: int, stop: int) -> Factor:
        """Some of the columns."""
        ...


@dataclass(frozen=True)
class FloatFactor:
    """A matrix of floats, or one that a `dequantize` of constants makes: whose operands are cut and
    turned in its place, so that it stays one."""

    site: Site
    value: Value

    @classmethod
    def of_direction(cls, s: Site, stacked: Value, index: int) -> FloatFactor:
        """Of [directions, columns, depth]."""
        made = stacked.producer
        if made is not None and made.op == "reshape":  # of one direction, which is no axis before
            only = made.inputs[0]
            made = only.producer if stacked.shape == (1, *only.shape) else None
        if made is None or made.op != "dequantize" or not all(v.is_constant for v in made.inputs):
            return cls(s, s.transpose(s.take(stacked, 0, index), (1, 0)))
        parts = []
        for value in made.inputs:
            whole = s.reshape(value, (1,) * (3 - value.type.rank) + tuple(value.shape))
            own = s.take(whole, 0, index if whole.shape[0] != 1 else 0)
            parts.append(s.transpose(own, (1, 0)))
        return cls(s, s.emit("dequantize", parts))

    def times(self, x: Value) -> Value:
        """See `Factor`."""
        return self.site.emit("matmul", [x, self.value])

    def columns(self, start: int, stop: int) -> FloatFactor:
        """See `Factor`."""
        s, made = self.site, self.value.producer
        if made is None or made.op != "dequantize":
            return FloatFactor(s, s.slice(self.value, 1, start, stop))
        parts = [v if v.shape[1] == 1 else s.slice(v, 1, start, stop) for v in made.inputs]
        return FloatFactor(s, s.emit("dequantize", parts))


@dataclass(frozen=True)
class ByteFactor:
    """A matrix of bytes; data are quantised to u8 by their range whenever they are multiplied.

    wide: the integers less their zero points, i32. scale: one number, or one for each column. The
    sums are those of integers, and go on as floats by the product of both scales: as ONNX Runtime's
    DynamicQuantizeLSTM has it (microsoft/onnxruntime, docs/ContribOperators.md).
    """

    site: Site
    wide: Value
    scale: Value

    def times(self, x: Value) -> Value:
        """See `Factor`."""
        s = self.site
        numbers, scale, zero = dynamic_u8(s, x)
        left = s.op_("sub", s.cast(numbers, DType.I32), s.cast(zero, DType.I32))
        total = s.cast(s.emit("matmul", [left, self.wide]), DType.F32)
        return s.op_("mul", total, s.op_("mul", scale, self.scale))

    def columns(self, start: int, stop: int) -> ByteFactor:
        """See `Factor`."""
        s = self.site
        scale = self.scale if self.scale.type.rank == 0 else s.slice(self.scale, 0, start, stop)
        return ByteFactor(s, s.slice(self.wide, 1, start, stop), scale)
