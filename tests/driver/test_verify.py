"""Verification: agreement, disagreement, crashes, time limits, sizes that a model refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tensmith.compiler.errors import BudgetError, VerificationError
from tensmith.driver import api
from tensmith.driver.engines import EngineSpec
from tensmith.driver.verify import Verification, verify_given, verify_stored


def test_agreement(fake, model_path: Path) -> None:
    report = api.compile(model_path).verify()
    assert report.status == "passed"
    assert len(report.trials) == 2
    assert [trial[0].shape for trial in report.trials] == [(2, 4), (1, 4)]
    assert report.error() is None
    assert "verified against reference: 2 input sets" in report.summary()


def test_the_reference_loads_what_it_evaluates_with(model_path: Path) -> None:
    """Every verification starts a process for it: what generates code takes longer to load."""
    script = (
        "import sys; from pathlib import Path; from tensmith.driver import worker, engines;"
        "spec = engines.EngineSpec(kind='reference', path=Path(sys.argv[1]));"
        "engines.open_engine(spec); print(*sys.modules)"
    )
    command = [sys.executable, "-c", script, str(model_path)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "tensmith.backends.reference" in loaded
    heavy = "llvmlite", "networkx", "tensmith.backends.llvm", "tensmith.passes"
    assert not {name for name in loaded if name.startswith(heavy)}


def test_disagreement(fake, model_path: Path) -> None:
    fake.factor = "1.99f"
    report = api.compile(model_path).verify()
    assert report.status == "failed"
    assert "output 'y': 8 of 8 elements differ" in report.reason
    assert isinstance(report.error(), VerificationError)


def test_tolerance_decides(fake, model_path: Path) -> None:
    fake.factor = "1.99f"
    artifact = api.compile(model_path)
    assert artifact.verify(tolerance=artifact.tolerance(rtol=0.01)).status == "passed"


def test_crash_of_the_compiled_model(fake, model_path: Path) -> None:
    fake.before = "__builtin_trap()"
    report = api.compile(model_path).verify()
    assert report.status == "failed"
    assert "crashes" in report.reason
    assert "SIGILL" in report.reason or "SIGTRAP" in report.reason


def test_time_limit_is_kept_and_told(fake, model_path: Path) -> None:
    fake.before = "for (volatile int i = 1; i;) {}"
    report = api.compile(model_path).verify(time_limit=2.0)
    assert report.status == "incomplete"
    assert "time limit of 2 s" in report.reason
    assert report.summary().startswith("NOT VERIFIED")
    assert isinstance(report.error(), BudgetError)


def test_compiled_model_that_refuses(fake, model_path: Path) -> None:
    fake.before = 'return ts_rt_fail(frame, 7, "index out of range")'
    report = api.compile(model_path).verify()
    assert report.status == "failed"
    assert "index out of range at batch=1" in report.reason


def test_compiled_model_that_refuses_some_sizes(fake, model_path: Path) -> None:
    fake.before = 'if (dims[0] != 1) return ts_rt_fail(frame, 7, "only one")'
    report = api.compile(model_path).verify()
    assert report.status == "passed"
    assert report.refusals == ["only one at batch=2"]


def test_reference_that_refuses_everything(fake, save_model) -> None:
    nodes = [
        helper.make_node("Constant", [], ["nine"], value_int=9),
        helper.make_node("ArgMax", ["x"], ["i"], axis=1),
        helper.make_node("Add", ["i", "nine"], ["beyond"]),
        helper.make_node("GatherElements", ["x", "beyond"], ["picked"], axis=1),
        helper.make_node("Add", ["x", "picked"], ["y"]),
    ]
    path = save_model(nodes, ["batch", 4])
    report = api.compile(path).verify()
    assert report.status == "incomplete"
    assert "refused all random inputs" in report.reason


def test_nothing_finite_proves_nothing(fake, save_model) -> None:
    nodes = [
        helper.make_node("Constant", [], ["nan"], value_float=float("nan")),
        helper.make_node("Add", ["x", "nan"], ["y"]),
    ]
    fake.factor = '__builtin_nanf("")'
    report = api.compile(save_model(nodes, ["batch", 4])).verify()
    assert report.status == "incomplete"
    assert "finite" in report.reason


@pytest.fixture
def job(fake, model_path: Path) -> Verification:
    artifact = api.compile(model_path)
    library = artifact.save(model_path.with_suffix(".so"))[0]
    return Verification(EngineSpec("tensmith", library), model_path, time_limit=60)


def test_stored_outputs(job: Verification, batch) -> None:
    assert verify_stored(job, {"x": batch}, {"y": 2 * batch}).status == "passed"
    assert verify_stored(job, {"x": batch}, {"y": 3 * batch}).status == "failed"
    assert "missing" in verify_stored(job, {"x": batch}, {"z": batch}).reason


def test_given_inputs(job: Verification, batch) -> None:
    assert verify_given(job, {"x": batch}).status == "passed"
    assert verify_given(job, {"z": batch}).status == "incomplete"


def test_against_onnxruntime(job: Verification, batch) -> None:
    pytest.importorskip("onnxruntime")
    report = verify_given(replace(job, against="onnxruntime"), {"x": batch})
    assert report.status == "passed"
    assert report.against == "onnxruntime"


def test_library_that_does_not_load(job: Verification, batch, tmp_path: Path) -> None:
    library = tmp_path / "broken.so"
    library.write_bytes(b"\x7fELF")
    report = verify_given(
        replace(job, subject=EngineSpec("tensmith", library)), {"x": np.zeros((1, 4), np.float32)}
    )
    assert report.status == "incomplete"
    assert "does not load here" in report.reason
