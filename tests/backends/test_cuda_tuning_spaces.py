"""Tuning of attention, reductions, points and symbolic sizes for GPUs: candidates are legal, their
code passes or says why not, and what passes computes what the usual tiles do."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_models import SM_80
from cuda_runs import needs_triton
from suites.case import F16, F32, CaseBuilder, N, S

from tensmith.backends.cuda.compiling import FunctionJob, compile_all
from tensmith.backends.cuda.fake import install
from tensmith.backends.cuda.fake.interpreter import Program
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.tuning.launches import LAUNCHES
from tensmith.backends.cuda.tuning.measurers import GpuMeasurer, VettingOracle
from tensmith.backends.cuda.tuning.tunable import SECONDS, GpuTunable, open_gpu
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.tuning.task import Batch, Candidate, Turn

pytestmark = needs_triton
TARGET = TARGETS["cuda:sm_80"]
TRIED, COMPILED = 3, 10
SIZES = {"n": 3, "s": 40}


def softmax() -> Graph:
    c = CaseBuilder("softmax")
    c.output(c.op("softmax", c.input(33, 300), axis=1))
    return c.graph()


def largest() -> Graph:
    c = CaseBuilder("largest")
    c.output(c.op("reduce_max", c.input(20, 700), axes=(1,), keepdims=False))
    return c.graph()


def points() -> Graph:
    c = CaseBuilder("points")
    c.output(c.op("tanh", c.input(50, 70)))
    return c.graph()


def attention(dtype: DType = F16) -> Graph:
    c = CaseBuilder("attention")
    heads = [c.input(2, rows, 16, dtype=dtype) for rows in (40, 300, 300)]
    c.output(c.op("attention", *heads, scale=0.25))
    return c.graph()


def symbolic_attention() -> Graph:
    c = CaseBuilder("symbolic")
    c.output(c.op("attention", *(c.input(N, S, 16) for _ in range(3)), scale=0.25))
    return c.graph()


def symbolic_product() -> Graph:
    c = CaseBuilder("symbolic")
    c.output(c.op("add", c.op("matmul", c.input(N, S, 2000), c.weight(2000, 24)), c.weight(24)))
    return c.graph()


def symbolic_rows() -> Graph:
    c = CaseBuilder("symbolic")
    c.output(c.op("reduce_sum", c.input(N, S), axes=(1,), keepdims=False))
    return c.graph()


GRAPHS = {
    build.__name__: build
    for build in (softmax, largest, points, attention, symbolic_attention, symbolic_product,
                  symbolic_rows)
}  # fmt: skip
EXACT = {"largest", "points"}  # whose results are the same with all tiles


def opened(graph: Graph) -> GpuTunable:
    return open_gpu(graph, TARGET, CompileOptions("model", Path(), sizes=SIZES), Stages())


def told_apart(batch: Batch, launches: Mapping[str, Any]) -> list[int]:
    """Candidates no two of which launch as many programs of a first function: launches tell no
    more."""
    seen: set[tuple[str, int]] = set()
    found = []
    for position, built in enumerate(batch.built):
        if built.error:
            continue
        first = launches[str(position)][0]
        own = first["symbol"], first["programs"]
        if own in seen:
            continue
        seen.add(own)
        found.append(position)
    return found


def interpreted(tunable: GpuTunable, candidates: list[Candidate]) -> Callable[..., int]:
    """What computes launches of candidates, of which the first tells whose the others are."""
    (task,) = tunable.tasks
    launches = json.loads(tunable.build(task, candidates).files[LAUNCHES])["launches"]
    firsts: dict[tuple[str, int], dict[str, Program]] = {}
    for position, candidate in enumerate(candidates):
        functions = [f for part in tunable.parts(task, candidate) for f in part]
        first = launches[str(position)][0]
        firsts[first["symbol"], first["programs"]] = {
            f.symbol: Program(f.source, f.symbol, f.signature) for f in functions
        }
    running: dict[str, Program] = {}

    def launched(file: bytes, kernel: bytes, count: int, given: int, parameters: Any) -> int:
        if (found := firsts.get((kernel.decode(), count))) is not None:
            running.clear()
            running.update(found)
        program = running[kernel.decode()]
        values = [
            ctypes.cast(parameters[n], ctypes.POINTER(ctypes.c_int64)).contents.value
            for n in range(len(program.signature))
        ]
        program.run(count, values)
        return 0

    return launched


@pytest.mark.parametrize("name", GRAPHS)
def test_candidates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = install.install()
    driver.be(80, SM_80)
    tunable = opened(GRAPHS[name]())
    (task,) = tunable.tasks
    base, *others = tunable.candidates(task)
    assert base == tunable.base(task)
    assert others
    assert [one.predicted for one in others] == sorted(one.predicted for one in others)
    assert all(tunable.candidate(task, one.choice) == one for one in others)
    fields = {key for one in others for key, value in one.choice["tiles"][0].items()
              if value != base.choice["tiles"][0][key]}  # fmt: skip
    assert "columns" in fields if name == "points" else "rows" in fields
    assert all(one.exact for one in others) == (name in EXACT)
    steps = max(1, len(others) // COMPILED)
    tried = [base, *others[::steps]][:COMPILED]
    batch = tunable.build(task, tried)
    launches = json.loads(batch.files[LAUNCHES])["launches"]
    chosen = [tried[n] for n in told_apart(batch, launches)[:TRIED]]
    assert len(chosen) > 1
    monkeypatch.setattr(install, "_launched", interpreted(tunable, chosen))
    measurer = GpuMeasurer(TARGET)
    try:
        with driver.timed(lambda kernel, count: 1.0):
            assert not measurer.check(tunable.build(task, chosen))
    finally:
        measurer.close()


def layer() -> Graph:
    """A norm that the product finds anew for its own rows."""
    c = CaseBuilder("layer")
    norm = c.op("layer_norm", c.input(64, 128), c.weight(128), c.weight(128), axis=1, epsilon=1e-5)
    c.output(c.op("tanh", c.op("matmul", norm, c.weight(128, 64))))
    return c.graph()


def trees(tunable: GpuTunable, candidates: list[Candidate]) -> list[list[str]]:
    """How far apart the threads are that exchange sums, step by step, in candidates' code."""
    (task,) = tunable.tasks
    firsts = [tunable.parts(task, candidate)[0][0] for candidate in candidates]
    images = compile_all([FunctionJob(function, 80, ptx=True) for function in firsts])
    exchange = r"shfl\.sync\.bfly\.b32 [^,]*, [^,]*, (\d+)"
    return [re.findall(exchange, image.data.decode()) for image in images]


@pytest.mark.parametrize("graph", [attention(F32), layer()], ids=["attention", "layer"])
def test_what_is_exact_reduces_in_the_same_tree(graph: Graph) -> None:
    """Those with other warps, or blocks of other rows, do not."""
    tunable = opened(graph)
    (task,) = tunable.tasks
    base, *others = tunable.candidates(task)
    usual = base.choice["tiles"][0]

    def differs(one: Candidate) -> set[str]:
        return {key for key, value in one.choice["tiles"][0].items() if value != usual[key]}

    exact = [one for one in others if one.exact]
    assert all(differs(one) <= {"stages", "group"} for one in exact)
    other = next(one for one in others if differs(one) in ({"warps"}, {"rows"}))
    same, *equal, different = trees(tunable, [base, *exact[:2], other])
    assert equal
    assert equal == [same] * len(equal)
    assert different != same
    assert not other.exact


def test_sizes_are_part_of_a_task() -> None:
    (task,) = opened(symbolic_product()).tasks
    assert dict(task.sizes) == SIZES
    options = CompileOptions("model", Path(), sizes={**SIZES, "s": 41})
    (other,) = open_gpu(symbolic_product(), TARGET, options, Stages()).tasks
    assert other.key != task.key
    assert other.choice_key == task.choice_key
    unknown = open_gpu(symbolic_product(), TARGET, CompileOptions("model", Path()), Stages())
    assert not unknown.tasks


@pytest.mark.parametrize("name", ["softmax", "attention"])
def test_without_a_gpu_only_products_are_ranked(name: str) -> None:
    """Of others the model tells an order to try them in, which is no reason to take one."""
    tunable = opened(GRAPHS[name]())
    (task,) = tunable.tasks
    batch = tunable.build(task, tunable.candidates(task)[:4])
    seconds = json.loads(batch.files[SECONDS])
    assert len(set(seconds.values())) == 1
    assert len({one.predicted for one in tunable.candidates(task)}) > 1
    reading = VettingOracle(TARGET).time(batch, Turn((0, 1, 2, 3), 0.0))
    assert len({sample.median for sample in reading.samples}) == 1


def test_parts_of_symbolic_products_are_as_many_as_a_run_has() -> None:
    """Candidates in parts are predicted, and run, with those that keep the target busy."""
    tunable = opened(symbolic_product())
    (task,) = tunable.tasks
    others = tunable.candidates(task)[1:]
    divided = next(one for one in others if one.choice["tiles"][0]["split"] > 1)
    (part,) = tunable.parts(task, divided)
    assert part[0].tiles.busy == TARGET.sms
    assert len(part) == 2
    assert np.isfinite(divided.predicted)
