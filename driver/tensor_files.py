"""Tensors in files (.npy, .npz), and the check that inputs fit what a model takes."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.artifact import TensorSpec
from ..compiler.errors import UsageError
from ..compiler.ir.types import DType
from ..compiler.scratch import written_whole
from ..runtime.meaning import encode
from .shapes import loosened

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
_UNTYPED = np.dtype("V1")
_NARROW = {dtype.numpy: dtype.value for dtype in DType if dtype.is_narrow}
_HEAD = 2048  # bytes of a file that tell what it is


def read_file(path: Path) -> Arrays:
    """The arrays of a .npz by name, or the one of a .npy under the name ""; "-": standard input.

    Raises UsageError when the file is missing or is neither. Pickled objects are refused.
    """
    try:
        loaded = np.load(_source(path), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": _typed(loaded)}
        with loaded:
            return {name: _typed(loaded[name]) for name in loaded.files}
    except FileNotFoundError:
        raise UsageError(f"there is no file '{path}'") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _no_tensors(path, error) from None


def _source(path: Path) -> Path | io.BytesIO:
    if str(path) != "-":
        return path
    data = sys.stdin.buffer.read()
    if not data:
        raise UsageError(
            "standard input holds no tensors, or has been read",
            remedy="give one of the things that are read a file of its own",
        )
    return io.BytesIO(data)


def _no_tensors(path: Path, error: Exception) -> UsageError:
    from ..frontends.onnx import pointer

    what = f"'{path}' is not a .npy or .npz file of tensors"
    try:
        with path.open("rb") as file:
            known = pointer(file.read(_HEAD))
    except OSError:
        known = None
    refused = isinstance(error, ValueError) and "pickle" in str(error)
    if known is None and refused:  # numpy advises to load what may be any program
        return UsageError(
            what,
            why="it does not begin as such a file does, or holds Python objects",
            remedy="np.save arrays of numbers, of bool or of strings",
        )
    if known is None:
        return UsageError(what, why=str(error))
    return UsageError(f"{what}, but {known[0]}", remedy=known[1])


def _typed(array: Array) -> Array:
    """The array in native byte order; numpy stores bfloat16, which it does not know, as two
    untyped bytes."""
    if array.dtype == np.dtype("V2"):
        return array.view(DType.BF16.numpy)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def narrow_types(arrays: Mapping[str, Any]) -> dict[str, str]:
    """The types, by name, of the arrays that files hold as untyped bytes: of 8 bits or less, and
    unknown to numpy."""
    found = {name: np.asanyarray(array).dtype for name, array in arrays.items()}
    return {name: _NARROW[dtype] for name, dtype in found.items() if dtype in _NARROW}


def as_types(arrays: Mapping[str, Array], types: Mapping[str, str]) -> Arrays:
    """The arrays of a file, those of untyped bytes with their types by name."""
    return {
        name: array.view(DType(types[name]).numpy)
        if array.dtype == _UNTYPED and name in types
        else array
        for name, array in arrays.items()
    }


def as_declared(arrays: Mapping[str, Array], specs: Iterable[TensorSpec]) -> Arrays:
    """The arrays of a file, those of untyped bytes as the inputs that they are for."""
    return as_types(arrays, {s.name: s.dtype for s in specs if DType(s.dtype).is_narrow})


def _storable(array: Array) -> Array:
    """What files hold of an array: untyped bytes where numpy does not know its type."""
    return array.view(_UNTYPED) if array.dtype in _NARROW else array


def read_inputs(texts: Iterable[str], names: Iterable[str]) -> Arrays:
    """Inputs from `name=file.npy`, `name=file.npz`, `file.npz`, or `file.npy` for a single input.

    A .npz given for one name must hold that name, or one array only.
    Raises UsageError for unknown or repeated names.
    """
    known = list(names)
    found: Arrays = {}
    for text in texts:
        name, file = _name_and_file(text, known)
        arrays = read_file(Path(file))
        for key, array in _named(name, file, arrays, known).items():
            if key not in known:
                raise UsageError(f"'{key}' is not an input", remedy=f"inputs: {', '.join(known)}")
            if key in found:
                raise UsageError(f"the input '{key}' is given twice")
            found[key] = array
    return found


def _name_and_file(text: str, known: Collection[str]) -> tuple[str, str]:
    """What `name=file` says, or ("", text) for a file; names of inputs may hold =, too.

    Of several inputs it may be for, that is meant whose file exists, then the longest name.
    """
    places = [place for place, letter in enumerate(text) if letter == "="]
    named = [place for place in reversed(places) if text[:place] in known] or places[:1]
    there = (place for place in named if Path(text[place + 1 :]).is_file())
    place = next(there, next(iter(named), None))
    if place is None or (Path(text).is_file() and not Path(text[place + 1 :]).is_file()):
        return "", text
    return text[:place], text[place + 1 :]


def _named(name: str, file: str, arrays: Arrays, known: list[str]) -> Arrays:
    if name:
        if name in arrays:
            return {name: arrays[name]}
        if len(arrays) == 1:
            return {name: next(iter(arrays.values()))}
        raise UsageError(f"'{file}' has no array '{name}'", why=f"it holds {', '.join(arrays)}")
    if "" in arrays:
        if len(known) != 1:
            raise UsageError(f"'{file}': which input is it for?", remedy=f"write NAME={file}")
        return {known[0]: arrays[""]}
    return arrays


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays to a .npz, whatever their names. Raises UsageError when it cannot be written."""
    with (
        written_whole(path) as new,
        zipfile.ZipFile(new, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for name, array in arrays.items():
            # a date of no day: the same arrays give the same bytes
            member = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(member, "w", force_zip64=True) as file:
                stored = _storable(np.asanyarray(array))
                np.lib.format.write_array(file, stored, allow_pickle=False)


def write_file(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write a single array to a .npy, several to a file of any other name as .npz.

    Raises UsageError when it cannot be written.
    """
    if path.suffix != ".npy":
        write_npz(path, arrays)
        return
    if len(arrays) != 1:
        raise UsageError(
            f"'{path}' can hold one array, and there are {len(arrays)}", remedy="name it .npz"
        )
    with written_whole(path) as new, new.open("wb") as file:
        stored = _storable(next(iter(arrays.values())))
        np.lib.format.write_array(file, stored, allow_pickle=False)


def check_inputs(specs: Iterable[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, int]:
    """Check names, types and shapes; returns the value of every symbolic dimension.

    Raises UsageError that names what is missing or does not fit.
    """
    symbols: dict[str, int] = {}
    specs = list(specs)
    missing = [spec.name for spec in specs if spec.name not in arrays and spec.default is None]
    if missing:
        raise UsageError(
            f"no value for the input(s) {', '.join(missing)}",
            remedy=f"give every input an array: --input {missing[0]}=FILE, or a .npz of all",
        )
    for spec in specs:
        if spec.name not in arrays and spec.default is not None:
            sizes = zip(spec.dims, spec.default, strict=True)
            symbols.update((dim, size) for dim, size in sizes if isinstance(dim, str))
            continue
        array = arrays[spec.name]
        if spec.strings and array.dtype.kind in "US":
            array = encode(array)
        what = f"input '{spec.name}' is {spec.dtype}{list(spec.dims)}"
        got = f"{array.dtype}{list(array.shape)}"
        wanted = DType(spec.dtype).numpy
        if array.dtype != wanted:
            raise UsageError(
                f"{what}, not {got}", remedy=f"store array.astype('{wanted.name}') in the file"
            )
        if array.ndim != len(spec.dims):
            raise UsageError(f"{what}, not {got}", why=f"it has {len(spec.dims)} dimensions")
        for axis, (dim, size) in enumerate(zip(spec.dims, array.shape, strict=True)):
            expected = symbols.setdefault(dim, size) if isinstance(dim, str) else dim
            if expected != size:
                called = dim if isinstance(dim, str) else f"dimension {axis}"
                raise UsageError(
                    f"{what}, not {got}",
                    why=f"{called} is {expected}, not {size}",
                    remedy=f"compile with --shape '{loosened(spec.name, spec.dims, [axis])}' "
                    "where any size is to be taken",
                )
    return symbols
