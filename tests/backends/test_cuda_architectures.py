"""One file whose kernels have other tiles for other GPUs; run on the driver that is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_models import onnx_model
from cuda_runs import GpuGraph, needs_triton
from onnx import helper
from suites.case import F16, F32, CaseBuilder

import tensmith
from tensmith.backends.cuda import alternatives
from tensmith.backends.cuda.candidates import shared_bytes
from tensmith.backends.cuda.compiling import Image
from tensmith.backends.cuda.fake import install as fake
from tensmith.backends.cuda.kernels import with_shape
from tensmith.backends.cuda.pipeline import form_kernels
from tensmith.backends.cuda.targets import TARGETS, targets_of
from tensmith.backends.cuda.tiles import problem_of
from tensmith.backends.cuda.variants import tiles_for
from tensmith.backends.cuda.vetting import Vetted
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir import Graph
from tensmith.compiler.kernel.schedule.choices import Choices, choices_json
from tensmith.compiler.kernel.schedule.tiles import Kind, Tiles

WEIGHTS = {"w": (12, 300), "v": (300, 24)}


def product() -> Graph:
    c = CaseBuilder("product")
    factors = c.input(2048, 4096, dtype=F16), c.input(4096, 2048, dtype=F16)
    c.output(c.op("matmul", *factors, accumulate=F32))
    return c.graph()


def model() -> tuple[Any, dict[str, Any]]:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape).astype("f4") for name, shape in WEIGHTS.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    return onnx_model(nodes, weights, 9), weights


def test_every_architecture_has_its_best_tiles() -> None:
    target = TARGETS["cuda"]
    (kernel,) = GpuGraph(product(), target).plan.kernels
    tiles = {number: own for number, (own,) in tiles_for(kernel.schedule, target).items()}
    assert tiles[80] != tiles[90]
    for number, own in targets_of(target).items():
        (alone,) = GpuGraph(product(), TARGETS[f"cuda:sm_{number}"]).plan.kernels
        assert number == 80 or (tiles[number],) == alone.schedule.tiles
        problem = problem_of(kernel.kernel.stages[-1], tiles[number])
        assert shared_bytes(problem, tiles[number]) <= own.shared_bytes
    assert targets_of(target)[80].shared_bytes == TARGETS["cuda:sm_86"].shared_bytes
    assert set(kernel.choice.to_json()) == {"tiles", "architectures"}


def test_contractions_are_hot_by_their_share_of_one_architecture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nearly all of the time of each GPU is that of one product, whose tiles differ by GPU."""
    c = CaseBuilder("products")
    for size in (2048, 128):
        factors = c.input(size, 2 * size, dtype=F16), c.input(2 * size, size, dtype=F16)
        c.output(c.op("matmul", *factors, accumulate=F32))
    target, options = TARGETS["cuda"], CompileOptions("model", Path())
    plan, kernels = form_kernels(c.graph(), target, options, Stages())
    found = alternatives.product_parts(plan, kernels, target)
    large = [own for own in found if own.problem.rows == 2048]
    assert len(large) > 1
    assert len(found) > len(large)
    monkeypatch.setattr(alternatives, "HOT", 0.9)
    assert alternatives._hot(plan, kernels, target, options) == large


def test_other_tiles_that_add_up_equally() -> None:
    (kernel,) = GpuGraph(product(), TARGETS["cuda:sm_90"]).plan.kernels
    (usual,) = kernel.schedule.tiles
    wide = replace(usual, rows=128)
    problem = problem_of(kernel.kernel.stages[-1], usual)
    assert alternatives.adds_equally(problem, wide, replace(wide, rows=64, columns=32))
    assert not alternatives.adds_equally(problem, wide, replace(wide, rows=32))
    assert not alternatives.adds_equally(problem, wide, replace(wide, depth=2 * wide.depth))
    assert not alternatives.adds_equally(problem, wide, replace(wide, split=wide.split + 1))
    assert not alternatives.adds_equally(problem, wide, replace(wide, warps=2)), "no whole group"
    scaled = replace(problem, whole=True)
    assert alternatives.adds_equally(scaled, wide, replace(wide, stages=1, group=1))
    for shape in ({"rows": 64}, {"columns": 32}, {"warps": 16 // wide.warps}):
        assert not alternatives.adds_equally(scaled, wide, replace(wide, **shape))


def test_other_tiles_are_for_the_same_data() -> None:
    own = Tiles(Kind.ATTENTION, 64, 64, packed=(0, 16), band=(3, 0, 0, 9), looks=True)
    other = with_shape(own, Tiles(Kind.ATTENTION, 32, 16, warps=8))
    assert other == replace(own, rows=32, columns=16, warps=8)


@pytest.mark.parametrize(("target", "passes"), [("cuda:sm_80", True), ("cuda", False)])
def test_code_of_a_generation_fits_all_its_gpus(target: str, passes: bool) -> None:
    """8.6 and 8.9 run that of 8.0, and have less shared memory."""
    image = Image("f", 80, ptx=False, data=b"", threads=128, shared=120 << 10)
    assert (Vetted((), ((image,),), TARGETS[target]).excess == 0) == passes


def test_equal_tiles_are_one_function() -> None:
    c = CaseBuilder("softmax")
    c.output(c.op("softmax", c.input(8, 40), axis=1))
    planned = GpuGraph(c.graph(), TARGETS["cuda"])
    (function,) = planned.functions
    assert function.architectures == (80, 90, 100, 120)
    assert not planned.plan.kernels[0].schedule.architectures


def test_architectures_without_code_are_refused() -> None:
    (kernel,) = GpuGraph(product(), TARGETS["cuda"]).plan.kernels
    given = Choices({kernel.keys[0]: {"architectures": {"sm_75": [{"rows": 16}]}}})
    with pytest.raises(ScheduleError, match="'cuda' has no code for sm_75"):
        GpuGraph(product(), TARGETS["cuda"], choices=given)
    given = Choices({kernel.keys[0]: {"architectures": {"sm_90": [{"rows": 17}]}}})
    with pytest.raises(ScheduleError, match="rows 17 is no power of two"):
        GpuGraph(product(), TARGETS["cuda"], choices=given)


@needs_triton
def test_each_gpu_runs_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 9.0 and 10.0 here in two launches, others in one; choices come again."""
    onnx, weights = model()
    usual = tensmith.compile(onnx, target="cuda", name="m")
    (key,) = usual.kernels[1].keys
    divided = [{"split": 3}]
    given = {"tiles": [{"split": 1}], "architectures": {"sm_90": divided, "sm_100": divided}}
    file = tmp_path / "choices.json"
    file.write_text(json.dumps(choices_json({key: given}, "cuda", 1)))
    artifact = tensmith.compile(onnx, target="cuda", name="m", choices=file)
    kernel = artifact.kernels[1]
    assert [set(function.resources) for function in kernel.functions] == [
        {"sm_80", "sm_120"}, {"sm_90", "sm_100"}, {"sm_90", "sm_100"}
    ]  # fmt: skip
    assert kernel.choice["tiles"][0]["split"] == 1
    others = kernel.choice["architectures"]
    assert {name: own[0]["split"] for name, own in others.items()} == {"sm_90": 3, "sm_100": 3}
    base, other, total = (function.symbol for function in kernel.functions)

    launched: list[str] = []
    programs = fake._programs

    class Recorded(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            launched.append(name)
            return super().__getitem__(name)

    monkeypatch.setattr(fake, "_programs", lambda path: Recorded(programs(path)))
    artifact.save(tmp_path / "m.so")
    driver = fake.install()
    x = np.random.default_rng(1).standard_normal((9, 12)).astype("f4")
    want = np.tanh(x.astype("f8") @ weights["w"]) @ weights["v"]
    for capability, own in (
        (80, [base]), (86, [base]), (90, [other, total]), (100, [other, total]), (103, [base]),
        (120, [base]),
    ):  # fmt: skip
        launched.clear()
        driver.be(capability, 99 << 10)
        got = tensmith.load(tmp_path / "m.so")(x)["y"]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
        assert launched[1:] == own
    driver.be(80, 163 << 10)

    by_key = {key: kernel.choice for kernel in artifact.kernels for key in kernel.keys}
    file.write_text(json.dumps(choices_json(by_key, "cuda", 1)))
    again = tensmith.compile(onnx, target="cuda", name="m", choices=file)
    assert again.code.device.images == artifact.code.device.images
