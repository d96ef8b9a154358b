"""Inputs and outputs that are more than numbers: strings, maps, scores that belong to classes.

A compiled model has strings as their UTF-8 bytes, u8 [..., width], zeros after the shorter ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_ASCII = 128  # codes below are the characters of ASCII
_CODE = 4  # bytes of a character in numpy's strings


def encode(strings: Any) -> Array:
    """The bytes of strings in any nesting, or of an array of them: u8 [..., width], width >= 1."""
    array = np.asarray(strings)
    flat = array.reshape(-1)
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = np.ascontiguousarray(flat, array.dtype.newbyteorder("=")).view(np.uint32)
        if not codes.size or codes.max() < _ASCII:
            return codes.astype(np.uint8).reshape(*array.shape, array.dtype.itemsize // _CODE)
    if array.dtype.kind != "S" or not array.dtype.itemsize:
        items = flat.tolist()
        # all at once, which is faster, where no string has a zero inside
        texts = "\0".join(items).encode().split(b"\0") if array.dtype.kind == "U" else []
        if len(texts) != len(items):
            texts = [item if isinstance(item, bytes) else str(item).encode() for item in items]
        flat = np.array(texts, "S")
    width = flat.dtype.itemsize
    return np.ascontiguousarray(flat).view(np.uint8).reshape(*array.shape, width)


def decode(data: Array) -> Array:
    """The strings whose bytes are given: an array of numpy's string type."""
    shape, width = data.shape[:-1], data.shape[-1]
    if not data.size:
        return np.zeros(shape, "U1")
    if data.tobytes().isascii():
        codes = data.astype(np.uint32, order="C")
        return codes.view(f"U{width}").reshape(shape)
    rows = np.ascontiguousarray(data).reshape(-1, width).view(f"S{width}")
    return np.char.decode(rows, "utf-8", "replace").reshape(shape)


def dicts(scores: Array, classes: Sequence[Any]) -> list[dict[Any, float]]:
    """Scores [N, classes] as one dict per row, as ONNX Runtime gives them."""
    return [dict(zip(classes, row, strict=True)) for row in scores.tolist()]


def is_maps(value: Any) -> bool:
    """Whether it is a dict, or a list or array of some, or an empty list, which is none of them."""
    if isinstance(value, Mapping):
        return True
    if isinstance(value, np.ndarray) and value.dtype != object:
        return False
    items = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        return False
    return not len(items) or any(isinstance(item, Mapping) for item in items)


def rows_of(value: Any, spec: Described) -> list[list[Any]] | Array:
    """Dicts as a model takes them: a row for each, with 0 or "" for keys that it lacks; of none, an
    array without rows.

    Raises ValueError for keys of another type, for None in place of a value, and where dicts of
    which all entries count have different numbers of them.
    """
    maps = [value] if isinstance(value, Mapping) else list(value)
    kind = str if spec.key_type == "string" else Integral
    for item in maps:
        if not isinstance(item, Mapping):
            raise ValueError(f"{type(item).__name__} is given for one of its dicts")
        wrong = next((key for key in item if not isinstance(key, kind)), None)
        if wrong is not None:
            raise ValueError(f"the key {wrong!r} of a dict is no {spec.key_type}")
        missing = next((key for key, entry in item.items() if entry is None), None)
        if missing is not None:
            raise ValueError(f"the key {missing!r} of a dict has None; leave out what has no value")
    if not maps:
        return np.empty((0, len(spec.classes)), "U1" if spec.strings else spec.numpy_dtype)
    if spec.classes:
        none: Any = "" if spec.strings else 0
        return [[item.get(key, none) for key in spec.classes] for item in maps]
    if len({len(item) for item in maps}) > 1:
        raise ValueError("the dicts have different numbers of entries")
    return [[item[key] for key in sorted(item)] for item in maps]


class Described(Protocol):
    """What is known of an input or output (`slots.Spec`)."""

    @property
    def name(self) -> str: ...
    @property
    def numpy_dtype(self) -> np.dtype[Any]: ...
    @property
    def strings(self) -> bool: ...
    @property
    def classes(self) -> tuple[int | str, ...]: ...
    @property
    def key_type(self) -> str: ...


class Presentation:
    """Makes what a caller gets of the arrays of a run."""

    def __init__(self, outputs: Sequence[Described], as_dicts: bool) -> None:
        self.strings = tuple(spec.name for spec in outputs if spec.strings)
        classes = {spec.name: spec.classes for spec in outputs if spec.classes}
        self.classes = classes if as_dicts else {}

    def __bool__(self) -> bool:
        return bool(self.strings or self.classes)

    def apply(self, results: dict[str, Any]) -> dict[str, Any]:
        """The results with strings and, where wanted, dicts in place of their arrays."""
        for name in self.strings:
            results[name] = decode(results[name])
        for name, classes in self.classes.items():
            results[name] = dicts(results[name], classes)
        return results
