"""`inspect --roofline`: kernels measured one by one, beside predictions. No time is asserted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.llvm.bandwidth import measure_machine
from tensmith.backends.llvm.measure import MEASURES
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.kernel.cost.machine import Machine, assumed_machine
from tensmith.compiler.profile import Profile
from tensmith.driver import cli
from tensmith.driver.argument_checks import measures_of
from tensmith.driver.request import CompileRequest
from tensmith.driver.roofline import Roofline, _peaks, roofline

pytestmark = needs_native
ZEN5, AVX2 = (resolve_target(name)[1] for name in ("znver5", "x86-64-v3"))


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Typical figures instead of measured ones: predictions are the same everywhere."""
    found = assumed_machine(resolve_target("native")[1])
    measures = replace(MEASURES, machine=lambda target: found)
    monkeypatch.setattr(
        "tensmith.driver.roofline.measures_of",
        lambda backend: measures if backend.measures else measures_of(backend),
    )
    return found


def save(path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, list], outputs: dict) -> Path:
    def infos(values: dict[str, list]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
            for name, dims in values.items()
        ]

    weight = np.arange(24 * 40, dtype=np.float32).reshape(24, 40) / 1000
    graph = helper.make_graph(
        nodes, "main", infos(inputs), infos(outputs), [numpy_helper.from_array(weight, "w")]
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Softmax of a product: x[batch, time, 24] times w[24, 40]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Softmax", ["y"], ["z"]),
    ]
    dims = ["batch", "time"]
    return save(tmp_path / "m.onnx", nodes, {"x": [*dims, 24]}, {"z": [*dims, 40]})


def inspect(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["inspect", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json(model: Path, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = inspect(capsys, model, "--roofline", "--json", "--shape", "x:2x9x24")
    assert code == 0
    found = json.loads(out)["roofline"]
    assert found["sizes"] == {}
    assert found["unmeasured_functions"] == []
    assert found["machine"]["label"] == machine.label
    assert found["machine"]["levels"][-1]["capacity"] is None
    kernels = found["kernels"]
    product = next(kernel for kernel in kernels if "matmul" in kernel["operators"])
    assert product["flops"] >= 2 * 18 * 24 * 40
    assert product["bytes"] >= 4 * (18 * 24 + 24 * 40)
    for kernel in kernels:
        assert kernel["calls"] == 1
        assert kernel["every_run"]
        assert not kernel["reason"]
        assert kernel["seconds"] > 0
        assert kernel["predicted_seconds"] > 0
        assert kernel["bound"] in ("compute", *(level.name for level in machine.levels))
        if kernel["flops"]:
            rate = kernel["flops"] / kernel["seconds"]
            assert kernel["flops_per_second"] == pytest.approx(rate)
            share = kernel["roof_seconds"] / kernel["seconds"]
            assert kernel["roof_share"] == pytest.approx(share)
    for key in ("seconds", "predicted_seconds", "roof_seconds", "flops"):
        assert found[key] == pytest.approx(sum(kernel[key] for kernel in kernels))
    assert sum(found["seconds_by_bound"].values()) == pytest.approx(found["seconds"])


def test_lower_precisions_have_peaks_of_their_own(
    model: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Roofline(Profile((), (), 0), machine, {}, (), _peaks(machine, ZEN5))
    peak = machine.flops_per_second
    assert found.peaks == {"int8": 4 * peak, "bf16": 2 * peak}
    assert _peaks(machine, AVX2) == {}
    code, out, _ = inspect(capsys, model, "--roofline", "--precision", "bf16", "--json")
    assert code == 0
    told = json.loads(out)["roofline"]
    assert set(told["machine"]["peaks"]) <= {"int8", "bf16"}
    assert any("matmul" in kernel["operators"] for kernel in told["kernels"])
    code, _, err = inspect(
        capsys, model, "--roofline", "--precision", "auto", "--calibration", "x.npz"
    )
    assert code == 2
    assert "in one precision" in err


def test_table(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = inspect(capsys, model, "--roofline")
    assert code == 0
    for part in ("meas/pred", "bound", "of roof", "sizes: batch=1, time=128", "time by bound"):
        assert part in out
    assert "the symbolic dimension 'time' is 128" in err


def test_sizes_of_symbolic_dims(model: Path) -> None:
    default = roofline(model, CompileRequest())
    assert default.sizes == {"batch": 1, "time": 128}
    pinned = roofline(model, CompileRequest(shapes={"x": ("batch", 64, 24)}))
    assert pinned.sizes == {"batch": 1}
    assert 0 < pinned.flops < default.flops


def test_what_cannot_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes that the data decide, results without elements, functions of the runtime."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["x", "from", "to"], ["s"]),
        helper.make_node("Exp", ["s"], ["z"]),
    ]
    for name, value in (("from", 128), ("to", 10**6)):
        data = numpy_helper.from_array(np.array([value]), name)
        nodes.insert(0, helper.make_node("Constant", [], [name], value=data))
    path = save(tmp_path / "m.onnx", nodes, {"x": ["n"]}, {"y": [1, "k"], "z": ["rest"]})
    code, out, err = inspect(capsys, path, "--roofline", "--shape", "x:[n]")
    assert code == 0, err
    assert "only a run knows its sizes" in out
    assert "functions of the runtime" in out
    found = roofline(path, CompileRequest(shapes={"x": (128,)}))
    assert all(kernel.seconds is None or kernel.seconds > 0 for kernel in found.profile.kernels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "reference"), "cannot be measured"),
        (("--target", "aarch64"), "another"),
    ],
)
def test_targets_without_a_measurement(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], message: str
) -> None:
    code, _, err = inspect(capsys, model, "--roofline", *arguments)
    assert code == 2
    assert message in err


def test_library_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = model.with_suffix(".so")
    assert cli.main(["compile", str(model), "-o", str(library), "--no-verify"]) == 0
    code, _, err = inspect(capsys, library, "--roofline")
    assert code == 2
    assert "give the ONNX file" in err


def test_machine_is_measured() -> None:
    found = measure_machine(resolve_target("native")[1])
    assert found.levels[0].name == "L1"
    assert found.levels[-1].capacity == math.inf
    assert all(level.bandwidth > 1e8 for level in found.levels)
