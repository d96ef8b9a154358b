"""Tiles of GPU kernels as choices: predicted ones, given ones, and those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_runs import GpuGraph, needs_triton
from suites.case import CaseBuilder

import tensmith
from tensmith.backends.cuda.candidates import Problem, candidates, predicted, shared_bytes
from tensmith.backends.cuda.dots import Dot
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.kernel.schedule.choices import Choices, choices_json
from tensmith.compiler.kernel.schedule.tiles import Kind, Tiles

TARGET = "cuda:sm_90"


def problem(rows: int, columns: int, depth: int) -> Problem:
    usual = Tiles(Kind.PRODUCT, 64, 64, 64)
    return Problem(rows, columns, depth, 1, 1, Dot(DType.F16, DType.F32), 2, usual)


@pytest.mark.parametrize("target", TARGETS)
def test_candidates_fit_the_target_and_are_in_order(target: str) -> None:
    for sizes in [(4096, 4096, 4096), (128, 768, 768), (20, 40, 64), (1, 1000, 2048), (7, 3, 9)]:
        found = candidates(problem(*sizes), TARGETS[target])
        assert found
        cycles = [predicted(problem(*sizes), tiles, TARGETS[target]) for tiles in found]
        assert sorted(cycles) == pytest.approx(cycles, abs=1)
        for tiles in found:
            assert shared_bytes(problem(*sizes), tiles) <= TARGETS[target].shared_bytes
            assert tiles.rows >= 64 or sizes[0] < 64


def test_large_products_get_large_blocks_and_small_ones_keep_a_gpu_busy() -> None:
    large = candidates(problem(4096, 4096, 4096), TARGETS[TARGET])[0]
    assert (large.rows, large.columns, large.warps, large.group) == (128, 256, 8, 8)
    small = candidates(problem(196, 256, 2304), TARGETS[TARGET])[0]
    blocks = -(-196 // small.rows) * (256 // small.columns)
    assert blocks >= TARGETS[TARGET].sms // 3
    rounds = predicted(problem(4096, 4096, 4096), large, TARGETS[TARGET])
    assert 4096**3 / 2048 / 132 < rounds < 1.5 * 4096**3 / 2048 / 132


def linear() -> Graph:
    c = CaseBuilder("linear")
    x, w = c.input(96, 80), c.weight(80, 72)
    c.output(c.op("softmax", c.op("add", c.op("matmul", x, w), c.weight(72)), axis=1))
    return c.graph()


@needs_triton
@pytest.mark.parametrize(
    "given",
    [
        {"rows": 16, "columns": 32, "depth": 16, "group": 2},
        {"rows": 64, "columns": 16, "stages": 1, "group": 4},
        {"rows": 32, "columns": 128, "warps": 8},
    ],
)
def test_given_tiles_compute_the_same(given: dict[str, Any]) -> None:
    x = {"x0": np.random.default_rng(0).standard_normal((96, 80)).astype("f4")}
    usual = GpuGraph(linear())
    keys = [k.keys[0] for k in usual.plan.kernels if k.schedule.tiles[0].kind is Kind.PRODUCT]
    planned = GpuGraph(linear(), choices=Choices({keys[0]: {"tiles": [given]}}))
    [tiles] = [f.tiles for f in planned.functions if f.tiles.kind is Kind.PRODUCT]
    assert {name: getattr(tiles, name) for name in given} == given
    want = run_graph(linear(), x)["y0"]
    np.testing.assert_allclose(planned.run(x)["y0"], want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"rows": 48}, "rows 48 is no power of two"),
        ({"warps": 3}, "3 warps"),
        ({"stages": 9}, "stages are 1 to 8"),
        ({"columns": 8}, "blocks of 16"),
        ({"rows": 1024, "columns": 128, "stages": 8}, "bytes of shared memory"),
        ({"depth": 128}, "at most 32 steps"),
        ({"lanes": 8}, "no field 'lanes'"),
    ],
)
def test_illegal_tiles_are_refused(given: dict[str, Any], why: str) -> None:
    usual = GpuGraph(linear())
    keys = [k.keys[0] for k in usual.plan.kernels if k.schedule.tiles[0].kind is Kind.PRODUCT]
    with pytest.raises(ScheduleError, match=why):
        GpuGraph(linear(), choices=Choices({keys[0]: {"tiles": [given]}}))


@needs_triton
def test_what_was_chosen_gives_the_same_file(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype("f4") for shape in ((64, 48), (48, 32))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
         helper.make_node("MatMul", ["r", "w1"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 32])],
        [numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(weights)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    usual = tensmith.compile(model, target=TARGET, name="m")
    by_key = {key: kernel.choice for kernel in usual.kernels for key in kernel.keys}
    assert all(set(choice) == {"tiles"} for choice in by_key.values())
    file = tmp_path / "choices.json"
    file.write_text(json.dumps(choices_json(by_key, TARGET, 1)))
    again = tensmith.compile(model, target=TARGET, name="m", choices=file)
    assert again.code.device.images == usual.code.device.images
    changed = {
        key: {"tiles": [{**choice["tiles"][0], "warps": 8}]} for key, choice in by_key.items()
    }
    file.write_text(json.dumps(choices_json(changed, TARGET, 1)))
    other = tensmith.compile(model, target=TARGET, name="m", choices=file)
    assert other.code.device.images != usual.code.device.images
    assert all("8 warps" in kernel.schedule for kernel in other.kernels)
