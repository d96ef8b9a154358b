"""`tensmith records`, and the page that it draws."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Any

import pytest
from fake_tuning import FakeMeasurer, choice_of
from tuned_files import MACHINE, session_key, tune_into

from tensmith.compiler.tuning import records as records_module
from tensmith.compiler.tuning.exchange import tree_of
from tensmith.compiler.tuning.history import History
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.summaries import SessionSummary, summaries, winners
from tensmith.compiler.tuning.task import Candidate
from tensmith.driver.tuning.page import page_of

Call = Callable[..., tuple[int, str, str]]

NASTY = '<script>alert("x")</script>&'
OUTCOME = {"ratio": 0.93, "low": 0.92, "high": 0.945, "accepted": True}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    tune_into(tmp_path / "a.db", broken=[Candidate(choice_of(8, 4, 0)).key])
    return tmp_path / "a.db"


def change(path: Path, query: str) -> None:
    with sqlite3.connect(path) as opened:
        opened.execute(query)
    opened.close()


def test_merge_export_and_import_agree(call: Call, db: Path, tmp_path: Path) -> None:
    tune_into(tmp_path / "b.db", key=session_key("other"))
    code, out, _ = call("records", "merge", db, tmp_path / "b.db", "-o", "c.db", "--json")
    assert code == 0
    assert json.loads(out)["sessions"] == 2
    assert call("records", "export", "c.db", "-o", "c.json")[0] == 0
    assert call("records", "import", "c.json", "--records", "d.db")[0] == 0
    assert call("records", "import", "c.json", db, "--records", "d.db")[0] == 0, "nothing is new"
    exported = [call("records", "export", name)[1] for name in ("c.db", "d.db")]
    assert exported[0] == exported[1] == (tmp_path / "c.json").read_text()
    assert call("records", "check", "d.db")[0] == 0


def test_the_best_can_be_shipped(call: Call, db: Path) -> None:
    code, out, _ = call("records", "export", db, "--best")
    assert code == 0
    (session,) = json.loads(out)["sessions"].values()
    assert len(session["members"]) == len(session["verdicts"]) == 1
    assert call("records", "export", db, "--best", "-o", "best.json")[0] == 0
    assert call("records", "import", "best.json", "--records", "e.db")[0] == 0
    assert call("records", "check", "e.db")[0] == 0
    assert call("records", "export", "e.db")[1] == out


def test_sessions_are_shown(call: Call, db: Path) -> None:
    code, out, _ = call("records", "show", db, "--tasks")
    assert code == 0
    assert "not timed" in out
    assert "stages.rows" in out
    assert "no gain" in out
    shown = json.loads(call("records", "show", db, "--json")[1])
    (session,) = shown["sessions"]
    assert session["machine"] == MACHINE.name
    gains = [task["name"] for task in session["tasks"] if task["is_gain"]]
    assert gains == ["kernel_conv"]
    assert session["expected"] == pytest.approx(1 - 0.2 / 3, abs=0.01)


def test_the_usual_file_is_that_of_the_knob(
    call: Call, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSMITH_RECORDS", str(db))
    assert json.loads(call("records", "show", "--json")[1])["file"] == str(db)


def test_the_usual_file_is_below_the_home(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TENSMITH_RECORDS", raising=False)
    for name, value, folder in (
        ("XDG_DATA_HOME", str(tmp_path / "data"), tmp_path / "data"),
        ("HOME", str(tmp_path), tmp_path / ".local/share"),
    ):
        monkeypatch.setenv(name, value)
        code, _, err = call("records", "show")
        assert code == 2
        assert f"there is no file '{folder / 'tensmith' / 'tuning.db'}'" in err
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is no records file"),
        (b"\x7fELF" + bytes(300), "it is no records file"),
        (b"{}", "no exported records"),
        (b'{"format": "tensmith-records"', "no exported records"),
        (b"SQLite format 3\x00" + bytes(50), "it is no records file"),
    ],
)
def test_foreign_files_are_refused(call: Call, tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    for words in (
        ("show", path),
        ("export", path),
        ("merge", path, "-o", "new.db"),
        ("import", path, "--records", "new.db"),
        ("report", path, "-o", "new.html"),
    ):
        code, _, err = call("records", *words)
        assert code == 2, words
        assert told in err
    assert path.read_bytes() == content
    assert not (tmp_path / "new.db").exists()


def test_other_databases_are_never_replaced(call: Call, db: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    change(other, "CREATE TABLE mine(x)")
    before = other.read_bytes()
    assert call("records", "merge", db, "-o", other)[0] == 2
    assert call("records", "import", db, "--records", other)[0] == 2
    assert other.read_bytes() == before


def test_files_of_another_version_are_refused(call: Call, db: Path) -> None:
    change(db, "UPDATE meta SET value = '99' WHERE key = 'version'")
    code, _, err = call("records", "show", db)
    assert code == 2
    assert "version 99" in err


def test_check_tells_what_is_wrong(call: Call, db: Path) -> None:
    change(db, "UPDATE verdict SET ratio = 0.1")
    code, out, err = call("records", "check", db)
    assert code == 4
    assert "not what its samples say" in out
    assert "2 problem(s)" in err
    assert len(json.loads(call("records", "check", db, "--json")[1])["problems"]) == 2


def test_a_file_is_read_where_nothing_can_be_written(
    call: Call, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for beside in db.parent.glob("a.db-*"):
        beside.unlink()
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != db.parent and allowed(path, mode)
    )
    assert call("records", "show", db)[0] == 0
    assert not list(db.parent.glob("a.db-*"))


def test_prune_removes_what_is_old(call: Call, db: Path, tmp_path: Path) -> None:
    for table, column in (("session", "started"), ("verdict", "date")):
        change(db, f"UPDATE {table} SET {column} = '2020-01-01T00:00:00+00:00'")
    tune_into(db, key=session_key("other"))
    code, out, _ = call("records", "prune", db, "--older", "30d")
    assert code == 0
    assert "1 session(s) removed" in out
    shown = json.loads(call("records", "show", db, "--json")[1])
    assert [own["name"] for own in shown["sessions"]] == ["other"]
    for age in ("soon", "30"):  # of seconds it would mean everything
        assert call("records", "prune", db, "--older", age)[0] == 2
    assert len(json.loads(call("records", "show", db, "--json")[1])["sessions"]) == 1


def test_ages_beyond_all_dates_are_refused(call: Call, db: Path) -> None:
    code, _, err = call("records", "prune", db, "--older", "99999999d")
    assert code == 2
    assert "longer than there are dates" in err
    assert call("records", "prune", "none.db", "--older", "1d")[0] == 2
    assert not Path("none.db").exists()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch, db: Path) -> None:
    """Another program adds a session to the file at the last moment when it may be written."""
    lock, pending = records_module._locked, [db]

    def locked(path: Path) -> IO[str]:
        if path in pending:
            pending.clear()
            tune_into(db, key=session_key("late"))
        return lock(path)

    monkeypatch.setattr(records_module, "_locked", locked)


def names_in(path: Path) -> list[str]:
    with Records(path, write=False) as records:
        return sorted(own["name"] for own in tree_of(records)["sessions"].values())


@pytest.mark.parametrize(
    "words",
    [
        ("import", "b.db", "--records", "a.db"),
        ("merge", "b.db", "a.db", "-o", "a.db"),
        ("prune", "a.db", "--older", "30d"),
    ],
)
def test_no_session_of_another_program_is_lost(
    call: Call, db: Path, late: None, words: tuple[str, ...]
) -> None:
    tune_into(db.with_name("b.db"), key=session_key("other"))
    in_place = [str(db) if word == "a.db" else word for word in words]
    assert call("records", *in_place)[0] == 0
    found = names_in(db)
    assert found == (["late", "model"] if "prune" in words else ["late", "model", "other"])


def test_a_file_that_is_no_input_is_not_merged_over(call: Call, db: Path) -> None:
    other = db.with_name("b.db")
    tune_into(other, key=session_key("other"))
    code, _, err = call("records", "merge", db, "-o", other)
    assert code == 2
    assert "exists" in err
    assert "among the inputs" in err
    assert names_in(other) == ["other"]
    assert call("records", "merge", db, other, "-o", "./b.db")[0] == 0
    assert names_in(other) == ["model", "other"]
    with Records(db.with_name("empty.db")):
        pass
    assert call("records", "merge", db, "-o", "empty.db")[0] == 0, "it holds nothing"


@pytest.mark.parametrize("name", ["", ".", "folder"])
@pytest.mark.parametrize("words", [("import", "a.db", "--records"), ("merge", "a.db", "-o")])
def test_folders_are_no_records_files(
    call: Call, db: Path, words: tuple[str, ...], name: str
) -> None:
    db.with_name("folder").mkdir()
    code, _, err = call("records", *words, name)
    assert code == 2
    assert "is a folder" in err
    assert not db.with_name("folder.lock").exists()


# ---------------------------------------------------------------------- the page


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not match."""

    EMPTY = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str, kind: str | None = None) -> int:
        return sum(t == tag and (kind is None or a.get("class") == kind) for t, a in self.tags)


def page_in(path: Path, gains: Mapping[str, float]) -> tuple[Page, SessionSummary]:
    key = session_key(NASTY)
    tune_into(path, gains, FakeMeasurer(gains, noise=0.02), key, trials=1e6)
    with Records(path) as records:
        History(records, key, "fake 1").add_outcome([], OUTCOME)
        tree = tree_of(records)
    (session,) = summaries(tree)
    text = page_of(path.name, [session])
    assert not re.search(r"https?:|url\(|<script|<link|@import", text)
    return Page(text), session


@pytest.mark.parametrize("count", [1, 3, 60])
def test_every_kernel_has_its_marks(tmp_path: Path, count: int) -> None:
    names = [f"{NASTY}{number}_{'f32_conv_' * 12}" for number in range(count)]
    gains = {name: 0.8 if name == names[-1] else 1.2 for name in names}
    page, session = page_in(tmp_path / "a.db", gains)
    assert [task.key for task in session.gains] == names[-1:]
    assert len(session.tasks) == count
    tried = sum(task.trials > 0 for task in session.tasks)
    assert page.count("circle", "dot") == 2, "its gain, and its place below the roof"
    assert page.count("circle", "dot hollow") == tried - 1 + count, "others, and where it was"
    text = "".join(page.texts)
    assert text.count(names[-1]) >= 3
    assert "-7.0%" in text
    assert "1 of" in text


def test_a_session_without_gains_is_drawn(tmp_path: Path) -> None:
    page, _ = page_in(tmp_path / "a.db", {"conv": 1.2, "matmul": 1.1})
    assert page.count("circle", "dot") == 0
    assert "Decisions that win" not in "".join(page.texts)


def test_a_session_that_has_just_begun_is_drawn(tmp_path: Path) -> None:
    tune_into(tmp_path / "a.db", trials=0)
    with Records(tmp_path / "a.db", write=False) as records:
        found = summaries(tree_of(records))
    text = "".join(Page(page_of("a.db", found)).texts)
    assert "No candidate was tried." in text
    assert "There is no session" in page_of("a.db", [])


def test_the_command_writes_the_page(call: Call, db: Path, tmp_path: Path) -> None:
    assert call("records", "report", db, "-o", "tune.html")[0] == 0
    page = Page((tmp_path / "tune.html").read_text())
    assert "it cannot be emitted" in "".join(page.texts)


def test_winners_tell_which_decisions_won_where(tmp_path: Path) -> None:
    tune_into(tmp_path / "a.db", {"a": 0.8, "b": 0.9, "c": 1.2}, trials=1e6)
    with Records(tmp_path / "a.db", write=False) as records:
        found = winners(summaries(tree_of(records)))
    assert [(row.decision, row.tasks, row.where) for row in found] == [
        (decision, 2, ("kernel_a", "kernel_b")) for decision in ("stages.rows", "stages.unroll")
    ]
    assert found[0].ratio == pytest.approx(0.85, abs=0.01)
