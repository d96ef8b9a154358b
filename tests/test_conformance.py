"""The ONNX standard's own operator tests, compiled and run: a sample that is always the same.

`conformance_floor.txt` lists the tests that pass; they must go on passing. The rest of the list
takes minutes: `pytest -m slow tests/test_conformance.py`, which also fails where a test passes that
is not in the list; with `--update-goldens` it adds those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compiled import Setting, run_all
from conformance_cases import FLOOR, LIST, cases, errors_of, sampled

SETTING = Setting("native", 1)
CHUNK = 30  # models that are linked into one file


def _chunked(names: list[str]) -> list[list[str]]:
    return [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]


def _parts(names: list[str], *marks: pytest.MarkDecorator) -> list[Any]:
    return [
        pytest.param(part, id=f"{part[0]}..{part[-1]}", marks=marks) for part in _chunked(names)
    ]


def _errors(names: list[str], folder: Path) -> dict[str, str]:
    return errors_of(names, folder, lambda jobs: run_all(jobs, SETTING, folder))


@pytest.fixture(autouse=True)
def _machine() -> None:
    if missing := SETTING.missing():
        pytest.skip(missing)


@pytest.mark.parametrize(
    "names",
    [
        *_parts([name for name in FLOOR if sampled(name)]),
        *_parts([name for name in FLOOR if not sampled(name)], pytest.mark.slow),
    ],
)
def test_standard_cases(tmp_path: Path, names: list[str]) -> None:
    known = [name for name in names if name in cases()]
    if not known:
        pytest.skip("the installed onnx package has none of these tests")
    errors = _errors(known, tmp_path)
    assert not any(errors.values()), "\n".join(f"{n}: {e}" for n, e in errors.items() if e)


@pytest.mark.slow
def test_the_floor_is_complete(
    tmp_path_factory: pytest.TempPathFactory, update_goldens: bool
) -> None:
    """Whatever else passes belongs into the list; `--update-goldens` adds it."""
    rest = sorted(set(cases()) - set(FLOOR))
    more: list[str] = []
    for part in _chunked(rest):
        errors = _errors(part, tmp_path_factory.mktemp("rest"))
        more += [name for name, error in errors.items() if not error]
    if update_goldens:
        LIST.write_text("\n".join(sorted({*FLOOR, *more})) + "\n")
    else:
        assert not more, "run with --update-goldens"
