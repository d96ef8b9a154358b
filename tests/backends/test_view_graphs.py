"""Every form and schedule of a kernel on views of tensors of unknown sizes, against numpy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from compiled import Library, Setting
from view_graphs import IMAGE_USES, IMAGE_VIEWS, SIZES, USES, VIEWS, feed, image_graph, row_graph

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph

SOME = {
    "x86-64-v3": (
        [(v, "product") for v in ("row", "first", "one_head", "heads_merged", "transposed_batch")],
        [("part", "plain"), ("one", "strided")],
    ),
    "native": (
        [("first", use) for use in ("gates", "two_layers", "side_by_side")]
        + [("row_of_three", "layer"), ("backwards_inside", "layer"), ("gap", "attention")],
        [("static", "plain"), ("heads", "depthwise")],
    ),
}
DEPTH_IN_BLOCKS = 4096  # cut into blocks by every target's caches
TOLERANCE = 1e-4  # of the largest element: long sums, behind which gates are steep


@pytest.fixture
def small_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of some hundred steps are cut into blocks, and small kernels shared by threads."""
    share = 12000 / resolve_target("x86-64-v3")[1].l2_bytes
    monkeypatch.setattr("tensmith.compiler.kernel.schedule.panels.PANEL_SHARE", share)
    monkeypatch.setattr("tensmith.compiler.kernel.schedule.panels.MIN_PREFETCH_BYTES", 1 << 10)
    monkeypatch.setattr("tensmith.compiler.kernel.schedule.resolve.FORK_OPERATIONS", 0)


def graphs(
    rows: Iterable[tuple[str, str]], images: Iterable[tuple[str, str]], depth: int = 256
) -> list[Graph]:
    return [row_graph(*row, depth) for row in rows] + [image_graph(*image) for image in images]


def check(made: list[Graph], setting: Setting, folder: Path, threads: Iterable[int]) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    library = Library({g.name: g for g in made}, setting, folder)
    assert not library.errors, library.errors
    wrong = []
    for graph in graphs_again(made):
        for sizes in SIZES:
            inputs = feed(graph, sizes)
            ((name, want),) = run_graph(graph, inputs).items()
            for count in threads:
                got = library.run(graph.name, inputs, count)
                if isinstance(got, Exception):
                    wrong.append(f"{graph.name} {sizes}: {got}")
                    break
                off = np.abs(got[name] - want).max(initial=0)
                if got[name].shape != want.shape or not off <= TOLERANCE * np.abs(want).max(
                    initial=1
                ):
                    wrong.append(f"{graph.name} {sizes} {count} threads: off by {off}")
    assert not wrong, "\n".join(wrong)


def graphs_again(made: list[Graph]) -> list[Graph]:
    """The graphs as they were before compilation rewrote them."""
    again = []
    for graph in made:
        parts = graph.name.split(".")
        image = parts[0] == "image"
        again.append(image_graph(*parts[1:]) if image else row_graph(*parts[:2], int(parts[2])))
    return again


@pytest.mark.parametrize("target", SOME)
@pytest.mark.usefixtures("small_panels")
def test_some_views(tmp_path: Path, target: str) -> None:
    check(graphs(*SOME[target]), Setting(target, 2), tmp_path, (1, 3))


def test_a_row_of_a_long_product(tmp_path: Path) -> None:
    made = graphs([("row", "product"), ("first", "layer")], (), DEPTH_IN_BLOCKS)
    check(made, Setting("x86-64-v3", 2), tmp_path, (1,))


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("target", ["native", "x86-64-v3", "aarch64"])
@pytest.mark.usefixtures("small_panels")
def test_every_view(tmp_path: Path, target: str, level: int, use: str) -> None:
    setting = Setting(target, level, target == "aarch64")
    check(graphs([(view, use) for view in VIEWS], ()), setting, tmp_path, (1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("use", IMAGE_USES)
@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("target", ["native", "x86-64-v3", "aarch64"])
@pytest.mark.usefixtures("small_panels")
def test_every_image(tmp_path: Path, target: str, level: int, use: str) -> None:
    setting = Setting(target, level, target == "aarch64")
    check(graphs((), [(view, use) for view in IMAGE_VIEWS]), setting, tmp_path, (1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("use", ["product", "layer", "gates", "left", "two_layers", "with_itself"])
@pytest.mark.parametrize("target", ["native", "x86-64-v3", "aarch64"])
def test_every_view_of_a_long_product(tmp_path: Path, target: str, use: str) -> None:
    made = graphs([(view, use) for view in VIEWS], (), DEPTH_IN_BLOCKS)
    check(made, Setting(target, 2, target == "aarch64"), tmp_path, (1, 2))
