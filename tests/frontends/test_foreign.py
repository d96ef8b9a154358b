"""Files that are given for models and are none: the message says what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tensmith.compiler.errors import InvalidModelError, UsageError
from tensmith.driver.argument_checks import check_file
from tensmith.frontends.onnx import load

MODEL = (Path(__file__).resolve().parents[2] / "examples/digits/digits.onnx").read_bytes()


def archive(members: Mapping[str, bytes]) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as made:
            for name, data in members.items():
                made.writestr(name, data)
        return file.getvalue()


def tar() -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as made:
            made.addfile(tarfile.TarInfo("model.onnx"), io.BytesIO())
        return file.getvalue()


def array() -> bytes:
    with io.BytesIO() as file:
        np.save(file, np.zeros(3))
        return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
SAFETENSORS = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
FILES = {
    "Git LFS": POINTER,
    "gzip": gzip.compress(MODEL),
    "bzip2": bz2.compress(MODEL),
    "xz": lzma.compress(MODEL),
    "tar": tar(),
    "ZIP archive with model.onnx": archive({"model.onnx": MODEL}),
    "PyTorch": archive({"archive/data.pkl": b"\x80\x02", "archive/version": b"3"}),
    "arrays of numpy": archive({"x.npy": array()}),
    "Keras": archive({"config.json": b"{}", "model.weights.h5": b"\x89HDF"}),
    "array of numpy": array(),
    "pickle": pickle.dumps({"model": 1}, protocol=4),
    "ONNX Runtime": b"\x18\0\0\0ORTM" + bytes(64),
    "TensorFlow Lite": b"\x1c\0\0\0TFL3" + bytes(64),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "GGUF": b"GGUF\x03\0\0\0" + bytes(64),
    "safetensors": len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + bytes(4),
    "compiled code": b"\x7fELF\x02\x01\x01" + bytes(64),
    "web page": b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>",
    "OpenVINO": b'<?xml version="1.0"?>\n<net name="main" version="11"></net>',
    "JSON": b'{"error": "Repository not found"}',
    "text form": b'<ir_version: 8, opset_import: ["" : 17]>\ng (float[N] x) => (float[N] y) {}',
}


@pytest.mark.parametrize("what", FILES)
def test_message_says_what_it_is(tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(FILES[what])
    with pytest.raises(InvalidModelError, match=what) as caught:
        load(path)
    assert caught.value.remedy


@pytest.mark.parametrize("data", [b"\xff" * 100, b"hello", MODEL[:200], b"PK\x03\x04rest"])
def test_others_are_no_models_either(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModelError):
        load(path)


def test_folders_and_pipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="directory"):
        check_file(tmp_path, "model")
    (tmp_path / "model.onnx").write_bytes(MODEL)
    with pytest.raises(UsageError, match=r"such as '.*model.onnx'"):
        check_file(tmp_path, "model")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UsageError, match="tf2onnx"):
        check_file(tmp_path, "model")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="standard input"):
        check_file(tmp_path / "pipe", "model")
