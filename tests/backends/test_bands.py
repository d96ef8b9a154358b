"""Two convolutions in bands of rows: the same results, and where they are chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled import needs_native
from suites.case import CaseBuilder

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import Compilation, CompileOptions, Stages
from tensmith.compiler.ir import DType, Graph, TensorType, Value
from tensmith.compiler.ir.ops.registry import make_node
from tensmith.compiler.kernel.forms import bands_choice
from tensmith.compiler.kernel.forms.bands import Bands
from tensmith.compiler.kernel.forms.bands_choice import bands_form
from tensmith.runtime.loader import load

pytestmark = needs_native
BANDS = "tensmith.compiler.kernel.forms.bands_choice"
V3 = resolve_target("x86-64-v3")[1]


def set_band_bytes(patch: pytest.MonkeyPatch, size: int, target: str = "x86-64-v3") -> None:
    """Bands hold so many bytes, whatever caches the target has."""
    cache = max(resolve_target(target)[1].l2_bytes, bands_choice.LEAST_CACHE)
    patch.setattr(f"{BANDS}.BAND_SHARES", (size / cache,))


def network(
    shape: tuple[int, ...],
    wide: int,
    kernel: int,
    stride: int,
    *,
    function: str = "sigmoid",
    read_twice: bool = False,
) -> Graph:
    """A convolution that expands, a function, a depthwise convolution, a maximum."""
    c = CaseBuilder("inverted")
    pad = kernel // 2
    plain = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
    window = {
        "strides": (stride, stride),
        "pads": (pad, pad, pad, pad),
        "dilations": (1, 1),
        "groups": wide,
    }
    expanded = c.op(
        "conv", c.input(*shape), c.weight(wide, shape[1], 1, 1), c.weight(wide), **plain
    )
    active = c.op(function, expanded)
    filtered = c.op("conv", active, c.weight(wide, 1, kernel, kernel), c.weight(wide), **window)
    c.output(c.op("max", filtered, c.scalar(0.1)))
    if read_twice:
        c.output(c.op("neg", active))
    return c.graph()


def compiled(
    graph: Graph, folder: Path, target: str = "x86-64-v3", threads: int = 1
) -> Compilation:
    backend, resolved = resolve_target(target)
    options = CompileOptions("m", folder, threads=threads)
    found = backend.compile(graph, resolved, options, Stages())
    link(found.model, "so", folder / "m.so")
    return found


def merged(found: Compilation) -> int:
    return sum(kernel.operators.count("conv") == 2 for kernel in found.kernels)


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
@pytest.mark.parametrize(
    ("shape", "wide", "kernel", "stride"),
    [
        ((1, 8, 20, 20), 24, 3, 1),
        ((2, 8, 19, 22), 32, 3, 2),
        ((1, 4, 17, 9), 48, 5, 1),
        ((3, 4, 23, 15), 16, 5, 2),
        ((1, 3, 16, 16), 40, 1, 2),
    ],
)
def test_matches_the_reference(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    target: str,
    shape: tuple[int, ...],
    wide: int,
    kernel: int,
    stride: int,
) -> None:
    monkeypatch.setattr(f"{BANDS}.MIN_BETWEEN_BYTES", 0)
    monkeypatch.setattr(f"{BANDS}.SLOW_BYTES_PER_CYCLE", 1e-3)
    set_band_bytes(monkeypatch, 9 * (shape[3] + kernel) * wide * 4, target)
    graph = network(shape, wide, kernel, stride)
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    want = run_graph(network(shape, wide, kernel, stride), {graph.inputs[0].name: x})
    found = compiled(graph, tmp_path, target)
    assert target == "native" or merged(found) == 1
    for threads in (1, 2):
        got = load(tmp_path / "m.so", threads=threads)({graph.inputs[0].name: x})
        for name, array in want.items():
            assert np.abs(got[name] - array).max() <= 2e-5 * np.abs(array).max()


def test_only_what_no_other_node_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(f"{BANDS}.MIN_BETWEEN_BYTES", 0)
    monkeypatch.setattr(f"{BANDS}.SLOW_BYTES_PER_CYCLE", 1e-3)
    graph = network((1, 8, 20, 20), 24, 3, 1, read_twice=True)
    assert merged(compiled(graph, tmp_path)) == 0


def test_not_what_a_branch_returns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(f"{BANDS}.MIN_BETWEEN_BYTES", 0)
    monkeypatch.setattr(f"{BANDS}.SLOW_BYTES_PER_CYCLE", 1e-3)

    def build() -> Graph:
        c = CaseBuilder("branch")  # channels last, so that the branch gets the very value
        plain = {"strides": (1, 1), "dilations": (1, 1), "layout": "NHWC"}
        between = c.op("conv", c.input(1, 20, 20, 8), c.weight(1, 1, 8, 24), **plain,
                       pads=(0, 0, 0, 0), groups=1)  # fmt: skip
        c.output(c.op("conv", between, c.weight(3, 3, 1, 24), **plain, pads=(1,) * 4, groups=24))
        graph = c.graph()
        condition = Value(TensorType(DType.BOOL, ()), "condition")
        branches = [Graph([], [between], []), Graph([], [graph.outputs[0]], [])]
        chosen = make_node("if", [condition], {"bound": ()}, regions=branches)
        chosen.output.name = "chosen"
        return Graph([*graph.inputs, condition], [chosen.output], [*graph.nodes, chosen])

    x = np.random.default_rng(1).standard_normal((1, 20, 20, 8), np.float32)
    name = build().inputs[0].name
    assert merged(compiled(build(), tmp_path)) == 0
    module = load(tmp_path / "m.so")
    for condition in (True, False):
        feed = {name: x, "condition": np.array(condition)}
        want = run_graph(build(), feed)["chosen"]
        np.testing.assert_allclose(module(feed)["chosen"], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("threads", "count"), [(1, 3), (2, 4), (3, 3), (4, 4)])
def test_threads_get_as_many_bands(
    monkeypatch: pytest.MonkeyPatch, threads: int, count: int
) -> None:
    monkeypatch.setattr(f"{BANDS}.MIN_BETWEEN_BYTES", 0)
    monkeypatch.setattr(f"{BANDS}.SLOW_BYTES_PER_CYCLE", 1e-3)
    set_band_bytes(monkeypatch, 20 * 35 * 48 * 4)
    region = both_convolutions()
    form = bands_form(region, V3, threads)
    assert form is not None
    first, second = (node for node in region.nodes if node.op == "conv")
    assert (Bands(first, second, form).count, form.block) == (count, 48)


@pytest.mark.parametrize("channels", [32, 48, 96, 112, 120, 128])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rows", [9, 64])
def test_blocks_of_channels_and_whole_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, channels: int, stride: int, rows: int
) -> None:
    monkeypatch.setattr(f"{BANDS}.MIN_BETWEEN_BYTES", 0)
    monkeypatch.setattr(f"{BANDS}.SLOW_BYTES_PER_CYCLE", 1e-3)
    set_band_bytes(monkeypatch, rows * 20 * (120 if channels == 120 else 48) * 4)
    shape = (2, 24, 17, 18)
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    graph = network(shape, channels, 3, stride)
    want = run_graph(network(shape, channels, 3, stride), {graph.inputs[0].name: x})
    found = compiled(graph, tmp_path)
    assert merged(found) == 1
    got = load(tmp_path / "m.so", threads=2)({graph.inputs[0].name: x})
    for name, array in want.items():
        assert np.abs(got[name] - array).max() <= 2e-5 * np.abs(array).max()


def both_convolutions() -> Graph:
    """A region of a 1x1 and a depthwise convolution."""
    c = CaseBuilder("region")
    plain = {"strides": (1, 1), "dilations": (1, 1), "layout": "NHWC"}
    x = c.input(1, 48, 33, 16)
    y = c.op("conv", x, c.weight(1, 1, 16, 96), c.weight(96), **plain, pads=(0,) * 4, groups=1)
    y = c.op("max", y, c.scalar(0))
    c.output(c.op("conv", y, c.weight(3, 3, 1, 96), **plain, pads=(1,) * 4, groups=96))
    return c.graph()


@pytest.mark.parametrize(
    ("shape", "threads", "count"),
    [
        ((1, 16, 14, 14), 1, 0),  # what is between stays in cache anyway
        ((1, 16, 28, 28), 1, 1),
        ((1, 200, 28, 28), 2, 0),  # two bands would compute too much twice
        ((1, 16, 160, 160), 2, 1),
    ],
)
def test_only_where_it_saves(
    tmp_path: Path, shape: tuple[int, ...], threads: int, count: int
) -> None:
    graph = network(shape, 96, 3, 2, function="abs")
    assert merged(compiled(graph, tmp_path, threads=threads)) == count


def test_short_reductions_mostly_stay_in_registers(tmp_path: Path) -> None:
    backend, resolved = resolve_target("x86-64-v3")
    options = CompileOptions("m", tmp_path, texts=frozenset({"asm"}))
    graph = network((1, 16, 112, 112), 96, 3, 2)
    found = backend.compile(graph, resolved, options, Stages())
    assert merged(found) == 1
    products = [line for line in found.model.code.texts["asm"].splitlines() if "\tvfm" in line]
    spilled = [line for line in products if "(%rsp)" in line]
    assert products
    # over half of them with twice as much written out; a quarter is left, most of it windows
    assert len(spilled) < 0.4 * len(products)


def test_bands_grow_with_the_cache() -> None:
    c = CaseBuilder("large")
    plain = {"strides": (1, 1), "dilations": (1, 1), "layout": "NHWC"}
    wide = c.op("conv", c.input(1, 112, 112, 16), c.weight(1, 1, 16, 96), **plain, pads=(0,) * 4,
                groups=1)  # fmt: skip
    c.output(c.op("conv", wide, c.weight(3, 3, 1, 96), **plain, pads=(1,) * 4, groups=96))
    region = c.graph()
    forms = [
        bands_form(region, replace(V3, l2_bytes=size << 10)) for size in (256, 1024, 2048, 4096)
    ]
    rows = [form.rows for form in forms if form is not None]
    assert rows[0] == rows[1] < rows[2] < rows[3]
