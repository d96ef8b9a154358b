"""Candidates of CPU kernels: each is built, and does what the base does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, run_all
from suites.case import BF16, F32, I8, I32, U8, CaseBuilder, N
from tuned_batches import (
    WINDOW,
    Build,
    interpreted_outputs,
    measurer_here,
    opened,
    outputs_of,
    product,
)

from tensmith.backends.llvm.emit import reduction
from tensmith.backends.llvm.tuning.measurer import CpuMeasurer
from tensmith.backends.llvm.tuning.tunable import CpuTunable
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.tuning.history import Verdict
from tensmith.compiler.tuning.reuse import why_changed
from tensmith.compiler.tuning.task import BASE, Candidate, Task, Turn

TARGETS = ("x86-64-v3", "x86-64-v4")
NARROW = "znver4"  # has instructions for bytes and halves
TRIED = 4  # candidates of a task, beside the base
SHORT = 0.0005  # seconds


def deep(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(4, 320), c.weight(320, 33)))


def batched(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(3, N, 40), c.input(3, 40, 19)))


def convolution(c: CaseBuilder) -> None:
    """Padded, so that borders are as wide as the tiles of its forms reach."""
    x = c.op("max", c.input(1, 16, 14, 14), c.scalar(0))
    c.output(c.op("conv", x, c.weight(24, 16, 3, 3), **WINDOW, groups=1))


def depthwise(c: CaseBuilder) -> None:
    x = c.input(1, 96, 10, 9)
    c.output(c.op("conv", x, c.weight(96, 1, 3, 3), **WINDOW, groups=96))


def softmax(c: CaseBuilder) -> None:
    c.output(c.op("softmax", c.op("mul", c.input(7, 50), c.scalar(0.3)), axis=1))


def looked_up(c: CaseBuilder) -> None:
    c.output(c.op("gather", c.input(30, 20), c.input(11, dtype=I32), axis=0))


def bytes_(c: CaseBuilder) -> None:
    x = c.input(9, 64, dtype=U8, low=0, high=256)
    c.output(c.op("matmul", x, c.weight(64, 48, dtype=I8, low=-128, high=128), accumulate=I32))


def halves(c: CaseBuilder) -> None:
    c.output(
        c.op("matmul", c.input(9, 64, dtype=BF16), c.weight(64, 48, dtype=BF16), accumulate=F32)
    )


BUILDS: tuple[Build, ...] = (
    product, deep, batched, convolution, depthwise, softmax, looked_up, bytes_, halves,
)  # fmt: skip


def some(tunable: CpuTunable, task: Task) -> list[Candidate]:
    """The base and some others, always the same."""
    found = tunable.candidates(task)
    others = found[1:]
    return [found[BASE], *random.Random(0).sample(others, min(TRIED, len(others)))]


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == TARGETS[-1] and request.node.callspec.params.get("build") in (bytes_, halves):
        name = NARROW
    if missing := Setting(name, 2).missing():
        pytest.skip(missing)
    return name


@pytest.fixture
def measurer(target: str) -> Iterator[CpuMeasurer]:
    with closing(measurer_here(target)) as found:
        yield found


@pytest.mark.parametrize("build", BUILDS)
def test_candidates_do_what_the_base_does(
    build: Build, target: str, measurer: CpuMeasurer, tmp_path: Path
) -> None:
    threads = 2 if build in (product, depthwise) else 1
    tunable = opened(build, target, tmp_path, threads)
    assert tunable.tasks
    for task in tunable.tasks:
        candidates = some(tunable, task)
        batch = tunable.build(task, candidates)
        assert not [built.error for built in batch.built if built.error]
        assert measurer.check(batch) == {}
        order = (0, len(candidates) - 1, 0)
        reading = measurer.time(batch, Turn(order, SHORT))
        assert [sample.position for sample in reading.samples] == list(order)
        assert all(0 < s.least <= s.lower_quartile <= s.median for s in reading.samples)
        assert not reading.failures


@pytest.mark.parametrize("build", BUILDS)
def test_the_base_does_what_its_kernel_says(build: Build, target: str, tmp_path: Path) -> None:
    """What is measured is compared with the kernel run in numpy, on the same operands."""
    tunable = opened(build, target, tmp_path)
    for task in tunable.tasks:
        candidates = some(tunable, task)[:3]
        batch = tunable.build(task, candidates)
        for position, candidate in enumerate(candidates):
            got = outputs_of(batch, position, tmp_path)
            wanted = interpreted_outputs(tunable, task, candidate, batch, position)
            for name, expected in wanted.items():
                found = got[name].view(expected.dtype).astype(np.float64)
                np.testing.assert_allclose(found, expected.astype(np.float64), 1e-4, 1e-4)


@pytest.mark.parametrize("build", [product, convolution, depthwise, softmax, halves])
def test_candidates_begin_with_the_base_and_are_in_one_order(
    build: Build, target: str, tmp_path: Path
) -> None:
    found = []
    for _ in range(2 if build is product else 1):
        tunable = opened(build, target, tmp_path)
        found.append([[c.key for c in tunable.candidates(task)] for task in tunable.tasks])
        for task in tunable.tasks:
            candidates = tunable.candidates(task)
            base = tunable.base(task)
            assert candidates[BASE] == base
            assert base.exact
            assert base.steps == 0
            assert len({c.key for c in candidates}) == len(candidates) <= 300
            assert len({len(c.features) for c in candidates}) == 1
            assert all(c.steps > 0 for c in candidates[1:])
            assert tunable.candidate(task, candidates[-1].choice) == candidates[-1]
    assert found[0] == found[-1]


def test_forms_are_candidates(tmp_path: Path) -> None:
    tunable = opened(convolution, "x86-64-v4", tmp_path)
    task = max(tunable.tasks, key=lambda task: task.seconds)
    forms = {str(c.choice["form"]).partition(" block")[0] for c in tunable.candidates(task)}
    assert {"winograd 2x2", "winograd 4x4"} <= forms
    assert not any(
        c.exact for c in tunable.candidates(task)
        if str(c.choice["form"])[:12] != str(tunable.base(task).choice["form"])[:12]
    )  # fmt: skip


def bordered(c: CaseBuilder) -> None:
    """Equal operators, whose results get borders of one and of two elements, and none."""
    for size in (3, 5, 1):
        plain = {"strides": (1, 1), "dilations": (1, 1)}
        x = c.op("conv", c.input(1, 8, 9, 9), c.weight(16, 8, 1, 1), **plain, pads=(0,) * 4)
        padded = {**plain, "pads": (size // 2,) * 4}
        c.output(c.op("conv", x, c.weight(8, 16, size, size), **padded))


def test_kernels_that_differ_in_widths_of_borders_are_one_task(tmp_path: Path) -> None:
    tunable = opened(bordered, "x86-64-v3", tmp_path)
    calls: dict[str, list[int]] = {}
    for task in tunable.tasks:
        calls.setdefault(task.choice_key.partition("+")[0], []).append(task.calls)
    assert [1, 2] in [sorted(found) for found in calls.values()]
    assert len({task.choice_key for task in tunable.tasks}) == len(tunable.tasks)


def test_neighbours_are_one_step_away(tmp_path: Path) -> None:
    tunable = opened(product, "x86-64-v4", tmp_path)
    [task] = tunable.tasks
    base = tunable.base(task)
    assert {c.steps for c in tunable.neighbours(task, base)} == {1}
    far = tunable.candidates(task)[-1]
    assert far.key not in {c.key for c in tunable.neighbours(task, far)}


def test_other_choices_are_refused(tmp_path: Path) -> None:
    tunable = opened(product, "x86-64-v4", tmp_path)
    [task] = tunable.tasks
    choice = dict(tunable.base(task).choice)
    with pytest.raises(ScheduleError, match="winograd"):
        tunable.candidate(task, {**choice, "form": "winograd 2x2 block 4 groups 1"})
    with pytest.raises(ScheduleError, match="illegal"):
        tunable.candidate(task, {**choice, "parallel": 9})


def network(c: CaseBuilder) -> None:
    """Convolutions one behind the other, a residual, a product."""
    x = c.op("max", c.input(1, 16, 12, 12, name="x"), c.scalar(0))
    y = c.op("max", c.op("conv", x, c.weight(32, 16, 3, 3), **WINDOW), c.scalar(0))
    z = c.op("add", y, c.op("conv", y, c.weight(32, 32, 3, 3), **WINDOW))
    flat = c.op("reshape", z, shape=(32, 144))
    c.output(c.op("softmax", c.op("matmul", flat, c.weight(144, 40)), axis=1))


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_any_exact_candidates_together_change_no_bit(
    seed: int, target: str, tmp_path: Path
) -> None:
    """Every kernel of a model gets another choice, by the keys of its tasks."""
    rng = random.Random(seed)
    tunable = opened(network, target, tmp_path)
    given = {}
    for task in tunable.tasks:
        exact = [c for c in tunable.candidates(task) if c.exact]
        given[task.choice_key] = rng.choice(exact[1:] or exact).choice
    graphs = []
    for _ in range(2):
        c = CaseBuilder("network")
        network(c)
        graphs.append(c.graph())
    x = np.random.default_rng(seed).uniform(-2, 2, (1, 16, 12, 12)).astype(np.float32)
    jobs = {"plain": Job(graphs[0], {"x": x}), "tuned": Job(graphs[1], {"x": x}, Choices(given))}
    found = run_all(jobs, Setting(target, 2), tmp_path)
    plain, tuned = found["plain"], found["tuned"]
    assert isinstance(plain, dict)
    assert isinstance(tuned, dict)
    assert {name: array.tobytes() for name, array in plain.items()} == {
        name: array.tobytes() for name, array in tuned.items()
    }


# digests --------------------------------------------------------------------------------------


def test_digests_are_those_of_machine_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in any batch; others where another emitter makes other code."""
    tunable = opened(deep, "x86-64-v4", tmp_path)
    [task] = tunable.tasks
    candidates = tunable.candidates(task)[:4]
    one = {built.candidate: built.code for built in tunable.codes(task, candidates)}
    again = opened(deep, "x86-64-v4", tmp_path)
    batch = again.build(task, [candidates[0], *reversed(candidates[1:])])
    assert {built.candidate: built.code for built in batch.built} == one
    assert len(set(one.values())) > 1

    base, winner = candidates[0], candidates[1]
    verdict = Verdict(base.choice, winner.choice, one[base.key], one[winner.key])
    assert why_changed(again, task, verdict) == ""
    assert "none any more" in why_changed(again, task, replace(verdict, choice={"stages": [{}]}))
    assert "choice's machine code" in why_changed(again, task, replace(verdict, digest="0"))
    monkeypatch.setattr(reduction, "parts_of_sum", lambda *_: 2)
    changed = opened(deep, "x86-64-v4", tmp_path)
    assert "own machine code is not what was measured" in why_changed(changed, task, verdict)
