"""Tensor files and the check of inputs."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from compiled import needs_native
from onnx import TensorProto, helper

from tensmith.compiler.artifact import TensorSpec
from tensmith.compiler.errors import UsageError
from tensmith.driver import api
from tensmith.driver.tensor_files import check_inputs, read_file, read_inputs, write_file, write_npz

A, B = np.arange(3.0), np.arange(4)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", A)
    write_npz(tmp_path / "both.npz", {"a": A, "b": B})
    return tmp_path


def test_named_file(files: Path) -> None:
    assert list(read_inputs([f"a={files}/a.npy"], ["a", "b"])) == ["a"]
    np.testing.assert_array_equal(read_inputs([f"b={files}/both.npz"], ["a", "b"])["b"], B)


def test_npz_of_all(files: Path) -> None:
    assert set(read_inputs([f"{files}/both.npz"], ["a", "b"])) == {"a", "b"}


def test_nameless_npy_for_the_only_input(files: Path) -> None:
    assert list(read_inputs([f"{files}/a.npy"], ["x"])) == ["x"]
    with pytest.raises(UsageError, match="which input"):
        read_inputs([f"{files}/a.npy"], ["x", "y"])


def test_wrong_names(files: Path) -> None:
    with pytest.raises(UsageError, match="not an input"):
        read_inputs([f"z={files}/a.npy"], ["a"])
    with pytest.raises(UsageError, match="twice"):
        read_inputs([f"a={files}/a.npy", f"{files}/both.npz"], ["a", "b"])
    with pytest.raises(UsageError, match="no array 'c'"):
        read_inputs([f"c={files}/both.npz"], ["c"])


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"no")
    np.save(tmp_path / "pickle.npy", np.array([object()]), allow_pickle=True)
    for name in ("bad.npy", "pickle.npy", "none.npy"):
        with pytest.raises(UsageError):
            read_file(tmp_path / name)


def test_bfloat16_survives(tmp_path: Path) -> None:
    array = np.array([1.5, 2], ml_dtypes.bfloat16)
    write_npz(tmp_path / "x.npz", {"x": array})
    np.testing.assert_array_equal(read_file(tmp_path / "x.npz")["x"], array)


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        write_npz(tmp_path / "none/x.npz", {})


SPECS = (TensorSpec("x", "f32", ("n", 4)), TensorSpec("y", "i64", ("n",)))


def test_symbols_are_bound() -> None:
    inputs = {"x": np.zeros((3, 4), np.float32), "y": np.zeros(3, np.int64)}
    assert check_inputs(SPECS, inputs) == {"n": 3}


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 4)), np.zeros(3, np.int64), "float64"),
        (np.zeros((3, 5), np.float32), np.zeros(3, np.int64), "dimension 1 is 4, not 5"),
        (np.zeros((3, 4), np.float32), np.zeros(2, np.int64), r"3, not 2\s.*'y:\[\?\]'"),
        (np.zeros((3,), np.float32), np.zeros(3, np.int64), "not float32"),
    ],
)
def test_misfits(x, y, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_inputs(SPECS, {"x": x, "y": y})


def test_missing_inputs_are_named() -> None:
    with pytest.raises(UsageError, match="x, y"):
        check_inputs(SPECS, {})


def test_names_that_numpy_takes_for_arguments(tmp_path: Path) -> None:
    arrays = {name: np.zeros(2) for name in ("file", "allow_pickle", "args", "a/b", "../c", "")}
    write_npz(tmp_path / "x.npz", arrays)
    assert set(read_file(tmp_path / "x.npz")) == set(arrays)


def test_npy_holds_one(tmp_path: Path) -> None:
    write_file(tmp_path / "x.npy", {"y": np.arange(3)})
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(3))
    with pytest.raises(UsageError, match=r"name it \.npz"):
        write_file(tmp_path / "x.npy", {"y": np.arange(3), "z": np.arange(2)})
    write_file(tmp_path / "z", {"y": np.arange(3)})
    assert set(read_file(tmp_path / "z")) == {"y"}


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_what_git_lfs_did_not_fetch(tmp_path: Path, name: str) -> None:
    lines = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
    (tmp_path / name).write_bytes(lines)
    with pytest.raises(UsageError, match="a pointer of Git LFS") as caught:
        read_file(tmp_path / name)
    assert caught.value.remedy == "run `git lfs pull`"


def test_byte_orders_of_other_machines(files: Path) -> None:
    np.save(files / "big.npy", A.astype(">f8"))
    found = read_file(files / "big.npy")[""]
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, A)


def test_file_names_with_an_equals_sign(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    np.save("x=1.npy", B)
    np.testing.assert_array_equal(read_inputs(["x=1.npy"], ["y"])["y"], B)
    np.save("1.npy", A)
    with pytest.raises(UsageError, match="'x' is not an input"):
        read_inputs(["x=1.npy"], ["y"])


def test_names_of_inputs_may_hold_an_equals_sign(files: Path) -> None:
    found = read_inputs([f"a=b={files}/a.npy", f"c={files}/a.npy"], ["a=b", "c"])
    assert list(found) == ["a=b", "c"]
    with pytest.raises(UsageError, match="'a' is not an input"):
        read_inputs([f"a={files}/a.npy"], ["a=b"])


@needs_native
@pytest.mark.parametrize("names", [["a", "a=b"], ["a=b", "a"]])
def test_of_names_that_begin_alike_that_of_a_file_is_meant(
    files: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    monkeypatch.chdir(files)
    infos = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [3]) for name in names]
    result = helper.make_tensor_value_info("y", TensorProto.DOUBLE, [3])
    nodes = [helper.make_node("Sub", ["a=b", "a"], ["y"])]
    graph = helper.make_graph(nodes, "g", infos, [result])
    opsets = [helper.make_opsetid("", 17)]
    api.compile(helper.make_model(graph, opset_imports=opsets, ir_version=8)).save("program")
    np.save("c=b.npy", 10 * A)
    np.save("longest.npy", A)
    for words in (["a=c=b.npy", "a=b=longest.npy"], ["a=b=longest.npy", "a=b=b.npy"]):
        found = read_inputs(words, names)
        given = [word for text in words for word in ("--input", text)]
        subprocess.run(["./program", "--quiet", *given, "--output", "y.npy"], check=True)
        np.testing.assert_array_equal(np.load("y.npy"), found["a=b"] - found["a"])
        np.testing.assert_array_equal(found["a=b"], A)
        np.testing.assert_array_equal(found["a"], 10 * A)
        np.save("b=b.npy", 10 * A)
    with pytest.raises(UsageError, match=r"no file 'none\.npy'"):
        read_inputs(["a=b=none.npy"], names)


@pytest.mark.parametrize("content", [b"no tensors", b"\x93NUMPY\x01\x00garbage"])
def test_what_is_in_files_is_never_a_reason_to_load_programs(files: Path, content: bytes) -> None:
    np.save(files / "objects.npy", np.array([object()]), allow_pickle=True)
    (files / "other.npy").write_bytes(content)
    for name in ("objects.npy", "other.npy"):
        with pytest.raises(UsageError) as raised:
            read_file(files / name)
        assert "allow_pickle" not in str(raised.value)


def test_standard_input_that_has_been_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UsageError, match="holds no tensors, or has been read"):
        read_file(Path("-"))


def test_other_element_types_are_told_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"store array\.astype\('int64'\)"):
        check_inputs(SPECS[1:], {"y": np.zeros(2, np.int32)})
