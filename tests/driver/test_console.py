"""What is printed for people."""

from __future__ import annotations

import json

import pytest

from tensmith.compiler.errors import Unsupported, UnsupportedError, UsageError
from tensmith.driver.console import (
    Console,
    error_object,
    human_bytes,
    human_count,
    human_seconds,
    short_dim,
)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (2e15, "2000.00 TB")]
)
def test_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text
    assert human_bytes(None) == "?"


def test_counts() -> None:
    assert human_count(12) == "12"
    assert human_count(3_600_000_000) == "3.60 G"
    assert human_count("2*n") == "2*n"
    assert human_count(None) == "?"


def test_seconds() -> None:
    assert [human_seconds(s) for s in (2e-6, 3e-3, 4.0)] == ["2.0 µs", "3.0 ms", "4.00 s"]


def test_long_expressions_name_their_symbols() -> None:
    assert short_dim("floordiv(floordiv(in.1_d0 - 1, 2) - 1, 2) + width") == "f(in.1_d0, width)"
    assert short_dim("batch + 1") == "batch + 1"


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table("Title", ("name", "size"), [("a", 1), ("[b]", 22)])
    assert capsys.readouterr().out == "Title\nname  size\na        1\n[b]     22\n\n"


def test_json_silences_text(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=True)
    console.print("text")
    console.table("Title", ("a",), [("b",)])
    console.log("log")
    console.detail("nothing without -v")
    console.result({"x": 1})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"x": 1}
    assert captured.err == "log\n"


def test_errors_as_json() -> None:
    error = UnsupportedError([Unsupported("n", "Op", "no reason", "none")], where="here")
    assert error_object(error)["nodes"] == [
        {"node": "n", "op": "Op", "reason": "no reason", "remedy": "none"}
    ]
    assert error_object(UsageError("what", why="why"))["why"] == "why"
    assert error_object(ValueError("x")) == {"type": "ValueError", "message": "x"}
