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
    *WHOLE[:5], "0x10", "-0XAp3", " 0x.8", "1e39", "1e-50", "5e-300",
    "-.5", "1e3", "1.5e-3", "2E+2", "inf", "-Infinity", "NaN", "0.1", "1234.5e3", "1_0",
    "1e", "1e+", "0x", "0xg", "0x.", "12.e1", "0.333333333333", "-2.5e-7", "3.4e38",
    "0.1000000000000000000000000000001", "1234567890123456789012345678e-20",
]  # fmt: skip


def _model(source: int, to: int) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info("x", source, ["n"])]
    result = helper.make_tensor_value_info("y", to, ["n"])
    graph = helper.make_graph([node("Cast", "x", to=to)], "g", infos, [result])
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _floats(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Of every size, some of them exactly halfway between decimals of 8 digits."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(5)
    some = rng.standard_normal(40) * 10.0 ** rng.integers(info.minexp // 4, info.maxexp // 4, 40)
    given = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.5, 0.1, 100.0, 1e-5, 1e-4, 0.00012345]
    last = [info.max, info.tiny, info.smallest_subnormal, 12345678.5, 123456785.0, 1e7, 99999999.0]
    return np.array([*given, *last, *some]).astype(dtype)


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
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        cases[f"{dtype} written"] = _model(kind, STRING), _floats(dtype)
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


@pytest.mark.parametrize("text", ["\x10x1f", "\x10X2", "i\x0ef"])
def test_other_bytes_do_not_pass_for_letters_in_compiled_code(tmp_path: Path, text: str) -> None:
    setting = Setting("native", 0)
    if missing := setting.missing():
        pytest.skip(missing)
    job = Job(load_model(_model(STRING, TensorProto.FLOAT)), {"x": encode([text, "1"])})
    with pytest.raises(RunError, match="begins with no number"):
        run_graph(job.graph, job.inputs)
    found = run_all({"read": job}, setting, tmp_path)["read"]
    assert isinstance(found, Exception)
    assert "begins with no number" in str(found)


@pytest.mark.parametrize("count", [30, 5000])
def test_digits_are_counted_from_the_first_that_is_not_zero(count: int) -> None:
    graph = load_model(_model(STRING, TensorProto.INT64))
    given = {"x": encode(["-" + "0" * count + "9" * 18, "0" * count])}
    assert run_graph(graph, given)["y"].tolist() == [1 - 10**18, 0]
    graph = load_model(_model(STRING, TensorProto.DOUBLE))
    given = {"x": encode([f"0x1p{'0' * count}3", f"0x0p{'9' * count}", f"0x1p-{'9' * count}"])}
    assert run_graph(graph, given)["y"].tolist() == [8.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "-9223372036854775809", "1" * 25, "1" * 5000]
)
def test_what_an_i64_does_not_hold_ends_the_run(text: str) -> None:
    for kind in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL):
        with pytest.raises(RunError, match="beyond what i64 holds"):
            run_graph(load_model(_model(STRING, kind)), {"x": encode([text])})
    if len(text) < 20:
        graph = load_model(_model(STRING, TensorProto.UINT64))
        assert run_graph(graph, {"x": encode([text])})["y"].tolist() == [int(text)]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT8E5M2, TensorProto.INT4])
def test_narrow_types_are_neither_written_nor_read(kind: int) -> None:
    with pytest.raises(UnsupportedError, match="written as text"):
        load_model(_model(kind, STRING))
    with pytest.raises(UnsupportedError, match="text is not read as"):
        load_model(_model(STRING, kind))


def test_cast_like_strings_and_from_them() -> None:
    parts = [node("CastLike", "x words", "text"), node("CastLike", "text x", "y")]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    words = helper.make_tensor("words", STRING, [1], [b"any"])
    results = [
        helper.make_tensor_value_info("text", STRING, ["n"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"]),
    ]
    graph = helper.make_graph(parts, "g", infos, results, [words])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    given = np.array([0.5, -3.0, 1 / 3, np.inf], np.float32)
    found = run_graph(load_model(proto), {"x": given})
    assert decode(found["text"]).tolist() == ["0.5", "-3", "0.33333334", "INF"]
    assert found["y"].tolist() == given.tolist()
