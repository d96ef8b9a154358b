"""Records as JSON objects: out of files and into them, united, reduced to what is shipped."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_tuning import FakeMeasurer, choice_of
from tuned_files import GAINS, session_key, tune_into

from tensmith.compiler.errors import UsageError
from tensmith.compiler.tuning.exchange import (
    Tree,
    in_lines,
    past_tasks,
    text_of,
    tree_of,
    write_records,
)
from tensmith.compiler.tuning.exchange_checks import read_tree
from tensmith.compiler.tuning.history import CONFIRM
from tensmith.compiler.tuning.merging import best_of, judged_anew, merged, pruned
from tensmith.compiler.tuning.race import verdict_from
from tensmith.compiler.tuning.record_checks import examine
from tensmith.compiler.tuning.records import Records

Make = Callable[..., Tree]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The records of a session, with the arguments of `tune_into`."""

    def made(name: str = "a.db", **given: Any) -> Tree:
        tune_into(tmp_path / name, **given)
        return read(tmp_path / name)

    return made


def read(path: Path) -> Tree:
    with Records(path, write=False) as records:
        return tree_of(records)


def only_session(tree: Tree) -> Tree:
    (session,) = tree["sessions"].values()
    return session


def gains(tree: Tree) -> dict[str, Any]:
    """Choices that were confirmed, by the name of the task."""
    return {
        past.task.name: past.verdict.choice
        for session in tree["sessions"].values()
        for past in past_tasks(tree, session)
        if past.verdict and past.verdict.is_gain
    }


def test_a_tree_holds_all_that_a_file_does(make: Make, tmp_path: Path) -> None:
    tree = make()
    write_records(tmp_path / "b.db", tree)
    assert read(tmp_path / "b.db") == tree
    with Records(tmp_path / "b.db", write=False) as records:
        assert not examine(records).problems
    assert gains(tree) == {"kernel_conv": choice_of(3, 2, 0)}


def test_text_is_read_back(make: Make, tmp_path: Path) -> None:
    tree = make()
    path = tmp_path / "a.json"
    path.write_text(text_of(tree))
    assert read_tree(path) == tree
    assert text_of(read_tree(path)) == text_of(tree)


def test_a_session_that_was_written_anew_goes_on(make: Make, tmp_path: Path) -> None:
    tree = make()
    write_records(tmp_path / "b.db", tree)
    measurer = FakeMeasurer(GAINS)
    tune_into(tmp_path / "b.db", measurer=measurer)
    assert not measurer.turns, "it was through"
    assert read(tmp_path / "b.db") == tree


def test_files_that_are_there_are_replaced_whole(make: Make, tmp_path: Path) -> None:
    tree = make()
    other = make("b.db", key=session_key("other"))
    write_records(tmp_path / "a.db", other)
    assert read(tmp_path / "a.db") == other != tree
    assert not list(tmp_path.glob(".tensmith-*"))


def test_a_file_that_is_written_by_another_program_is_left_alone(
    make: Make, tmp_path: Path
) -> None:
    tree = make()
    with Records(tmp_path / "a.db"), pytest.raises(UsageError, match="another program writes"):
        write_records(tmp_path / "a.db", merged([]))
    assert read(tmp_path / "a.db") == tree


# ---------------------------------------------------------------------- merging


def test_a_file_merged_with_itself_is_itself(make: Make) -> None:
    tree = make()
    assert merged([tree, copy.deepcopy(tree)]) == tree
    assert merged([tree]) == tree
    assert merged([tree, merged([])]) == tree


def test_sessions_of_other_models_stand_side_by_side(make: Make) -> None:
    one, other = make(), make("b.db", key=session_key("other"))
    both = merged([one, other])
    assert both == merged([other, one])
    assert both["sessions"] == {**one["sessions"], **other["sessions"]}


def test_the_longer_of_two_copies_is_taken(make: Make) -> None:
    short = make(trials=10)
    longer = make(trials=60)  # the same file goes on
    assert len(only_session(short)["batches"]) < len(only_session(longer)["batches"])
    assert merged([short, longer]) == merged([longer, short]) == longer


def test_a_batch_that_was_cut_off_is_completed(make: Make) -> None:
    whole = make()
    cut = copy.deepcopy(whole)
    batch = only_session(cut)["batches"][1]
    assert len(batch["turns"]) > 2
    del batch["turns"][2:]
    assert merged([cut, whole]) == merged([whole, cut]) == whole


def test_copies_that_went_apart_are_both_kept(make: Make, tmp_path: Path) -> None:
    """Verdicts are those of all samples, whichever file stands first."""
    one = make(gains={"conv": 1.2, "matmul": 1.2}, trials=20)
    other = make("b.db")
    both = merged([one, other])
    assert both == merged([other, one])
    told = [{**batch, "number": 0} for batch in only_session(both)["batches"]]
    assert len(told) > len(only_session(other)["batches"]) > len(only_session(one)["batches"])
    for batch in (*only_session(one)["batches"], *only_session(other)["batches"]):
        assert {**batch, "number": 0} in told
    for past in past_tasks(both, only_session(both)):
        assert [batch.number for batch in past.batches] == list(range(len(past.batches)))
        assert past.verdict == verdict_from(past, both["choices"])
    write_records(tmp_path / "c.db", both)
    with Records(tmp_path / "c.db", write=False) as records:
        assert not examine(records).problems


def test_claims_without_samples_are_not_believed(make: Make) -> None:
    tree = make()
    forged = copy.deepcopy(tree)
    for verdict in only_session(forged)["verdicts"]:
        verdict.update(ratio=0.1, low=0.1, high=0.1, wins=999)
    assert judged_anew(forged) == tree
    for batch in only_session(forged)["batches"]:
        batch["turns"] = [turn for turn in batch["turns"] if turn["kind"] != CONFIRM]
    assert gains(judged_anew(forged)) == {}


def test_verdicts_of_another_protocol_stay_as_they_are(make: Make) -> None:
    tree = make()
    session = only_session(tree)
    session["protocol"] = 99
    for verdict in session["verdicts"]:
        verdict.update(protocol=99, ratio=0.5)
    assert merged([tree, tree]) == tree


# ---------------------------------------------------------------------- parts


def test_the_best_is_what_proves_gains(make: Make) -> None:
    tree = make()
    best = best_of(tree)
    assert gains(best) == gains(tree)
    assert [own["name"] for own in best["tasks"].values()] == ["kernel_conv"]
    assert len(text_of(best)) < len(text_of(tree)) * 0.7
    assert judged_anew(copy.deepcopy(best)) == best, "its samples prove it"
    assert best_of(best) == best
    assert not set(best["sessions"]) & set(tree["sessions"])


def test_of_two_sessions_the_surer_verdict_is_shipped(make: Make) -> None:
    quiet = make(measurer=FakeMeasurer(GAINS, noise=0.001))
    noisy = make("b.db", key=session_key("other"), measurer=FakeMeasurer(GAINS, noise=0.02))
    best = best_of(merged([noisy, quiet]))
    assert [own["name"] for own in best["sessions"].values()] == ["model"]


def test_old_sessions_are_pruned_with_what_they_alone_name(make: Make, tmp_path: Path) -> None:
    old = make()
    session = only_session(old)
    for row in (session, *session["verdicts"]):
        row.update({k: "2020-01-01T00:00:00+00:00" for k in ("started", "date") if k in row})
    new = make("b.db", key=session_key("other"), gains={"softmax": 1.2})
    both = merged([old, new])
    assert pruned(both, "2021") == new
    assert pruned(both, "2019") == both
    assert pruned(both, "9999") == merged([])


# ---------------------------------------------------------------------- files from elsewhere


def edit(tree: Tree, path: str, value: Any) -> None:
    """Set what a path of keys and numbers leads to; `*` is any key."""
    *way, last = path.split(".")
    at: Any = tree
    for step in way:
        at = next(iter(at.values())) if step == "*" else at[int(step) if step.isdigit() else step]
    at[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("format", "tvm", "format"),
        ("version", 7, "version 7"),
        ("extra", 1, "extra"),
        ("machines", [], "machines"),
        ("tasks.*.sizes", {"n": -1}, "sizes"),
        ("choices.*.form", 3, "digest"),
        ("sessions.*.seed", "0", "seed"),
        ("sessions.*.machine", "another", "machine"),
        ("sessions.*.batches.1.turns.0.kind", "guess", "kind"),
        ("sessions.*.batches.1.turns.0.samples.0", [0, 1.0], "five"),
        ("sessions.*.batches.1.turns.0.samples.0", [0, -1.0, 1.0, 1.0, 3], "number"),
        ("sessions.*.batches.1.turns.0.samples.0", [0, float("nan"), 1.0, 1.0, 3], "number"),
        ("sessions.*.batches.1.turns.0.samples.0", [99, 1.0, 1.0, 1.0, 3], "no candidate"),
        ("sessions.*.batches.1.turns.0.failures", {"x": "crash"}, "no candidate"),
        ("sessions.*.batches.1.trials.0.choice", "0" * 16, "choice"),
        ("sessions.*.batches.1.task", "0" * 16, "task"),
        ("sessions.*.batches.1.code", ["9", "9"], "version"),
        ("sessions.*.verdicts.0.base", "0" * 16, "choice"),
        ("sessions.*.verdicts.0.date", 3, "date"),
    ],
)
def test_what_is_no_record_is_refused(
    make: Make, tmp_path: Path, path: str, value: Any, told: str
) -> None:
    tree = make()
    edit(tree, path, value)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(tree))
    with pytest.raises(UsageError, match="no exported records") as refused:
        read_tree(file)
    assert told in refused.value.why


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\x00\x01", '{"format": "tensmith-records"}', "[" * 100_000]
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(UsageError, match="no exported records"):
        read_tree(file)


# ---------------------------------------------------------------------- examination


def change(path: Path, query: str) -> None:
    with Records(path) as records:
        records.db.execute("PRAGMA foreign_keys = OFF")
        records.db.execute(query)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("UPDATE choice SET json = '{}' WHERE id = 1", "digest"),
        ("DELETE FROM task WHERE id = 1", "names what is not there"),
        ("UPDATE verdict SET ratio = 0.1", "not what its samples say"),
        ("UPDATE session SET seed = 5", "its key"),
        ("DELETE FROM batch WHERE number = 1", "are missing"),
        ("UPDATE turn SET failures = 'x'", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_found(
    make: Make, tmp_path: Path, query: str, told: str
) -> None:
    make()
    change(tmp_path / "a.db", query)
    with Records(tmp_path / "a.db", write=False) as records:
        assert told in " ".join(examine(records).problems)


def test_samples_of_another_protocol_are_told_of(make: Make, tmp_path: Path) -> None:
    make()
    for table in ("session", "verdict"):
        change(tmp_path / "a.db", f"UPDATE {table} SET protocol = 99")
    with Records(tmp_path / "a.db", write=False) as records:
        found = examine(records)
    assert not found.problems
    assert "protocol 99" in found.notes[0]


def test_damage_is_found(make: Make, tmp_path: Path) -> None:
    make()
    path = tmp_path / "a.db"
    with Records(path) as records:
        (row,) = records.rows("SELECT rootpage FROM sqlite_master WHERE name = 'sample'")
        ((size,),) = records.rows("PRAGMA page_size")
    data = bytearray(path.read_bytes())
    begin = (row["rootpage"] - 1) * size
    data[begin : begin + size] = b"\xa5" * size
    path.write_bytes(data)
    with Records(path, write=False) as records:
        assert examine(records).problems
        with pytest.raises(UsageError, match="damaged"):
            tree_of(records)


def test_lines_are_short_and_hold_the_same() -> None:
    value = {"b": [[n, n / 3] for n in range(40)], "a": {}, "c": {"long": "x" * 200, "none": None}}
    text = in_lines(value)
    assert json.loads(text) == value
    assert text == in_lines(dict(reversed(list(value.items()))))
    assert text.count("\n") > 3
    assert max(map(len, text.splitlines())) < 230
    with pytest.raises(ValueError, match="not JSON compliant"):
        in_lines([float("nan")])
