"""Calibration data: every form that they come in, and what is said where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensmith.compiler.artifact import TensorSpec
from tensmith.compiler.errors import UsageError
from tensmith.driver.calibration import Samples

X = TensorSpec("x", "f32", (1, 3))
MASK = TensorSpec("mask", "i64", ("n",))
STACK = np.arange(12, dtype=np.float32).reshape(4, 1, 3)


def read(data: Any, folder: Path, *specs: TensorSpec) -> list[dict[str, np.ndarray[Any, Any]]]:
    samples = Samples(data, specs or (X,), folder / "spool")
    first = list(samples)
    again = list(samples)
    assert len(first) == len(again)
    for one, other in zip(first, again, strict=True):
        assert all((one[name] == other[name]).all() for name in one)
    return first


@pytest.mark.parametrize(
    "data",
    [
        {"x": STACK},
        {"x": STACK[:, 0]},  # four of what the model takes one of
        STACK,
        [{"x": array} for array in STACK],
        [{"x": STACK[:3]}, {"x": STACK[3]}],
        list(STACK),
    ],
)
def test_one_record_or_several(data: Any, tmp_path: Path) -> None:
    found = read(data, tmp_path)
    assert [sample["x"].shape for sample in found] == [(1, 3)] * 4
    assert (np.stack([sample["x"] for sample in found]) == STACK).all()


def test_one_sample(tmp_path: Path) -> None:
    (found,) = read({"x": STACK[2]}, tmp_path)
    assert (found["x"] == STACK[2]).all()


def test_what_can_be_read_once_is_stored(tmp_path: Path) -> None:
    assert len(read(({"x": array} for array in STACK), tmp_path)) == 4
    assert len(list((tmp_path / "spool").iterdir())) == 4


def test_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "b.npz", x=STACK[:3])
    np.save(folder / "c.npy", STACK[3])
    (folder / "notes.txt").write_text("no data")
    assert (np.stack([sample["x"] for sample in read(folder, tmp_path)]) == STACK).all()
    assert len(read(str(folder / "b.npz"), tmp_path)) == 3
    assert len(read(folder / "c.npy", tmp_path)) == 1


def test_an_input_that_all_samples_share(tmp_path: Path) -> None:
    found = read({"x": STACK, "mask": np.arange(5)}, tmp_path, X, MASK)
    assert [sample["mask"].shape for sample in found] == [(5,)] * 4
    both = read({"x": STACK, "mask": np.zeros((4, 5), np.int64)}, tmp_path, X, MASK)
    assert [sample["mask"].shape for sample in both] == [(5,)] * 4


NAN = np.array([[[0, np.nan, 1]]], np.float32)


@pytest.mark.parametrize(
    ("data", "message", "remedy"),
    [
        ({"y": STACK}, "arrays for no input: y", "named: x"),
        ({}, "no value for the input", ".npz"),
        ({"x": STACK[..., :2]}, "'x' is f32", "leading axis"),
        ({"x": STACK.astype(np.float64)}, "'x' is float64, and the input is float32", "convert"),
        ({"x": STACK[:0]}, "no sample", ".npz"),
        ([], "no sample", ".npz"),
        ({"x": np.concatenate([STACK, NAN])}, "NaN", "leave the sample out"),
        (5, "cannot be a int", "a dict of arrays"),
    ],
)
def test_what_does_not_fit(data: Any, message: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(data, tmp_path)
    assert message in caught.value.what
    assert remedy in caught.value.remedy


def test_the_sample_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read({"x": np.concatenate([STACK, NAN])}, tmp_path)
    assert caught.value.where == "the calibration data, sample 4"


def test_different_numbers_and_unnamed_arrays(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="4 of 'x', 3 of 'mask'"):
        read({"x": STACK, "mask": np.zeros((3, 5), np.int64)}, tmp_path, X, MASK)
    with pytest.raises(UsageError, match="2 inputs"):
        read(STACK, tmp_path, X, MASK)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no calibration data"):
        read(tmp_path / "none.npz", tmp_path)
    with pytest.raises(UsageError, match=r"no \.npz and no \.npy"):
        read(tmp_path, tmp_path)
