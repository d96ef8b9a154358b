"""8-bit floats on GPUs: conversions to the bit, and products by tensor cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cuda_runs import GpuGraph, needs_triton
from onnx import TensorProto, helper
from suites.case import F32, CaseBuilder

from tensmith.backends.cuda.compiling import FunctionJob, compile_all
from tensmith.backends.cuda.sass import disassembler, sass_facts
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.kernel.schedule.tiles import Kind
from tensmith.frontends.onnx import load

KINDS = {DType.F8E4M3FN: TensorProto.FLOAT8E4M3FN, DType.F8E5M2: TensorProto.FLOAT8E5M2}


@needs_triton
@pytest.mark.parametrize("kind", KINDS)
def test_conversions(kind: DType) -> None:
    c = CaseBuilder("conversions")
    x = c.input(4096)
    c.output(c.op("cast", x, dtype=kind))
    c.output(c.op("cast", c.op("cast", c.op("cast", x, dtype=kind), dtype=F32), dtype=F32))
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 1 << 32, 4096, dtype=np.uint64).astype("u4").view("f4")
    drawn[:2000] = rng.standard_normal(2000) * 2.0 ** rng.integers(-12, 10, 2000)
    drawn[-6:] = [np.inf, -np.inf, np.nan, 0.0, -0.0, 464.0]
    with np.errstate(all="ignore"):
        want = drawn.astype(kind.numpy)
    planned = GpuGraph(c.graph())
    assert not planned.reasons
    got = planned.run({"x0": drawn})
    numbers = ~np.isnan(want.astype("f4"))
    np.testing.assert_array_equal(got["y0"].view("u1")[numbers], want.view("u1")[numbers])
    assert np.isnan(got["y0"].astype("f4")[~numbers]).all()
    np.testing.assert_array_equal(got["y1"], want.astype("f4"))


def model(folder: Path, kind: DType, columns: int = 64, rows: int = 64) -> Graph:
    """A product and a convolution of data and weights in 8-bit floats, with a scale each."""
    rng = np.random.default_rng(2)
    code = KINDS[kind]
    tensors, nodes = [], []

    def constant(name: str, array: Any, of: int | None = None) -> str:
        of = of or helper.np_dtype_to_tensor_dtype(array.dtype)
        raw = array.astype(kind.numpy).tobytes() if of == code else array.tobytes()
        tensors.append(helper.make_tensor(name, of, array.shape, raw, raw=True))
        return name

    def quantised(value: str, scale: float) -> str:
        names = [
            constant(f"{value}_s", np.float32(scale)),
            constant(f"{value}_z", np.zeros(()), code),
        ]
        nodes.append(helper.make_node("QuantizeLinear", [value, *names], [f"{value}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{value}_q", *names], [f"{value}_d"]))
        return f"{value}_d"

    def weights(name: str, *shape: int, axis: int) -> str:
        given = [
            constant(f"{name}_q", rng.standard_normal(shape), code),
            constant(f"{name}_s", rng.uniform(0.01, 0.1, shape[axis]).astype("f4")),
        ]
        nodes.append(helper.make_node("DequantizeLinear", given, [name], axis=axis))
        return name

    left = quantised("x", 0.02)
    nodes.append(
        helper.make_node("MatMul", [left, weights("w", 96, columns, axis=1)], ["h"], "first")
    )
    image = constant("shape", np.array([1, columns, 8, rows // 8]))
    nodes.append(helper.make_node("Transpose", ["h"], ["t"], perm=[1, 0]))
    nodes.append(helper.make_node("Reshape", ["t", image], ["i"]))
    right = weights("v", 64, columns, 3, 3, axis=0)
    operands = [quantised("i", 0.01), right, constant("b", rng.standard_normal(64).astype("f4"))]
    nodes.append(helper.make_node("Conv", operands, ["y"], "second", pads=[1] * 4))
    graph = helper.make_graph(
        nodes, "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )  # fmt: skip
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]), path)
    return load(path)


@needs_triton
@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90"])
@pytest.mark.parametrize("kind", KINDS)
def test_products(kind: DType, target: str, tmp_path: Path) -> None:
    inputs = {"x": np.random.default_rng(1).standard_normal((64, 96)).astype("f4")}
    want = run_graph(model(tmp_path, kind), inputs)["y"]
    planned = GpuGraph(model(tmp_path, kind), TARGETS[target])
    assert [(told.name, told.precision) for told in planned.decisions] == [
        ("first", "fp8"),
        ("second", "fp8"),
    ]
    products = [f for f in planned.functions if f.tiles.kind is Kind.PRODUCT]
    assert [function.tiles.fp8 for function in products] == [target == "cuda:sm_90"] * 2
    got = planned.run(inputs)["y"]
    # a sum that falls to the other side of a rounding to 8 bits is another step there
    np.testing.assert_allclose(got, want, rtol=2e-2, atol=2e-2 * np.abs(want).max())
    assert np.median(np.abs(got - want)) < 1e-5 * np.abs(want).max()


@needs_triton
@pytest.mark.skipif(disassembler() is None, reason="this version of Triton has no cuobjdump")
@pytest.mark.parametrize(("architecture", "instruction"), [(80, "HMMA"), (90, "QGMMA")])
def test_tensor_cores(architecture: int, instruction: str, tmp_path: Path) -> None:
    graph = model(tmp_path, DType.F8E4M3FN)
    planned = GpuGraph(graph, TARGETS[f"cuda:sm_{architecture}"])
    products = [f for f in planned.functions if f.tiles.kind is Kind.PRODUCT]
    for image in compile_all([FunctionJob(function, architecture) for function in products]):
        found = sass_facts(image.data)
        assert found.tensor_core == (instruction,)
        assert not found.spills
