"""The program around a model: files in, files and reports out, exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from cplans import MANIFEST, make_model, needs_x86

from tensmith.backends.common.link import link

pytestmark = needs_x86


@pytest.fixture
def x() -> np.ndarray:
    return np.arange(6, dtype=np.float32).reshape(2, 3)


def test_npy_in_npy_out(run, tmp_path, x) -> None:
    np.save(tmp_path / "x.npy", x)
    run("affine", "--input", "x=x.npy", "--output", "y=y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x * 2 + 1)
    run("affine", "--input=x.npy", "--output=y.bin")
    np.testing.assert_array_equal(np.fromfile(tmp_path / "y.bin", np.float32), (x * 2 + 1).ravel())


def test_optional_inputs_have_their_defaults(run, tmp_path, x) -> None:
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "s.npy", np.float32([4, 5, 6]))
    for more, used in (((), [1, 2, 3]), (("--input", "s=s.npy"), [4, 5, 6])):
        run("optional", "--input", "a=a.npy", *more, "--output", "scaled=out.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), x * np.float32(used))
    run("optional", "--random", "1", "--shape", "a:2x3", "--output", "scaled=out.npy")
    assert "input 'a' is missing" in run("optional", code=2)


def test_fortran_order(run, tmp_path, x) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    run("affine", "--input", "x.npy", "--output", "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x * 2 + 1)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_gives_every_input(run, tmp_path, save) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 9, (40, 50)).astype(np.float32)
    save(tmp_path / "in.npz", a=a, s=a[0], unused=np.zeros(3))
    run("symbolic", "--input", "in.npz", "--output", "scaled=s.npy", "--output", "total=t.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), a * a[0])
    total = np.load(tmp_path / "t.npy")
    assert total.shape == ()
    assert total == a.sum()
    run("symbolic", "--input", "a=in.npz:a", "--input", "s=in.npz", "--output", "rows=r.npy")
    np.testing.assert_allclose(np.load(tmp_path / "r.npy"), a.sum(1))


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY])
@pytest.mark.parametrize("kind", ["random", "zeros", "words"])
def test_inflate_against_zlib(run, tmp_path, level, strategy, kind) -> None:
    rng = np.random.default_rng(1)
    a = {
        "random": rng.integers(-(2**63), 2**63, 9000),
        "zeros": np.zeros(70000, np.int64),
        "words": np.repeat(rng.integers(0, 300, 3000), rng.integers(1, 9, 3000)),
    }[kind].astype(np.int64)
    _write_npz(tmp_path / "in.npz", "x", a, level, strategy)
    run("positive", "--input", "in.npz", "--output", "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), a[a > 0])


def _write_npz(path: Path, name: str, array: np.ndarray, level: int, strategy: int) -> None:
    """A .npz whose member is packed with a given zlib level and strategy."""
    np.save(path.with_suffix(".npy"), array)
    data = path.with_suffix(".npy").read_bytes()
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
    packed = packer.compress(data) + packer.flush()
    member = f"{name}.npy".encode()
    sizes = b"".join(
        value.to_bytes(4, "little") for value in (zlib.crc32(data), len(packed), len(data))
    )
    common = b"\x14\0\0\0\x08\0\0\0\0\0" + sizes + len(member).to_bytes(2, "little") + bytes(2)
    local = b"PK\3\4" + common + member
    central = b"PK\1\2\x14\0" + common + bytes(14) + member
    start = len(local) + len(packed)
    end = b"PK\5\6" + bytes(4) + b"\1\0\1\0" + len(central).to_bytes(4, "little")
    path.write_bytes(local + packed + central + end + start.to_bytes(4, "little") + bytes(2))


def test_raw_files(run, tmp_path) -> None:
    a = np.arange(6, dtype=np.float32)
    a.tofile(tmp_path / "a.bin")
    a[:3].tofile(tmp_path / "s.bin")
    files = ("--input", "a=a.bin", "--input", "s=s.bin", "--output", "rows=r.npy")
    run("symbolic", *files, "--shape", "a:2x3")
    np.testing.assert_array_equal(np.load(tmp_path / "r.npy"), [3, 12])
    run("symbolic", *files, "--shape", "a:[2, 3]")
    assert "--shape a:" in run("symbolic", *files, code=2)
    assert "has 24 bytes" in run("symbolic", *files, "--shape", "a:5x3", code=2)
    assert "expected 2 sizes" in run("symbolic", *files, "--shape", "a:6", code=2)


def test_printed_values(run, tmp_path, x) -> None:
    np.save(tmp_path / "x.npy", x)
    assert run("affine", "--input", "x.npy") == "y: f32[2, 3]\n  1 3 5 7 9 11\n"
    assert run("affine", "--input", "x.npy", "--quiet") == ""
    report = json.loads(run("affine", "--input", "x.npy", "--json"))
    expected = {"name": "y", "dtype": "f32", "shape": [2, 3], "values": [1, 3, 5, 7, 9, 11]}
    assert report["outputs"] == [expected]


def test_every_type_is_printed_and_written(run, tmp_path) -> None:
    report = json.loads(run("types", "--random", "5", "--json"))
    values = {o["dtype"]: o["values"][0] for o in report["outputs"]}
    assert len(values) == 13
    assert 0 <= values["bf16"] < 1
    assert 0 < values["f16"] < 1
    assert isinstance(values["bool"], bool)
    for dtype in ("f16", "bool", "u32", "i8"):
        run("types", "--random", "5", "--output", f"out_{dtype}=o.npy")
        assert np.load(tmp_path / "o.npy") == pytest.approx(values[dtype], abs=1e-3)


def test_random_inputs_are_seeded_and_symbols_agree(run) -> None:
    shape = ("--shape", "a:3x4", "--json")
    first, again, other = (
        json.loads(run("symbolic", "--random", s, *shape))["outputs"] for s in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert first[1]["shape"] == [3, 4]


def test_timing_report(run) -> None:
    report = json.loads(
        run("affine", "--random", 1, "--warmup", 2, "--iterations", 9, "--threads", 2, "--json")
    )
    assert (report["runs"], report["threads"], report["samples"]) == (9, 2, 9)
    seconds = report["seconds"]
    assert seconds["min"] <= seconds["median"] <= seconds["p90"] <= seconds["p99"]
    assert seconds["p99"] <= seconds["max"]
    assert "values" not in report["outputs"][0]
    report = json.loads(run("affine", "--random", 1, "--duration", "0.02", "--json"))
    assert sum(report["seconds"]["mean"] for _ in range(report["runs"])) <= 1
    assert report["runs"] > 1


def test_samples_one_by_one(run, tmp_path, x) -> None:
    samples = np.stack([x, x + 10, x * 0])
    labels = np.array([5, 5, 1])
    np.savez(tmp_path / "set.npz", x=samples, labels=labels, y=labels)
    arguments = ("--input", "set.npz:x", "--batch", 1, "--output", "y.npy")
    out = run("affine", *arguments, "--labels", "set.npz", "--json")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), samples * 2 + 1)
    report = json.loads(out)
    assert report["accuracy"] == pytest.approx(2 / 3)
    assert (report["runs"], report["samples"]) == (3, 3)
    text = run("affine", "--input", "set.npz", "--batch", 1, "--labels", "set.npz:y")
    assert text.startswith("accuracy 0.6667 (3 samples)\nruns 3, threads 1: median")


def test_samples_in_batches_of_a_symbolic_model(run, tmp_path) -> None:
    x = np.random.default_rng(0).standard_normal(10).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = ("--input", "x.npy", "--output", "values=v.npy", "--json")
    report = json.loads(run("parallel", *arguments, "--batch", 4))
    assert (report["runs"], report["samples"]) == (3, 10)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), x / 2)


def test_fixed_batch_takes_several_samples_and_constants_repeat(run, tmp_path, x) -> None:
    samples = np.concatenate([x, x + 1, x + 2])
    np.save(tmp_path / "x.npy", samples)
    run("affine", "--input", "x.npy", "--batch", 1, "--output", "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), samples * 2 + 1)
    np.save(tmp_path / "x.npy", samples[:5])
    assert "not a multiple" in run("affine", "--input", "x.npy", "--batch", 1, code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "input 'x' is missing"),
        (("--input", "absent.npy"), "cannot read 'absent.npy'"),
        (("--input", "z=x.npy"), "expected the name of one of: 'x'"),
        (("--input", "wide.npy"), "expected element type f32, got f64"),
        (("--input", "long.npy"), "3, got 4 (shape [2, 4]); compile with --shape 'x:[2,?]'"),
        (("--input", "cut.npy"), "is truncated"),
        (
            ("--input", "lfs.npy"),
            "'lfs.npy' is a pointer of Git LFS to the file: run `git lfs pull`",
        ),
        (("--input", "cut.npz"), "is not a complete .npz"),
        (("--input", "bad.npz"), "damaged"),
        (("--input", "objects.npy"), "are not supported"),
        (("--frobnicate", "1"), "unknown option '--frobnicate'"),
        (("--frobnicate",), "--help"),
        (("extra",), "unknown argument 'extra'"),
        (("--threads", "many"), "expected a number"),
        (("--random", "1", "--batch", "2", "--iterations", "3"), "leave out"),
    ],
)
def test_wrong_usage(run, tmp_path, x, arguments, message) -> None:
    np.save(tmp_path / "wide.npy", x.astype(np.float64))
    np.save(tmp_path / "long.npy", np.zeros((2, 4), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}]))
    np.save(tmp_path / "x.npy", x)
    lines = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
    (tmp_path / "lfs.npy").write_bytes(lines)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((2, 3), np.float32))
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[:-30])
    (tmp_path / "bad.npz").write_bytes(data[:60] + bytes(8) + data[68:])
    error = run("affine", *arguments, code=2)
    assert error.startswith("error: ")
    assert message in error


def test_failing_run(run, tmp_path) -> None:
    np.save(tmp_path / "mode.npy", np.array([1], np.int32))
    assert "index 9 is out of range" in run("failing", "--input", "mode.npy", code=1)


def test_missing_cpu_feature(tmp_path) -> None:
    model = make_model("affine", tmp_path, features=("avx1024",))
    program = link(model, "exe", tmp_path / "m")[0]
    result = subprocess.run([program, "--random", "1"], capture_output=True, text=True)
    assert result.returncode == 3
    assert "'avx1024'" in result.stderr


def test_info_and_help(run) -> None:
    assert "input a: f32[N, M]" in run("symbolic", "--info")
    info = json.loads(run("symbolic", "--info", "--json"))
    assert info["inputs"][1] == {"name": "s", "dtype": "f32", "dims": ["M"]}
    assert info["manifest"] == MANIFEST
    assert "--iterations" in run("symbolic", "--help")


def test_side_file_of_weights(tmp_path, x) -> None:
    program, side = link(
        make_model("affine", tmp_path), "exe", tmp_path / "m", side_file_threshold=0
    )
    np.save(tmp_path / "x.npy", x)
    command = [program, "--input", tmp_path / "x.npy"]
    assert b"1 3 5 7 9 11" in subprocess.run(command, capture_output=True, check=True).stdout
    renamed = side.rename(tmp_path / "weights.bin")
    assert subprocess.run(command, capture_output=True).returncode == 2
    subprocess.run([*command, "--weights", renamed], capture_output=True, check=True)


def test_weights_behind_the_program(tmp_path, x) -> None:
    made = make_model("affine", tmp_path)
    [program] = link(made, "exe", tmp_path / "m", appended_threshold=0)
    np.save(tmp_path / "x.npy", x)
    command = [program.rename(tmp_path / "other"), "--input", tmp_path / "x.npy"]
    assert b"1 3 5 7 9 11" in subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed")
def test_aarch64_program_under_qemu(programs, tmp_path) -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    np.savez_compressed(tmp_path / "x.npz", x=x)
    emulator = [shutil.which("qemu-aarch64"), programs("parallel", "aarch64")]
    arguments = ["--input", "x.npz", "--output", "values=v.npy", "--threads", "3", "--json"]
    result = subprocess.run([*emulator, *arguments], cwd=tmp_path, capture_output=True, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), x / 2)
    assert json.loads(result.stdout)["threads"] == 3
