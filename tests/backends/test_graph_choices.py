"""What a whole graph does otherwise: by other kernels, with the same results, where it matters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, needs_native, run_all
from suites.case import Case, CaseBuilder

from tensmith.backends.llvm.tuning.tunable import CpuTunable
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir.groups import group_of
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.kernel.schedule.graph_choice import GRAPH, GraphChoice

SETTING = Setting("x86-64-v3", 2)
PLAIN = {"strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1)}


def separable(c: CaseBuilder) -> None:
    """A convolution that expands, and a depthwise one."""
    wide = c.op("conv", c.input(1, 16, 64, 64), c.weight(96, 16, 1, 1), **PLAIN, groups=1)
    active = c.op("max", wide, c.scalar(0.0))
    window = {**PLAIN, "pads": (1,) * 4}
    c.output(c.op("conv", active, c.weight(96, 1, 3, 3), **window, groups=96))


def attention(c: CaseBuilder) -> None:
    q, k, v = (c.input(2, 96, 16) for _ in range(3))
    scores = c.op("matmul", q, c.op("transpose", k, perm=(0, 2, 1)))
    c.output(c.op("matmul", c.op("softmax", scores, axis=2), v))


def side_by_side(c: CaseBuilder) -> None:
    x = c.input(32, 48)
    gate = c.op("sigmoid", c.op("matmul", x, c.weight(48, 64)))
    c.output(c.op("mul", gate, c.op("matmul", x, c.weight(48, 64))))


def few_channels(c: CaseBuilder) -> None:
    window = {**PLAIN, "pads": (1,) * 4}
    x = c.op("conv", c.input(1, 3, 64, 64), c.weight(3, 3, 3, 3), **window, groups=1)
    c.output(c.op("conv", x, c.weight(3, 3, 3, 3), **window, groups=1))


CASES = {
    "bands": separable,
    "row_blocks": attention,
    "side_by_side": side_by_side,
    "channels_first": few_channels,
}


def _tunable(name: str, folder: Path, choices: Choices | None = None) -> CpuTunable:
    target = resolve_target(SETTING.target)[1]
    options = CompileOptions(name="m", work_dir=folder, choices=choices or Choices())
    return CpuTunable(Case(name, CASES[name]).graph(), target, options, Stages(), None)


@needs_native
@pytest.mark.parametrize("name", CASES)
def test_alternatives_give_the_same_results_by_other_kernels(name: str, tmp_path: Path) -> None:
    found = _tunable(name, tmp_path).graph_alternatives()
    assert {name: False} in [one.choices.get(GRAPH) for one in found]
    case = Case(name, CASES[name])
    inputs = case.inputs(0)
    given = {f"a{n}": Choices(one.choices) for n, one in enumerate(found)} | {"usual": Choices()}
    jobs = {key: Job(case.graph(), inputs, choices) for key, choices in given.items()}
    results = run_all(jobs, SETTING, tmp_path)
    for key in jobs:
        exact = key == "usual" or found[int(key[1:])].exact
        for output, array in results[key].items():
            most = 0.0 if exact else 1e-4
            np.testing.assert_allclose(array, results["usual"][output], most, most, err_msg=key)
    others = _tunable(name, tmp_path, Choices({GRAPH: {name: False}}))
    usual = {task.choice_key for task in _tunable(name, tmp_path).tasks}
    assert {task.choice_key for task in others.tasks} != usual


def test_what_is_not_done_is_not_offered(tmp_path: Path) -> None:
    names = [
        one.choices.get(GRAPH) for one in _tunable("row_blocks", tmp_path).graph_alternatives()
    ]
    assert {"bands": False} not in names
    assert {"side_by_side": False} not in names


@pytest.mark.parametrize("name", ["bands", "row_blocks"])
def test_what_takes_a_form_away_replaces_what_was_found_with_it(name: str, tmp_path: Path) -> None:
    tunable = _tunable(name, tmp_path)
    kept = {group_of(task.choice_key) for task in tunable.tasks}
    [own] = [one for one in tunable.graph_alternatives() if one.choices.get(GRAPH) == {name: False}]
    assert own.replaces
    assert own.replaces <= kept
    for one in tunable.graph_alternatives():
        if one.name.startswith("apart"):
            assert one.replaces == own.replaces


@pytest.mark.parametrize("data", [{"colour": True}, {"bands": 1}])
def test_choices_that_there_are_not_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(ScheduleError, match="choice for the graph"):
        GraphChoice.from_json(data)
