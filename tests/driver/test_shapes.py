"""Shapes as users write them."""

from __future__ import annotations

import numpy as np
import pytest

from tensmith.compiler.errors import UsageError
from tensmith.driver.shapes import parse_shape, parse_shapes, shape_of, shapes_of


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("x:1x3x224x224", ("x", (1, 3, 224, 224))),
        ("x:[1,3,224,224]", ("x", (1, 3, 224, 224))),
        ("x: [1, 3]", ("x", (1, 3))),
        ("input:0:1x2", ("input:0", (1, 2))),
        ("x:7", ("x", (7,))),
        ("x:[]", ("x", ())),
        ("x:[batch,3]", ("x", ("batch", 3))),
        ("x:Nx3", ("x", ("N", 3))),
        ("x:1..8x3", ("x", ("1..8", 3))),
        ("x:[N,2..2]", ("x", ("N", "2..2"))),
        ("x:Nx3x?x?", ("x", ("N", 3, "?", "?"))),
        ("x:none", ("x", ("none",))),
    ],
)
def test_forms(text: str, parsed: tuple[str, tuple[int | str, ...]]) -> None:
    assert parse_shape(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "1x3x224",
        "x:",
        ":1x3",
        "x:1x",
        "x:1x-3",
        "x:[1,,3]",
        "x:1.5",
        "x:1x??",
        "x:8..1x3",
        "x:..3",
        "x:1..",
    ],
)
def test_wrong_forms(text: str) -> None:
    with pytest.raises(UsageError, match="--shape"):
        parse_shape(text)


def test_what_is_missing_of_a_shape_is_told() -> None:
    for text, missing in (
        ("x=1,5", "no colon"),
        (":1x5", "no input name"),
        ("x:", "no dimensions"),
    ):
        with pytest.raises(UsageError, match=missing) as failed:
            parse_shape(text)
        assert "name:1x3" in failed.value.remedy


def test_several() -> None:
    assert parse_shapes(["a:1", "b:[2]"]) == {"a": (1,), "b": (2,)}
    with pytest.raises(UsageError, match="twice"):
        parse_shapes(["a:1", "a:2"])


def test_shapes_of_the_python_interface() -> None:
    for dims in ((2, "n"), [2, "n"], "2xn", "[2, n]"):
        assert shape_of("x", dims) == (2, "n")
    with pytest.raises(UsageError, match="not a dimension"):
        shape_of("x", "2*n")


def test_sizes_of_other_libraries_and_unknown_ones() -> None:
    for odd in ({1, 3}, {1: 3}, (True, 3)):
        with pytest.raises(UsageError, match="shape of 'x'"):
            shape_of("x", odd)  # type: ignore[arg-type]
    assert shape_of("x", None) == parse_shape("x:none")[1]
    found = shape_of("x", (np.int64(2), None, -1, "n"))
    assert found == (2, "?", "?", "n")
    assert type(found[0]) is int
    assert parse_shape("x:-1x3") == ("x", ("?", 3))


@pytest.mark.parametrize("shapes", [[("x", (1, 2))], {"x": 3}, {"x": (1.5, 2)}, {"x": (-2, 1)}])
def test_what_are_no_shapes(shapes: object) -> None:
    with pytest.raises(UsageError, match=r"give a dict from input to dims"):
        shapes_of(shapes)


def test_sizes_that_are_texts_in_python() -> None:
    assert shape_of("x", ("3", " -1", "1..8", "batch size", "n")) == (
        3,
        "?",
        "1..8",
        "batch size",
        "n",
    )
    for odd in ("", "1..", "8..1", "2*3"):
        with pytest.raises(UsageError, match=r"dimension|range"):
            shape_of("x", (odd, 3))
