"""Candidates of CPU kernels: each is built, does what the base does, and is told where not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from suites.case import CaseBuilder

from tensmith.backends.llvm.tuning.measurer import CpuMeasurer
from tensmith.backends.llvm.tuning.tunable import CpuTunable
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.tuning.task import BASE, Candidate, Task, Turn

TARGETS = ("x86-64-v3", "x86-64-v4")
WINDOW = {"strides": (1, 1), "dilations": (1, 1), "pads": (1,) * 4}
TRIED = 12  # candidates of a task, beside the base
SHORT = 0.0005  # seconds
Build = Callable[[CaseBuilder], None]


def product(c: CaseBuilder) -> None:
    y = c.op("matmul", c.input(21, 96), c.weight(96, 37))
    c.output(c.op("max", c.op("add", y, c.weight(37)), c.scalar(0)))


def deep(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(4, 320), c.weight(320, 33)))


def convolution(c: CaseBuilder) -> None:
    x = c.op("max", c.input(1, 16, 14, 14), c.scalar(0))
    c.output(c.op("conv", x, c.weight(24, 16, 3, 3), **WINDOW, groups=1))


def depthwise(c: CaseBuilder) -> None:
    x = c.input(1, 96, 10, 9)
    c.output(c.op("conv", x, c.weight(96, 1, 3, 3), **WINDOW, groups=96))


def softmax(c: CaseBuilder) -> None:
    c.output(c.op("softmax", c.op("mul", c.input(7, 50), c.scalar(0.3)), axis=1))


BUILDS: tuple[Build, ...] = (product, deep, convolution, depthwise, softmax)


def opened(build: Build, target: str, folder: Path) -> CpuTunable:
    backend, parsed = resolve_target(target)
    c = CaseBuilder(build.__name__)
    build(c)
    assert backend.tuning is not None
    found = backend.tuning.open(c.graph(), parsed, CompileOptions("m", folder), Stages())
    assert isinstance(found, CpuTunable)
    return found


def some(tunable: CpuTunable, task: Task) -> list[Candidate]:
    """The base and some others, always the same."""
    found = tunable.candidates(task)
    others = found[1:]
    return [found[BASE], *random.Random(0).sample(others, min(TRIED, len(others)))]


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    backend, parsed = resolve_target(name)
    reason = backend.runs_here(parsed)
    native = resolve_target("native")[1]
    missing = set(parsed.features) - set(native.features)
    if reason or missing:
        pytest.skip(reason or f"this machine lacks {' '.join(sorted(missing))}")
    return name


@pytest.fixture
def measurer(target: str) -> Iterator[CpuMeasurer]:
    backend, parsed = resolve_target(target)
    assert backend.tuning is not None
    found = backend.tuning.measurer(parsed, "local")
    assert isinstance(found, CpuMeasurer)
    yield found
    found.close()


@pytest.mark.parametrize("build", BUILDS)
def test_candidates_do_what_the_base_does(
    build: Build, target: str, measurer: CpuMeasurer, tmp_path: Path
) -> None:
    tunable = opened(build, target, tmp_path)
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
