"""Winograd's algorithm for windows of three taps at stride 2: every second tap by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import needs_native
from plan_runs import PlannedGraph
from suites.case import CaseBuilder

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import Dim, Graph, Node
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.kernel.forms.winograd_choice import best_tilings
from tensmith.compiler.kernel.forms.winograd_transforms import Tiling, filter_matrix, tilings_of
from tensmith.compiler.target import CpuTarget
from tensmith.runtime.loader import load

BEST = "tensmith.compiler.kernel.forms.winograd_choice.best_tilings"
V3, V4 = (resolve_target(name)[1] for name in ("x86-64-v3", "x86-64-v4"))


def convolution(
    shape: Sequence[Dim],
    outputs: int,
    pads: Sequence[int] = (1, 1, 1, 1),
    taps: Sequence[int] = (3, 3),
    strides: Sequence[int] = (2, 2),
    dilations: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Graph:
    """x -> tanh -> conv -> + bias -> relu, channels first: what is convolved has a border."""
    c = CaseBuilder("strided")
    assert isinstance(shape[1], int)
    x = c.op("tanh", c.input(*shape, name="x"))
    w = c.weight(outputs, shape[1] // groups, *taps)
    window = {"strides": tuple(strides), "pads": tuple(pads), "dilations": tuple(dilations)}
    y = c.op("conv", x, w, c.weight(outputs), groups=groups, **window)
    c.output(c.op("max", y, c.scalar(0)))
    return c.graph()


def best(conv: Node, *_: object) -> tuple[Tiling, ...] | None:
    """Tiles, whatever they cost."""
    found = tilings_of(
        conv.inputs[1].type.static_shape[:-2], conv.attrs["dilations"], conv.attrs["strides"]
    )
    return next((tilings for tilings in found if any(t.stride == 2 for t in tilings)), None)


def picture(shape: Sequence[int]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        ((1, 8, 12, 12), {}),
        ((2, 8, 9, 14), {"pads": (0, 0, 1, 1)}),
        ((1, 8, 11, 7), {"pads": (0, 0, 0, 0)}),
        ((1, 8, 13, 9), {"pads": (2, 1, 0, 2)}),
        ((1, 16, 10, 11), {"groups": 2}),
        ((1, 8, 9, 16), {"strides": (1, 2)}),
        ((1, 8, 1, 21), {"taps": (1, 3), "strides": (1, 2), "pads": (0, 1, 0, 1)}),
    ],
)
def test_plans_compute_the_convolution(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], attrs: dict[str, Any]
) -> None:
    """No tile reads what lies beyond a picture and its border."""
    monkeypatch.setattr(BEST, best)
    graph, x = convolution(shape, 16, **attrs), picture(shape)
    (want,) = run_graph(graph, {"x": x}).values()
    made = PlannedGraph(graph, V3)
    forms = [kernel.choice.form for kernel in made.plan.kernels if kernel.choice.form]
    assert [form.split()[0] for form in forms] == ["winograd"]
    (got,) = made.run({"x": x}).values()
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@needs_native
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("shape", "outputs", "groups"),
    [((1, 32, 26, 23), 48, 1), ((2, 40, 20, 20), 64, 1), ((1, 64, 15, 18), 64, 2)],
)
def test_compiled(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    shape: tuple[int, ...],
    outputs: int,
    groups: int,
    threads: int,
) -> None:
    monkeypatch.setattr(BEST, best)
    graph, x = convolution(shape, outputs, groups=groups), picture(shape)
    (want,) = run_graph(graph, {"x": x}).values()
    backend, target = resolve_target("native")
    options = CompileOptions(name="m", work_dir=tmp_path, threads=threads)
    made = backend.compile(graph, target, options, Stages())
    assert [k.choice["form"] for k in made.kernels if k.choice.get("form")]
    link(made.model, "so", tmp_path / "m.so")
    with load(tmp_path / "m.so", threads=threads) as module:
        (got,) = module({"x": x}).values()
    assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()


def test_phases_have_every_tap_once() -> None:
    """F(2, 2) of the outer taps, at 0, 1 and infinity, and two products by the inner one."""
    tiling = Tiling(2, 3, stride=2)
    assert [phase.points for phase in tiling.phases] == [3, 2]
    assert tiling.points == 5
    want = [[-1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]]
    np.testing.assert_array_equal(filter_matrix(tiling), want)


def chosen(
    shape: Sequence[Dim], outputs: int, target: CpuTarget = V4, **attrs: Any
) -> tuple[Tiling, ...] | None:
    """The tiles that the convolution of a graph takes, channels last."""
    (conv,) = (n for n in convolution(shape, outputs, **attrs).nodes if n.op == "conv")
    n, channels, *sizes = shape
    c = CaseBuilder("last")
    w = conv.inputs[1].type.static_shape
    last = {**conv.attrs, "layout": "NHWC"}
    y = c.op("conv", c.input(n, *sizes, channels), c.weight(*w[2:], w[1], w[0]), **last)
    assert y.producer is not None
    return best_tilings(y.producer, target)


def test_where_it_pays() -> None:
    for shape, outputs in (((1, 64, 56, 56), 128), ((1, 128, 28, 28), 256), ((1, 64, 80, 80), 128)):
        for target in (V3, V4):
            found = chosen(shape, outputs, target)
            assert found is not None, (shape, target.name)
            assert {t.stride for t in found} == {2}


@pytest.mark.parametrize(
    ("shape", "outputs", "attrs"),
    [
        ((1, 3, 224, 224), 64, {}),
        ((1, 256, 14, 14), 512, {}),
        ((1, 64, 56, 56), 64, {"strides": (3, 3)}),
        ((1, 64, 56, 56), 64, {"taps": (5, 5), "pads": (2,) * 4}),
        ((1, 64, 56, 56), 64, {"taps": (1, 1), "pads": (0,) * 4}),
        ((1, 64, 56, 56), 64, {"dilations": (2, 2)}),
        ((1, 64, 56, 56), 64, {"groups": 64}),
        ((1, 64, symbol("h"), symbol("w")), 128, {}),
    ],
    ids=["few channels", "half-empty tiles", "stride 3", "five taps", "one tap", "apart",
         "depthwise", "open sizes"],
)  # fmt: skip
def test_where_it_does_not(shape: Sequence[Dim], outputs: int, attrs: dict[str, Any]) -> None:
    assert chosen(shape, outputs, **attrs) is None
