"""Accuracy of the vectorised f32 functions against f64, over all exponents."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, run_all
from suites.case import CaseBuilder, N

from tensmith.backends.x86.targets import host_features
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.ir.ops.pointwise import erf

TINY = float(np.finfo(np.float32).tiny)
# the largest error in units in the last place of the f32 next to the true value
LIMITS = {"exp": 2.0, "log": 0.8, "tanh": 4.5, "erf": 5.5, "sigmoid": 5.5}
LIMITS |= {"sin": 0.6, "cos": 0.6, "tan": 1.0}  # libm's, of large arguments
LIMITS |= {"asin": 2.5, "acos": 1.5, "atan": 3.0}
NEAR_LIMITS = {"sigmoid": 4.0}  # of results above 1e-9
SETTING = Setting("native", 2)
pytestmark = pytest.mark.skipif(bool(SETTING.missing()), reason=SETTING.missing())


def graph() -> Graph:
    c = CaseBuilder("functions")
    x = c.input(N, name="x")
    c.output(*(c.op(name, x) for name in LIMITS))
    return c.graph()


def points() -> np.ndarray:
    """Both signs of 256 numbers per binade, where exp changes most 2^18 more, and the specials."""
    rng = np.random.default_rng(0)
    edges = np.array([0, 1, (1 << 23) - 1], np.uint32)
    mantissas = np.concatenate([edges, rng.integers(0, 1 << 23, 253, np.uint32)])
    normal = np.arange(1, 255, dtype=np.uint32)[:, None] << 23 | mantissas
    positive = normal.reshape(-1).view(np.float32)
    limits = [88.722835, 88.72284, -87.336543, -87.33655, 88.3762626, 7.9053111, 4.0, 16.0]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, *limits], np.float32)
    dense = rng.uniform(-90, 90, 1 << 18).astype(np.float32)
    inside = rng.uniform(-1, 1, 1 << 16).astype(np.float32)
    return np.concatenate([positive, -positive, dense, inside, special])


def truths(x: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(all="ignore"):
        return {
            "exp": np.exp(x),
            "log": np.log(x),
            "tanh": np.tanh(x),
            "erf": erf(x),
            "sigmoid": 1 / (1 + np.exp(-x)),
            "sin": np.sin(x),
            "cos": np.cos(x),
            "tan": np.tan(x),
            "asin": np.arcsin(x),
            "acos": np.arccos(x),
            "atan": np.arctan(x),
        }


def test_units_in_the_last_place(tmp_path: Path) -> None:
    x = points()
    results = run_all({"all": Job(graph(), {"x": x})}, SETTING, tmp_path)["all"]
    if isinstance(results, Exception):
        raise results
    for number, (name, want) in enumerate(truths(x.astype(np.float64)).items()):
        got = results[f"y{number}"].astype(np.float64)
        with np.errstate(all="ignore"):
            rounded = want.astype(np.float32)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=name)
        infinite = np.isinf(rounded)
        np.testing.assert_array_equal(got[infinite], rounded[infinite], err_msg=name)
        finite = np.isfinite(rounded)
        unit = np.spacing(np.maximum(np.abs(rounded[finite]), TINY)).astype(np.float64)
        # results below the smallest normal number are flushed to zero
        error = np.maximum(np.abs(got[finite] - want[finite]) - TINY, 0) / unit
        worst = int(np.argmax(error))
        assert error[worst] <= LIMITS[name], f"{name}({x[finite][worst]!r}): {error[worst]:.2f}"
        near = error[np.abs(rounded[finite]) > 1e-9]
        assert near.max() <= NEAR_LIMITS.get(name, LIMITS[name]), name


@pytest.mark.skipif("fma" not in host_features(), reason="the host has no fused multiply-add")
def test_saturated_values_are_exact(tmp_path: Path) -> None:
    """What follows may be a comparison or a cast to an integer."""
    x = np.array([8.1, 20, 1e30, np.inf], np.float32)
    results = run_all({"all": Job(graph(), {"x": np.concatenate([x, -x])})}, SETTING, tmp_path)[
        "all"
    ]
    if isinstance(results, Exception):
        raise results
    tanh = results[f"y{list(LIMITS).index('tanh')}"]
    np.testing.assert_array_equal(tanh, np.repeat(np.float32([1, -1]), len(x)))


def test_reduction_by_any_multiple(tmp_path: Path) -> None:
    """Arguments next to multiples of pi/2, where most of their digits cancel; signs of zeros."""
    multiples = np.concatenate([np.arange(1, 4000), 2.0 ** np.arange(12, 47)])
    near = (multiples * (np.pi / 2)).astype(np.float32)
    x = np.concatenate([near, np.nextafter(near, np.float32(0)), -near, [0.0, -0.0], near[:3]])
    x = x.astype(np.float32)
    c = CaseBuilder("trigonometric")
    v = c.input(N, name="x")
    c.output(*(c.op(name, v) for name in ("sin", "cos", "tan")))
    results = run_all({"all": Job(c.graph(), {"x": x})}, SETTING, tmp_path)["all"]
    if isinstance(results, Exception):
        raise results
    wide = x.astype(np.float64)
    for number, want in enumerate((np.sin(wide), np.cos(wide), np.tan(wide))):
        rounded = want.astype(np.float32)
        error = np.abs(results[f"y{number}"] - want) / np.spacing(np.maximum(np.abs(rounded), TINY))
        assert error.max() <= 0.6
        np.testing.assert_array_equal(np.signbit(results[f"y{number}"]), np.signbit(rounded))


@pytest.mark.parametrize("source", [DType.F32, DType.F64], ids=str)
def test_floats_become_integers(tmp_path: Path, source: DType) -> None:
    """Towards zero, by way of the 32-bit integers, of which the least stands for what none is; the
    low bits of those are the smaller types, as conversions of x86 (and ONNX Runtime) have it."""
    targets = [DType.I8, DType.U8, DType.I16, DType.U16, DType.I32]
    c = CaseBuilder("casts")
    v = c.input(N, name="x", dtype=source)
    c.output(*(c.op("cast", v, dtype=target) for target in targets))
    limits = [2.0**n + d for n in (7, 8, 15, 16, 31) for d in (-1, -0.5, 0, 0.5)]
    values = [0.0, 0.9, 1.5, 2147483520.0, 1e20, np.inf, *limits]
    x = np.array([*values, *(-v for v in values), np.nan], source.numpy)
    results = run_all({"casts": Job(c.graph(), {"x": x})}, SETTING, tmp_path)["casts"]
    if isinstance(results, Exception):
        raise results
    least = np.iinfo(np.int32).min
    whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=1e30, posinf=1e30, neginf=-1e30))
    wide = np.where(np.abs(whole + 0.5) < -least, whole, least).astype(np.int64)
    for number, target in enumerate(targets):
        np.testing.assert_array_equal(results[f"y{number}"], wide.astype(target.numpy))


def test_arcs_call_no_library(tmp_path: Path) -> None:
    c = CaseBuilder("arcs")
    x = c.input(256)
    c.output(*(c.op(name, x) for name in ("asin", "acos", "atan")))
    backend, target = resolve_target("x86-64-v3")
    options = CompileOptions("model", tmp_path, texts=frozenset({"llvm"}))
    text = backend.compile(c.graph(), target, options, Stages()).model.code.texts["llvm"]
    assert not re.search(r"call .*@(asin|acos|atan)", text)


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
def test_conversions_are_vectors(tmp_path: Path, name: str) -> None:
    c = CaseBuilder("quantised")
    rounded = c.op("round", c.op("div", c.input(256), c.scalar(0.1)))
    c.output(c.op("cast", rounded, dtype=DType.I8))
    backend, target = resolve_target(name)
    options = CompileOptions("model", tmp_path, texts=frozenset({"asm"}))
    text = backend.compile(c.graph(), target, options, Stages()).model.code.texts["asm"]
    assert "vcvttps2dq" in text
    assert "vcvttss2si" not in text
