"""Kernels computed as choices say that no heuristic would make: slower, never wrong."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, run_all
from suites.case import Case, CaseBuilder, N

from tensmith.backends.llvm import pipeline
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.kernel.forms.channel_blocks import in_channel_blocks
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.kernel.schedule.chooser import Chosen, CpuChooser, Request
from tensmith.compiler.kernel.schedule.space import choices

SETTINGS = (Setting("x86-64-v3", 2), Setting("x86-64-v4", 2), Setting("aarch64", 2, emulated=True))
WINDOW = {"strides": (1, 1), "dilations": (1, 1)}
TRIED, ENOUGH = 4, 800  # choices of every graph; of a kernel that are looked at


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
CASES = [Case(build.__name__, build, sizes={"n": 9}) for build in BUILDS]


def spaces(case: Case, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """Legal choices of every kernel of a graph, by key."""
    found: dict[str, list] = {}

    class Recorder(CpuChooser):
        def __call__(self, request: Request) -> Chosen:
            chosen = super().__call__(request)
            kernel = in_channel_blocks(request.kernel, chosen.choice.channels)
            if request.key:
                found[request.key] = list(islice(choices(kernel, self.target), ENOUGH))
            return chosen

    monkeypatch.setattr(pipeline, "CpuChooser", Recorder)
    options = CompileOptions("m", Path(), opt_level=setting.level)
    pipeline.make_plan(case.graph(), resolve_target(setting.target)[1], options, Stages())
    monkeypatch.undo()
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_any_legal_choice_computes_the_same(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := setting.missing():
        pytest.skip(reason)
    chance = random.Random(5)
    jobs: dict[str, Job] = {}
    wanted: dict[str, dict[str, np.ndarray]] = {}
    for case in CASES:
        feed = case.inputs()
        want = run_graph(case.graph(), feed)
        for key, space in spaces(case, setting, monkeypatch).items():
            assert space
            for choice in chance.sample(space, min(TRIED, len(space))):
                name = f"{case.name} {key} {choice.to_json()}"
                data = {field: item for field, item in choice.to_json().items() if field != "form"}
                jobs[name] = Job(case.graph(), feed, Choices({key: data}))
                wanted[name] = want
    for name, got in run_all(jobs, setting, tmp_path).items():
        if isinstance(got, Exception):
            raise AssertionError(name) from got
        for output, value in wanted[name].items():
            worst = np.abs(got[output] - value).max()
            assert worst <= 2e-6 * max(1.0, np.abs(value).max()), name
