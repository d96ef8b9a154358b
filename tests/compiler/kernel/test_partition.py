"""Which loops of a kernel threads divide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kernels import fused_nodes
from suites.case import CaseBuilder, N, S

from tensmith.backends.common.link import link
from tensmith.backends.llvm.pipeline import make_plan
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import UsageError
from tensmith.compiler.ir import Graph
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import Kernel
from tensmith.compiler.kernel.plan.plan import KernelCall
from tensmith.compiler.kernel.schedule.heuristic import default_schedule
from tensmith.compiler.kernel.schedule.partition import by_rows, is_by_rows, outer_loops
from tensmith.compiler.kernel.schedule.schedule import Schedule
from tensmith.runtime.loader import load

TARGET = resolve_target("x86-64-v3")[1]


def product(rows: int, depth: int, columns: int) -> tuple[Kernel, Schedule]:
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(rows, depth), c.weight(depth, columns)))
    [node] = fused_nodes(c.graph())
    kernel = lower_region(node.regions[0]).kernel
    return kernel, default_schedule(kernel, TARGET)


def test_small_weights_are_read_by_all() -> None:
    kernel, schedule = product(784, 192, 64)
    divided = by_rows(kernel, schedule, following=False)
    [own] = divided.stages
    assert next(name for name, _ in outer_loops(kernel, schedule)) == own.tile.vector
    assert outer_loops(kernel, divided) == [(own.tile.row, own.tile.rows)]
    assert is_by_rows(kernel, divided)
    assert not is_by_rows(kernel, schedule)


@pytest.mark.parametrize(
    "shape", [(49, 960, 160), (784, 512, 2048)], ids=["more than the rows", "large"]
)
def test_large_weights_are_divided(shape: tuple[int, int, int]) -> None:
    kernel, schedule = product(*shape)
    assert by_rows(kernel, schedule, following=True) == schedule


@pytest.mark.parametrize(("heads", "loops"), [(12, 1), (2, 2)])
def test_more_than_a_batch_is_divided(heads: int, loops: int) -> None:
    """A batch of unknown size may be one, heads or not."""
    c = CaseBuilder("scores")
    c.output(c.op("matmul", c.input(N, heads, S, 64), c.input(N, heads, 64, S)))
    [node] = fused_nodes(c.graph())
    kernel = lower_region(node.regions[0]).kernel
    names = [name for name, _ in outer_loops(kernel, default_schedule(kernel, TARGET))]
    extents = {axis.name: axis.extent for axis in kernel.stages[0].axes}
    assert [extents[name] for name in names] == [heads * N, S][:loops]


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions have kernels of their own."""
    monkeypatch.setattr("tensmith.compiler.kernel.forms.bands_choice.MIN_BETWEEN_BYTES", 1 << 30)


def residual(size: int, channels: int, wide: int) -> Graph:
    """An inverted residual: 1x1, depthwise, 1x1."""
    c = CaseBuilder("residual")
    plain = {"strides": (1, 1), "dilations": (1, 1), "layout": "NHWC"}
    point, window = {**plain, "pads": (0,) * 4}, {**plain, "pads": (1,) * 4}
    x = c.input(1, size, size, channels)
    y = c.op("conv", x, c.weight(1, 1, channels, wide), c.weight(wide), **point, groups=1)
    y = c.op("max", y, c.scalar(0))
    y = c.op("conv", y, c.weight(3, 3, 1, wide), c.weight(wide), **window, groups=wide)
    y = c.op("max", y, c.scalar(0))
    y = c.op("conv", y, c.weight(1, 1, wide, channels), c.weight(channels), **point, groups=1)
    c.output(c.op("add", x, y))
    return c.graph()


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    ("size", "channels", "rows"), [(28, 32, True), (7, 160, False)], ids=["pixels", "channels"]
)
def test_depthwise_follows(tmp_path: Path, size: int, channels: int, rows: bool) -> None:
    options = CompileOptions("m", tmp_path, threads=2)
    plan = make_plan(residual(size, channels, 6 * channels), TARGET, options, Stages())
    called = [plan.kernels[step.kernel] for step in plan.steps if isinstance(step, KernelCall)]
    convs = [k for k in called if "conv" in k.kernel.operators]
    assert len(convs) == 3
    assert {is_by_rows(k.kernel, k.schedule) for k in convs} == {rows}


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_matches_the_reference(tmp_path: Path, threads: int) -> None:
    try:
        backend, resolved = resolve_target("native")
    except UsageError:
        pytest.skip("this machine has no native target")
    graph = residual(19, 24, 144)
    x = np.random.default_rng(0).standard_normal((1, 19, 19, 24), np.float32)
    [want] = run_graph(residual(19, 24, 144), {graph.inputs[0].name: x}).values()
    name = graph.inputs[0].name
    options = CompileOptions("m", tmp_path, threads=threads)
    link(backend.compile(graph, resolved, options, Stages()).model, "so", tmp_path / "m.so")
    model = load(tmp_path / "m.so", threads=threads)
    for _ in range(3):
        [got] = model({name: x}).values()
        assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()
