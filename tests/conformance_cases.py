"""The ONNX standard's own operator tests: what they are, and what is wrong with results."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Array, Job

from tensmith.benchmarks.conformance_engine import import_case, merge_outputs, split_inputs
from tensmith.compiler.ir import DType

SAMPLE = 16  # one of so many tests is in the sample
LIST = Path(__file__).parent / "conformance_floor.txt"
FLOOR = LIST.read_text().split() if LIST.exists() else []
RANDOM = ("bernoulli", "training_dropout")  # only types and shapes of their results are given
Results = Mapping[str, dict[str, Array] | Exception]


@cache
def cases() -> dict[str, Any]:
    """The standard's test cases by name, which its package generates."""
    node = pytest.importorskip("onnx.backend.test.case.node")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return {case.name: case for case in node.collect_testcases(None)}


def sampled(name: str) -> bool:
    """Whether a case is in the sample."""
    return zlib.crc32(name.encode()) % SAMPLE == 0


def plain(value: Any) -> Any:
    """A value of a test case, which may be a protobuf: an array, a list of arrays or None."""
    helper = pytest.importorskip("onnx.numpy_helper")
    if hasattr(value, "data_type"):
        return helper.to_array(value)
    if hasattr(value, "tensor_values"):
        return helper.to_list(value)
    if hasattr(value, "optional_value"):
        return helper.to_optional(value)
    return value if value is None or isinstance(value, list) else np.asarray(value)


def _compare(name: str, got: Any, want: Any, case: Any, where: str) -> None:
    if not isinstance(want, np.ndarray):
        assert isinstance(got, list), f"{where} is no sequence"
        assert len(got) == len(want), f"{where}: {len(got)} elements, not {len(want)}"
        for index, (part, wanted) in enumerate(zip(got, want, strict=True)):
            _compare(name, part, np.asarray(wanted), case, f"{where}[{index}]")
        return
    want = want.astype(object) if want.dtype.kind in "US" else want
    assert got.dtype == want.dtype, f"{where}: {got.dtype} is not {want.dtype}"
    assert got.shape == want.shape, f"{where}: {got.shape} is not {want.shape}"
    if any(word in name for word in RANDOM):
        return
    if want.dtype == object:
        assert got.tolist() == want.tolist(), where
        return
    known = DType.of(want.dtype)
    wide = np.float32 if known.is_narrow or known is DType.BF16 else want.dtype
    rtol = max(case.rtol, 2**-6) if known is DType.BF16 else case.rtol
    np.testing.assert_allclose(
        got.astype(wide), want.astype(wide), rtol=rtol, atol=case.atol, err_msg=where
    )


def check(name: str, found: dict[str, Array], case: Any) -> None:
    """Compare the results of a case with what is wanted."""
    infos = case.model.graph.output
    wanted = case.data_sets[0][1]
    for info, got, want in zip(infos, merge_outputs(infos, found), wanted, strict=True):
        _compare(name, got, plain(want), case, info.name)


def errors_of(
    names: list[str], folder: Path, run: Callable[[dict[str, Job]], Results]
) -> dict[str, str]:
    """What is wrong with the results of each case; "" where nothing is. run: all jobs."""
    known, found = cases(), dict.fromkeys(names, "")
    jobs = {}
    for name in names:
        case = known[name]
        path = folder / f"{name}.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            declared = [info.name for info in case.model.graph.input]
            values = map(plain, case.data_sets[0][0])
            given = dict(zip(declared, values, strict=False))
            graph = import_case(str(path), given)
            arrays = split_inputs(given)[0]
            jobs[name] = Job(graph, {v.name: arrays[v.name] for v in graph.inputs})
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    for name, got in run(jobs).items():
        try:
            if isinstance(got, Exception):
                raise got
            check(name, got, known[name])
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found
