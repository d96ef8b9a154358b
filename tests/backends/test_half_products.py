"""Products of bf16: in groups where an instruction takes them, and rounded as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from compiled import Job, Setting, compile_graph, run_all
from suites.case import BF16, F16, F32, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.kernel.instruction import MATRICES, instruction_for
from tensmith.compiler.target import CpuTarget

Array = np.ndarray[Any, Any]
DEPTH = 256
GROUPS = Setting("znver4", 2)  # its code has the instruction and nothing beside that is newer


def products(half: DType, rows: int = 9) -> Graph:
    """A product, and a convolution between the same kinds of elements that ends in them."""
    c = CaseBuilder("products")
    x = c.input(rows, DEPTH, dtype=half, name="x")
    c.output(c.op("matmul", x, c.weight(DEPTH, 48, dtype=half), accumulate=F32))
    images = c.input(1, 8, 7, 7, dtype=half, name="images")
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    total = c.op("conv", images, c.weight(32, 8, 3, 3, dtype=half), accumulate=F32, **window)
    c.output(c.op("cast", total, dtype=half))
    return c.graph()


def _mnemonics(graph: Graph, target: str, folder: Path) -> list[str]:
    model = compile_graph(graph, Setting(target, 2), folder, texts=frozenset({"asm"}))
    return [line.split()[0] for line in model.code.texts["asm"].splitlines() if line.split()]


@pytest.mark.parametrize("target", ["znver4", "znver5"])
def test_products_of_bf16_are_one_instruction(target: str, tmp_path: Path) -> None:
    found = _mnemonics(products(BF16), target, tmp_path)
    assert found.count("vdpbf16ps") >= 24
    assert any(name.startswith("vcvtneps2bf16") for name in found)  # of the epilogue
    assert not [name for name in found if name.startswith("vfmadd")]


def test_products_of_bf16_are_those_of_matrices(tmp_path: Path) -> None:
    found = _mnemonics(products(BF16, rows=64), "sapphirerapids", tmp_path)
    assert found.count("tdpbf16ps") >= 4
    assert {"ldtilecfg", "tilestored", "tilerelease"} <= set(found)


def test_matrices_add_up_what_vectors_do(tmp_path: Path) -> None:
    """Rows, columns and steps that fill no matrix, and rows that only a run counts."""
    setting = Setting("sapphirerapids", 2)
    if missing := setting.missing():
        pytest.skip(missing)
    rng = np.random.default_rng(6)
    jobs = {}
    for rows, depth, columns in [(6, 64, 16), (33, 132, 70), (47, 48, 50), (70, 256, 33)]:
        for dim in (rows, N):
            c = CaseBuilder("sizes")
            x = c.input(dim, depth, dtype=BF16, name="x")
            total = c.op("matmul", x, c.weight(depth, columns, dtype=BF16), accumulate=F32)
            c.output(c.op("max", total, c.scalar(0)))
            inputs = {"x": rng.normal(size=(rows, depth)).astype(BF16.numpy)}
            jobs[f"{dim}x{depth}x{columns}"] = Job(c.graph(), inputs)
    wanted = {name: run_graph(job.graph, job.inputs) for name, job in jobs.items()}
    for name, got in run_all(jobs, setting, tmp_path).items():
        assert not isinstance(got, Exception), f"{name}: {got}"
        np.testing.assert_allclose(got["y0"], wanted[name]["y0"], 1e-4, 1e-4, err_msg=name)


@pytest.mark.parametrize(("target", "half"), [("x86-64-v4", BF16), ("znver4", F16)])
def test_other_halves_are_multiplied_in_f32(target: str, half: DType, tmp_path: Path) -> None:
    found = _mnemonics(products(half), target, tmp_path)
    assert len([name for name in found if name.startswith("vfmadd")]) >= 24
    assert "vdpbf16ps" not in found
    assert ("vcvtph2ps" in found) == (half is F16)


def by_steps(x: Array, w: Array) -> Array:
    """The sums as the instruction adds them up: of every two products the later one first, each
    rounded to f32, denormal numbers as zeros."""

    def flushed(array: Array) -> Array:
        return np.where(np.abs(array) < np.finfo(np.float32).tiny, array * 0, array)

    left, right = (flushed(a.astype(np.float32)).astype(np.float64) for a in (x, w))
    total = np.zeros((len(x), w.shape[1]), np.float32)
    for first in range(0, x.shape[1], 2):
        for step in (first + 1, first):
            exact = total + left[:, step, None] * right[step]  # products are exact in f64
            total = flushed(exact.astype(np.float32))
    return total


def _one_product(w: Array) -> Graph:
    c = CaseBuilder("one")
    weights = c.weight(*w.shape, dtype=BF16)
    assert weights.data is not None
    weights.data[:] = w
    c.output(c.op("matmul", c.input(9, w.shape[0], dtype=BF16, name="x"), weights, accumulate=F32))
    return c.graph()


def test_sums_are_those_of_the_instruction(tmp_path: Path) -> None:
    if missing := GROUPS.missing():
        pytest.skip(missing)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(9, DEPTH)).astype(ml_dtypes.bfloat16)
    w = rng.normal(size=(DEPTH, 48)).astype(ml_dtypes.bfloat16)
    x[:, ::7] *= ml_dtypes.bfloat16(1e-38)  # some are denormal, others' products are
    got = run_all({"m": Job(_one_product(w), {"x": x})}, GROUPS, tmp_path)["m"]
    assert not isinstance(got, Exception), got
    np.testing.assert_array_equal(got["y0"], by_steps(x, w))


@pytest.mark.parametrize("setting", [GROUPS, Setting("x86-64-v3", 2), Setting("native", 2)])
@pytest.mark.parametrize("half", [BF16, F16])
def test_sums_are_within_the_stated_bound(half: DType, setting: Setting, tmp_path: Path) -> None:
    """Two roundings in every step of two products, of up to 2^-24 of the sum of their sizes."""
    if missing := setting.missing():
        pytest.skip(missing)
    rng = np.random.default_rng(4)
    inputs = {name: rng.normal(size=shape).astype(half.numpy)
              for name, shape in (("x", (9, DEPTH)), ("images", (1, 8, 7, 7)))}  # fmt: skip
    got = run_all({"m": Job(products(half), inputs)}, setting, tmp_path)["m"]
    assert not isinstance(got, Exception), got
    want = run_graph(products(half), inputs)
    sizes = np.abs(inputs["x"].astype(np.float64)).sum(1, keepdims=True)  # weights are below one
    assert np.all(np.abs(got["y0"] - want["y0"]) <= DEPTH * 2.0**-24 * sizes)
    # a result that lies between two halves may be rounded to the other one
    step = {BF16: 2.0**-8, F16: 2.0**-11}[half]
    np.testing.assert_allclose(*(a["y1"].astype(np.float64) for a in (got, want)), 2 * step, 1e-4)


def test_conversions_round_to_nearest_even(tmp_path: Path) -> None:
    """The same for finite numbers by an instruction and without; denormal ones become zero."""
    bits = np.random.default_rng(5).integers(0, 1 << 32, 4096, np.uint32)
    bits[:2048] = bits[:2048] & 0xFFFF0000 | 0x8000  # ties
    x = bits.view(np.float32)
    x[~np.isfinite(x) | (np.abs(x) < np.finfo(np.float32).tiny)] = 1.5
    x[:4] = [np.inf, -np.inf, np.float32(3.4e38), -0.0]
    for setting in (GROUPS, Setting("x86-64-v3", 2)):
        if setting.missing():
            continue
        folder = tmp_path / str(setting)
        folder.mkdir()
        c = CaseBuilder("round")
        c.output(c.op("cast", c.input(4096, name="x"), dtype=BF16))
        got = run_all({"m": Job(c.graph(), {"x": x})}, setting, folder)["m"]
        assert not isinstance(got, Exception), got
        want = x.astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(got["y0"].view(np.uint16), want.view(np.uint16))


def test_instructions_cost_what_the_target_says() -> None:
    """Sapphire Rapids takes four multiply-adds' time for one, and Zen 4 one."""
    for name, cost in (("znver4", 1.0), ("sapphirerapids", 4.0)):
        target = resolve_target(name)[1]
        assert isinstance(target, CpuTarget)
        names = [name for name in target.instructions if name not in MATRICES]
        found = instruction_for(BF16, BF16, F32, names)
        assert found is not None
        assert (found.op, target.cost(found.name, found.operations)) == ("dot2", cost)
    assert instruction_for(F16, F16, F32, target.instructions) is None
