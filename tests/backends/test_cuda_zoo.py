"""Machine code of whole models, made without a GPU: nothing spills, products use tensor cores.

Takes minutes for each model: `.ci/test -m slow tests/backends/test_cuda_zoo.py`, for those that
`python -m benchmarks.zoo` exports.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cuda_runs import needs_triton

from tensmith.backends.cuda import pipeline
from tensmith.backends.cuda.attention_kernel import attention_of
from tensmith.backends.cuda.compiling import Image
from tensmith.backends.cuda.emit.function import Function, parts_of
from tensmith.backends.cuda.emit.types import HALVES
from tensmith.backends.cuda.kernels import GpuKernels
from tensmith.backends.cuda.sass import disassembler, sass_facts
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.tiles import UNKNOWN, problem_of
from tensmith.backends.cuda.vetting import DIVISION_STACK
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir.dims import product
from tensmith.compiler.kernel.kernel import Axis, Kernel
from tensmith.compiler.kernel.plan.devices import all_steps
from tensmith.compiler.kernel.plan.plan import Launch, Plan
from tensmith.compiler.kernel.schedule.tiles import Kind
from tensmith.driver.halves import InPrecision
from tensmith.driver.model_build import import_model
from tensmith.driver.request import CompileRequest
from tensmith.driver.weight_quantisation import quantise_weights

ZOO = Path(__file__).resolve().parents[2] / "benchmarks" / "zoo"
MODELS = sorted(path.parent for path in ZOO.glob("*/model.onnx"))
LEAST = 64  # rows, columns and steps from which on tensor cores are asked for
MMA = {"f16": "HMMA", "tf32": "HMMA", "i8": "IMMA"}
WANTED = {80: MMA, 90: {"f16": "HGMMA", "tf32": "HGMMA", "i8": "IGMMA"},
          100: {"f16": "UTCHMMA", "tf32": "UTCHMMA", "i8": "UTCIMMA"}, 120: MMA}  # fmt: skip
PACKED = ("bert-base", "llama-decode")  # also with weights of few bits
MOST_LAUNCHES = {"bert-base": 80, "resnet50": 60}  # of a run, in any precision
MOST_PACKED = {"bert-base": 88}  # where norms have launches of their own
DOCS = Path(__file__).resolve().parents[2] / "docs" / "cuda.md"
TOLD = re.compile(
    r"(bert-base|resnet50|llama-decode)\s+takes\s+(\d+)\s+launches(?:\s+\((\d+)\s+on\s+12\.0\))?"
)
pytestmark = [
    pytest.mark.slow,
    needs_triton,
    pytest.mark.skipif(disassembler() is None, reason="this version of Triton has no cuobjdump"),
    pytest.mark.skipif(not MODELS, reason="the zoo is not exported (python -m benchmarks.zoo)"),
]


@pytest.mark.parametrize("target", ["cuda", "cuda:sm_80"])
@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.name)
def test_models(model: Path, precision: str, target: str) -> None:
    """Code of every architecture of a target (that of 8.0 alone may take more shared memory)."""
    check(model / "model.onnx", precision, target, MOST_LAUNCHES.get(model.name, math.inf))


@pytest.mark.parametrize("precision", ["int4-weights", "int8-weights"])
@pytest.mark.parametrize(
    "model", [m for m in MODELS if m.name in PACKED], ids=lambda path: path.name
)
def test_packed_weights(model: Path, precision: str, tmp_path: Path) -> None:
    """Of few bits, which become numbers as they are multiplied; no norm joins their products."""
    packed = tmp_path / "model.onnx"
    request = CompileRequest(target="cuda", precision=precision)
    quantise_weights(model / "model.onnx", packed, request, tmp_path)
    check(packed, "fp32", "cuda", MOST_PACKED.get(model.name, math.inf))


def check(path: Path, precision: str, target: str, most: float) -> None:
    """Compile all kernels of a file; most: launches that a run takes at most."""
    graph, gpu = import_model(path, {}), TARGETS[target]
    InPrecision(precision, gpu).rewrite(graph)
    options = CompileOptions("model", Path(), precision=precision)
    plan, kernels = pipeline.form_kernels(graph, gpu, options, Stages())
    kernels, images = pipeline.vet_kernels(plan, kernels, gpu, options)
    wrong = [
        told
        for number, part in _parts(kernels)
        for function in part
        for image in images[function.symbol]
        if not image.ptx
        for told in _wrong(plan.kernels[number].kernel, function, image, function is part[0])
    ]
    assert not wrong, "\n".join(wrong)
    pipeline.launch_kernels(plan, kernels)
    launches = _launches(plan, kernels)
    assert max(launches.values()) <= most, launches


@pytest.mark.parametrize(("name", "count", "on_120"), TOLD.findall(DOCS.read_text()))
def test_launches_are_those_of_the_documents(name: str, count: str, on_120: str) -> None:
    """Counted from the plan, on all architectures."""
    path, gpu = ZOO / name / "model.onnx", TARGETS["cuda"]
    if not path.exists():
        pytest.skip(f"{name} is not exported")
    graph = import_model(path, {})
    InPrecision("fp32", gpu).rewrite(graph)
    options = CompileOptions("model", Path(), precision="fp32")
    plan, kernels = pipeline.form_kernels(graph, gpu, options, Stages())
    pipeline.launch_kernels(plan, kernels)
    wanted = dict.fromkeys(gpu.architectures, int(count)) | {120: int(on_120 or count)}
    assert _launches(plan, kernels) == wanted


def test_documents_tell_launches() -> None:
    assert len(TOLD.findall(DOCS.read_text())) == 3


def _parts(kernels: GpuKernels) -> Iterator[tuple[int, tuple[Function, ...]]]:
    for number, parts in kernels.parts.items():
        for part in parts:
            yield number, part


def _wrong(kernel: Kernel, function: Function, image: Image, first: bool) -> Iterator[str]:
    """What is not as it should be in the code of a function. first: of its part."""
    where = f"{function.symbol} ({function.tiles}) of sm_{image.architecture}"
    if image.stack > DIVISION_STACK:
        yield f"{where} spills {image.stack} bytes"
    if not first or (multiplied := _multiplied(kernel, function)) is None:
        return
    rate, sizes = multiplied
    wanted = WANTED[image.architecture].get(rate)
    if wanted and min(sizes) >= LEAST:
        found = sass_facts(image.data).tensor_core
        if wanted not in found:
            yield f"{where}: {' x '.join(map(str, sizes))} by {found}, not by {wanted}"


def _multiplied(kernel: Kernel, function: Function) -> tuple[str, tuple[int, ...]] | None:
    """What multiplies the matrices of a function, and their sizes; None: nothing does."""
    part, tiles = parts_of(kernel)[function.place], function.tiles
    if tiles.kind is Kind.PRODUCT:
        problem = problem_of(part.stages[-1], tiles)
        return problem.rate, (problem.rows, problem.columns, problem.depth)
    attention = attention_of(part) if tiles.kind is Kind.ATTENTION else None
    if attention is None:
        return None
    halves = all(dot.elements in HALVES for dot in attention.dots)
    rate = "f16" if halves else "tf32" if tiles.tf32 else "f32"
    queries, keys = _assumed(attention.rows), _assumed(attention.keys)
    return rate, (queries, keys, attention.depth, attention.columns)


def _assumed(axes: Sequence[Axis]) -> int:
    """The points along some axes, as the backend assumes those that only a run knows."""
    found = product(axis.extent for axis in axes)
    return found if isinstance(found, int) else UNKNOWN


def _launches(plan: Plan, kernels: GpuKernels) -> Counter[int]:
    """Of a run, for each architecture."""
    functions = [function for own in kernels.functions.values() for function in own]
    steps = [step for step in all_steps(plan.steps) if isinstance(step, Launch)]
    return Counter(number for step in steps for number in functions[step.function].architectures)
