"""The command line: results, JSON, exit codes."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from tensmith.driver import cli


@pytest.fixture
def library(fake, model_path: Path, call) -> Path:
    assert call("compile", model_path, "--no-verify")[0] == 0
    return model_path.with_suffix(".so")


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for name in (
        "compile",
        "run",
        "bench",
        "verify",
        "check",
        "inspect",
        "reduce",
        "targets",
        "knobs",
    ):
        assert name in result.output
        assert CliRunner().invoke(cli.app, [name, "--help"]).exit_code == 0


def test_compile(fake, model_path: Path, call) -> None:
    code, out, err = call("compile", model_path)
    assert code == 0, err
    assert model_path.with_suffix(".so").is_file()
    for part in ("import", "codegen", "verify", "total", "double.so", "verified against reference"):
        assert part in out


def test_compile_json(fake, model_path: Path, call) -> None:
    code, out, _ = call("compile", model_path, "--json", "-O3", "-o", "other.so")
    result = json.loads(out)
    assert code == 0
    assert [Path(name).name for name in result["files"]] == ["other.so"]
    assert result["verify"]["status"] == "passed"
    assert result["manifest"]["opt_level"] == 3
    assert "verify" in result["stages"]


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3"])
def test_levels_are_glued(fake, model_path: Path, call, level: str) -> None:
    code, out, _ = call("compile", model_path, level, "--no-verify", "--json")
    assert code == 0
    assert json.loads(out)["manifest"]["opt_level"] == int(level[2])


@pytest.mark.parametrize(
    ("emit", "name"),
    [("so", "double.so"), ("lib", "double.a"), ("obj", "double.o"), ("asm", "double.s")],
)
def test_default_name_by_emit(fake, model_path: Path, call, tmp_path: Path, emit, name) -> None:
    assert call("compile", model_path, "--emit", emit, "--no-verify")[0] == 0
    assert (tmp_path / name).is_file()


def test_failed_verification_writes_nothing(fake, model_path: Path, call) -> None:
    fake.factor = "3.0f"
    code, out, err = call("compile", model_path, "--json")
    assert code == 4
    assert json.loads(out)["error"]["type"] == "VerificationError"
    assert "disagrees" in err
    assert not model_path.with_suffix(".so").exists()
    assert call("compile", model_path, "--no-verify")[0] == 0


def test_incomplete_verification(fake, model_path: Path, call) -> None:
    fake.before = "for (volatile int i = 1; i;) {}"
    code, out, err = call("compile", model_path, "--verify-time", 2)
    assert code == 0
    assert "NOT VERIFIED" in err
    assert "verified" not in out.lower()
    assert call("compile", model_path, "--verify-time", 2, "--verify")[0] == 5


def test_dump_after(fake, model_path: Path, call, tmp_path: Path) -> None:
    code, _, err = call("compile", model_path, "--no-verify", "--dump-after", "import")
    assert code == 0
    assert "// after import" in err
    assert "add" in err
    assert call("compile", model_path, "--no-verify", "--dump-after=all", "--dump-dir=d")[0] == 0
    names = sorted(path.name for path in (tmp_path / "d").iterdir())
    assert names == ["001-import.txt", "002-double.txt"]
    code, _, err = call("compile", model_path, "--no-verify", "--dump-after", "nothing")
    assert code == 2
    assert "import, double" in err


def test_run(library: Path, call, batch, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", batch)
    code, out, err = call("run", library, "--input", "x=x.npy", "--output", "out.npz")
    assert code == 0, err
    assert "float32" in out
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], 2 * batch)


def test_run_onnx_json(fake, model_path: Path, call, batch, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=batch)
    code, out, _ = call("run", model_path, "--input", "x.npz", "--json")
    assert code == 0
    assert json.loads(out)["outputs"]["y"] == {
        "type": "float32",
        "shape": [3, 4],
        "min": 0.0,
        "max": 22.0,
        "mean": 11.0,
    }


def test_run_with_wrong_inputs(library: Path, call, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 5), np.float32))
    assert call("run", library)[0] == 2
    assert call("run", library, "--input", "x.npy")[0] == 2
    assert call("run", library, "--input", "z=x.npy")[0] == 2
    assert call("run", library, "--shape", "x:1x4")[0] == 2


def test_bench(library: Path, call) -> None:
    quick = ("--iterations", 5, "--duration", 0, "--warmup", 0)
    code, out, err = call("bench", library, *quick, "--shape", "x:8x4", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["inputs"] == {"x": [8, 4]}
    assert result["engines"][0]["calls"] == 5
    assert result["peak_label"].startswith("measured")
    code, out, err = call("bench", library, *quick)
    assert code == 0
    assert "'batch' is 1" in err
    assert "median" in out


def test_bench_against_a_peer(fake, model_path: Path, call) -> None:
    pytest.importorskip("onnxruntime")
    quick = ("--iterations", 5, "--duration", 0)
    code, out, err = call("bench", model_path, "--vs", "onnxruntime", *quick)
    assert code == 0, err
    assert "onnxruntime" in out
    assert call("bench", model_path, "--vs", "abacus")[0] == 2
    assert call("bench", model_path, "--shape", "z:1x2", *quick)[0] == 2


def test_verify(fake, model_path: Path, call) -> None:
    code, out, err = call("verify", model_path, "--json")
    assert code == 0, err
    assert json.loads(out)["status"] == "passed"
    fake.factor = "3.0f"
    code, out, err = call("verify", model_path, "--json")
    assert code == 4
    assert json.loads(out)["status"] == "failed"
    assert "disagrees" in err
    fake.before = "for (volatile int i = 1; i;) {}"
    assert call("verify", model_path, "--verify-time", 2)[0] == 5


def test_verify_library(library: Path, model_path: Path, call, batch, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=batch)
    np.savez(tmp_path / "out.npz", y=2 * batch)
    stored = ("--inputs", "in.npz", "--outputs", "out.npz")
    assert call("verify", library, *stored)[0] == 0
    assert call("verify", model_path, "--library", library)[0] == 0
    assert call("verify", library)[0] == 2
    assert call("verify", model_path, "--outputs", "out.npz")[0] == 2
    np.save(tmp_path / "in.npy", batch)
    assert call("verify", model_path, "--library", library, "--inputs", "in.npy")[0] == 0
    code, _, err = call("verify", model_path, "--library", library, "--inputs", "out.npz")
    assert code == 2
    assert "'y' is not an input" in err
    np.savez(tmp_path / "out.npz", y=3 * batch)
    assert call("verify", library, *stored)[0] == 4


def test_check(fake, model_path: Path, call) -> None:
    code, out, _ = call("check", model_path)
    assert code == 0
    assert "symbolic dimension batch: input 'x' axis 0" in out
    fake.unsupported = {"add": "no adder"}
    code, out, err = call("check", model_path, "--json")
    assert code == 3
    assert json.loads(out)["unsupported"][0]["reason"] == "no adder"
    assert "no adder" in err


def test_check_lists_what_the_import_refuses(fake, save_model, call) -> None:
    nodes = [
        helper.make_node("NoSuchOp", ["x"], ["a"], name="first", domain="com.example"),
        helper.make_node("NorThis", ["a"], ["y"], name="second", domain="com.example"),
    ]
    code, out, _ = call("check", save_model(nodes, [1, 4]), "--json")
    assert code == 3
    assert {item["node"] for item in json.loads(out)["unsupported"]} == {"first", "second"}


def test_check_says_what_a_run_decides(save_model, call) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64, name="index"),
        helper.make_node("Gather", ["x", "i"], ["g"], name="lookup"),
        helper.make_node("NonZero", ["g"], ["z"], name="places"),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT, name="back"),
    ]
    code, out, _ = call("check", save_model(nodes, ["batch", 4]), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["supported"]
    assert found["checks"] == ["lookup"]
    assert [(risk["kind"], risk["nodes"]) for risk in found["risks"]] == [
        ("integer_cast", ["index"])
    ]
    assert any("'y'" in line and "'back'" in line for line in found["unknown"])
    out = call("check", save_model(nodes, ["batch", 4]))[1]
    assert "precision: casts of floats that the integer type may not hold" in out
    assert "indices that every run checks: 'lookup'" in out


def test_inspect_why(call, tmp_path: Path) -> None:
    """What the last row of a product needs, in operations and bytes, and why that is enough."""
    constants = [
        numpy_helper.from_array(np.ones((8, 8), np.float32), "w"),
        numpy_helper.from_array(np.array(3), "last"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Gather", ["m", "last"], ["y"], axis=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    code, out, _ = call("inspect", tmp_path / "m.onnx", "--why")
    assert code == 0
    assert "512 FLOPs per run, 128 as computed" in out
    assert "needs [1, 8] of f32[4, 8] only" in out


def test_inspect(fake, model_path: Path, library: Path, call) -> None:
    code, out, _ = call("inspect", model_path, "--nodes", "--kernels")
    assert code == 0
    for part in ("add", "double", "f32_double", "f32", "parameters"):
        assert part in out
    code, out, _ = call("inspect", model_path, "--json", "--kernels")
    assert json.loads(out)["manifest"]["kernels"][0]["name"] == "f32_double"
    code, out, _ = call("inspect", library, "--json")
    assert json.loads(out)["manifest"]["name"] == "double"
    assert "f32_double" in call("inspect", library)[1]


def test_targets_and_knobs(fake, call) -> None:
    code, out, _ = call("targets", "--json")
    assert code == 0
    assert json.loads(out)["targets"][0]["available"]
    fake.unavailable = "not today"
    assert "not today" in call("targets")[1]
    assert "TENSMITH_TRACEBACK" in call("knobs")[1]
    assert json.loads(call("knobs", "--json")[1])["knobs"][0]["name"] == "traceback"


def test_targets_show_the_figures_of_their_kind(call) -> None:
    rows = {row["target"]: row for row in json.loads(call("targets", "--json")[1])["targets"]}
    assert rows["x86-64-v4"]["vector_bits"] == 512
    instructions = set(rows["aarch64:cortex-a76"]["instructions"])
    assert {"fma", "sdot"} <= instructions
    assert not instructions & {"smmla", "bfmmla"}
    reference = rows["reference"]
    assert (reference["vector_bits"], reference["instructions"]) == (None, [])


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("compile",),
        ("compile", "none.onnx"),
        ("compile", "."),
        ("compile", "MODEL", "-O4"),
        ("compile", "MODEL", "--target", "vax"),
        ("compile", "MODEL", "--emit", "wasm"),
        ("compile", "MODEL", "-o", "x.docx"),
        ("compile", "MODEL", "-o", "no/such/folder/x.so"),
        ("compile", "MODEL", "--shape", "x"),
        ("compile", "MODEL", "--shape", "nobody:1x4"),
        ("compile", "MODEL", "--shape", "x:1x2x3"),
        ("compile", "MODEL", "--precision", "fp4"),
        ("compile", "MODEL", "--threads", "0"),
        ("compile", "MODEL", "--threads", "1025"),
        ("compile", "MODEL", "--name", "2x"),
        ("compile", "MODEL", "--name", "get"),
        ("compile", "MODEL", "--no-such-flag"),
        ("run", "MODEL", "--input", "x.npy", "-o", "out.csv"),
        ("conjure",),
    ],
)
def test_usage_errors(fake, model_path: Path, call, arguments: tuple[str, ...]) -> None:
    code, _, err = call(*(str(model_path) if a == "MODEL" else a for a in arguments))
    assert code == (2 if arguments else code)
    assert err or not arguments
    assert "Traceback" not in err


def test_json_error(fake, call) -> None:
    code, out, err = call("compile", "none.onnx", "--json")
    assert code == 2
    error = json.loads(out)["error"]
    assert error["exit_code"] == 2
    assert "none.onnx" in error["message"]
    assert err.startswith("error: there is no file")


@pytest.mark.parametrize("arguments", [("compile",), ("check", "x.onnx", "--no-such-flag")])
def test_json_of_a_wrong_command_line(call, arguments: tuple[str, ...]) -> None:
    code, out, err = call(*arguments, "--json")
    error = json.loads(out)["error"]
    assert code == error["exit_code"] == 2
    assert error["type"]
    assert error["message"]
    assert err.startswith("Usage: tensmith")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_folder_without_permission(fake, model_path: Path, call, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, _, err = call("compile", model_path, "-o", closed / "x.so")
    assert code == 2
    assert "cannot write" in err


def test_unexpected_error(fake, model_path: Path, call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("tensmith.driver.model_build.import_model", broken)
    code, _, err = call("compile", model_path)
    assert code == 1
    assert "ZeroDivisionError: surprise" in err
    assert "TENSMITH_TRACEBACK=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("TENSMITH_TRACEBACK", "1")
    assert "Traceback" in call("compile", model_path)[2]


def test_interruption(fake, model_path: Path, call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tensmith.driver.model_build.import_model", interrupted)
    code, _, err = call("compile", model_path)
    assert code == 130
    assert "interrupted" in err


def test_program(tensmith) -> None:
    result = tensmith("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("tensmith ")
    assert tensmith("compile", "no-such-file.onnx").returncode == 2


def test_malformed_models_answer_quickly(tensmith, model_path: Path, tmp_path: Path) -> None:
    data = model_path.read_bytes()
    for name, content in {
        "empty": b"",
        "half": data[: len(data) // 2],
        "text": b"this is no model",
        "flipped": bytes(byte ^ 0xFF for byte in data),
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        start = time.monotonic()
        result = tensmith("check", str(path))
        assert result.returncode in (2, 3), (name, result.stderr)
        assert result.stderr.startswith("error: ")
        assert time.monotonic() - start < 30


def test_start_does_not_import_the_compiler(tensmith) -> None:
    result = tensmith("--help", PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"numpy", "onnx", "llvmlite", "rich.console"}
