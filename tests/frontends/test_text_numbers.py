"""Cast between numbers and text, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import Job, Setting, run_all
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import RunError, UnsupportedError
from tensmith.frontends.onnx import load_model
from tensmith.runtime.meaning import decode, encode

from .oracle import node, run_ort

STRING = TensorProto.STRING
INTEGERS = [TensorProto.INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8]
FLOATS = [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16]
WHOLE = ["1", "+1", " 1", "1 ", "-3", "0x1F", "1.", "00012", "127", "1e3", "\t 42abc", "-0"]
WIDE = ["9223372036854775807", "-9223372036854775808", "+1000000000000000000"]
REAL = [
    *WHOLE[:5], "-.5", "1e3", "1.5e-3", "2E+2", "inf", "-Infinity", "NaN", "0.1", "1234.5e3", "1_0",
    "1e", "1e+", "0x", "0xg", "0x.", "12.e1", "0.333333333333", "-2.5e-7", "3.4e38",
    "0.1000000000000000000000000000001", "1234567890123456789012345678e-20",
]  # fmt: skip


def _model(source: int, to: int) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info("x", source, ["n"])]
    result = helper.make_tensor_value_info("y", to, ["n"])
    graph = helper.make_graph([node("Cast", "x", to=to)], "g", infos, [result])
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _cases() -> dict[str, tuple[onnx.ModelProto, np.ndarray[Any, Any]]]:
    cases: dict[str, tuple[onnx.ModelProto, np.ndarray[Any, Any]]] = {}
    for kind in INTEGERS:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        info = np.iinfo(dtype)
        numbers = np.array([0, 1, 9, 10, 99, 100, info.max, info.min, info.max // 10], dtype)
        cases[f"{dtype} written"] = _model(kind, STRING), numbers
        texts = WHOLE + WIDE if dtype == np.int64 else WHOLE
        cases[f"{dtype} read"] = _model(STRING, kind), np.array(texts, object)
    cases["bool written"] = _model(TensorProto.BOOL, STRING), np.array([True, False])
    cases["bool read"] = _model(STRING, TensorProto.BOOL), np.array(["1", "0", "7"], object)
    for kind in FLOATS:
        texts = REAL if kind != TensorProto.FLOAT16 else [text for text in REAL if "e3" not in text]
        cases[f"float {kind} read"] = _model(STRING, kind), np.array(texts, object)
    return cases


def _check(name: str, got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    if want.dtype == object:
        assert decode(got).tolist() == want.tolist(), name
        return
    assert got.dtype == want.dtype, name
    rounding = np.finfo(want.dtype).eps if want.dtype.kind == "f" else 0.0
    np.testing.assert_allclose(got, want, rtol=rounding, atol=0, err_msg=name)


def test_against_onnx_runtime(tmp_path: Path) -> None:
    setting, jobs, wanted = Setting("native", 2), {}, {}
    for name, (proto, given) in _cases().items():
        wanted[name] = run_ort(proto, {"x": given})["y"]
        inputs = {"x": encode(given) if given.dtype == object else given}
        _check(name, run_graph(load_model(proto), inputs)["y"], wanted[name])
        jobs[name] = Job(load_model(proto), inputs)
    if setting.missing():
        pytest.skip(setting.missing())
    for name, got in run_all(jobs, setting, tmp_path).items():
        assert not isinstance(got, Exception), f"{name}: {got}"
        _check(name, got["y"], wanted[name])


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.FLOAT])
@pytest.mark.parametrize("text", ["", "abc", "-", "."])
def test_a_text_that_is_no_number_ends_the_run(kind: int, text: str) -> None:
    graph = load_model(_model(STRING, kind))
    with pytest.raises(RunError, match="begins with no number"):
        run_graph(graph, {"x": encode(["1", text])})


def test_more_digits_than_are_counted_end_the_run() -> None:
    graph = load_model(_model(STRING, TensorProto.INT64))
    assert run_graph(graph, {"x": encode(["0" * 30 + "9" * 18])})["y"].tolist() == [10**18 - 1]
    with pytest.raises(RunError, match="more than 19 digits"):
        run_graph(graph, {"x": encode(["1" * 20])})


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "9" * 19])
def test_what_an_i64_does_not_hold_ends_the_run(text: str) -> None:
    for kind in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL):
        with pytest.raises(RunError, match="beyond what an i64 holds"):
            run_graph(load_model(_model(STRING, kind)), {"x": encode([text])})
    if not text.startswith("-"):
        graph = load_model(_model(STRING, TensorProto.UINT64))
        assert run_graph(graph, {"x": encode([text])})["y"].tolist() == [int(text)]


@pytest.mark.parametrize("text", ["0x10", "-0XAp3", " 0x.8"])
def test_floats_in_hexadecimal_end_the_run(text: str) -> None:
    with pytest.raises(RunError, match="hexadecimal is not read"):
        run_graph(load_model(_model(STRING, TensorProto.FLOAT)), {"x": encode(["1", text])})


def test_floats_are_not_written() -> None:
    with pytest.raises(UnsupportedError, match="f32 is not written as text"):
        load_model(_model(TensorProto.FLOAT, STRING))
