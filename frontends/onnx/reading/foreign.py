"""What a file is that is given for a model and is none, told by how it begins."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

POINTER_BYTES = 1024  # no pointer of Git LFS is larger (its specification, docs/spec.md)
_POINTER = b"version https://git-lfs.github.com/spec"
_AGAIN = "export or download the model again"
_UNPACK = "unpack it, and give the model in it"
_EXPORT = "export the model to ONNX"
_TORCH = "load it in Python and export it with torch.onnx.export"

# (where a mark is, the mark, what the file is, what to do). Sources: the formats' specifications.
_MARKS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (0, b"BZh", "compressed by bzip2", _UNPACK),
    (0, b"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (4, b"ORTM", "a model in ONNX Runtime's own format (.ort)", "give the .onnx it was made from"),
    (4, b"TFL3", "a model of TensorFlow Lite", "convert it with tf2onnx"),
    (0, b"\x89HDF", "an HDF5 file, as of Keras", "convert it with tf2onnx"),
    (0, b"GGUF", "a GGUF file of weights", _EXPORT),
    (0, b"\x93NUMPY", "an array of numpy", "give the model, and arrays as --input"),
    (0, b"\x7fELF", "compiled code", "load it (tensmith.load), or `tensmith run` it"),
    (0, b"\x80\x02", "a pickle of Python, as of PyTorch", _TORCH),
    (0, b"\x80\x03", "a pickle of Python", _EXPORT),
    (0, b"\x80\x04", "a pickle of Python, as of scikit-learn", "export it with skl2onnx"),
    (0, b"\x80\x05", "a pickle of Python", _EXPORT),
    (8, b'{"', "a safetensors file of weights", _EXPORT),
    (0, b"ir_version:", "a model in text form", "store it in binary form: onnx.save"),
)  # fmt: skip
_TEXTS = (
    (b"<!doctype html", "a web page", "download the file itself, not the page about it"),
    (b"<html", "a web page", "download the file itself, not the page about it"),
    (b"<?xml", "XML, as of OpenVINO", "give the .onnx it was made from"),
    (b"<net", "XML, as of OpenVINO", "give the .onnx it was made from"),
    (b"{", "JSON", _AGAIN),
    (b"<", "a model in text form", "parse it (onnx.parser), and store it with onnx.save"),
)


def foreign(data: bytes) -> tuple[str, str] | None:
    """What the bytes of a file are instead of an ONNX model, and what to do; None: unknown."""
    if data.startswith(b"PK\x03\x04"):
        return _archive(data)
    if (found := pointer(data)) is not None:
        return found
    for place, mark, what, remedy in _MARKS:
        if data[place : place + len(mark)] == mark:
            return what, remedy
    text = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, what, remedy in _TEXTS:
        if text.startswith(mark):
            return what, remedy
    return None


def pointer(data: bytes) -> tuple[str, str] | None:
    """As `foreign`, of what Git LFS leaves where it did not fetch a file."""
    if len(data) > POINTER_BYTES or not data.startswith(_POINTER):
        return None
    return "a pointer of Git LFS to the file", "run `git lfs pull`"


def _archive(data: bytes) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError):
        names = []
    if any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
        return "a file of PyTorch (.pt)", _TORCH
    if any(name.endswith(".npy") for name in names):
        return "arrays of numpy", "give the model, and arrays as --input"
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        return "a model of Keras", "convert it with tf2onnx"
    models = [name for name in names if name.endswith(".onnx")]
    inside = f" with {models[0]} in it" if models else ""
    return f"a ZIP archive{inside}", _UNPACK


def in_folder(folder: Path) -> str:
    """What of a folder to give in place of it; "" where that cannot be told."""
    if (folder / "saved_model.pb").is_file():
        return "convert it with tf2onnx: it is a SavedModel of TensorFlow"
    if (folder / "data.pkl").is_file():
        return _TORCH
    models = sorted(folder.glob("*.onnx")) or sorted(folder.glob("*/*.onnx"))
    return f"give the file, such as '{models[0]}'" if models else ""
