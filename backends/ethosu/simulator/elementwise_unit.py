"""Elementwise operations of the NPU: on one or two operands, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from .npu_operation import IntegerScale, NpuOperation
from .region_memory import RegionMemory
from .rescaling import Integers, ShiftRounding, rescale

_WORD = 32


def operands(operation: NpuOperation, memory: RegionMemory) -> tuple[Integers, Integers | None]:
    """First and second operand without their zero points, the second as large as the first."""
    first = operation.ifm.load(memory).astype(np.int64) - operation.ifm.zero_point
    if operation.scalar is not None:
        second = np.full((1, 1, 1), operation.scalar, np.int64)
    elif operation.ifm2 is not None:
        ifm2 = operation.ifm2
        second = ifm2.load(memory).astype(np.int64) - ifm2.zero_point
    else:
        return first, None
    second = np.broadcast_to(second, first.shape)
    return (second, first) if operation.swapped else (first, second)


def u55_elementwise(operation: NpuOperation, memory: RegionMemory) -> tuple[Integers, bool]:
    """Results of an operation of the Ethos-U55 and -U65, and whether they are scaled already."""
    first, second = operands(operation, memory)
    scale = operation.scale or IntegerScale(1, 0, ShiftRounding.NATURAL)
    if second is None:
        return _unary(operation.mode, first, scale), operation.mode == "lrelu"
    first_scale, second_scale = operation.input_scales
    first, second = _scaled(first, first_scale), _scaled(second, second_scale)
    return _binary(operation.mode, first, second, scale.rounding), False


def _scaled(values: Integers, scale: IntegerScale | None) -> Integers:
    if scale is None or (scale.factor, scale.shift) == (1, 0):
        return values
    return rescale(values, scale.factor, scale.shift, scale.rounding)


def _unary(mode: str, values: Integers, scale: IntegerScale) -> Integers:
    if mode == "abs":
        return np.abs(values)
    if mode == "lrelu":
        return np.where(values < 0, _scaled(values, scale), values)
    return leading_zeros(values)


def leading_zeros(values: Integers) -> Integers:
    """Zeros above the highest bit of 32; of negative numbers 0."""
    bits = np.frexp(np.maximum(values, 0).astype(np.float64))[1]
    return np.where(values < 0, 0, _WORD - bits).astype(np.int64)


def _binary(mode: str, first: Integers, second: Integers, rounding: ShiftRounding) -> Integers:
    simple: dict[str, Any] = {
        "mul": np.multiply,
        "add": np.add,
        "sub": np.subtract,
        "min": np.minimum,
        "max": np.maximum,
    }
    if mode in simple:
        return np.asarray(simple[mode](first, second))
    if mode == "shr":
        return rescale(first, 1, second, rounding)
    return wrapped(first << second)


def wrapped(values: Integers) -> Integers:
    """The low 32 bits of numbers, signed."""
    half = 1 << _WORD - 1
    return np.asarray((values + half) % (1 << _WORD) - half)
