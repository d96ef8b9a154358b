"""Inputs and outputs that are more than numbers: strings, and scores that belong to classes.

A compiled model has strings as their UTF-8 bytes, u8 [..., width], zeros after the shorter ones.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Described(Protocol):
    """What is known of an output (`slots.Spec`)."""

    @property
    def name(self) -> str: ...
    @property
    def strings(self) -> bool: ...
    @property
    def classes(self) -> tuple[int | str, ...]: ...


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
