"""Cases, processes and the whole comparison, on a small model."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper

from tensmith.benchmarks import at_load
from tensmith.benchmarks.cases import find_cases
from tensmith.benchmarks.compile_time import weight_bytes
from tensmith.benchmarks.engines import ENGINES, in_precision
from tensmith.benchmarks.process import (
    EngineError,
    EngineSkipped,
    Worker,
    one_cpu_per_core,
    tree_bytes,
)
from tensmith.benchmarks.run import measure
from tensmith.benchmarks.table import TITLES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """y = x @ w for x f32[n,4] with inputs of the shared layout: a sequence and a call."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "product"
    path.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path / "model.onnx")
    generator = np.random.default_rng(0)
    np.savez(path / "inputs_0.npz", x=generator.random((5, 2, 4), dtype=np.float32))
    np.savez(path / "inputs_1.npz", x=generator.random((3, 4), dtype=np.float32))
    sets = [{"file": "inputs_0.npz", "per_step_inputs": ["x"]}, {"file": "inputs_1.npz"}]
    (path / "meta.json").write_text(json.dumps({"sets": sets}))
    return path


def test_cases_of_a_folder_know_their_sequences(folder: Path, tmp_path: Path) -> None:
    (case,) = find_cases([str(folder.parent)], tmp_path)
    assert case.name == "product"
    assert [path.name for path in case.inputs] == ["inputs_0.npz", "inputs_1.npz"]
    assert case.per_step == (("x",), ())


def test_inputs_are_drawn_for_a_bare_model(folder: Path, tmp_path: Path) -> None:
    bare = (folder / "model.onnx").rename(tmp_path / "bare.onnx")
    (case,) = find_cases([str(bare)], tmp_path)
    assert case.name == "bare"
    with np.load(case.inputs[0]) as arrays:
        assert arrays["x"].shape == (1, 4)
        assert arrays["x"].dtype == np.float32


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_cases(["nowhere"], tmp_path)


def test_weight_bytes_counts_initialisers(folder: Path) -> None:
    assert weight_bytes(folder / "model.onnx") == 48


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(ValueError, match="cores available"):
        one_cpu_per_core(1 << 20)


def test_measure_compares_and_times(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is the reference")
    (case,) = find_cases([str(folder)], tmp_path)
    row = measure(case, ["onnxruntime"], one_cpu_per_core(1), rounds=2, round_seconds=0.001)
    record = row["engines"]["onnxruntime"]
    assert row["iterations"] >= 1
    assert record["difference"] == 0.0
    assert 0 < record["minimum"] <= record["median"]
    assert record["peak_rss"] > record["base_rss"] > 0


def test_engines_in_lower_precisions() -> None:
    names = [in_precision("tensmith", kind) for kind in ("fp32", "bf16", "int8")]
    assert names == ["tensmith", "tensmith-bf16", "tensmith-int8"]
    assert [ENGINES[name].precision for name in names] == ["fp32", "bf16", "int8"]
    assert in_precision("openvino", "bf16") == "openvino-bf16"
    assert in_precision("onnxruntime", "bf16") == ""
    assert set(ENGINES) == set(TITLES)


@needs_native
def test_a_lower_precision_is_measured_beside_f32(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is the reference")
    (case,) = find_cases([str(folder)], tmp_path)
    engines = ["tensmith", "tensmith-int8"]
    row = measure(case, engines, one_cpu_per_core(1), rounds=2, round_seconds=0.001)
    assert row["engines"]["tensmith"]["difference"] < 1e-4
    assert 1e-4 < row["engines"]["tensmith-int8"]["difference"] < 0.1
    assert "tensmith" in row["engines"]["tensmith-int8"]["speed"]


def test_errors_of_an_engine_reach_the_caller(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the engine that is asked")
    with Worker("onnxruntime", one_cpu_per_core(1)) as worker:
        with pytest.raises(EngineError, match="absent"):
            worker.request("load", model=str(tmp_path / "absent.onnx"), inputs="", per_step=[])
        with pytest.raises(EngineError):
            worker.request("time", iterations=1)


def test_a_process_that_ends_is_reported() -> None:
    with Worker("no such engine", one_cpu_per_core(1)) as worker, pytest.raises(EngineError) as e:
        worker.request("load", model="", inputs="", per_step=[])
    assert "ended with 1" in str(e.value)


def test_an_engine_that_is_absent_is_skipped() -> None:
    if find_spec("tvm"):
        pytest.skip("TVM is installed")
    with (
        Worker("tvm", one_cpu_per_core(1)) as worker,
        pytest.raises(EngineSkipped, match="not installed"),
    ):
        worker.request("load", model="", inputs="", per_step=[])


def test_memory_of_a_process_and_its_child() -> None:
    hold = "held = bytearray(b'x' * (64 << 20)); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline()
        found = {once: tree_bytes(child.pid, shared_once=once) for once in (False, True)}
        command = Path(f"/proc/{child.pid}/cmdline").read_bytes()
        not_started = tree_bytes(child.pid, shared_once=False, parent=command)
        child.communicate(b"\n")
    assert 64 << 20 <= found[True] <= found[False]
    assert not_started == 0
    assert tree_bytes(child.pid, shared_once=True) == 0


@needs_native
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_a_load_is_priced_for_each_engine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_load, "ROUND_SECONDS", 0.001)
    monkeypatch.setattr(at_load, "LIMIT_TIMES", 1e6)
    (case,) = find_cases([str(folder)], tmp_path)
    rows = at_load.measured(case, cores=1, price=3.6, load=1e6, seconds=0.001)
    assert [(row.engine, row.instances, row.threads) for row in rows] == [
        ("tensmith", 1, 1),
        ("onnxruntime", 1, 1),
    ]
    for row in rows:
        assert row.at_load is not None
        assert row.at_load >= row.saturated > 0
        assert row.capacity > 0
        assert row.idle_processor > 0


def test_threads_that_spin_and_that_do_not_are_layouts_of_their_own() -> None:
    assert {(engine, str(layout)) for engine, layout in at_load.deployments(2)} == {
        ("tensmith", "2 x 1 thread(s)"),
        ("onnxruntime", "2 x 1 thread(s)"),
        *(
            (engine, "1 x 2 thread(s)")
            for engine in ("tensmith", "tensmith-parked", "onnxruntime", "onnxruntime-parked")
        ),
    }
