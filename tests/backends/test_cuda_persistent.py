"""Programs of products that go over several blocks, and factors that come by tensor maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_runs import GpuGraph, inputs_of, needs_triton
from onnx import TensorProto, helper, numpy_helper
from suites.case import CaseBuilder, N

import tensmith
from tensmith.backends.cuda.compiling import FunctionJob, compile_all
from tensmith.backends.cuda.emit.function import Function
from tensmith.backends.cuda.sass import disassembler, sass_facts
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir import Graph
from tensmith.compiler.kernel.schedule.choices import Choices, choices_json
from tensmith.compiler.kernel.schedule.tiles import Kind

pytestmark = needs_triton
needs_disassembler = pytest.mark.skipif(
    disassembler() is None, reason="this version of Triton has no cuobjdump"
)
BLOCK = {"rows": 64, "columns": 64, "group": 1, "split": 1}


def linear(rows: int = 200, depth: int = 72, columns: int = 136) -> Graph:
    """No size is a multiple of a block."""
    c = CaseBuilder("linear")
    product = c.op("matmul", c.input(rows, depth), c.weight(depth, columns))
    c.output(c.op("max", c.op("add", product, c.weight(columns)), c.scalar(0.0)))
    return c.graph()


def batched() -> Graph:
    c = CaseBuilder("batched")
    c.output(c.op("matmul", c.input(3, 70, 40), c.input(3, 40, 72)))
    return c.graph()


def symbolic() -> Graph:
    c = CaseBuilder("symbolic")
    c.output(c.op("matmul", c.input(N, 40), c.weight(40, 72)))
    return c.graph()


def planned(
    graph: Any, given: dict[str, Any], target: str = "cuda:sm_90", precision: str = "fp32"
) -> tuple[GpuGraph, Function]:
    """The graph with its product's tiles changed, and the function of that."""
    own = TARGETS[target]
    usual = GpuGraph(graph(), own, precision=precision)
    keys = [k.keys[0] for k in usual.plan.kernels if k.schedule.tiles[0].kind is Kind.PRODUCT]
    choices = Choices({keys[0]: {"tiles": [given]}})
    found = GpuGraph(graph(), own, precision=precision, choices=choices)
    [function, *_] = [f for f in found.functions if f.tiles.kind is Kind.PRODUCT]
    return found, function


@pytest.mark.parametrize("graph", [linear, batched, symbolic])
@pytest.mark.parametrize("given", [{"programs": 3}, {"programs": 64}, {"programs": 3, "group": 2}])
def test_few_programs_go_over_all_blocks(graph: Any, given: dict[str, Any]) -> None:
    found, function = planned(graph, {**BLOCK, **given})
    assert f", {given['programs']} programs" in str(function.tiles)
    x = inputs_of(graph(), n=150)
    np.testing.assert_allclose(
        found.run(x)["y0"], run_graph(graph(), x)["y0"], rtol=1e-4, atol=1e-5
    )


def test_parts_of_sums_are_gone_over_too() -> None:
    found, _ = planned(linear, {**BLOCK, "programs": 5, "depth": 16, "split": 2})
    x = inputs_of(linear())
    np.testing.assert_allclose(
        found.run(x)["y0"], run_graph(linear(), x)["y0"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("precision", "rtol"), [("tf32", 3e-3), ("fp16", 1e-2), ("bf16", 5e-2)])
def test_factors_that_come_by_tensor_maps(precision: str, rtol: float) -> None:
    found, function = planned(linear, {**BLOCK, "programs": 3, "maps": True}, precision=precision)
    assert function.source.count("tl.make_tensor_descriptor") == 2
    assert function.workspace == 3 * function.scratch
    x = inputs_of(linear())
    wanted = run_graph(linear(), x)["y0"]
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(found.run(x)["y0"], wanted, rtol=rtol, atol=rtol * scale)


@needs_disassembler
@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_machine_code_copies_by_maps_and_multiplies_by_tensor_cores(precision: str) -> None:
    given = {"rows": 128, "columns": 128, "warps": 8, "stages": 3, "programs": 132, "maps": True}
    _, function = planned(lambda: linear(1024, 512, 1024), given, precision=precision)
    (image,) = compile_all([FunctionJob(function, 90)])
    facts = sass_facts(image.data)
    assert facts.tensor_core == ("HGMMA",)
    assert facts.names["UTMALDG"]
    assert not facts.names["LDGSTS"]
    assert not facts.spills


@pytest.mark.parametrize(
    ("target", "given", "why"),
    [
        ("cuda:sm_80", {"programs": 3, "maps": True}, "this GPU has no tensor maps"),
        ("cuda:sm_90", {"maps": True}, "programs with tensor maps go over all blocks"),
        ("cuda:sm_90", {"programs": -1}, "programs go over all blocks"),
    ],
)
def test_what_cannot_be(target: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(ScheduleError, match=why):
        planned(linear, {**BLOCK, **given}, target, precision="fp16")


def test_a_library_with_tensor_maps_runs_on_the_fake_driver(tmp_path: Path) -> None:
    weight = (np.random.default_rng(0).standard_normal((96, 136)) / 8).astype("f4")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [200, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [200, 136])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    usual = tensmith.compile(model, target="cuda:sm_90", precision="tf32", name="m")
    by_key = {
        key: {"tiles": [{**kernel.choice["tiles"][0], **BLOCK, "programs": 4, "maps": True}]}
        for kernel in usual.kernels
        for key in kernel.keys
    }
    file = tmp_path / "choices.json"
    file.write_text(json.dumps(choices_json(by_key, "cuda:sm_90", 1)))
    artifact = tensmith.compile(
        model, target="cuda:sm_90", precision="tf32", name="m", choices=file
    )
    assert all("4 programs, maps" in kernel.schedule for kernel in artifact.kernels)
    x = np.random.default_rng(1).standard_normal((200, 96)).astype("f4")
    module = artifact.load()
    for _ in range(2):
        np.testing.assert_allclose(module(x)["y"], x @ weight, rtol=1e-2, atol=1e-2)
