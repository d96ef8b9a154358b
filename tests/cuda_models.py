"""A small model for GPUs, and tensors in the memory of the driver that is none."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.backends.cuda.fake.install import FakeDriver
from tensmith.runtime import abi

SM_80 = 163 << 10  # bytes of shared memory
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t


def onnx_model(
    nodes: list[Any], weights: dict[str, Any], batch: int | str = "N"
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def perceptron(batch: int | str = "N") -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A product, a function, a product, a softmax."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((12, 40)).astype("f4"), "b": rng.standard_normal(40).astype("f4"),
        "v": rng.standard_normal((40, 9)).astype("f4"),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=1),
    ]
    return onnx_model(nodes, weights, batch), weights


def expected(x: Any, weights: dict[str, Any]) -> Any:
    hidden = np.tanh(x.astype("f8") @ weights["w"] + weights["b"])
    powers = np.exp(hidden @ weights["v"])
    return powers / powers.sum(axis=1, keepdims=True)


@cache
def library_of(folder: Path, target: str) -> Path:
    """The perceptron's shared library for a target."""
    artifact = tensmith.compile(perceptron()[0], target=target, name="perceptron")
    path = folder / f"{target.replace(':', '_')}.so"
    artifact.save(path)
    return path


class Gpu:
    """The fake driver, called as another library of the process would call it."""

    def __init__(self, driver: FakeDriver) -> None:
        self.library = driver.library
        self.kept: list[int] = []
        self.context = POINTER()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), 0)
        self.call("cuCtxPushCurrent_v2", self.context)
        self.stream = POINTER()
        self.call("cuStreamCreate", ctypes.byref(self.stream), 1)

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        assert status == 0, (name, status)

    def tensor(self, array: Any, *, shift: int = 0, device: int = 0) -> DeviceTensor:
        """A copy of an array in the GPU's memory, `shift` bytes behind where memory begins."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), SIZE(array.nbytes + shift))
        self.kept.append(address.value)
        found = DeviceTensor(array.shape, address.value + shift, device, array.dtype)
        found.array[...] = array
        return found

    def close(self) -> None:
        for address in self.kept:
            self.call("cuMemFree_v2", ctypes.c_uint64(address))
        self.call("cuStreamDestroy_v2", self.stream)
        self.call("cuCtxPopCurrent_v2", ctypes.byref(self.context))
        self.call("cuDevicePrimaryCtxRelease_v2", 0)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", abi.DLTensor), ("context", POINTER), ("deleter", POINTER))


class DeviceTensor:
    """Elements at an address of a GPU, which speak DLPack. array: the same memory, to look at."""

    def __init__(self, shape: tuple[int, ...], address: int, device: int, dtype: Any) -> None:
        self.device, self._dtype = device, np.dtype(dtype)
        size = int(np.prod(shape)) * self._dtype.itemsize
        held = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))
        self.array = held.view(self._dtype).reshape(shape)
        self.strides: tuple[int, ...] | None = None
        self.streams: list[int | None] = []  # that consumers named
        self._managed = _Managed()
        self._address = address

    def __dlpack_device__(self) -> tuple[int, int]:
        return abi.CUDA_DEVICE, self.device

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.streams.append(stream)
        tensor, shape = self._managed.tensor, self.array.shape
        self._sizes = (ctypes.c_int64 * len(shape))(*shape)
        pointer = ctypes.POINTER(ctypes.c_int64)
        tensor.data, tensor.ndim, tensor.dtype = (
            self._address,
            len(shape),
            abi.dtype_code(f"f{8 * self._dtype.itemsize}"),
        )
        tensor.device_type, tensor.device_id = abi.CUDA_DEVICE, self.device
        tensor.shape = ctypes.cast(self._sizes, pointer)
        if self.strides is not None:
            self._steps = (ctypes.c_int64 * len(shape))(*self.strides)
            tensor.strides = ctypes.cast(self._steps, pointer)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (POINTER, ctypes.c_char_p, POINTER)
        return new(ctypes.addressof(self._managed), b"dltensor", None)
