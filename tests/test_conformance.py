"""The ONNX standard's own operator tests, compiled and run: a sample that is always the same.

`conformance_floor.txt` lists the tests that pass; they must go on passing. The rest of the list
takes minutes: `pytest -m slow tests/test_conformance.py`, which also fails where a test passes that
is not in the list; with `--update-goldens` it adds those.
"""

from __future__ import annotations

import io
import warnings
import zlib
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Array, Job, Setting, run_all

from tensmith.benchmarks.conformance_engine import import_case, merge_outputs, split_inputs
from tensmith.compiler.ir import DType

SETTING = Setting("native", 1)
CHUNK = 30  # models that are linked into one file
SAMPLE = 16  # one of so many tests is in the sample
LIST = Path(__file__).parent / "conformance_floor.txt"
FLOOR = LIST.read_text().split() if LIST.exists() else []
RANDOM = ("bernoulli", "training_dropout")  # only types and shapes of their results are given


@cache
def _cases() -> dict[str, Any]:
    """The standard's test cases by name, which its package generates."""
    node = pytest.importorskip("onnx.backend.test.case.node")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return {case.name: case for case in node.collect_testcases(None)}


def _sampled(name: str) -> bool:
    return zlib.crc32(name.encode()) % SAMPLE == 0


def _chunked(names: list[str]) -> list[list[str]]:
    return [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]


def _parts(names: list[str], *marks: pytest.MarkDecorator) -> list[Any]:
    return [
        pytest.param(part, id=f"{part[0]}..{part[-1]}", marks=marks) for part in _chunked(names)
    ]


def _plain(value: Any) -> Any:
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


def _check(name: str, found: dict[str, Array], case: Any) -> None:
    infos = case.model.graph.output
    wanted = case.data_sets[0][1]
    for info, got, want in zip(infos, merge_outputs(infos, found), wanted, strict=True):
        _compare(name, got, _plain(want), case, info.name)


def _errors(names: list[str], folder: Path) -> dict[str, str]:
    """What is wrong with the results of each case; "" where nothing is."""
    cases, found = _cases(), dict.fromkeys(names, "")
    jobs = {}
    for name in names:
        case = cases[name]
        path = folder / f"{name}.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            declared = [info.name for info in case.model.graph.input]
            values = map(_plain, case.data_sets[0][0])
            given = dict(zip(declared, values, strict=False))
            graph = import_case(str(path), given)
            arrays = split_inputs(given)[0]
            jobs[name] = Job(graph, {v.name: arrays[v.name] for v in graph.inputs})
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    for name, got in run_all(jobs, SETTING, folder).items():
        try:
            if isinstance(got, Exception):
                raise got
            _check(name, got, cases[name])
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


@pytest.fixture(autouse=True)
def _machine() -> None:
    if missing := SETTING.missing():
        pytest.skip(missing)


@pytest.mark.parametrize(
    "names",
    [
        *_parts([name for name in FLOOR if _sampled(name)]),
        *_parts([name for name in FLOOR if not _sampled(name)], pytest.mark.slow),
    ],
)
def test_standard_cases(tmp_path: Path, names: list[str]) -> None:
    known = [name for name in names if name in _cases()]
    if not known:
        pytest.skip("the installed onnx package has none of these tests")
    errors = _errors(known, tmp_path)
    assert not any(errors.values()), "\n".join(f"{n}: {e}" for n, e in errors.items() if e)


@pytest.mark.slow
def test_the_floor_is_complete(
    tmp_path_factory: pytest.TempPathFactory, update_goldens: bool
) -> None:
    """Whatever else passes belongs into the list; `--update-goldens` adds it."""
    rest = sorted(set(_cases()) - set(FLOOR))
    more: list[str] = []
    for part in _chunked(rest):
        errors = _errors(part, tmp_path_factory.mktemp("rest"))
        more += [name for name, error in errors.items() if not error]
    if update_goldens:
        LIST.write_text("\n".join(sorted({*FLOOR, *more})) + "\n")
    else:
        assert not more, "run with --update-goldens"
