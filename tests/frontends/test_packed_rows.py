"""GatherPacked of com.microsoft, beside ONNX Runtime: every format that is read, of any bytes."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from compiled import Job, Setting, needs_native, run_all
from onnx import TensorProto

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import floats, model, node, run_ort

MS = "com.microsoft"
WIDTH, ROWS = 512, 6
BYTES = {2: 288, 6: 352, 8: 544, 13: 352, 14: 420, 20: 288, 23: 272}  # of a row, by the format
PLAIN = {0: np.float32, 1: np.float16, 30: ml_dtypes.bfloat16}
PLACES = np.array([[0, 5, -1], [2, 6, 3]])  # two of them are no rows


def _table(kind: int) -> np.ndarray:
    if kind in PLAIN:
        return floats(ROWS, WIDTH, seed=kind).astype(PLAIN[kind]).view(np.uint8)
    rng = np.random.default_rng(kind)
    return rng.integers(0, 256, (ROWS, BYTES[kind])).astype(np.uint8)


def _model(kind: int, *, width: int = WIDTH, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    part = node("GatherPacked", "d i", domain=MS, packed_type=kind, K=width, output_dtype=dtype)
    return model([part], {"i": PLACES}, ["y"], constants={"d": _table(kind)}, domains=[MS],
                 types=[dtype], dims={"i": ["n", 3]})  # fmt: skip


def _equal(got: np.ndarray, want: np.ndarray, name: str) -> None:
    assert got.dtype == want.dtype, name
    np.testing.assert_array_equal(got.astype(np.float64), want.astype(np.float64), name)


@pytest.mark.parametrize("kind", [*BYTES, *PLAIN])
def test_rows_are_those_of_onnx_runtime(kind: int) -> None:
    for dtype in (TensorProto.FLOAT, TensorProto.FLOAT16):
        proto = _model(kind, dtype=dtype)
        want = run_ort(proto, {"i": PLACES})["y"]
        with np.errstate(over="ignore", invalid="ignore"):
            found = run_graph(load_model(proto), {"i": PLACES})["y"]
        _equal(found, want, f"{kind} as {dtype}")


@needs_native
def test_compiled(tmp_path: Path) -> None:
    jobs = {f"type {kind}": Job(load_model(_model(kind)), {"i": PLACES}) for kind in (6, 14, 23)}
    wanted = {f"type {kind}": run_ort(_model(kind), {"i": PLACES})["y"] for kind in (6, 14, 23)}
    for name, got in run_all(jobs, Setting("native", 2), tmp_path).items():
        assert not isinstance(got, Exception), f"{name}: {got}"
        finite = np.where(np.abs(wanted[name]) < 1e-30, 0, wanted[name])
        np.testing.assert_allclose(got["y"], finite, rtol=1e-6, atol=1e-6, err_msg=name)


def test_formats_and_widths_that_are_not_read() -> None:
    proto = _model(2)
    (kind,) = (item for item in proto.graph.node[0].attribute if item.name == "packed_type")
    kind.i = 16
    with pytest.raises(UnsupportedError, match="packed_type 16 is not read"):
        load_model(proto)
    with pytest.raises(InvalidModelError, match="no number of blocks of 256"):
        load_model(_model(14, width=128))
