"""Code for GPUs, made without one: every way that kernels are emitted, for all architectures."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from cuda_runs import GpuGraph, needs_triton
from suites.case import F16, CaseBuilder
from suites.cases import ALL_CASES

from tensmith.backends.cuda import compiling
from tensmith.backends.cuda.compiling import FunctionJob, Image, check_parameters, compile_all
from tensmith.backends.cuda.cubin import read_cubin
from tensmith.backends.cuda.emit.function import Function, functions_of
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.vetting import DIVISION_STACK, OtherTiles, Part, Vetted, vetted
from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir.types import DType
from tensmith.compiler.kernel.schedule.tiles import Kind, Tiles
from tensmith.compiler.knobs import child_environment
from tensmith.compiler.target import GpuTarget

ARCHITECTURES = (80, 90, 100, 120)
NAMES = (
    "linear_gelu", "softmax_rows", "softmax_symbolic", "layer_norm_rows", "argmax_rows",
    "conv_3x3_pad_bias", "conv_depthwise", "max_pool_3x3_pad", "gather_rows", "cumsum_in",
    "integer_division", "pow_9_scalar_i32", "cast_f32_u8", "matmul_symbolic_batch", "gates",
    "concat_rows", "mod_5x19_5x19", "not_33_bool", "matmul_f16", "byte_table", "attention_mask",
)  # fmt: skip


@cache
def functions() -> tuple[Function, ...]:
    found: dict[str, Function] = {}
    for case in ALL_CASES:
        if case.name in NAMES:
            for function in GpuGraph(case.graph()).functions:
                symbol = f"{function.symbol}_{len(found)}"
                source = function.source.replace(f"def {function.symbol}(", f"def {symbol}(")
                found[symbol] = replace(function, symbol=symbol, source=source)
    return tuple(found.values())


def product_of_halves(size: int) -> Function:
    c = CaseBuilder("halves")
    halves = (c.input(size, size, dtype=F16), c.input(size, size, dtype=F16))
    c.output(c.op("matmul", *halves, accumulate=DType.F32))
    graph = GpuGraph(c.graph())
    return next(f for f in graph.functions if f.tiles.kind is Kind.PRODUCT)


@needs_triton
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_and_spill_nothing(architecture: int) -> None:
    """The parameters of each cubin are checked as it is made."""
    kinds = {function.tiles.kind for function in functions()}
    assert kinds == set(Kind)
    images = compile_all([FunctionJob(function, architecture) for function in functions()])
    for function, image in zip(functions(), images, strict=True):
        assert image.stack <= DIVISION_STACK, function.symbol
        assert 0 < image.registers <= 255
        assert image.threads == 32 * function.tiles.warps
        cubin = read_cubin(image.data, function.symbol)
        assert cubin.architecture == architecture
        assert len(cubin.parameters) == len(function.signature) + compiling.HIDDEN_PARAMETERS


@needs_triton
@pytest.mark.parametrize(("architecture", "instruction"), [(80, "mma.sync"), (90, "wgmma")])
def test_products_of_halves_use_tensor_cores(architecture: int, instruction: str) -> None:
    (image,) = compile_all([FunctionJob(product_of_halves(256), architecture, ptx=True)])
    text = image.data.decode()
    assert instruction in text
    assert "cp.async" in text
    assert text.startswith("//")
    assert ".version 8.0" in text


@needs_triton
def test_products_of_floats_are_not_rounded() -> None:
    case = next(case for case in ALL_CASES if case.name == "linear_gelu")
    product = next(f for f in GpuGraph(case.graph()).functions if f.tiles.kind is Kind.PRODUCT)
    (image,) = compile_all([FunctionJob(product, 80, ptx=True)])
    assert b"tf32" not in image.data
    assert b"fma.rn.f32" in image.data


@needs_triton
def test_what_spills_gets_other_tiles() -> None:
    c = CaseBuilder("large")
    c.output(c.op("matmul", c.input(256, 64), c.input(64, 256)))
    [kernel] = [planned.kernel for planned in GpuGraph(c.graph()).plan.kernels]
    many = Tiles(Kind.PRODUCT, 128, 256, 16, warps=4)
    ((function,),) = functions_of(kernel, [many])
    (image,) = compile_all([FunctionJob(function, 80)])
    assert image.stack > DIVISION_STACK
    fewer = (replace(many, columns=columns) for columns in (128, 32, 16))
    others = OtherTiles(fewer, lambda tiles: functions_of(kernel, [tiles])[0])
    target = TARGETS["cuda:sm_80"]
    chosen = vetted([(function,)], {function.symbol: others}, target)[function.symbol]
    assert not chosen.excess
    assert chosen.part[0].tiles.columns == 128
    assert all(own.stack <= DIVISION_STACK for images in chosen.images for own in images)
    kept = vetted([(function,)], {}, target)[function.symbol]
    assert (kept.part, kept.excess) == ((function,), image.stack - DIVISION_STACK)


def test_blocks_become_smaller_where_several_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numbers of few bits behind an error function do, in whatever shape of a block."""
    c = CaseBuilder("wide")
    c.output(c.op("matmul", c.input(64, 64), c.weight(64, 64)))
    (function,) = GpuGraph(c.graph()).functions
    made: list[int] = []

    def compiled(parts: Sequence[Part], target: GpuTarget) -> list[Vetted]:
        found = []
        for part in parts:
            tiles = part[0].tiles
            results = tiles.rows * tiles.columns // tiles.warps
            made.append(results)
            stack = 300 if results >= 1024 else 0
            image = Image(function.symbol, 80, False, b"", 128, 0, 255, stack)
            found.append(Vetted(part, ((image,),), target))
        return found

    monkeypatch.setattr("tensmith.backends.cuda.vetting.compile_parts", compiled)
    sizes = [(16, 256), (32, 128), (64, 64), (128, 32), (16, 256), (32, 128), (16, 128), (16, 64)]
    emitted: list[Tiles] = []

    def emit(tiles: Tiles) -> Part:
        emitted.append(tiles)
        return (replace(function, tiles=tiles),)

    first, *more = (
        replace(function.tiles, rows=rows, columns=columns, warps=4) for rows, columns in sizes
    )
    others = OtherTiles(iter(more), emit)
    part, target = (replace(function, tiles=first),), TARGETS["cuda:sm_80"]
    found = vetted([part], {function.symbol: others}, target)[function.symbol]
    assert found.part[0].tiles == more[5]
    assert made == [1024] * 4 + [512]
    assert emitted == [*more[:3], more[5]]  # nothing else of what is as large


def test_no_more_is_emitted_than_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    c = CaseBuilder("spills")
    c.output(c.op("matmul", c.input(64, 64), c.weight(64, 64)))
    (function,) = GpuGraph(c.graph()).functions
    image = Image(function.symbol, 80, False, b"", 128, 0, 255, 300)
    counts = {"emitted": 1, "compiled": 0}

    def compiled(parts: Sequence[Part], target: GpuTarget) -> list[Vetted]:
        counts["compiled"] += len(parts)
        return [Vetted(part, ((image,),), target) for part in parts]

    def emit(tiles: Tiles) -> Part:
        counts["emitted"] += 1
        return (replace(function, tiles=tiles),)

    monkeypatch.setattr("tensmith.backends.cuda.vetting.compile_parts", compiled)
    shapes = (replace(function.tiles, rows=8, columns=8 >> n) for n in range(9))
    others = OtherTiles(shapes, emit)
    vetted([(function,)], {function.symbol: others}, TARGETS["cuda:sm_80"])
    assert counts["compiled"] == counts["emitted"] > 4


@needs_triton
def test_what_a_cubin_says_is_what_the_tools_say(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("triton")  # imported, it could not interpret here any more
    assert spec is not None
    assert spec.origin is not None

    function = next(f for f in functions() if f.tiles.kind is Kind.PRODUCT)
    (image,) = compile_all([FunctionJob(function, 80)])
    path = tmp_path / "function.cubin"
    path.write_bytes(image.data)
    tool = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this version of Triton has no cuobjdump")
    told = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True)
    assert f"REG:{image.registers} STACK:{image.stack} " in told.stdout + told.stderr


@needs_triton
def test_parameters_have_to_be_those_of_a_launch() -> None:
    function = functions()[0]
    (image,) = compile_all([FunctionJob(function, 80)])
    cubin = read_cubin(image.data, function.symbol)
    check_parameters(FunctionJob(function, 80), cubin)
    more = replace(function, signature=(*function.signature, "i64"))
    for job in (FunctionJob(more, 80), FunctionJob(function, 90)):
        with pytest.raises(InternalError, match="compiles no code"):
            check_parameters(job, cubin)


@needs_triton
def test_no_cubin() -> None:
    (image,) = compile_all([FunctionJob(functions()[0], 80)])
    with pytest.raises(InternalError, match="no function 'other'"):
        read_cubin(image.data, "other")
    with pytest.raises(InternalError, match="no file of code"):
        read_cubin(Path(sys.executable).read_bytes()[:4096], "x")


@needs_triton
def test_results_are_kept_and_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TENSMITH_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "FORMAT", 0)
    job = FunctionJob(functions()[0], 80)
    (made,) = compile_all([job])
    (path,) = (p for p in (tmp_path / "cuda").rglob("*") if p.is_file())
    started: list[int] = []
    pool = compiling._Pool

    def counted(count: int) -> compiling._Pool:
        started.append(count)
        return pool(count)

    monkeypatch.setattr(compiling, "_Pool", counted)
    assert compile_all([job, job]) == [made, made]
    assert not started
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert compile_all([job]) == [made]
    assert started == [1]


@needs_triton
def test_a_compiling_process_does_not_read_all_of_triton(tmp_path: Path) -> None:
    """For names of its cache, which nobody else uses."""
    job = FunctionJob(functions()[0], 80)
    source = tmp_path / "f.py"
    source.write_text(job.source)
    script = (
        "import json, sys\n"
        "from triton.runtime import cache\n"
        "from tensmith.backends.cuda import worker\n"
        "cache.triton_key = None\n"
        "worker.compile_function(json.loads(sys.argv[1]))\n"
    )
    given = json.dumps({**job.request(), "source": str(source)})
    environment = child_environment(TRITON_CACHE_DIR=str(tmp_path))
    environment.pop("TRITON_INTERPRET", None)
    subprocess.run([sys.executable, "-c", script, given], env=environment, check=True)
    assert read_cubin(source.with_suffix(".cubin").read_bytes(), job.function.symbol)


def broken(source: str) -> Function:
    return replace(functions()[0], source=source)


@needs_triton
@pytest.mark.parametrize(
    ("source", "why", "seconds"),
    [
        ("import os\nos._exit(7)\n", "ended with status 7", compiling.SECONDS),
        ("raise ValueError('no such thing')\n", "ValueError: no such thing", compiling.SECONDS),
        ("import time\ntime.sleep(600)\n", "took longer than 1 s", 1.0),
    ],
)
def test_a_compiler_that_fails_is_an_error(
    source: str, why: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "SECONDS", seconds)
    with pytest.raises(InternalError, match="compiles no code") as caught:
        compile_all([FunctionJob(broken(source), 80)])
    assert why in str(caught.value)
    assert "sm_80" in str(caught.value)
