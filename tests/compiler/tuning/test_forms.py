"""Exported records that were made up: what they claim is found anew, or they are refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuned_files import session_key, tune_into

from tensmith.compiler.errors import UsageError
from tensmith.compiler.tuning.exchange import Tree, tree_of, write_records
from tensmith.compiler.tuning.exchange_checks import check_form, is_exported, read_tree
from tensmith.compiler.tuning.history import History
from tensmith.compiler.tuning.merging import judged_anew, merged
from tensmith.compiler.tuning.record_checks import examine
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.whole_model import FASTER, Alternative, Paired

Edit = Callable[[Tree, Tree], object]
RATIOS = (0.93, 0.92, 0.94, 0.935, 0.925, 0.93, 0.93, 0.94)


def outcome_of(paired: Paired) -> dict[str, Any]:
    """As the stage of whole models writes it."""
    in_graph = Alternative("graph", "graph", "identity", {"key": {"a": 1}}, in_graph=True)
    return {
        **paired.to_json(), "records": "0" * 64, "graph": [in_graph.to_json()],
        "code": ["1", "fake 1"], "exact": True, "noise": None, "seconds": 1.5,
    }  # fmt: skip


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A session with two outcomes: a gain, and one whose results were others."""
    path = tmp_path_factory.mktemp("once") / "a.db"
    tune_into(path)
    with Records(path) as records:
        history = History(records, session_key(), "fake 1")
        history.add_outcome(["a"], outcome_of(Paired(RATIOS, 1.0, 0.93)))
        history.add_outcome(["b"], outcome_of(Paired(problem="other results")))
        return tree_of(records)


@pytest.fixture
def tree(once: Tree) -> Tree:
    return copy.deepcopy(once)


def the_session(tree: Tree) -> Tree:
    (session,) = tree["sessions"].values()
    return session


def problems(path: Path, tree: Tree) -> list[str]:
    """What the examination of a file with these records finds."""
    write_records(path, tree)
    with Records(path, write=False) as records:
        return examine(records).problems


def twice(rows: list[Any]) -> None:
    rows.append(copy.deepcopy(rows[0]))


def forge_order(session: Tree) -> None:
    """A made-up verdict of number 1, which counts, before the one of number 0, which is true."""
    made_up = {**session["verdicts"][0], "number": 1, "ratio": 0.5, "low": 0.4, "high": 0.6}
    session["verdicts"].insert(0, made_up)


def without_base(batch: Tree) -> None:
    for turn in batch["turns"]:
        turn["samples"] = [own for own in turn["samples"] if own[0] != 0]


EDITS: dict[str, tuple[Edit, str]] = {
    "an empty result": (lambda t, s: s["outcomes"][0].update(result={}), r"outcomes\[0\].result"),
    "text for a bound": (
        lambda t, s: s["outcomes"][0]["result"].update(low="x"), r"result.low: it is no number",
    ),
    "a claim as a number": (
        lambda t, s: s["outcomes"][0]["result"].update(accepted=1), "neither true nor false",
    ),
    "an alternative of the graph": (
        lambda t, s: s["outcomes"][0]["result"]["graph"][0].pop("identity"), "identity",
    ),
    "a negative ratio": (
        lambda t, s: s["outcomes"][0]["result"].update(ratios=[-1.0]), r"ratios\[0\]",
    ),
    "a member twice": (lambda t, s: twice(s["members"]), "a task is there twice"),
    "a verdict twice": (lambda t, s: twice(s["verdicts"]), "verdicts of conv: .* twice"),
    "a batch twice": (lambda t, s: twice(s["batches"]), "batches of .* twice"),
    "a batch that is missing": (lambda t, s: s["batches"].pop(0), "batches of .* missing"),
    "verdicts from 1 on": (lambda t, s: s["verdicts"][0].update(number=1), r"missing .*\[1\]"),
    "verdicts out of order": (lambda t, s: forge_order(s), "not in order"),
    "a session of another protocol": (lambda t, s: s.update(protocol=7), "another protocol"),
    "half a character": (lambda t, s: s.update(name="\ud800"), "name: it holds half"),
    "half a character in options": (
        lambda t, s: s["options"].update({"a": ["\udfff"]}), r"options.a\[0\]: it holds half",
    ),
    "half a character in a key": (
        lambda t, s: t["machines"].update({"\ud800": {}}), r"machines.*: it holds half",
    ),
    "half a character as a field": (lambda t, s: s.update({"\ud800": 1}), "missing or unknown"),
    "a share that is none": (
        lambda t, s: s.update(waves=[{"conv": 5}]), r"waves\[0\].conv: it is no object",
    ),
    "a share of nothing": (lambda t, s: s.update(waves=[{"conv": {}}]), "seconds, trials"),
    "a number beyond all": (
        lambda t, s: s["members"][0].update(seconds=10**400), "seconds: it is too large",
    ),
    "turns without the base": (lambda t, s: without_base(s["batches"][0]), "the base"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_form_that_is_wrong_is_refused_with_its_place(
    tree: Tree, tmp_path: Path, name: str
) -> None:
    edit, told = EDITS[name]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(tree))
    assert read_tree(file) == tree
    edit(tree, the_session(tree))
    file.write_text(json.dumps(tree))
    with pytest.raises(UsageError, match=f"(?s)no exported records.*{told}") as refused:
        read_tree(file)
    str(refused.value).encode()


@pytest.mark.parametrize(
    "name", ["an empty result", "verdicts from 1 on", "a session of another protocol"]
)
def test_a_form_that_is_wrong_is_found_in_a_database(tree: Tree, tmp_path: Path, name: str) -> None:
    edit, told = EDITS[name]
    edit(tree, the_session(tree))
    with pytest.raises(UsageError, match=f"(?s)damaged.*{told}"):
        check_form(tmp_path / "b.db", tree)
    assert len(problems(tmp_path / "b.db", tree)) == 1


def test_the_verdict_of_the_highest_number_is_the_last(tree: Tree, tmp_path: Path) -> None:
    """In whatever order the rows of a database came."""
    true = copy.deepcopy(tree)
    forge_order(the_session(tree))
    path = tmp_path / "b.db"
    assert "not what its samples say" in " ".join(problems(path, tree))
    with Records(path, write=False) as records:
        read = tree_of(records)
    own = the_session(true)["verdicts"][0]
    found = [v for v in the_session(judged_anew(read))["verdicts"] if v["task"] == own["task"]]
    assert found == [own, {**own, "number": 1}]


# ---------------------------------------------------------------------- whole binaries


def test_outcomes_hold_what_proves_them(tree: Tree, tmp_path: Path) -> None:
    assert the_session(tree)["outcomes"][0]["result"]["ratios"] == list(RATIOS)
    assert merged([copy.deepcopy(tree)]) == tree
    assert not problems(tmp_path / "b.db", tree)


def test_gains_of_binaries_are_found_anew_from_their_pairs(tree: Tree, tmp_path: Path) -> None:
    forged = copy.deepcopy(tree)
    for own in the_session(forged)["outcomes"]:
        own["result"].update(accepted=True, ratio=0.5, low=0.45, high=0.55, pairs=99)
    assert len(problems(tmp_path / "b.db", forged)) == 2
    assert merged([forged]) == tree
    slow = the_session(tree)["outcomes"][0]["result"]
    slow["ratios"] = [FASTER + 0.001] * 8
    result = the_session(judged_anew(tree))["outcomes"][0]["result"]
    assert not result["accepted"]
    assert result["high"] == FASTER + 0.001


def test_gains_of_binaries_without_pairs_are_dropped(tree: Tree, tmp_path: Path) -> None:
    """That there was none stays: it only leaves choices out."""
    gain, other = the_session(tree)["outcomes"]
    for own in (gain, other):
        del own["result"]["ratios"]
    write_records(tmp_path / "b.db", tree)
    with Records(tmp_path / "b.db", write=False) as records:
        found = examine(records)
    assert not found.problems
    assert [note for note in found.notes if "has no pairs" in note] == found.notes != []
    assert the_session(judged_anew(tree))["outcomes"] == [other]


def test_the_kind_of_a_file_is_that_of_its_content(tree: Tree, tmp_path: Path) -> None:
    text = tmp_path / "records.db"
    text.write_text("\t" + json.dumps(tree))
    assert is_exported(text)
    write_records(tmp_path / "b.json", tree)
    assert not is_exported(tmp_path / "b.json")
    with pytest.raises(UsageError, match="cannot read"):
        is_exported(tmp_path / "none")
