"""The shared library through TVM-FFI, with tensors of other frameworks."""

from __future__ import annotations

import gc
import json

import numpy as np
import pytest
from cplans import MANIFEST, make_model, needs_x86

from tensmith.backends.common.link import link

pytestmark = needs_x86
tvm_ffi = pytest.importorskip("tvm_ffi", reason="apache-tvm-ffi is not installed")


@pytest.fixture(scope="module")
def symbolic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ffi")
    path = link(make_model("symbolic", folder), "so", folder / "symbolic.so")[0]
    return tvm_ffi.load_module(str(path))


@pytest.fixture(scope="module")
def affine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ffi")
    path = link(make_model("affine", folder), "so", folder / "affine.so", MANIFEST)[0]
    return tvm_ffi.load_module(str(path))


def test_torch_tensors_into_given_outputs(symbolic) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    a, s = torch.arange(12.0).reshape(4, 3).T, torch.tensor([1.0, 2.0, 3.0, 4.0])
    rows, scaled = torch.empty(3), torch.empty(3, 4)
    total = torch.empty((), dtype=torch.float64)
    assert symbolic.run(a, s, rows, scaled, total) is None
    torch.testing.assert_close(rows, a.sum(1))
    torch.testing.assert_close(scaled, a * s)
    assert total.item() == a.sum().item()


def test_numpy_arrays_by_dlpack_and_returned_outputs(symbolic) -> None:
    a, s = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    outputs = symbolic.run(tvm_ffi.from_dlpack(a), tvm_ffi.from_dlpack(s))
    rows, scaled, total = (np.from_dlpack(tensor) for tensor in outputs)
    del outputs
    gc.collect()
    np.testing.assert_array_equal(rows, [3, 12])
    np.testing.assert_array_equal(scaled, a)
    assert total == 15


def test_a_single_output_is_returned_as_a_tensor(affine) -> None:
    x = np.ones((2, 3), np.float32)
    y = np.from_dlpack(affine.run(tvm_ffi.from_dlpack(x)))
    np.testing.assert_array_equal(y, x * 3)


def test_optional_inputs(tmp_path) -> None:
    path = link(make_model("optional", tmp_path), "so", tmp_path / "optional.so")[0]
    module = tvm_ffi.load_module(str(path))
    a, s = np.ones((2, 3), np.float32), np.float32([4, 5, 6])
    for more, used in (((), [1, 2, 3]), ((None,), [1, 2, 3]), ((tvm_ffi.from_dlpack(s),), s)):
        outputs = module.run(tvm_ffi.from_dlpack(a), *more)
        np.testing.assert_array_equal(np.from_dlpack(outputs[1]), a * np.float32(used))
    with pytest.raises(TypeError, match="expected a tensor"):
        module.run(None)


def test_threads(affine) -> None:
    x = tvm_ffi.from_dlpack(np.ones((2, 3), np.float32))
    for threads in (2, 0, 1):
        affine.set_threads(threads)
        np.testing.assert_array_equal(np.from_dlpack(affine.run(x)), np.full((2, 3), 3.0))
    affine.set_threads(5000)
    with pytest.raises(ValueError, match="threads: expected 0 to 1024"):
        affine.run(x)
    affine.set_threads(1)
    with pytest.raises(TypeError):
        affine.set_threads("two")


def test_errors_are_python_exceptions(affine) -> None:
    x = tvm_ffi.from_dlpack(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match="'x': dimension 1: expected 3, got 4"):
        affine.run(x)
    with pytest.raises(TypeError, match="argument 0: expected a tensor"):
        affine.run(7)
    with pytest.raises(TypeError, match="expected 1 inputs, or these and 1 outputs; got 3"):
        affine.run(x, x, x)
    small = tvm_ffi.from_dlpack(np.ones((1, 3), np.float32))
    good = tvm_ffi.from_dlpack(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="output 'y': dimension 0: expected 2, got 1"):
        affine.run(good, small)


def test_metadata(affine) -> None:
    assert json.loads(affine.manifest()) == MANIFEST
    assert "type_schema" in affine.get_function_metadata("run")
    assert "outputs" in affine.get_function_doc("run")
