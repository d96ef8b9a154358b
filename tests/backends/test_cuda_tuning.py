"""Tuning of contractions for GPUs: vetted where there is none, timed where there is one."""

from __future__ import annotations

import ctypes
import gc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_models import SM_80
from cuda_runs import needs_triton
from suites.case import CaseBuilder

import tensmith
from tensmith.backends.cuda.candidates import Taken, _together, every, predicted
from tensmith.backends.cuda.fake import install
from tensmith.backends.cuda.fake.interpreter import Program
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.tuning import gpu
from tensmith.backends.cuda.tuning.measurers import (
    PREDICTED,
    TOLD,
    GpuMeasurer,
    VettingOracle,
    _difference,
    _tolerance,
    machine_gpu,
    measurer_gpu,
)
from tensmith.backends.cuda.tuning.tunable import GpuTunable, open_gpu
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import ModelWarning, RunError, ScheduleError, UsageError
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.tuning.task import Batch, Candidate, Task, Turn

pytestmark = needs_triton
TARGET = TARGETS["cuda:sm_80"]
HANGS = 2  # what a launch function answers for one that never ends


def linear(rows: int, depth: int, columns: int) -> Graph:
    c = CaseBuilder("linear")
    x, w = c.input(rows, depth), c.weight(depth, columns)
    c.output(c.op("add", c.op("matmul", x, w), c.weight(columns)))
    return c.graph()


def opened(*sizes: int) -> GpuTunable:
    return open_gpu(linear(*sizes), TARGET, CompileOptions("model", Path()), Stages())


@pytest.fixture(scope="module", autouse=True)
def no_gpu() -> None:
    """Whatever this machine has: the fake driver is what is loaded, which offers no GPU to tune."""
    install.install()


@pytest.fixture(scope="module")
def tunable() -> GpuTunable:
    return opened(256, 600, 136)


def split(candidate: Candidate) -> int:
    (tiles,) = candidate.choice["tiles"]
    return int(tiles["split"])


def test_candidates_are_tiles_of_contractions(tunable: GpuTunable) -> None:
    (task,) = tunable.tasks
    base, *others = tunable.candidates(task)
    assert base == tunable.base(task)
    assert base.steps == 0
    assert len({one.key for one in (base, *others)}) == len(others) + 1
    predictions = [one.predicted for one in others]
    assert predictions == sorted(predictions)
    assert predictions[-1] <= 2 * base.predicted
    usual = base.choice["tiles"][0]
    fields = {
        name
        for one in others
        for name, value in one.choice["tiles"][0].items()
        if value != usual[name]
    }
    assert {"rows", "columns", "stages", "split", "group"} <= fields
    assert all(one.exact == (split(one) == split(base)) for one in others)
    assert all(tunable.candidate(task, one.choice) == one for one in others[:5])
    assert all(one.steps == 1 for one in tunable.neighbours(task, base))
    with pytest.raises(ScheduleError, match="no power of two"):
        tunable.candidate(task, {"tiles": [{"rows": 48}]})


def test_without_a_gpu_code_is_vetted_and_ranked_by_a_model(tunable: GpuTunable) -> None:
    (task,) = tunable.tasks
    candidates = tunable.candidates(task)[:4]
    batch = tunable.build(task, candidates)
    assert not any(built.error for built in batch.built)
    assert [b.code for b in batch.built] == [b.code for b in tunable.codes(task, candidates)]
    oracle = measurer_gpu(TARGET, "local")
    assert isinstance(oracle, VettingOracle)
    assert not oracle.check(batch)
    reading = oracle.time(batch, Turn((0, 1, 2, 3), 0.0))
    base = reading.samples[0].median
    assert all(s.median >= base or s.median < TOLD * base for s in reading.samples)
    assert machine_gpu(TARGET).name == f"cuda:sm_80, {PREDICTED}"
    with pytest.raises(UsageError, match="is no worker"):
        measurer_gpu(TARGET, "ssh://host")


def test_registers_of_the_code_count(tunable: GpuTunable) -> None:
    (task,) = tunable.tasks
    problem = tunable.space(task).problem
    full = replace(problem, rows=1 << 14, columns=1 << 12)  # more blocks than run at once
    tiles = every(full, TARGET)[0]
    few, many = Taken(32, 1024), Taken(255, 1024)
    assert _together(full, tiles, TARGET, few) > _together(full, tiles, TARGET, many)
    assert predicted(full, tiles, TARGET, few) != predicted(full, tiles, TARGET, many)


def test_what_spills_is_no_candidate(tunable: GpuTunable) -> None:
    """Exact sums of 128 by 256 results for 128 threads do not fit their registers."""
    (task,) = tunable.tasks
    (usual,) = tunable.base(task).choice["tiles"]
    large = {**usual, "rows": 128, "columns": 256, "stages": 1, "warps": 4, "depth": 16}
    (built,) = tunable.codes(task, [tunable.candidate(task, {"tiles": [large]})])
    assert "registers are spilled" in built.error


@pytest.fixture
def measurer() -> Iterator[GpuMeasurer]:
    driver = install.install()
    driver.be(80, SM_80)
    found = GpuMeasurer(TARGET)
    yield found
    found.close()
    gc.collect()
    assert driver.live == (0, 0)


def sources(tunable: GpuTunable, task: Task, candidates: list[Candidate]) -> dict[int, Program]:
    """The functions of candidates, by how many programs they take."""
    found = {}
    for candidate in candidates:
        for part in tunable.parts(task, candidate):
            for function in part:
                found[function.programs] = Program(
                    function.source, function.symbol, function.signature
                )
    return found


Several = tuple[Batch, dict[int, Program]]


@pytest.fixture(scope="module")
def several() -> Several:
    """A base and two candidates, whose numbers of programs differ; their functions by these."""
    tunable = opened(96, 40, 72)
    (task,) = tunable.tasks
    by_programs: dict[int, Candidate] = {}
    for one in tunable.candidates(task):
        (part,) = tunable.parts(task, one)
        if len(part) == 1:
            by_programs.setdefault(part[0].programs, one)
    candidates = list(by_programs.values())[:3]
    assert candidates[0] == tunable.base(task)
    return tunable.build(task, candidates), sources(tunable, task, candidates)


@dataclass
class Launches:
    """What the driver has computed. behaviour: of launches of so many programs, others compute:
    "nothing", "fails", "breaks", after which every launch fails, or "hangs": it does not end.
    computing: whether any does."""

    programs: dict[int, Program]
    behaviour: dict[int, str] = field(default_factory=dict)
    computing: bool = True
    broken: bool = False

    def __call__(self, file: bytes, kernel: bytes, count: int, given: int, parameters: Any) -> int:
        program, own = self.programs[count], self.behaviour.get(count, "")
        self.broken |= own == "breaks"
        if self.broken or own == "fails":
            return 1
        if own == "hangs":
            return HANGS
        values = [
            ctypes.cast(parameters[n], ctypes.POINTER(ctypes.c_int64)).contents.value
            for n in range(len(program.signature))
        ]
        if self.computing and own != "nothing":
            program.run(count, values)
        return 0


@pytest.fixture
def launches(several: Several, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    found = Launches(several[1])
    monkeypatch.setattr(install, "_launched", found)
    with install.install().timed(lambda kernel, count: 1000.0 / count):
        yield found


def test_where_a_gpu_is_candidates_are_checked_and_timed_on_it(
    measurer: GpuMeasurer, several: Several, launches: Launches
) -> None:
    batch, counts = several[0], list(several[1])
    launches.behaviour[counts[2]] = "nothing"
    assert measurer.machine.name.startswith("no GPU")
    assert set(measurer.check(batch)) == {2}
    launches.computing = False
    reading = measurer.time(batch, Turn((0, 1, 0), 0.01))
    for sample in reading.samples:
        assert sample.median == pytest.approx(1 / counts[sample.position], rel=1e-3)
    assert [s.position for s in reading.samples] == [0, 1, 0]


def test_a_candidate_that_fails_is_out_alone(
    measurer: GpuMeasurer, several: Several, launches: Launches
) -> None:
    batch, counts = several[0], list(several[1])
    launches.behaviour[counts[1]] = "fails"
    assert set(measurer.check(batch)) == {1}
    launches.behaviour[counts[2]] = "fails"
    launches.computing = False
    reading = measurer.time(batch, Turn((0, 2, 0), 0.01))
    assert set(reading.failures) == {2}
    assert [s.position for s in reading.samples] == [0, 0]
    assert not reading.disturbed


def test_a_candidate_that_breaks_the_gpu_is_named_and_others_are_not_blamed(
    measurer: GpuMeasurer, several: Several, launches: Launches
) -> None:
    batch, counts = several[0], list(several[1])
    launches.behaviour[counts[1]] = "breaks"
    assert set(measurer.check(batch)) == {1}
    told = f"{batch.built[1].candidate}.*call tune again"
    with pytest.raises(RunError, match=f"(?s){told}"):
        measurer.time(batch, Turn((0, 2, 0), 0.01))


def test_a_candidate_that_breaks_the_gpu_while_it_is_timed(
    measurer: GpuMeasurer, several: Several, launches: Launches
) -> None:
    batch, counts = several[0], list(several[1])
    assert not measurer.check(batch)
    launches.computing = False
    launches.behaviour[counts[1]] = "breaks"
    reading = measurer.time(batch, Turn((0, 1, 2, 0), 0.01))
    assert set(reading.failures) == {1}
    assert [s.position for s in reading.samples] == [0]
    assert batch.built[1].candidate in reading.disturbed
    with pytest.raises(RunError, match="out of use"):
        measurer.check(batch)


@pytest.mark.parametrize("checked", [False, True])
def test_a_candidate_that_does_not_end_is_named(
    checked: bool,
    measurer: GpuMeasurer,
    several: Several,
    launches: Launches,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits for it without end: neither for its results, nor when the GPU is left."""
    monkeypatch.setattr(gpu, "MOST_SECONDS", 0.01)
    batch, counts = several[0], list(several[1])
    if checked:
        assert not measurer.check(batch)
    launches.behaviour[counts[1]] = "hangs"
    if checked:
        launches.computing = False
        reading = measurer.time(batch, Turn((0, 1, 2, 0), 0.01))
        failures, told = reading.failures, reading.disturbed
    else:
        failures, told = measurer.check(batch), "did not end"
    assert set(failures) == {1}
    assert "did not end" in failures[1]
    assert "did not end" in told
    with pytest.raises(RunError, match=f"(?s){batch.built[1].candidate}.*call tune again"):
        measurer.time(batch, Turn((0, 2, 0), 0.01))
    driver = install.install()
    held = driver.live
    measurer.close()
    assert driver.live == held, "memory is given back by no call that would wait"
    driver.be(80, SM_80)
    measurer._gpu._hangs = False  # the fixture gives it back


def test_what_was_not_compared_is_before_it_is_timed(
    measurer: GpuMeasurer, several: Several, launches: Launches
) -> None:
    """A session that goes on behind a check in which the GPU broke."""
    batch, counts = several[0], list(several[1])
    launches.behaviour[counts[2]] = "nothing"
    reading = measurer.time(batch, Turn((0, 2, 0), 0.01))
    assert "differs" in reading.failures[2]


def test_differences_of_results() -> None:
    for size in (1.0, 1e-4):
        ones = np.full(8, size, np.float32)
        same = [(DType.F32, ones.tobytes())]
        f32, halves = _tolerance(["f32"], [DType.F32]), _tolerance(["f16"], [DType.F16])
        assert not _difference(same, same, 0.0)
        assert not _difference([(DType.F32, (ones * 1.00005).tobytes())], same, f32)
        nearly = [(DType.F32, (ones * 1.002).tobytes())]
        assert "by more than" in _difference(nearly, same, f32)
        assert not _difference(nearly, same, halves)
        assert "by more than" in _difference([(DType.F32, bytes(32))], same, halves)
    numbers = [(DType.I8, bytes(8))]
    assert "other bits" in _difference([(DType.I8, bytes([1] * 8))], numbers, 1.0)


def test_a_model_is_tuned_without_a_gpu_and_said_to_be(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((1024, 64)).astype("f4")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 1024])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    records = tmp_path / "tuning.db"
    result = tensmith.tune(
        model, target="cuda:sm_80", records=records, trials=3, allow_reordering=True, name="m"
    )
    assert result.session.trials == 3
    assert result.outcome is None
    assert result.chosen
    assert any("nothing was measured: a model of the GPU" in note for note in result.notes)
    assert "model of the GPU" in result.artifact.manifest["tuning"]["ranked_by"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        again = tensmith.compile(
            model, target="cuda:sm_80", records=records, allow_reordering=True, name="m"
        )
    assert again.code.device.images == result.artifact.code.device.images
    with pytest.raises(UsageError, match="tune for each of them"):
        tensmith.tune(model, target="cuda", records=records, trials=1)
