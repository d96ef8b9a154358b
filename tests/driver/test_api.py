"""The Python API: compile, save, load, manifest, folders of intermediate files."""

from __future__ import annotations

import gc
import json
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tensmith.compiler.errors import (
    InvalidModelError,
    RunError,
    TensmithError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from tensmith.driver import api, model_build
from tensmith.driver.argument_checks import c_identifier


def test_compile_save_load_run(fake, model_path: Path, tmp_path: Path, batch) -> None:
    artifact = api.compile(model_path)
    files = artifact.save(tmp_path / "double.so")
    assert files == [tmp_path / "double.so"]
    module = api.load(files[0])
    np.testing.assert_array_equal(module({"x": batch})["y"], 2 * batch)
    assert module.manifest == json.loads(json.dumps(artifact.manifest))
    assert list(artifact.stages) == ["import", "double", "codegen", "link so"]


def test_loaded_module_outlives_artifact(fake, model_path: Path, batch) -> None:
    module = api.compile(model_path).load()
    gc.collect()
    np.testing.assert_array_equal(module(batch)["y"], 2 * batch)


def test_artifacts_are_not_pickled(fake, model_path: Path) -> None:
    with pytest.raises(UsageError, match="save it, and load the file"):
        pickle.dumps(api.compile(model_path))


def test_work_folder_goes_with_the_artifact(fake, model_path: Path) -> None:
    artifact = api.compile(model_path)
    folder = artifact.library().parent
    assert folder.is_dir()
    del artifact
    gc.collect()
    assert not folder.exists()


def test_work_folder_goes_when_compilation_fails(
    fake, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("TENSMITH_WORK_DIR", str(work))
    fake.factor = "no such thing"
    with pytest.raises(TensmithError):
        api.compile(model_path)
    assert not list(work.iterdir())


def test_keep_work(
    fake, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("TENSMITH_WORK_DIR", str(tmp_path))
    monkeypatch.setenv("TENSMITH_KEEP_WORK", "1")
    folder = api.compile(model_path).library().parent
    gc.collect()
    assert folder.is_dir()
    assert str(folder) in capsys.readouterr().err


def test_manifest(fake, model_path: Path) -> None:
    manifest = api.compile(model_path, opt_level=3, threads=2).manifest
    assert manifest["manifest_version"] == 1
    (described,) = manifest["inputs"]
    assert described["name"] == "x"
    assert described["dtype"] == "f32"
    assert described["dims"] == ("batch", 4)
    assert manifest["symbols"] == ["batch"]
    assert manifest["opt_level"] == 3
    assert manifest["threads"] == 2
    assert manifest["precision"] == "fp32"
    assert manifest["kernels"][0]["operators"] == ("add",)
    assert manifest["memory"] == {"arena_bytes": 0, "weight_bytes": 0, "peak_bytes": 0}
    assert manifest["target"]["name"] == "native"
    assert len(manifest["source_sha256"]) == 64
    assert manifest["tuning_records_sha256"] is None


def test_same_inputs_same_bytes(fake, model_path: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        api.compile(model_path).save(tmp_path / folder / "m.so")
    assert (tmp_path / "a/m.so").read_bytes() == (tmp_path / "b/m.so").read_bytes()


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".so", b"\x7fELF"), (".a", b"!<arch>"), (".o", b"\x7fELF")]
)
def test_suffix_tells_what_to_write(
    fake, model_path: Path, tmp_path: Path, suffix: str, magic: bytes
) -> None:
    output = tmp_path / f"out{suffix}"
    api.compile(model_path).save(output)
    assert output.read_bytes().startswith(magic)


def test_texts(fake, model_path: Path, tmp_path: Path) -> None:
    artifact = api.compile(model_path, texts=("llvm",))
    assert artifact.save(tmp_path / "m.ll")[0].read_text() == "; llvm\n"
    with pytest.raises(UsageError, match="texts="):
        artifact.save(tmp_path / "m.s")


def test_unknown_suffix_and_emit(fake, model_path: Path, tmp_path: Path) -> None:
    artifact = api.compile(model_path)
    with pytest.raises(UsageError, match="suffix"):
        artifact.save(tmp_path / "m.xyz")
    with pytest.raises(UsageError, match="emit"):
        artifact.save(tmp_path / "m.so", "wasm")
    with pytest.raises(UsageError, match="directory"):
        artifact.save(tmp_path, "so")
    with pytest.raises(UsageError, match="cannot write"):
        artifact.save(tmp_path / "none/m.so")


@pytest.mark.parametrize(
    "arguments",
    [
        {"precision": "fp4"},
        {"opt_level": 4},
        {"threads": 0},
        {"threads": "2"},
        {"shapes": 3},
        {"shapes": {"x": 3}},
        {"target": "vax"},
        {"texts": ("wasm",)},
    ],
)
def test_wrong_arguments(fake, model_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        api.compile(model_path, **arguments)


def test_unavailable_backend(fake, model_path: Path) -> None:
    fake.unavailable = "the compiler is missing"
    with pytest.raises(UsageError, match="the compiler is missing"):
        api.compile(model_path)


def test_files_that_are_no_model(fake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        api.compile(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="directory"):
        api.compile(tmp_path)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"\xff" * 100)
    with pytest.raises(InvalidModelError):
        api.compile(garbage)


def test_load_refuses_what_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "m.so"
    path.write_bytes(b"\x7fELF and nothing else")
    with pytest.raises(RunError):
        api.load(path)
    with pytest.raises(UsageError):
        api.load(tmp_path / "none.so")


def test_verify(fake, model_path: Path) -> None:
    assert api.compile(model_path, verify=True).report.status == "passed"
    fake.factor = "2.01f"
    with pytest.raises(VerificationError, match="elements differ"):
        api.compile(model_path, verify=True)


def test_dump_after_sees_the_imported_graph(fake, model_path: Path) -> None:
    seen = []
    api.compile(model_path, dump_after=lambda name, graph: seen.append((name, len(graph.nodes))))
    assert seen == [("import", 1), ("double", 1)]


def test_unsupported_nodes_are_named(fake, model_path: Path) -> None:
    fake.unsupported = {"add": "no adder"}
    with pytest.raises(UnsupportedError) as caught:
        api.compile(model_path)
    assert [(item.node, item.reason) for item in caught.value.items] == [("double", "no adder")]


def test_artifact_keeps_no_constants(fake, save_model, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would add to the memory that linking takes."""
    tensor = numpy_helper.from_array(np.ones(4, np.float32))
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    path = save_model([constant, helper.make_node("Add", ["x", "c"], ["y"])], ["batch", 4])
    seen = []
    import_model = model_build.import_model

    def recorded(*arguments):
        graph = import_model(*arguments)
        seen.extend(weakref.ref(v.data) for v in graph.nodes[0].inputs if v.data is not None)
        return graph

    monkeypatch.setattr(model_build, "import_model", recorded)
    artifact = api.compile(path)
    artifact.save(path.with_suffix(".so"))
    gc.collect()
    assert [reference() for reference in seen] == [None]


def test_shapes_replace_dims(fake, model_path: Path) -> None:
    seen = []
    api.compile(
        model_path,
        shapes={"x": (3, 4)},
        dump_after=lambda name, graph: seen.append(graph.inputs[0].type.static_shape),
    )
    assert seen[0] == (3, 4)


@pytest.mark.parametrize(
    ("text", "name"), [("a-b.c", "a_b_c"), ("1x", "m_1x"), ("get", "m_get"), ("ü", "_")]
)
def test_c_identifier(text: str, name: str) -> None:
    assert c_identifier(text) == name
