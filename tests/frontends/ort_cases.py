"""Models that are compared with ONNX Runtime twice: interpreted, and compiled for this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import Job, Setting, run_all

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load_model

from .oracle import run_ort

Array = np.ndarray


@dataclass(frozen=True)
class OrtCase:
    """A model, what to run it on, and how far results may be from ONNX Runtime's.

    steps: integer outputs may differ by so much (rounding at a tie). expected: outputs that stand
    in for those of ONNX Runtime, where it has no kernel.
    """

    name: str
    proto: onnx.ModelProto
    inputs: Mapping[str, Array]
    rtol: float = 1e-4
    atol: float = 1e-5
    steps: int = 0
    expected: Mapping[str, Array] | None = None


def compare(case: OrtCase, found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Assert that types, shapes and values are as wanted."""
    for name, want in wanted.items():
        got = np.asarray(found[name])
        assert got.dtype == want.dtype, f"{name}: {got.dtype}, not {want.dtype}"
        assert got.shape == want.shape, f"{name}: {got.shape}, not {want.shape}"
        atol = case.steps if want.dtype.kind in "iu" else case.atol
        np.testing.assert_allclose(
            got.astype(np.float64), want.astype(np.float64), case.rtol, atol, err_msg=name
        )


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' | '.join(lines[:7])}"


def check_all(cases: Sequence[OrtCase], folder: Path) -> None:
    """Run every case by the interpreter and compiled. Fails with the list of what is wrong."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "two cases have one name"
    wrong: list[str] = []
    wanted: dict[str, Mapping[str, Array]] = {}
    jobs: dict[str, Job] = {}
    for case in cases:
        inputs = dict(case.inputs)
        try:
            wanted[case.name] = case.expected or run_ort(case.proto, inputs)
            compare(case, run_graph(load_model(case.proto), inputs), wanted[case.name])
            jobs[case.name] = Job(load_model(case.proto), inputs)
        except Exception as error:
            wrong.append(f"{case.name}: {_short(error)}")
    setting = Setting("native", 2)
    if setting.missing():
        assert not wrong, "\n".join(wrong)
        pytest.skip(setting.missing())
    results = run_all(jobs, setting, folder) if jobs else {}
    for case in cases:
        if case.name not in jobs:
            continue
        got = results[case.name]
        try:
            if isinstance(got, Exception):
                raise got
            compare(case, got, wanted[case.name])
        except Exception as error:
            wrong.append(f"{case.name} compiled: {_short(error)}")
    assert not wrong, "\n".join(wrong)
