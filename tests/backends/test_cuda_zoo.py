"""Machine code of whole models, made without a GPU: nothing spills, products use tensor cores.

Takes minutes for each model: `.ci/test -m slow tests/backends/test_cuda_zoo.py`, for those that
`python -m benchmarks.zoo` exports.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from cuda_runs import needs_triton

from tensmith.backends.cuda import pipeline
from tensmith.backends.cuda.emit.function import parts_of
from tensmith.backends.cuda.sass import disassembler, sass_facts
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.tiles import problem_of
from tensmith.backends.cuda.vetting import DIVISION_STACK
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.decisions import Decision
from tensmith.compiler.kernel.schedule.tiles import Kind
from tensmith.driver.halves import InPrecision
from tensmith.driver.model_build import import_model

ZOO = Path(__file__).resolve().parents[2] / "benchmarks" / "zoo"
MODELS = sorted(path.parent for path in ZOO.glob("*/model.onnx"))
LEAST = 64  # rows, columns and steps from which on tensor cores are asked for
WANTED = {80: {"f16": "HMMA", "tf32": "HMMA", "i8": "IMMA"},
          90: {"f16": "HGMMA", "tf32": "HGMMA", "i8": "IGMMA"}}  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    needs_triton,
    pytest.mark.skipif(disassembler() is None, reason="this version of Triton has no cuobjdump"),
    pytest.mark.skipif(not MODELS, reason="the zoo is not exported (python -m benchmarks.zoo)"),
]


@pytest.mark.parametrize("architecture", WANTED)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.name)
def test_models(model: Path, precision: str, architecture: int) -> None:
    graph = import_model(model / "model.onnx", {})
    target = TARGETS[f"cuda:sm_{architecture}"]
    InPrecision(precision, target).rewrite(graph)
    options = CompileOptions("model", Path(), precision=precision)
    told: list[Decision] = []
    plan, kernels = pipeline.form_kernels(graph, target, options, Stages(), told.append)
    kernels, images = pipeline.vet_kernels(plan, kernels, target, options)
    wrong = []
    for number, parts in kernels.parts.items():
        kernel = plan.kernels[number].kernel
        for function in (function for part in parts for function in part):
            (image,) = images[function.symbol]
            if image.stack > DIVISION_STACK:
                wrong.append(f"{function.symbol} ({function.tiles}) spills {image.stack} bytes")
        for place, (function, *_) in enumerate(parts):
            (image,) = images[function.symbol]
            if function.tiles.kind is not Kind.PRODUCT:
                continue
            problem = problem_of(parts_of(kernel)[place].stages[-1], function.tiles)
            small = min(problem.rows, problem.columns, problem.depth) < LEAST
            wanted = WANTED[architecture].get(problem.rate)
            found = sass_facts(image.data).tensor_core
            if wanted and not small and wanted not in found:
                sizes = math.prod((problem.rows, problem.columns, problem.depth))
                wrong.append(f"{function.symbol} ({function.tiles}): {sizes} products by {found}")
    assert not wrong, "\n".join(wrong)
