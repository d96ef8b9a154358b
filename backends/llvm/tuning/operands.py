"""What kernels are measured on: the same numbers for every candidate, as each wants them stored.

Constants are the model's own, packed as the candidate's schedule asks; other operands are drawn.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ....compiler.ir.dims import Dim, evaluate
from ....compiler.ir.graph import Value
from ....compiler.ir.types import DType, TensorType
from ....compiler.kernel import expr as ex
from ....compiler.kernel.kernel import Kernel
from ....compiler.kernel.lower.scope import storage_elements, strides_of
from ....compiler.kernel.schedule.packing import Packing

Array = np.ndarray[Any, Any]
ALIGNMENT = 64  # of a part of the data
_SPREAD = 2.0  # floats are drawn between minus and plus this
_INTEGERS = 100  # integers of more than 8 bits that decide no address: below this
_TYPES = {DType.F64: "f64", DType.F32: "f32", DType.F16: "f16", DType.BF16: "bf16"}


def addresses(kernel: Kernel) -> set[str]:
    """Parameters whose elements take part in an index."""
    found: set[str] = set()
    for stage in kernel.stages:
        indices = [index for store in stage.stores for index, _ in store.dynamic]
        for expression in stage.expressions():
            for part in ex.walk(expression):
                if isinstance(part, ex.Load):
                    indices += [index for index, _ in part.dynamic]
        for index in indices:
            found |= {p.buffer.name for p in ex.walk(index) if isinstance(p, ex.Load)}
    return found


def drawn(name: str, type_: TensorType, sizes: Mapping[str, int], most: int) -> Array:
    """Random elements of an operand; the same for the same name and shape.

    most: integers of more than 8 bits are below.
    """
    shape = tuple(evaluate(dim, sizes) for dim in type_.shape)
    rng = np.random.default_rng(zlib.crc32(f"{name} {type_.dtype} {shape}".encode()))
    dtype = type_.dtype
    if dtype.is_float:
        wide = rng.random(shape, np.float32) * np.float32(2 * _SPREAD) - np.float32(_SPREAD)
        return wide.astype(dtype.numpy)
    if dtype is DType.BOOL:
        return rng.integers(0, 2, shape, np.uint8).astype(np.bool_)
    if dtype.bits == 8:
        return rng.integers(0, 256, shape, np.uint8).view(dtype.numpy)
    return rng.integers(0, most, shape).astype(dtype.numpy)


def stored(type_: TensorType, sizes: Mapping[str, int], data: Array) -> Array:
    """The flat storage of a tensor's elements, what its layout says around them."""
    count = evaluate(storage_elements(type_), sizes)
    flat = np.full(count, type_.layout.fill, type_.dtype.numpy)
    strides, origin = strides_of(type_)
    steps = [evaluate(stride, sizes) * flat.itemsize for stride in strides]
    start = flat[evaluate(origin, sizes) :]
    if data.size:
        np.lib.stride_tricks.as_strided(start, data.shape, steps)[...] = data
    return flat


class Data:
    """The file of numbers that operands are made of; equal parts are in it once.

    Lines describe pieces of memory as `runtime/measure.h` has them.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._places: dict[object, int] = {}
        self._changed: dict[object, tuple[int, int]] = {}

    def bytes(self) -> bytes:
        """The file's content."""
        return b"".join(self._parts)

    def constant(self, value: Value, packing: Packing | None) -> str:
        """The line of a constant."""
        data = value.data
        assert data is not None
        if packing is None:
            return f"weights {data.nbytes} {self._place(id(data), data)}"
        key = (id(data), packing.before)
        if key not in self._changed:
            plain = packing.before.apply(data) if packing.before else data
            self._changed[key] = (self._place(key, plain), plain.itemsize)
        place, element = self._changed[key]
        p = packing
        return (
            f"packed {p.elements * element} {place} {element} "
            f"{p.rows} {p.columns} {p.width} {p.matrices}"
        )

    def input(
        self, name: str, value: Value, sizes: Mapping[str, int], least: int, most: int
    ) -> str:
        """The line of an operand that a run makes. least: bytes that it has. most: as `drawn`."""
        key = (name, value.type, most)
        if key not in self._changed:
            flat = stored(value.type, sizes, drawn(name, value.type, sizes, most))
            short = max(0, -(-least // flat.itemsize) - flat.size)
            flat = np.concatenate([flat, np.zeros(short, flat.dtype)])
            self._changed[key] = (self._place(key, flat), flat.nbytes)
        place, size = self._changed[key]
        return f"input {size} {place}"

    def _place(self, key: object, data: Array) -> int:
        if key not in self._places:
            content = np.ascontiguousarray(data).reshape(-1).view(np.uint8).tobytes()
            digest = hashlib.sha256(content).digest()
            if digest not in self._places:
                self._places[digest] = self._size
                padded = content + bytes(-len(content) % ALIGNMENT)
                self._parts.append(padded)
                self._size += len(padded)
            self._places[key] = self._places[digest]
        return self._places[key]


def output_line(type_: TensorType, sizes: Mapping[str, int]) -> str:
    """The line of a result's memory."""
    size = evaluate(storage_elements(type_), sizes) * type_.dtype.bytes
    return f"output {size} {_TYPES.get(type_.dtype, 'b')}"


def largest_dim(shapes: list[tuple[Dim, ...]], sizes: Mapping[str, int]) -> int:
    """The largest of all dims, at least 1: indices below it are mostly in range, and kernels take
    the nearest element for others."""
    return max((evaluate(dim, sizes) for shape in shapes for dim in shape), default=1) or 1
