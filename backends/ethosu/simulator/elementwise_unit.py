"""Elementwise operations of the NPU: on one or two operands, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .feature_map import FeatureMap
from .npu_operation import IntegerScale, NpuOperation
from .region_memory import RegionMemory
from .rescaling import Integers, ShiftRounding, rescale
from .violations import Rule, SimulationError

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
    return _binary(operation, first, second), False


def u85_elementwise(operation: NpuOperation, memory: RegionMemory) -> tuple[Integers, bool]:
    """Results of an operation of the Ethos-U85, and whether they are scaled already."""
    shape, mode = operation.ofm.shape, operation.mode
    first = _operand(operation.ifm, operation.first_scalar, memory, shape)
    if mode == "lrelu":
        positive, negative = (_scaled(first, scale) for scale in operation.input_scales)
        return np.where(first < 0, negative, positive), False
    first_scale, second_scale = operation.input_scales
    first = _scaled(first, first_scale)
    if operation.ifm2 is None and operation.scalar is None:
        if mode == "not":
            return ~first, False
        return _unary(mode, first, IntegerScale(1, 0, ShiftRounding.NATURAL)), False
    second = _operand(operation.ifm2, operation.scalar, memory, shape)
    second = _scaled(second, second_scale)
    _check_shifts(operation, second)
    if mode in _U85_BINARY:
        return np.asarray(_U85_BINARY[mode](first, second), np.int64), False
    return _binary(operation, first, second), False


def _operand(
    feature_map: FeatureMap | None,
    scalar: int | None,
    memory: RegionMemory,
    shape: tuple[int, int, int],
) -> Integers:
    if scalar is not None or feature_map is None:
        return np.full(shape, scalar, np.int64)
    values = feature_map.load(memory).astype(np.int64) - feature_map.zero_point
    return np.broadcast_to(values, shape)


def _quotient(first: Integers, second: Integers) -> Integers:
    """Toward zero; of a division by zero, 0."""
    whole = np.abs(first) // np.maximum(np.abs(second), 1)
    return np.where(second == 0, 0, np.where((first < 0) != (second < 0), -whole, whole))


def _logical_right(first: Integers, second: Integers) -> Integers:
    return wrapped((first & (1 << _WORD) - 1) >> second)


def _bits_of(comparison: Callable[[Integers, Integers], Any]) -> Callable[..., Integers]:
    """A comparison that says yes by a number of ones, -1."""
    return lambda first, second: -np.asarray(comparison(first, second), np.int64)


_U85_BINARY: dict[str, Any] = {
    "lsr": _logical_right,
    "div": _quotient,
    "eq": _bits_of(np.equal),
    "ne": _bits_of(np.not_equal),
    "ge": _bits_of(np.greater_equal),
    "gt": _bits_of(np.greater),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "and_not": lambda first, second: first & ~second,
}


def _scaled(values: Integers, scale: IntegerScale | None) -> Integers:
    if scale is None or (scale.factor, scale.shift) == (1, 0):
        return values
    return rescale(values, scale.factor, scale.shift, scale.rounding, scale.first_bits)


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


def _check_shifts(operation: NpuOperation, amounts: Integers) -> None:
    """Raise SimulationError for shifts by fewer than 0 bits, or by more than there are."""
    shifts = operation.mode in ("shr", "shl", "lsr")
    if shifts and (int(amounts.min()) < 0 or int(amounts.max()) > _WORD):
        raise SimulationError(
            Rule.NOT_SIMULATED,
            f"shifts by {int(amounts.min())} to {int(amounts.max())} bits",
            operation.position,
        )


def _binary(operation: NpuOperation, first: Integers, second: Integers) -> Integers:
    simple: dict[str, Any] = {
        "mul": np.multiply,
        "add": np.add,
        "sub": np.subtract,
        "min": np.minimum,
        "max": np.maximum,
    }
    if operation.mode in simple:
        return np.asarray(simple[operation.mode](first, second))
    _check_shifts(operation, second)
    if operation.mode == "shr":
        return rescale(first, 1, second, operation.rounding)
    return wrapped(first << second)


def wrapped(values: Integers) -> Integers:
    """The low 32 bits of numbers, signed."""
    half = 1 << _WORD - 1
    return np.asarray((values + half) % (1 << _WORD) - half)
