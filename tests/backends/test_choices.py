"""Kernels computed as choices say that no heuristic would make: slower, never wrong."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from compiled import Job, Setting, run_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from legal_choices import legal_choices
from suites.case import Case, CaseBuilder, N

from tensmith.backends.llvm import pipeline
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.kernel.forms.channel_blocks import in_channel_blocks
from tensmith.compiler.kernel.kernel import Kernel
from tensmith.compiler.kernel.schedule.choice import Choice, StageChoice
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.kernel.schedule.chooser import Chosen, CpuChooser, Request
from tensmith.compiler.kernel.schedule.space import choices

SETTINGS = (Setting("x86-64-v3", 2), Setting("x86-64-v4", 2), Setting("aarch64", 2, emulated=True))
WINDOW = {"strides": (1, 1), "dilations": (1, 1)}
TRIED, ENOUGH = 2, 800  # choices of every graph; of a kernel that are looked at


def product(c: CaseBuilder) -> None:
    y = c.op("matmul", c.input(21, 96), c.weight(96, 37))
    c.output(c.op("max", c.op("add", y, c.weight(37)), c.scalar(0)))


def batched(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(3, N, 40), c.input(3, 40, 19)))


def convolution(c: CaseBuilder) -> None:
    y = c.op(
        "conv", c.input(1, 12, 11, 9), c.weight(20, 12, 3, 3), **WINDOW, pads=(1,) * 4, groups=1
    )
    c.output(c.op("max", y, c.scalar(0)))


def depthwise(c: CaseBuilder) -> None:
    x = c.input(1, 96, 10, 9)
    c.output(c.op("conv", x, c.weight(96, 1, 3, 3), **WINDOW, pads=(1,) * 4, groups=96))


def normalised(c: CaseBuilder) -> None:
    c.output(c.op("softmax", c.op("mul", c.input(7, 50), c.scalar(0.3)), axis=1))


def summed(c: CaseBuilder) -> None:
    c.output(c.op("reduce_sum", c.op("exp", c.input(6, 33, 10)), axes=(1,), keepdims=False))


BUILDS = (product, batched, convolution, depthwise, normalised, summed)
CASES = {build.__name__: Case(build.__name__, build, sizes={"n": 9}) for build in BUILDS}


def batch(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(3, 13, 24), c.weight(3, 24, 20)))


def turned(c: CaseBuilder) -> None:
    c.output(c.op("add", c.op("transpose", c.input(20, 99), perm=(1, 0)), c.input(99, 20)))


def functions(c: CaseBuilder) -> None:
    c.output(c.op("exp", c.input(6, 70)))


BLOCKED = {"vector": "p2", "lanes": 4, "vectors": 2, "row": "p1", "rows": 4, "block": 12}
ODD = [
    # the loop over rows is around another one, inside that over blocks
    (batch, {**BLOCKED, "order": ["p2", "blocks", "p1", "p0"]}),
    (batch, {**BLOCKED, "order": ["p2", "bands", "blocks", "p1", "p0"], "band": 8}),
    # rows are neighbours in memory, of vectors of one lane
    (turned, {"vector": "p0", "lanes": 1, "vectors": 1, "row": "p1", "rows": 4}),
    (turned, {"vector": "p1", "lanes": 1, "vectors": 1, "row": "p0", "rows": 4}),
    # functions of vectors that no register holds
    (functions, {"vector": "p0", "lanes": 32, "vectors": 4}),
]
CASES.update({own.__name__: Case(own.__name__, own) for own in (batch, turned, functions)})


@cache
def kernels(case: str, setting: Setting) -> Mapping[str, Kernel]:
    """The kernels of a graph as choices see them, by key."""
    found: dict[str, Kernel] = {}

    class Recorder(CpuChooser):
        def __call__(self, request: Request) -> Chosen:
            chosen = super().__call__(request)
            if request.key:
                found[request.key] = in_channel_blocks(request.kernel, chosen.choice.channels)
            return chosen

    options = CompileOptions("m", Path(), opt_level=setting.level)
    with patch.object(pipeline, "CpuChooser", Recorder):
        pipeline.make_plan(
            CASES[case].graph(), resolve_target(setting.target)[1], options, Stages()
        )
    return found


Given = tuple[str, Mapping[str, Choice]]  # the name of a case, choices by key


def check(given: Iterable[Given], setting: Setting, folder: Path) -> None:
    """Compile graphs as they are given, all into one library, and compare with the reference."""
    jobs: dict[str, Job] = {}
    wanted: dict[str, dict[str, np.ndarray]] = {}
    for number, (name, by_key) in enumerate(given):
        case = CASES[name]
        feed = case.inputs()
        data = {key: choice.to_json() for key, choice in by_key.items()}
        for own in data.values():
            del own["form"], own["channels"]
        name = f"{number} {name} {data}"
        jobs[name] = Job(case.graph(), feed, Choices(data))
        wanted[name] = run_graph(case.graph(), feed)
    for name, got in run_all(jobs, setting, folder).items():
        if isinstance(got, Exception):
            raise AssertionError(name) from got
        for output, value in wanted[name].items():
            worst = np.abs(got[output] - value).max()
            assert worst <= 5e-6 * max(1.0, np.abs(value).max()), name


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_odd_choices_compute_the_same(setting: Setting, tmp_path: Path) -> None:
    if reason := setting.missing():
        pytest.skip(reason)
    found: list[Given] = []
    for build, data in ODD:
        [(key, kernel)] = kernels(build.__name__, setting).items()
        order = tuple(f"p{axis}" for axis in range(len(kernel.stages[0].axes)))
        plain = Choice(stages=(StageChoice(order=order),))
        found.append((build.__name__, {key: plain.with_json({"stages": [data]})}))
    check(found, setting, tmp_path)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_other_choices_than_the_heuristics_compute_the_same(
    setting: Setting, tmp_path: Path
) -> None:
    """Choices that differ from the heuristic's in one stage."""
    if reason := setting.missing():
        pytest.skip(reason)
    chance, target = random.Random(5), resolve_target(setting.target)[1]
    found: list[Given] = []
    for case in CASES:
        for key, kernel in kernels(case, setting).items():
            space = list(islice(choices(kernel, target), ENOUGH))
            assert space
            drawn = chance.sample(space, min(TRIED, len(space)))
            found += [(case, {key: choice}) for choice in drawn]
    check(found, setting, tmp_path)


def check_drawn(
    data: st.DataObject, setting: Setting, folders: pytest.TempPathFactory, count: int
) -> None:
    """Draw so many choices of every graph, and check them."""
    if reason := setting.missing():
        pytest.skip(reason)
    target = resolve_target(setting.target)[1]
    found: list[Given] = []
    for case in (case for _ in range(count) for case in CASES):
        own = kernels(case, setting).items()
        found.append((case, {key: data.draw(legal_choices(kernel, target)) for key, kernel in own}))
    check(found, setting, folders.mktemp("choices"))


OPTIONS = {
    "deadline": None, "derandomize": True, "database": None,
    "suppress_health_check": list(HealthCheck),
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@settings(max_examples=2, **OPTIONS)
@given(data=st.data())
def test_any_legal_choice_computes_the_same(
    setting: Setting, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Choices drawn field by field, in all stages and for threads at once."""
    check_drawn(data, setting, tmp_path_factory, 1)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@settings(max_examples=25, **OPTIONS)
@given(data=st.data())
def test_many_legal_choices_compute_the_same(
    setting: Setting, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_drawn(data, setting, tmp_path_factory, 3)
