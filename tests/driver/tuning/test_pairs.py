"""Binaries timed in pairs of processes: what is observed, compared and given up. No time is
asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tensmith
from tensmith.compiler.tuning.task import GraphAlternative
from tensmith.compiler.tuning.whole_model import (
    FASTER,
    MOST_REBUILDS,
    Alternative,
    Paired,
    alternative_in_graph,
    choices_in,
    decide,
    joined,
    set_hash,
    sets_of,
    step_hash,
)
from tensmith.driver.engines import EngineSpec
from tensmith.driver.request import CompileRequest
from tensmith.driver.tuning import pairs
from tensmith.driver.tuning.pairs import BinaryPair, NotComparedError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "PAIRS", 2)
    monkeypatch.setattr(pairs, "VISIT_SECONDS", 0.001)


def pair_of(model: Path, folder: Path, stopped: Callable[[], bool] = lambda: False) -> BinaryPair:
    return BinaryPair(tensmith.compile(model), CompileRequest(), folder, stopped)


def test_every_pair_of_processes_is_an_observation(
    model_path: Path, fake: Any, tmp_path: Path, few: None
) -> None:
    pair = pair_of(model_path, tmp_path)
    paired = pair.time(tensmith.compile(model_path), exact=True)
    assert len(paired.ratios) == 2
    assert all(ratio > 0 for ratio in paired.ratios)
    assert min(paired.untuned, paired.tuned) > 0
    assert not paired.problem


def test_every_process_has_files_of_its_own(
    model_path: Path, fake: Any, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the pages of one file lie would be a bias that no number of pairs averages out."""
    paths: list[Path] = []
    begin = pairs.EngineProcess

    def begun(spec: Any, *given: Any) -> Any:
        paths.append(spec.path)
        assert spec.path.read_bytes() == originals[spec.path.name].read_bytes()
        return begin(spec, *given)

    pair, tuned = pair_of(model_path, tmp_path), tensmith.compile(model_path)
    originals = {own.subject().path.name: own.subject().path for own in (pair.untuned, tuned)}
    monkeypatch.setattr(pairs, "EngineProcess", begun)
    pair.time(tuned, exact=True)
    assert len(paths) == len(set(paths)) == 4
    assert not set(paths) & set(originals.values())
    assert not any(path.exists() for path in paths), "copies are removed"


def test_weights_beside_a_library_are_copied_with_it(tmp_path: Path) -> None:
    library = tmp_path / "m.so"
    library.write_bytes(b"code")
    Path(f"{library}.weights").write_bytes(b"weights")
    copied = pairs.copied_spec(EngineSpec("tensmith", library, 2), tmp_path / "own")
    assert copied == EngineSpec("tensmith", tmp_path / "own" / "m.so", 2)
    assert (tmp_path / "own" / "m.so.weights").read_bytes() == b"weights"


def test_other_results_are_a_problem(
    model_path: Path, fake: Any, tmp_path: Path, few: None
) -> None:
    pair = pair_of(model_path, tmp_path)
    fake.factor = "2.0000002f"
    nearly = tensmith.compile(model_path)
    assert "other bits in the outputs y" in pair.time(nearly, exact=True).problem
    assert not pair.time(nearly, exact=False).problem
    fake.factor = "3.0f"
    assert "differ too much" in pair.time(tensmith.compile(model_path), exact=False).problem


def test_a_crash_is_a_problem(model_path: Path, fake: Any, tmp_path: Path, few: None) -> None:
    pair = pair_of(model_path, tmp_path)
    fake.before = "__builtin_trap()"
    paired = pair.time(tensmith.compile(model_path), exact=True)
    assert "it does not run" in paired.problem
    assert not paired.accepted


def test_a_binary_that_hangs_is_a_problem(
    model_path: Path, fake: Any, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pair_of(model_path, tmp_path)
    monkeypatch.setattr(pairs, "LATE_SECONDS", 2.0)
    monkeypatch.setattr(pairs, "LATE_TIMES", 0.0)
    fake.before = "for (volatile int on = 1; on;) {}"
    paired = pair.time(tensmith.compile(model_path), exact=True)
    assert "not timed in 2 s" in paired.problem
    assert not paired.accepted


def test_a_stop_gives_it_up(model_path: Path, fake: Any, tmp_path: Path, few: None) -> None:
    pair = pair_of(model_path, tmp_path, lambda: True)
    with pytest.raises(NotComparedError):
        pair.time(tensmith.compile(model_path), exact=True)


def test_doubts_end_it_early(
    model_path: Path, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pair_of(model_path, tmp_path)
    times = {pairs.UNTUNED: 1.0, pairs.TUNED: FASTER + 0.001}
    monkeypatch.setattr(BinaryPair, "_pair", lambda *_, **__: (times, ""))
    paired = pair.time(tensmith.compile(model_path), exact=True)
    assert len(paired.ratios) == pairs.DOUBTS
    assert not paired.accepted


# ---------------------------------------------------------------------- decisions


def alternatives(count: int) -> list[Alternative]:
    return [Alternative(f"t{n}", f"k{n}", f"identity {n}", {f"c{n}": {}}) for n in range(count)]


@pytest.mark.parametrize(
    ("ratios", "accepted"),
    [
        ((0.9,) * 15, True),
        ((0.9,) * 12 + (1.1,) * 3, True),  # three of fifteen may be worse, at 95 %
        ((0.9,) * 11 + (1.1,) * 4, False),
        ((0.991,) * 15, False),
        ((), False),
    ],
)
def test_what_is_accepted(ratios: tuple[float, ...], accepted: bool) -> None:
    assert Paired(ratios).accepted == accepted
    assert not Paired(ratios, problem="wrong").accepted


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (5, [5, 2, 1]), (100, [100, 50, 25, 12, 6])]
)
def test_sets_are_halved(count: int, sizes: list[int]) -> None:
    found = sets_of(alternatives(count))
    assert [len(one) for one in found] == sizes
    assert len(found) <= 1 + MOST_REBUILDS
    assert all(one[0].key == "t0" for one in found), "the surest stay"


def test_decisions_follow_from_outcomes() -> None:
    every = alternatives(4)
    whole, half, quarter = sets_of(every)
    no, yes = {"accepted": False}, {"accepted": True}
    assert decide([], {}).following is None
    assert decide(every, {}).following == whole
    assert decide(every, {set_hash(whole): yes}).chosen == whole
    first = decide(every, {set_hash(whole): no})
    assert (first.following, first.chosen, first.outcome) == (half, (), no)
    found = decide(every, {set_hash(whole): no, set_hash(half): yes})
    assert (found.following, found.chosen, found.outcome) == (None, half, yes)
    none = decide(every, {set_hash(one): no for one in (whole, half, quarter)})
    assert (none.following, none.chosen, none.outcome) == (None, (), no)
    assert set_hash(whole) == set_hash(whole[::-1])


def in_graph(name: str, replaces: frozenset[str] = frozenset()) -> Alternative:
    """What the whole graph could do otherwise."""
    own = GraphAlternative(name, name, {"graph": {name: False}}, True, replaces)
    return alternative_in_graph(own, "machine")


def test_the_graph_is_tried_on_top_of_what_tasks_found() -> None:
    no, yes = {"accepted": False}, {"accepted": True}
    tasks, graph = tuple(alternatives(1)), (in_graph("bands"), in_graph("rows"))
    outcomes = {set_hash(tasks): yes}
    first = decide(tasks, outcomes, graph)
    assert (first.chosen, first.following, first.over) == (tasks, (*tasks, graph[0]), tasks)
    outcomes[step_hash((*tasks, graph[0]), tasks)] = no
    second = decide(tasks, outcomes, graph)
    assert second.following == (*tasks, graph[1])
    outcomes[step_hash((*tasks, graph[1]), tasks)] = yes
    whole = decide(tasks, outcomes, graph)
    assert (whole.following, whole.over) == ((*tasks, graph[1]), None)
    for accepted, chosen in ((yes, (*tasks, graph[1])), (no, tasks)):
        end = decide(tasks, {**outcomes, set_hash((*tasks, graph[1])): accepted}, graph)
        assert (end.following, end.chosen) == (None, chosen)


def test_the_graph_alone_is_timed_against_the_untuned_binary() -> None:
    own = in_graph("bands")
    assert decide([], {}, [own]).following == (own,)
    assert decide([], {set_hash((own,)): {"accepted": True}}, [own]).chosen == (own,)
    assert decide([], {set_hash((own,)): {"accepted": False}}, [own]).chosen == ()


def test_choices_that_mean_nothing_beside_others_are_left_out() -> None:
    tasks = tuple(alternatives(2))
    key = next(iter(tasks[0].choices))
    found = joined(tasks, in_graph("apart", frozenset({key})))
    assert [one.key for one in found] == [tasks[1].key, "apart"]
    rows = replace(tasks[0], choices={f"{key}+rows": {"form": "bands 4"}})
    assert joined((rows, tasks[1]), in_graph("apart", frozenset({key}))) == found
    both = choices_in((in_graph("bands"), in_graph("rows")))
    assert both == {"graph": {"bands": False, "rows": False}}
    again = Alternative.from_json(json.loads(json.dumps(found[1].to_json())))
    assert again == found[1]
