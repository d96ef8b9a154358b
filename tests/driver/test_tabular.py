"""Pipelines as scikit-learn's converter writes them: strings as features and labels, maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Setting
from onnx import TensorProto, helper

from tensmith.driver import api, cli

ML = "ai.onnx.ml"
COLORS = np.array([["red"], ["blue"], ["bl\u00e4ulich"], ["none such"], [""]], object)
SIZES = np.arange(-2, 3, dtype=np.float32).reshape(5, 1)
CLASSES = ["no", "perhaps", "yes"]

pytestmark = pytest.mark.skipif(
    bool(Setting("native", 2).missing()), reason=Setting("native", 2).missing() or "native"
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One-hot colours beside a number, a linear classifier of named classes, a map."""
    weights = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("OneHotEncoder", ["color"], ["cube"], domain=ML,
                         cats_strings=["red", "blue", "bl\u00e4ulich"]),
        helper.make_node("Flatten", ["cube"], ["flags"]),
        helper.make_node("Concat", ["size", "flags"], ["features"], axis=1),
        helper.make_node("LinearClassifier", ["features"], ["label", "scores"], domain=ML,
                         coefficients=weights.reshape(-1).tolist(), intercepts=[0.1, 0.0, -0.1],
                         classlabels_strings=CLASSES, post_transform="SOFTMAX"),
        helper.make_node("ZipMap", ["scores"], ["probability"], domain=ML,
                         classlabels_strings=CLASSES),
    ]  # fmt: skip
    inputs = [
        helper.make_tensor_value_info("color", TensorProto.STRING, [None, 1]),
        helper.make_tensor_value_info("size", TensorProto.FLOAT, [None, 1]),
    ]
    maps = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.STRING, [None]),
        helper.make_value_info("probability", helper.make_sequence_type_proto(maps)),
    ]
    graph = helper.make_graph(nodes, "pipeline", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    path = tmp_path_factory.mktemp("tabular") / "pipeline.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


@pytest.fixture(scope="module")
def artifact(pipeline: Path) -> api.Artifact:
    return api.compile(pipeline)


def _wanted(pipeline: Path) -> tuple[Any, Any]:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of this test")
    session = ort.InferenceSession(str(pipeline), providers=["CPUExecutionProvider"])
    return tuple(session.run(None, {"color": COLORS, "size": SIZES}))


def test_labels_and_dicts_are_those_of_onnx_runtime(pipeline: Path, artifact: api.Artifact) -> None:
    labels, maps = _wanted(pipeline)
    for colors in (COLORS, COLORS.astype(str)):
        found = artifact.load(dicts=True)({"color": colors, "size": SIZES})
        assert found["label"].tolist() == labels.tolist()
        for row, wanted in zip(found["probability"], maps, strict=True):
            assert list(row) == CLASSES
            assert row == pytest.approx(wanted, abs=1e-6)


def test_scores_are_an_array_otherwise_and_the_manifest_names_its_columns(
    pipeline: Path, artifact: api.Artifact
) -> None:
    module = artifact.load()
    for _ in range(3):  # calls alike take a shorter way
        found = module({"color": COLORS, "size": SIZES})
        assert found["probability"].shape == (5, 3)
        assert found["label"].dtype.kind == "U"
    described = {spec["name"]: spec for spec in module.manifest["outputs"]}
    assert described["probability"]["classes"] == CLASSES
    assert described["label"]["strings"]
    assert not described["probability"]["strings"]


def test_verified_with_strings_that_the_model_knows(artifact: api.Artifact) -> None:
    drawn = artifact.sampler.draw({"color_d0": 50, "size_d0": 50, **artifact.sampler.widths}, 0)
    assert set(drawn["color"].reshape(-1).tolist()) == {"red", "blue", "bl\u00e4ulich", "?"}
    assert artifact.verify().status == "passed"


def test_verified_against_onnx_runtime(pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of this test")
    assert cli.main(["verify", str(pipeline), "--against", "onnxruntime", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "passed"


def test_run_and_bench_take_files_of_strings(
    pipeline: Path, artifact: api.Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, results = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(inputs, color=COLORS.astype(str), size=SIZES)
    library = str(artifact.library())
    assert cli.main(["run", library, "--input", str(inputs), "-o", str(results)]) == 0
    labels, _ = _wanted(pipeline)
    with np.load(results) as stored:
        assert stored["label"].tolist() == labels.tolist()
    assert cli.main(["bench", library, "--iterations", "2", "--duration", "0"]) == 0
    capsys.readouterr()


def test_the_program_reads_strings_as_bytes(
    pipeline: Path, artifact: api.Artifact, tmp_path: Path
) -> None:
    import subprocess

    program = artifact.save(tmp_path / "program")[0]
    encoded = np.char.encode(COLORS.astype(str), "utf-8")
    np.savez(tmp_path / "in.npz", color=encoded, size=SIZES)
    command = [program, "--quiet", "--input", tmp_path / "in.npz"]
    subprocess.run([*command, "--output", f"label={tmp_path / 'label.npy'}"], check=True)
    rows = np.load(tmp_path / "label.npy")
    found = [bytes(row).rstrip(b"\0").decode() for row in rows]
    assert found == _wanted(pipeline)[0].tolist()
    np.savez(tmp_path / "in.npz", color=COLORS.astype(str), size=SIZES)
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "type 'S'" in refused.stderr
