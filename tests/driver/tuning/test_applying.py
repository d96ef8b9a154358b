"""What a compilation takes from records, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_tuning import FakeModel
from tuned_binaries import Clock, contents, tuned

import tensmith
from tensmith.compiler.errors import ModelWarning, UsageError
from tensmith.compiler.tuning.exchange import write_records
from tensmith.compiler.tuning.merging import best_of
from tensmith.compiler.tuning.task import GraphAlternative
from tensmith.driver.tuning.tables import tuned_text


@pytest.fixture
def records(model_path: Path, fake: Any, db: Path) -> Path:
    tuned(model_path, db, Clock(0.9))
    return db


def kernels_used(artifact: Any) -> list[str]:
    return [own["kernel"] for own in artifact.manifest["tuning"]["used"]]


def test_records_of_changed_code_are_not_used(model_path: Path, fake: Any, records: Path) -> None:
    fake.emitter = "another "
    with pytest.warns(ModelWarning, match="stale: kernel_conv: .* machine code is not what was"):
        artifact = tensmith.compile(model_path, records=records)
    assert kernels_used(artifact) == []
    assert artifact.manifest["tuning_records_sha256"] is None
    assert len(artifact.manifest["tuning"]["stale"]) == 2
    with pytest.raises(UsageError, match="stale") as refused:
        tensmith.compile(model_path, records=records, no_stale=True)
    assert "kernel_dense" in str(refused.value)


def test_what_was_stale_is_tuned_anew(model_path: Path, fake: Any, records: Path) -> None:
    """By a session of its own: what is of other code is a seed, and races first."""
    fake.emitter = "another "
    turns = fake.turns
    result = tuned(model_path, records, Clock(0.9), seed=1)
    assert fake.turns > turns
    assert result.chosen == ("kernel_conv", "kernel_dense")
    assert tensmith.compile(model_path, records=records).manifest == result.artifact.manifest


@pytest.fixture
def in_graph(fake: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model whose kernels are at their best, and whose graph is not."""
    fake.gains = {"conv": 1.1}
    own = GraphAlternative("g", "no bands", {"graph": {"bands": False}}, exact=True)
    monkeypatch.setattr(FakeModel, "graph_alternatives", lambda self: (own,))
    return own.name


def test_choices_about_the_graph_are_bound_to_the_code_that_was_timed(
    model_path: Path, fake: Any, db: Path, in_graph: str
) -> None:
    result = tuned(model_path, db, Clock(0.9))
    assert result.chosen == (in_graph,)
    plain = tensmith.compile(model_path, records=db, name="another")
    assert plain.manifest["tuning"]["graph"] == [in_graph], "names of symbols do not count"
    assert "1 segment(s) of the graph" in tuned_text(plain.manifest)
    fake.before = "y[0] = 0.0f"
    with pytest.warns(ModelWarning, match=f"stale: {in_graph}: the machine code of the binary"):
        artifact = tensmith.compile(model_path, records=db)
    told = artifact.manifest["tuning"]
    assert (told["graph"], told["records"]) == ([], None)
    assert len(told["stale"]) == 1
    assert tuned_text(artifact.manifest).startswith("untuned: no choice")
    assert artifact.code.objects == tensmith.compile(model_path).code.objects
    with pytest.raises(UsageError, match=f"stale:\n  - {in_graph}"):
        tensmith.compile(model_path, records=db, no_stale=True)


def test_a_graph_of_other_code_is_timed_anew(
    model_path: Path, fake: Any, db: Path, in_graph: str
) -> None:
    tuned(model_path, db, Clock(0.9))
    clock = Clock(0.9)
    assert tuned(model_path, db, clock).chosen == (in_graph,)
    assert clock.calls == 0
    fake.before = "y[0] = 0.0f"
    assert tuned(model_path, db, clock).chosen == (in_graph,)
    assert clock.binaries == 1
    assert tensmith.compile(model_path, records=db, no_stale=True).manifest["tuning"]["graph"]


def test_records_of_other_machines_are_not_used(model_path: Path, fake: Any, records: Path) -> None:
    tree = contents(records)
    tree["machines"] = {"another": {}}
    for session in tree["sessions"].values():
        session["machine"] = "another"
        for verdict in session["verdicts"]:
            verdict["machine"] = "another"
    write_records(records, tree)
    with pytest.warns(ModelWarning, match=r"records of 2 kernel\(s\) are of other machines"):
        artifact = tensmith.compile(model_path, records=records)
    assert kernels_used(artifact) == []
    named = tensmith.compile(model_path, records=records, machine="another")
    assert kernels_used(named) == ["kernel_conv", "kernel_dense"]


def test_records_of_another_protocol_are_not_used(
    model_path: Path, fake: Any, records: Path
) -> None:
    tree = contents(records)
    for session in tree["sessions"].values():
        session["protocol"] = 0
        for verdict in session["verdicts"]:
            verdict["protocol"] = 0
    write_records(records, tree)
    assert kernels_used(tensmith.compile(model_path, records=records)) == []


def test_choices_of_another_order_of_sums_have_to_be_allowed(
    model_path: Path, fake: Any, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_tuning import FakeModel

    candidate = FakeModel._candidate

    def inexact(self: FakeModel, rows: int, unroll: int, block: int) -> Any:
        from dataclasses import replace

        own = candidate(self, rows, unroll, block)
        return replace(own, exact=own.steps == 0)

    monkeypatch.setattr(FakeModel, "_candidate", inexact)
    assert tuned(model_path, db, Clock(0.9)).session.trials == 0
    assert tuned(model_path, db, Clock(0.9), allow_reordering=True).chosen
    with pytest.warns(ModelWarning, match="another order of sums: --allow-reordering"):
        assert kernels_used(tensmith.compile(model_path, records=db)) == []
    allowed = tensmith.compile(model_path, records=db, allow_reordering=True)
    assert len(kernels_used(allowed)) == 2


def test_another_model_takes_what_was_confirmed_kernel_by_kernel(
    model_path: Path, fake: Any, records: Path, save_model: Any
) -> None:
    from onnx import helper

    other = save_model([helper.make_node("Add", ["x", "x"], ["y"], name="other")], ["batch", 4])
    with pytest.warns(ModelWarning, match="not timed together"):
        artifact = tensmith.compile(other, records=records)
    assert kernels_used(artifact) == ["kernel_conv", "kernel_dense"]
    assert artifact.manifest["tuning"]["ratio"] is None


def test_exported_records_do_as_well(
    model_path: Path, fake: Any, records: Path, tmp_path: Path
) -> None:
    from tensmith.compiler.tuning.exchange import text_of

    best = tmp_path / "best.json"
    best.write_text(text_of(best_of(contents(records))))
    one, other = (tensmith.compile(model_path, records=path) for path in (records, best))
    assert one.code.objects == other.code.objects
    assert one.manifest["tuning_records_sha256"] == other.manifest["tuning_records_sha256"]


def test_the_content_of_records_tells_their_kind(
    model_path: Path, fake: Any, records: Path, tmp_path: Path
) -> None:
    from tensmith.compiler.tuning.exchange import text_of

    text, database = tmp_path / "exported.txt", tmp_path / "database.json"
    text.write_text(text_of(contents(records)))
    write_records(database, contents(records))
    manifests = [
        tensmith.compile(model_path, records=p).manifest for p in (records, text, database)
    ]
    assert manifests[0] == manifests[1] == manifests[2]
    assert manifests[0]["tuning"]["used"]


def test_a_made_up_gain_of_a_whole_binary_is_not_believed(
    model_path: Path, fake: Any, db: Path, tmp_path: Path
) -> None:
    from tensmith.compiler.tuning.exchange import text_of

    tuned(model_path, db, Clock(1.0))
    tree = contents(db)
    for session in tree["sessions"].values():
        for own in session["outcomes"]:
            own["result"].update(accepted=True, ratio=0.5, low=0.45, high=0.55)
    path = tmp_path / "forged.json"
    path.write_text(text_of(tree))
    assert kernels_used(tensmith.compile(model_path, records=path)) == []


def test_records_without_a_name_are_refused(model_path: Path, fake: Any) -> None:
    for command in (tensmith.compile, tensmith.tune):
        with pytest.raises(UsageError, match="is a folder"):
            command(model_path, records="")


def test_choices_that_are_given_come_before_records(
    model_path: Path, fake: Any, records: Path, tmp_path: Path
) -> None:
    given = {"version": 1, "target": "native", "threads": 1, "choices": {"conv-key": {}}}
    path = tmp_path / "choices.json"
    from tensmith.compiler.kernel.schedule.choice import VERSION

    path.write_text(json.dumps({**given, "version": VERSION}))
    with pytest.warns(ModelWarning, match="choices for no group"):
        artifact = tensmith.compile(model_path, records=records, choices=path)
    assert artifact.code.objects != tensmith.compile(model_path, records=records).code.objects


def test_records_that_are_not_there_are_refused(model_path: Path, fake: Any, db: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        tensmith.compile(model_path, records=db)
    assert kernels_used(tensmith.compile(model_path, records="shipped")) == []
    with pytest.raises(UsageError, match="no records"):
        tensmith.compile(model_path, no_stale=True)
    with pytest.raises(UsageError, match="no records"):
        tensmith.compile(model_path, machine="another")
