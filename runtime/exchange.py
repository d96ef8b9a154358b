"""Tensors as their owners hold them, handed to a model as they lie: DLPack, on host or device."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import abi
from .arrays import Managed
from .slots import ModuleError, Spec

NO_WAIT = -1  # the stream of a consumer that waits by itself, in DLPack's protocol of Python


class Borrowed:
    """The DLTensors of some values, which are kept for as long as this object.

    stream: the CUstream in which the model works, 0: one of its own. written: the values are
    outputs. Raises ModuleError for what does not speak DLPack, or not of what it holds.
    """

    def __init__(
        self, specs: Sequence[Spec], values: Sequence[Any], stream: int, *, written: bool = False
    ) -> None:
        self.tensors = (abi.DLTensor * max(len(specs), 1))()
        self._kept: list[Any] = []
        self._stream, self._written = stream, written
        for number, (spec, value) in enumerate(zip(specs, values, strict=True)):
            if value is None and spec.optional:
                continue  # all zeros: it is left out
            if isinstance(value, np.ndarray):
                self._array(number, spec, value)
            elif hasattr(value, "__dlpack__"):
                self._capsule(number, spec, value)
            else:
                raise ModuleError(
                    f"'{spec.name}': a {type(value).__name__} is no tensor that speaks DLPack",
                    abi.ERROR_INPUT,
                )

    def _array(self, number: int, spec: Spec, array: np.ndarray[Any, Any]) -> None:
        """numpy's arrays have element types that its DLPack lacks, and may be read-only."""
        if array.dtype != spec.numpy_dtype:
            raise ModuleError(
                f"'{spec.name}': expected element type {spec.numpy_dtype.name}, got {array.dtype}",
                abi.ERROR_INPUT,
            )
        if any(step % array.itemsize for step in array.strides):
            raise ModuleError(
                f"'{spec.name}': its elements are not whole elements apart; copy it first",
                abi.ERROR_INPUT,
            )
        if self._written and not array.flags.writeable:
            raise ModuleError(f"'{spec.name}': the array is read-only", abi.ERROR_OUTPUT)
        sizes = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
        steps = (step // array.itemsize for step in array.strides)
        strides = (ctypes.c_int64 * max(array.ndim, 1))(*steps)
        pointer = ctypes.POINTER(ctypes.c_int64)
        tensor = self.tensors[number]
        tensor.data, tensor.ndim = array.ctypes.data, array.ndim
        tensor.device_type, tensor.dtype = abi.CPU_DEVICE, spec.code
        tensor.shape, tensor.strides = ctypes.cast(sizes, pointer), ctypes.cast(strides, pointer)
        self._kept += [array, sizes, strides]

    def _capsule(self, number: int, spec: Spec, value: Any) -> None:
        if hasattr(value, "is_neg") and value.is_neg():  # of torch; DLPack does not tell of it
            raise ModuleError(
                f"'{spec.name}': its numbers have yet to be negated; give tensor.resolve_neg()",
                abi.ERROR_INPUT,
            )
        value = value.detach() if hasattr(value, "detach") else value
        device = int(value.__dlpack_device__()[0])
        on_gpu = device == abi.CUDA_DEVICE
        capsule = value.__dlpack__(stream=self._stream or NO_WAIT) if on_gpu else value.__dlpack__()
        address_of = ctypes.pythonapi.PyCapsule_GetPointer
        address_of.restype = ctypes.c_void_p
        address_of.argtypes = (ctypes.py_object, ctypes.c_char_p)
        self.tensors[number] = Managed.from_address(address_of(capsule, b"dltensor")).tensor
        self._kept += [value, capsule]


def in_order(
    values: Mapping[str, Any] | Sequence[Any], specs: Sequence[Spec], what: str
) -> list[Any]:
    """Values by name or in the model's order; None for optional ones that are left out.

    Raises ModuleError for missing or unknown ones.
    """
    if isinstance(values, Mapping):
        names = [spec.name for spec in specs]
        unknown = [name for name in values if name not in names]
        missing = [s.name for s in specs if s.name not in values and not s.optional]
        if unknown or missing:
            raise ModuleError(f"{what}: missing {missing}, unknown {unknown}; expected {names}")
        return [values.get(name) for name in names]
    if len(values) != len(specs):
        raise ModuleError(f"expected {len(specs)} {what}, got {len(values)}")
    return list(values)
