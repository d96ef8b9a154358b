"""The table of settings, and that nothing else reads the environment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tensmith.compiler import knobs
from tensmith.compiler.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ("runtime", "compiler", "passes", "frontends", "backends", "driver")


@pytest.mark.parametrize("knob", knobs.KNOBS, ids=lambda knob: knob.name)
def test_default_without_variable(knob: knobs.Knob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(knob.variable, raising=False)
    assert knob.value == knob.default
    assert knob.variable == f"TENSMITH_{knob.name.upper()}"
    assert knob.help


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("yes", True), ("0", False), ("", False), ("OFF", False)]
)
def test_bool(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("TENSMITH_TRACEBACK", text)
    assert knobs.TRACEBACK.value is value


def test_float(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSMITH_VERIFY_TIME", "2.5")
    assert knobs.VERIFY_TIME.value == 2.5


@pytest.mark.parametrize(
    ("knob", "text"), [(knobs.TRACEBACK, "maybe"), (knobs.VERIFY_TIME, "soon")]
)
def test_wrong_type(monkeypatch: pytest.MonkeyPatch, knob: knobs.Knob, text: str) -> None:
    monkeypatch.setenv(knob.variable, text)
    with pytest.raises(UsageError, match=knob.variable):
        _ = knob.value


def test_names_are_unique() -> None:
    assert len({knob.name for knob in knobs.KNOBS}) == len(knobs.KNOBS)


def test_environment_is_read_in_one_place() -> None:
    readers = set()
    for folder in PACKAGE:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                    readers.add(path.relative_to(ROOT).as_posix())
    assert readers == {"compiler/knobs.py"}
