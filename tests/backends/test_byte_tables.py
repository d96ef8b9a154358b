"""Tables of bytes: each way to look up gives the same, for any number of lanes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from compiled import Library, Setting, compile_graph, needs_native
from onnx import helper, numpy_helper
from suites.case import F32, I8, I32, U8, CaseBuilder

import tensmith
from tensmith.backends.llvm.emit import byte_table
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph, Value

VALUES = tuple(np.random.default_rng(5).permutation(256).tolist())


def lookups() -> Graph:
    """Of bytes alone, between numbers of 32 bits, behind a product, and of a few elements."""
    c = CaseBuilder("lookups")
    for dtype, result, shape in ((U8, U8, (3, 300)), (I8, U8, (5,)), (U8, I8, (2, 77))):
        x = c.input(*shape, dtype=dtype, low=0 if dtype is U8 else -128, high=128)
        table = c.op("byte_table", x, values=VALUES, dtype=result)
        c.output(table, c.op("mul", c.op("cast", table, dtype=F32), c.scalar(0.5)))
    x = c.input(4, 40, low=0, high=255)
    whole = c.op("cast", x, dtype=U8)
    c.output(c.op("byte_table", whole, values=VALUES, dtype=U8))
    c.output(behind_product(c, 7, 40))
    return c.graph()


def behind_product(c: CaseBuilder, rows: int, columns: int) -> Value:
    """A table of the low bytes of sums of products."""
    x = c.input(rows, 32, dtype=U8, low=0, high=128)
    total = c.op("matmul", x, c.weight(32, columns, dtype=I8, low=-9, high=9), accumulate=I32)
    return c.op("byte_table", c.op("cast", total, dtype=U8), values=VALUES, dtype=U8)


def results(setting: Setting, folder: Path) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    graph = lookups()
    rng = np.random.default_rng(1)
    inputs = {}
    for value in graph.inputs:
        drawn = rng.integers(0, 256, value.shape)
        inputs[value.name] = drawn.astype(np.uint8).view(value.dtype.numpy) if (
            value.dtype.bits == 8) else drawn.astype(np.float32)  # fmt: skip
    want = run_graph(graph, inputs)
    got = Library({"lookups": graph}, setting, folder).run("lookups", inputs)
    assert isinstance(got, dict), got
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)


@needs_native
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("target", ["native", "x86-64-v3", "x86-64-v4"])
def test_every_way_gives_the_same(target: str, level: int, tmp_path: Path) -> None:
    results(Setting(target, level), tmp_path)


def test_on_aarch64(tmp_path: Path) -> None:
    results(Setting("aarch64", 2, emulated=True), tmp_path)


@needs_native
def test_where_there_is_no_instruction_bytes_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_table, "LOOKUPS", ())
    results(Setting("native", 2), tmp_path)


@pytest.mark.parametrize(
    ("target", "mnemonic"),
    [
        ("znver5", r"vperm[it]2b"),
        ("x86-64-v4", r"vpshufb"),
        ("x86-64-v3", r"vpshufb"),
        ("aarch64", r"tbl\b"),
    ],
)
def test_the_instruction_of_the_target_is_used(target: str, mnemonic: str, tmp_path: Path) -> None:
    texts = frozenset({"asm"})
    code = compile_graph(lookups(), Setting(target, 2), tmp_path, texts=texts).code
    assert re.search(mnemonic, code.texts["asm"])


def test_a_lookup_takes_the_bytes_of_several_rows(tmp_path: Path) -> None:
    """Behind sums of 32 bits a vector has a quarter of the bytes of a step of 16 shuffles."""
    c = CaseBuilder("behind product")
    c.output(behind_product(c, 6, 16))
    texts = frozenset({"asm"})
    code = compile_graph(c.graph(), Setting("x86-64-v3", 2), tmp_path, texts=texts).code
    vectors = 6 * 16 // 8
    assert 16 * vectors // 4 <= len(re.findall("vpshufb", code.texts["asm"])) < 16 * vectors // 2


@needs_native
@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("op", "options"), [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.1})]
)
def test_operators_of_onnx_runtime(op: str, options: dict[str, float], kind: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    every = np.arange(256).astype(np.uint8).view(kind)
    zero = np.array(7, kind)
    constants = {"s": np.float32(0.07), "z": zero, "t": np.float32(0.011), "o": zero}
    made = helper.make_node(op, ["x", "s", "z", "t", "o"], ["y"], domain="com.microsoft", **options)
    element = helper.np_dtype_to_tensor_dtype(every.dtype)
    model = helper.make_model(
        helper.make_graph(
            [made],
            "g",
            [helper.make_tensor_value_info("x", element, (256,))],
            [helper.make_tensor_value_info("y", element, (256,))],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    ).SerializeToString()
    artifact = tensmith.compile(model)
    assert [op for kernel in artifact.manifest["kernels"] for op in kernel["operators"]].count(
        "byte_table"
    ) == 1
    want = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": every})
    np.testing.assert_array_equal(artifact.load()({"x": every})["y"], want[0])
