"""Results on disk: there again after whatever has happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensmith.driver.budget import journal
from tensmith.driver.budget.journal import Journal, journal_of


def test_results_come_back(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    first = Journal(path)
    first.put(0.5, "error", "a")
    first.put({"x": [1, 2]}, "drop", ["a", "b"], None)
    first.put(0.25, "error", "a")
    again = Journal(path)
    assert again.found == 2
    assert again.get("error", "a") == 0.25
    assert again.get("drop", ["a", "b"], None) == {"x": [1, 2]}
    assert again.get("error", "b") is None
    assert Journal(path, fresh=True).found == 0


def test_a_line_that_was_cut_off_is_none(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path).put(1, "a")
    for cut in ('["[\\"b\\"', "nonsense", "[1, 2]", "{}", '"text"'):
        with path.open("a") as file:
            file.write(cut)
        again = Journal(path)
        assert again.results == {'["a"]': 1}
        again.put(1, "a")
        assert Journal(path).results == {'["a"]': 1}


def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "writable_cache", lambda: None)
    found = journal_of("a", fresh=False)
    found.put(1, "x")
    assert found.get("x") == 1
    assert journal_of("a", fresh=False).get("x") is None


def test_journals_are_by_what_results_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "writable_cache", lambda: tmp_path)
    monkeypatch.setattr(journal, "KEPT", 3)
    journal_of("a", "b", fresh=False).put(1, "x")
    assert journal_of("a", "b", fresh=False).get("x") == 1
    assert journal_of("ab", fresh=False).get("x") is None
    for n in range(6):
        journal_of(str(n), fresh=False).put(n, "x")
    assert len(list(tmp_path.rglob("*.jsonl"))) <= 4
    assert journal_of("5", fresh=False).get("x") == 5
