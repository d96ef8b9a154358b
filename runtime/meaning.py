"""Inputs and outputs that are more than numbers: strings, and scores that belong to classes.

A compiled model has strings as their UTF-8 bytes, u8 [..., width], zeros after the shorter ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_ASCII = 128  # bytes below are the characters of ASCII


def encode(strings: Any) -> Array:
    """The bytes of strings in any nesting, or of an array of them: u8 [..., width], width >= 1."""
    array = np.asarray(strings)
    if array.dtype.kind != "S":
        array = _bytes(array)
    array = np.ascontiguousarray(array).reshape(array.shape)
    width = max(array.dtype.itemsize, 1)
    return np.frombuffer(array.astype(f"S{width}").tobytes(), np.uint8).reshape(*array.shape, width)


def _bytes(array: Array) -> Array:
    """Strings as numpy's byte strings; numpy itself is quicker, and takes ASCII alone."""
    try:
        return array.astype("S")
    except UnicodeEncodeError:
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in array.flat]
        return np.array(texts, "S").reshape(array.shape)


def decode(data: Array) -> Array:
    """The strings whose bytes are given: an array of numpy's string type."""
    width = data.shape[-1]
    if not data.size:
        return np.zeros(data.shape[:-1], "U1")
    rows = np.ascontiguousarray(data).reshape(-1, width).view(f"S{width}")
    if data.max() < _ASCII:
        return rows.astype(f"U{width}").reshape(data.shape[:-1])
    return np.char.decode(rows, "utf-8", "replace").reshape(data.shape[:-1])


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
