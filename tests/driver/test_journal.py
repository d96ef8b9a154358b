"""Results on disk: there again after whatever has happened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tensmith.driver import journal
from tensmith.driver.journal import Journal, journal_of


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


def test_a_journal_that_is_used_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of too many is the one that goes on: it is what others would make room for."""
    monkeypatch.setattr(journal, "writable_cache", lambda: tmp_path)
    monkeypatch.setattr(journal, "KEPT", 3)
    journal_of("first", fresh=False).put(1, "x")
    (first,) = tmp_path.rglob("*.jsonl")
    for n in range(4):
        path = first.with_name(f"{n}.jsonl")
        path.touch()
        os.utime(path, (100 + n, 100 + n))
    os.utime(first, (50, 50))
    assert journal_of("first", fresh=False).get("x") == 1
    assert first.stat().st_mtime > 1000  # reading is use
    left = {path.stem for path in tmp_path.rglob("*.jsonl")}
    assert left == {first.stem, "2", "3"}
    journal_of("second", fresh=False).put(2, "x")
    assert journal_of("first", fresh=False).get("x") == 1


def test_a_journal_that_goes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "writable_cache", lambda: tmp_path)
    folder = tmp_path / journal.FOLDER
    folder.mkdir()
    (folder / "gone.jsonl").symlink_to(folder / "nowhere")  # its name is there, and no file
    found = journal_of("a", fresh=False)
    found.put(1, "x")
    assert journal_of("a", fresh=False).get("x") == 1


def test_a_full_disk_ends_what_is_kept_and_no_search(tmp_path: Path) -> None:
    told: list[str] = []
    full = Journal(tmp_path / "missing" / "j.jsonl", note=told.append)  # cannot be opened
    full.put(1, "a")
    full.put(2, "b")
    assert (full.get("a"), full.get("b")) == (1, 2)
    assert len(told) == 1
    assert "results of the search are not kept (No such file or directory)" in told[0]
    unreadable = Journal(tmp_path, note=told.append)  # a folder
    assert unreadable.found == 0
    assert len(told) == 2
