"""Records files: made, locked, refused."""

import sqlite3
from pathlib import Path

import pytest

from tensmith.compiler.errors import UsageError
from tensmith.compiler.tuning.history import PastTask
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.shares import Budget, divided
from tensmith.compiler.tuning.task import Task


def test_a_file_is_made_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "names with spaces & %20.db"
    with Records(path) as records, records.transaction():
        records.shared("machine", ["class"], **{"class": "one", "facts": "{}"})
        assert records.shared("machine", ["class"], **{"class": "one", "facts": "{}"}) == 1
    with Records(path, write=False) as records:
        assert [row["class"] for row in records.rows("SELECT * FROM machine")] == ["one"]


def test_half_a_step_is_not_in_the_file(tmp_path: Path) -> None:
    with Records(tmp_path / "r.db") as records:
        with pytest.raises(sqlite3.IntegrityError), records.transaction():
            assert [records.add("machine", **{"class": n, "facts": "{}"}) for n in ("a", "a")]
        assert not records.rows("SELECT * FROM machine")


def test_only_one_writes(tmp_path: Path) -> None:
    with Records(tmp_path / "r.db"):
        with pytest.raises(UsageError, match="another program"):
            Records(tmp_path / "r.db")
        Records(tmp_path / "r.db", write=False).close()
    Records(tmp_path / "r.db").close()


def test_files_that_are_none_of_ours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no records file"):
        Records(tmp_path / "none.db", write=False)
    text = tmp_path / "text.db"
    text.write_text("not a database, however long it may be" * 40)
    with pytest.raises(UsageError, match="no records file of Tensmith"):
        Records(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE things(a)")
    for write in (False, True):
        with pytest.raises(UsageError, match="no records file of Tensmith"):
            Records(other, write=write)
    old = tmp_path / "old.db"
    Records(old).close()
    with sqlite3.connect(old) as db:
        db.execute("UPDATE meta SET value = '0'")
    with pytest.raises(UsageError, match="version 0"):
        Records(old)
    with pytest.raises(UsageError, match="cannot write"):
        Records(tmp_path / "no folder" / "r.db")


def _past(key: str, seconds: float, roof_share: float = 0.0) -> PastTask:
    return PastTask(1, Task(key, key, key, seconds=seconds, roof_share=roof_share))


def test_budgets_are_divided_by_what_is_to_be_won() -> None:
    tasks = [_past("a", 1.0), _past("b", 3.0), _past("c", 4.0, roof_share=0.75)]
    shares = divided(tasks, Budget(trials=100))
    assert {key: share.trials for key, share in shares.items()} == {"a": 20, "b": 60, "c": 20}
    few = divided(tasks, Budget(trials=17))
    assert set(few) == {"a", "b"}
    assert sum(share.trials for share in few.values()) <= 17
    assert not divided(tasks, Budget(trials=0))
    assert divided([_past("a", 1.0)], Budget(trials=3))["a"].trials == 3
