"""Winograd convolutions of bytes that were made words: the integers of the reference, all of them.

Plans are run by numpy, and one by the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import needs_native
from plan_runs import PlannedGraph
from suites.case import I8, I16, I32, U8, CaseBuilder

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import Graph, Node, constant
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.kernel.forms.winograd_transforms import Tiling, words_hold
from tensmith.compiler.kernel.forms.winograd_words import Sums
from tensmith.compiler.target import CpuTarget
from tensmith.runtime.loader import load

Array = np.ndarray[Any, Any]
BEST = "tensmith.compiler.kernel.forms.winograd_choice.best_tilings"
V3 = resolve_target("x86-64-v3")[1]
WINDOW = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


def convolution(
    shape: tuple[int | str, ...], outputs: int, weights: Array | None = None, **attrs: Any
) -> Graph:
    """Bytes of which a bit is turned, and their convolution, with their zero point around."""
    c = CaseBuilder("words")
    x = c.input(*(symbol(n) if isinstance(n, str) else n for n in shape), dtype=U8, name="x")
    taps, own = attrs.pop("taps", (3, 3)), {**WINDOW, "groups": 1, "pad_value": 3, **attrs}
    filters = (outputs, int(shape[1]) // own["groups"], *taps)
    w = c.weight(*filters, dtype=I8, low=-128, high=128) if weights is None else constant(weights)
    total = c.op("conv", c.op("bitxor", x, c.scalar(1, U8)), w, accumulate=I32, **own)
    c.output(c.op("add", total, c.weight(outputs, 1, 1, dtype=I32, low=-999, high=999)))
    return c.graph()


def tiles_of(m: int) -> Callable[..., tuple[Tiling, ...]]:
    def best(conv: Node, *_: object) -> tuple[Tiling, ...]:
        pairs = zip(conv.inputs[1].shape[:2], conv.attrs["dilations"], strict=True)
        return tuple(Tiling(m, 3, step) if n == 3 else Tiling(1, 1) for n, step in pairs)

    return best


def forms(planned: PlannedGraph) -> list[str]:
    return [kernel.choice.form for kernel in planned.plan.kernels if kernel.choice.form]


def planned(graph: Graph, *arrays: Array) -> list[str]:
    """The forms of the kernels of the graph's plan, which computes what the reference does."""
    [name] = [value.name for value in graph.outputs]
    wanted = [run_graph(graph, {"x": x})[name] for x in arrays]
    made = PlannedGraph(graph, V3)
    for x, want in zip(arrays, wanted, strict=True):
        np.testing.assert_array_equal(made.run({"x": x})[name], want)
    return forms(made)


def picture(*shape: int) -> Array:
    return np.random.default_rng(5).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(
    ("shape", "outputs", "attrs"),
    [
        ((1, 16, 7, 6), 24, {}),
        ((2, 8, 5, 9), 16, {"pad_value": 0}),
        ((1, 8, 8, 9), 16, {"dilations": (2, 2), "pads": (2,) * 4}),
        ((1, 32, 6, 5), 32, {"groups": 2}),
        ((1, 16, 6, 7), 16, {"taps": (1, 3), "pads": (0, 1, 0, 1)}),
    ],
)
def test_sums_are_exact(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    outputs: int,
    attrs: dict[str, Any],
    m: int,
) -> None:
    monkeypatch.setattr(BEST, tiles_of(m))
    [form] = planned(convolution(shape, outputs, **attrs), picture(*shape))
    assert form.startswith(f"winograd {1 if 'taps' in attrs else m}x{m}")


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, 1)])
def test_the_largest_numbers_fit(
    monkeypatch: pytest.MonkeyPatch, signs: tuple[int, ...], weight: int
) -> None:
    """Filters of which nothing cancels at a point, and pictures of which nothing does in a tile."""
    monkeypatch.setattr(BEST, tiles_of(2))
    filters = np.multiply.outer(signs, signs) * weight
    filters = np.clip(np.broadcast_to(filters, (8, 256, 3, 3)), -128, 127).astype(np.int8)
    alternating = np.broadcast_to((np.indices((4, 6)).sum(0) % 2) * 254, (1, 256, 4, 6))
    for x in (alternating, np.full_like(alternating, 254)):
        assert planned(convolution((1, 256, 4, 6), 8, filters, pad_value=255), x.astype(np.uint8))


SIGNS_OF_SIX = [  # of what every point makes of a line of a tile
    (1, 0, -1, 0, 1, 0),
    (0, -1, -1, 1, 1, 0),
    (0, 1, -1, -1, 1, 0),
    (0, -1, -1, 1, 1, 0),
    (0, 1, -1, -1, 1, 0),
    (0, 1, 0, -1, 0, 1),
]


@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, 1)])
def test_the_largest_numbers_fit_tiles_of_four(
    monkeypatch: pytest.MonkeyPatch, signs: tuple[int, ...]
) -> None:
    """A tile of bytes for every pair of points, of which none that counts is taken off others."""
    monkeypatch.setattr(BEST, tiles_of(4))
    filters = np.multiply.outer(signs, signs) * 128
    filters = np.clip(np.broadcast_to(filters, (8, 64, 3, 3)), -128, 127).astype(np.int8)
    pairs = [np.multiply.outer(*pair) for pair in product(SIGNS_OF_SIX, repeat=2)]
    tiles = np.stack([np.where(s * sign > 0, 254, 1) for s in pairs for sign in (1, -1)])
    x = np.broadcast_to(tiles[:, None], (len(tiles), 64, 6, 6)).astype(np.uint8)
    graph = convolution(x.shape, 8, filters, pads=(0,) * 4, pad_value=0)
    [form] = planned(graph, x)
    assert form.startswith("winograd 4x4")


def test_tiles_that_lose_nothing() -> None:
    """16 bits hold transforms, 32 the part of a result's factor that is a power of two: 64 times
    a sum for tiles of four, 4 times for tiles of two."""
    four, two = (Tiling(4, 3),) * 2, (Tiling(2, 3),) * 2
    assert Sums((1 << 25) - 1).holds(four)
    assert not Sums(1 << 25).holds(four)
    assert Sums(1 << 25).holds(two)
    assert not words_hold((Tiling(2, 5),) * 2)
    assert words_hold((Tiling(1, 1), Tiling(2, 5)))
    assert not words_hold((Tiling(1, 1), Tiling(6, 3)))


def test_tiles_of_two_where_those_of_four_lose() -> None:
    """Weights of one sign, whose sums are large."""
    found = {}
    for weight in (100, 3):
        filters = np.full((64, 256, 3, 3), weight, np.int8)
        [found[weight]] = planned(convolution((1, 256, 28, 28), 64, filters))
    assert [form[:12] for form in found.values()] == ["winograd 2x2", "winograd 4x4"]


@pytest.mark.parametrize("name", ["x86-64-v3", "znver4"])
@pytest.mark.parametrize("shape", [(1, 64, 28, 28), (1, 64, "h", "w")])
def test_they_are_chosen(name: str, shape: tuple[int | str, ...]) -> None:
    """Where fewer multiplications take less time: a word counts as much as a float, and two words,
    where there are instructions for bytes, as much as four of these."""
    _, target = resolve_target(name)
    assert isinstance(target, CpuTarget)
    assert ("vnni" in target.instructions) == (name == "znver4")
    found = forms(PlannedGraph(convolution(shape, 64), target))
    assert [form[:12] for form in found] == ["winograd 4x4"]


@needs_native
@pytest.mark.parametrize("name", ["x86-64-v3", "native"])
@pytest.mark.parametrize(
    ("shape", "sizes"), [((1, 64, 28, 28), [(28, 28)]), ((1, 64, "h", "w"), [(1, 3), (9, 13)])]
)
def test_the_processor_computes_them(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    shape: tuple[int | str, ...],
    sizes: list[tuple[int, int]],
) -> None:
    """Whatever it would take by itself."""
    monkeypatch.setattr(BEST, tiles_of(4))
    backend, target = resolve_target(name)
    options = CompileOptions(name="m", work_dir=tmp_path)
    compilation = backend.compile(convolution(shape, 64), target, options, Stages())
    found = [kernel.choice["form"] for kernel in compilation.kernels if kernel.choice.get("form")]
    assert [form[:12] for form in found] == ["winograd 4x4"]
    link(compilation.model, "so", tmp_path / "m.so")
    module = load(tmp_path / "m.so", threads=1)
    for extents in sizes:
        x = picture(1, 64, *extents)
        want = run_graph(convolution(shape, 64), {"x": x})
        for name, got in module({"x": x}).items():
            np.testing.assert_array_equal(got, want[name])


def test_few_channels_are_multiplied_as_they_are() -> None:
    assert not planned(convolution((1, 8, 6, 6), 4), picture(1, 8, 6, 6))


def test_words_that_were_no_bytes_are_multiplied_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their transforms could leave 16 bits."""
    monkeypatch.setattr(BEST, tiles_of(2))
    c = CaseBuilder("other words")
    x = c.op("max", c.input(1, 16, 6, 6, dtype=I16, name="x"), c.scalar(9, I16))
    w = c.weight(16, 16, 3, 3, dtype=I16, low=-128, high=128)
    c.output(c.op("conv", x, w, accumulate=I32, groups=1, pad_value=0, **WINDOW))
    x = np.full((1, 16, 6, 6), 32767, np.int16)
    assert not planned(c.graph(), x)


@pytest.mark.parametrize(("channels", "fits"), [(1824, True), (1840, False)])
def test_four_times_a_sum_fits(monkeypatch: pytest.MonkeyPatch, channels: int, fits: bool) -> None:
    """Results are four times what they should be before they are halved twice."""
    monkeypatch.setattr(BEST, tiles_of(2))
    filters = np.full((8, channels, 3, 3), -128, np.int8)
    x = np.full((1, channels, 4, 4), 254, np.uint8)
    assert bool(planned(convolution(x.shape, 8, filters), x)) is fits
