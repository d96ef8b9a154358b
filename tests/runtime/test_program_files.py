"""The files of a program: archives of outputs, standard streams, and what the system refuses."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cplans import needs_x86

pytestmark = needs_x86


@pytest.fixture
def inputs(tmp_path: Path) -> np.ndarray:
    a = np.random.default_rng(0).integers(0, 9, (40, 50)).astype(np.float32)
    np.savez(tmp_path / "in.npz", a=a, s=a[0])
    return a


def test_npz_holds_every_output(run, tmp_path: Path, inputs: np.ndarray) -> None:
    run("symbolic", "--input", "in.npz", "--output", "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert sorted(found.files) == ["rows", "scaled", "total"]
        np.testing.assert_array_equal(found["scaled"], inputs * inputs[0])
        np.testing.assert_allclose(found["rows"], inputs.sum(1))
        assert found["total"].shape == ()
        assert found["total"] == inputs.sum()
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.testzip() is None
    run("symbolic", "--input", "in.npz", "--output", "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "out.npz").read_bytes()


def test_npz_of_some_outputs(run, tmp_path: Path, inputs: np.ndarray) -> None:
    arguments = ("--output", "rows=o.npz", "--output", "total=t.npy", "--output", "total=o.npz")
    run("symbolic", "--input", "in.npz", *arguments)
    with np.load(tmp_path / "o.npz") as found:
        assert sorted(found.files) == ["rows", "total"]
    assert np.load(tmp_path / "t.npy") == inputs.sum()
    arguments = ("--output", "rows=o.npy", "--output", "total=o.npy")
    assert "one output" in run("symbolic", "--input", "in.npz", *arguments, code=2)
    assert "--output NAME=o.npy" in run(
        "symbolic", "--input", "in.npz", "--output", "o.npy", code=2
    )


def test_what_is_written_can_be_read_again(run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(6, dtype=np.float32).reshape(2, 3))
    run("affine", "--input", "x.npz", "--output", "y.npz")
    run("affine", "--input", "x=y.npz:y", "--output", "z.npy")
    want = (np.arange(6, dtype=np.float32).reshape(2, 3) * 2 + 1) * 2 + 1
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), want)


def test_empty_arrays(run, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", a=np.zeros((0, 3), np.float32), s=np.zeros(3, np.float32))
    run("symbolic", "--input", "in.npz", "--output", "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert found["scaled"].shape == (0, 3)


def test_big_endian_files(run, tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", x.astype(">f4"))
    run("affine", "--input", "x.npy", "--output", "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x * 2 + 1)


@pytest.mark.parametrize("archive", [False, True])
def test_standard_streams(programs, tmp_path: Path, archive: bool) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    file = io.BytesIO()
    np.savez(file, x=x) if archive else np.save(file, x)
    command = [programs("affine"), "--input", "-", "--output", "-"]
    done = subprocess.run(command, input=file.getvalue(), capture_output=True, check=True)
    np.testing.assert_array_equal(np.load(io.BytesIO(done.stdout)), x * 2 + 1)
    done = subprocess.run([*command, "--json"], input=b"", capture_output=True, check=False)
    assert done.returncode == 2
    assert b"report" in done.stderr


def test_files_appear_whole(run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    (tmp_path / "y.npy").write_text("old")
    (tmp_path / "link.npy").symlink_to("y.npy")
    run("affine", "--input", "x.npy", "--output", "link.npy")
    assert (tmp_path / "link.npy").is_symlink()
    assert np.load(tmp_path / "y.npy").shape == (2, 3)
    assert sorted(os.listdir(tmp_path)) == ["link.npy", "x.npy", "y.npy"]


def test_limits_leave_no_half_files(programs, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", a=np.ones((400, 500), np.float32), s=np.ones(500, np.float32))
    command = '"$0" --input in.npz --output out.npz'
    done = subprocess.run(
        ["sh", "-c", f"ulimit -f 64; {command}", programs("symbolic")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "out.npz" in done.stderr
    assert "File too large" in done.stderr
    assert os.listdir(tmp_path) == ["in.npz"]


def test_devices_are_written_in_place(run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    run("affine", "--input", "x.npy", "--output", "/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    if Path("/dev/full").exists():
        text = run("affine", "--input", "x.npy", "--output", "/dev/full", code=1)
        assert "No space left" in text
    assert "cannot write" in run("affine", "--input", "x.npy", "--output", "no/y.npy", code=2)


def test_names_of_any_kind(run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    for name in ("a b", "ü", "-y", "100%s", "quo\"te'", "line\nbreak", "y" * 251):
        run("affine", "--input", "x.npy", f"--output={name}.npy")
        assert np.load(tmp_path / f"{name}.npy").shape == (2, 3)
