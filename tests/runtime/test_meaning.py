"""Strings as their UTF-8 bytes, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensmith.runtime.meaning import decode, encode

ASCII = ["red", "", "light green", "x"]
OTHERS = ["red", "\u7d2b", "h\u00e9", "\U0001f600 and \u03b1"]
KINDS = {
    "list": lambda words: words,
    "strings": np.array,
    "objects": lambda words: np.array(words, object),
    "bytes": lambda words: np.array([word.encode() for word in words]),
    "objects that are bytes": lambda words: np.array([w.encode() for w in words], object),
    "of the other byte order": lambda words: np.array(words).astype(
        np.array(words).dtype.newbyteorder("S")
    ),
    "every other one": lambda words: np.repeat(np.array(words), 2)[::2],
}


@pytest.mark.parametrize("words", [ASCII, OTHERS], ids=["ascii", "others"])
@pytest.mark.parametrize("kind", KINDS)
def test_strings_are_their_bytes_and_zeros(kind: str, words: list[str]) -> None:
    data = encode(KINDS[kind](words))
    assert data.dtype == np.uint8
    assert data.flags.c_contiguous
    assert [row.tobytes().rstrip(b"\0") for row in data] == [word.encode() for word in words]
    assert decode(data).tolist() == words


@pytest.mark.parametrize("words", [ASCII, OTHERS], ids=["ascii", "others"])
def test_shapes_are_kept(words: list[str]) -> None:
    square = np.array(words).reshape(2, 1, 2)
    assert encode(square).shape[:-1] == square.shape
    for way in (square, square.T, square[..., ::-1], square[0, 0, 1], square[:, :0]):
        found = decode(encode(way))
        assert found.shape == np.shape(way)
        assert found.tolist() == way.tolist()


def test_zeros_inside_are_bytes() -> None:
    words = ["\u7d2b", "a\0b", "\0"]
    assert encode(np.array([*words, "x" * 3])).tobytes() == b"\xe7\xb4\xaba\0b\0\0\0xxx"


@pytest.mark.parametrize("empty", [[], np.zeros((0, 3), "U4"), np.array([], object), ""])
def test_nothing(empty: Any) -> None:
    data = encode(empty)
    assert data.shape[:-1] == np.shape(empty)
    assert data.shape[-1] >= 1
    assert decode(data).tolist() == np.array(empty, "U").tolist()


def test_bytes_that_lie_apart() -> None:
    data = np.repeat(encode(ASCII), 2, axis=-1)[:, ::2]
    assert not data.flags.c_contiguous
    assert decode(data).tolist() == ASCII


def test_bytes_that_are_no_text() -> None:
    assert decode(np.array([[0x61, 0xFF]], np.uint8)).tolist() == ["a\ufffd"]
