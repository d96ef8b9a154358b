"""What callers hold tensors in: layouts, byte orders, other libraries' arrays."""

from __future__ import annotations

import array
import ctypes
import mmap
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tensmith.runtime import abi
from tensmith.runtime.arrays import as_array

F32 = np.dtype(np.float32)
WANT = np.arange(24, dtype=np.float32).reshape(4, 6)


def mapped(folder: Path) -> np.ndarray:
    np.save(folder / "x.npy", WANT)
    return np.load(folder / "x.npy", mmap_mode="r")


LAYOUTS = {
    "as it is": lambda folder: WANT,
    "big-endian": lambda folder: WANT.astype(">f4"),
    "big-endian, strided": lambda folder: WANT.repeat(2, 1).astype(">f4")[:, ::2],
    "Fortran order": lambda folder: np.asfortranarray(WANT),
    "backwards": lambda folder: WANT[::-1, ::-1].copy()[::-1, ::-1],
    "steps": lambda folder: WANT.repeat(3, 0).repeat(2, 1)[::3, ::2],
    "read-only": lambda folder: _read_only(),
    "memory-mapped": mapped,
    "unaligned": lambda folder: np.frombuffer(b"x" + WANT.tobytes(), F32, offset=1).reshape(4, 6),
    "a subclass": lambda folder: WANT.view(np.recarray),
    "masked": lambda folder: np.ma.masked_array(WANT),
    "lists": lambda folder: WANT.tolist(),
    "lists of whole numbers": lambda folder: WANT.astype(int).tolist(),
    "tuples of arrays": lambda folder: tuple(WANT),
    "a memoryview": lambda folder: memoryview(WANT),
}


def _read_only() -> np.ndarray:
    copy = WANT.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    got = as_array(LAYOUTS[layout](tmp_path), F32)
    assert got.dtype is F32 or got.dtype == F32
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, WANT)


def test_the_same_element_again_and_again() -> None:
    got = as_array(np.broadcast_to(np.float32(7), (3, 5)), F32)
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, np.full((3, 5), 7, F32))


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array(2, F32), True + 1])
def test_single_numbers(value: Any) -> None:
    got = as_array(value, F32)
    assert (got.shape, got.dtype, float(got)) == ((), F32, 2.0)


def test_buffers() -> None:
    np.testing.assert_array_equal(as_array(array.array("f", [1, 2]), F32), np.array([1, 2], F32))
    with mmap.mmap(-1, 4096) as memory:
        assert as_array(memory, np.dtype(np.uint8)).shape == (4096,)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [([1.5], "i8"), ([0.0], "?"), ([300], "u1"), ([-1], "u1"), ([[1], [2, 3]], "f4"), ("x", "f4")],
)
def test_what_would_lose_something(value: Any, dtype: str) -> None:
    with pytest.raises(ValueError):
        as_array(value, np.dtype(dtype))


def test_other_element_types_stay() -> None:
    assert as_array(np.zeros(2), F32).dtype == np.float64
    assert as_array(np.float64(1), F32).dtype == np.float64
    assert as_array([], np.dtype(np.int64)).dtype == np.int64


class Tensor:
    """Speaks DLPack alone, as other libraries' tensors do; keeps its memory while it lives."""

    def __init__(
        self, data: np.ndarray, dtype: tuple[int, int], *, plain: bool = False, device: int = 1
    ) -> None:
        self.data, self.device = data, device
        rank = data.ndim
        sizes = ctypes.c_int64 * max(rank, 1)
        strides = [stride // data.itemsize for stride in data.strides]
        self.shape, self.strides = sizes(*data.shape), sizes(*strides)
        self.tensor = abi.DLTensor(
            data.ctypes.data - 8, 1, 0, rank, abi.DLDataType(*dtype, 1),
            ctypes.cast(self.shape, ctypes.POINTER(ctypes.c_int64)),
            None if plain else ctypes.cast(self.strides, ctypes.POINTER(ctypes.c_int64)), 8,
        )  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self) -> object:
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = (
            ctypes.py_object,
            (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
        )
        return make(ctypes.addressof(self.tensor), b"dltensor", None)


class Refusing(Tensor):
    """Has `__array__`, which fails as that of a type that numpy lacks."""

    def __array__(self, *arguments: Any) -> np.ndarray:
        raise TypeError("Got unsupported ScalarType BFloat16")


@pytest.mark.parametrize("kind", [Tensor, Refusing])
@pytest.mark.parametrize("plain", [False, True])
def test_dlpack(kind: type[Tensor], plain: bool) -> None:
    np.testing.assert_array_equal(as_array(kind(WANT, (2, 32), plain=plain), F32), WANT)


def test_dlpack_of_brain_floats() -> None:
    want = WANT.astype(ml_dtypes.bfloat16)
    got = as_array(Refusing(want, (4, 16)), want.dtype)
    assert got.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got, want)


def test_dlpack_in_steps() -> None:
    wide = WANT.repeat(2, 1)
    np.testing.assert_array_equal(as_array(Tensor(wide.T[::2], (2, 32)), F32), WANT.T)
    assert as_array(Tensor(np.zeros((0, 3), F32), (2, 32)), F32).shape == (0, 3)
    assert as_array(Tensor(np.array(2, F32), (2, 32)), F32) == 2


def test_dlpack_of_another_device() -> None:
    with pytest.raises(ValueError, match="another device"):
        as_array(Tensor(WANT, (2, 32), device=2), F32)
    with pytest.raises(ValueError, match="element type"):
        as_array(Tensor(WANT.view(np.complex64), (5, 64)), F32)


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(6.0).reshape(2, 3)
    for tensor in (x, x.clone().requires_grad_(), x.t().contiguous().t()):
        np.testing.assert_array_equal(as_array(tensor, F32), x.numpy())
    brain = as_array(x.to(torch.bfloat16), np.dtype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(brain.astype(F32), x.numpy())


class Negated(Tensor):
    """What a library has yet to negate: its memory holds the numbers before that."""

    def is_neg(self) -> bool:
        return True

    def resolve_neg(self) -> Tensor:
        return Tensor(-self.data, (2, 32))


def test_negations_to_come() -> None:
    np.testing.assert_array_equal(as_array(Negated(-WANT, (2, 32)), F32), WANT)


def test_masked_elements_have_no_value() -> None:
    masked = np.ma.masked_array(WANT, WANT > 3)
    with pytest.raises(ValueError, match=r"masked; array\.filled"):
        as_array(masked, F32)
    np.testing.assert_array_equal(as_array(masked.filled(0), F32), np.where(WANT > 3, 0, WANT))


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (WANT.tobytes(), "frombuffer"),
        ("1 2 3", "frombuffer"),
        (iter([1.0, 2.0]), "make a list"),
        ({1.0, 2.0}, "make a list"),
        ([[1.0, None]], "float"),
    ],
)
def test_what_is_no_array(value: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy) as raised:
        as_array(value, F32)
    assert len(str(raised.value)) < 200  # the value itself is not in it
