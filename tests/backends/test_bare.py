"""Cortex-M: operator cases, real models and files of models, in QEMU's boards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bare_models import (
    DTYPES,
    GCC,
    compile_bare,
    needs_gcc,
    needs_qemu,
    run_all_bare,
    run_models,
)
from compiled import Job
from operator_cases import differences, jobs_of
from suites.case import I64, CaseBuilder, N
from suites.cases import ALL_CASES, Case

from tensmith.backends.arm import bare
from tensmith.backends.arm.cortex_m import BOARDS
from tensmith.backends.common import running
from tensmith.backends.reference import run_graph
from tensmith.compiler.artifact import CompiledModel
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import InternalError, UsageError
from tensmith.compiler.ir import DType
from tensmith.runtime.firmware import FirmwareError, descriptions, run_firmware

CHUNK = 40  # cases that are linked into one program
# (target, level, which of the cases every run has)
SETTINGS = (
    ("cortex-m55", 2, 13),
    ("cortex-m55", 0, 47),
    ("cortex-m4", 2, 23),
    ("cortex-m7", 2, 53),
    ("cortex-m33", 2, 59),
    ("cortex-m85", 2, 61),
)


def chunks() -> Iterator[Any]:
    """(cases, target, level): some of the cases in every run, all others in slow ones."""
    for target, level, step in SETTINGS:
        sample = ALL_CASES[::step]
        yield pytest.param(sample, target, level, id=f"{target}-O{level}-sample")
        others = [case for number, case in enumerate(ALL_CASES) if number % step]
        for start in range(0, len(others), CHUNK):
            part = others[start : start + CHUNK]
            label = f"{target}-O{level}-{part[0].name}..{part[-1].name}"
            yield pytest.param(part, target, level, id=label, marks=pytest.mark.slow)


@needs_qemu
@pytest.mark.parametrize(("cases", "target", "level"), list(chunks()))
def test_operator_cases(tmp_path: Path, cases: list[Case], target: str, level: int) -> None:
    jobs = jobs_of(cases)
    wrong = differences(cases, jobs, run_all_bare(jobs, target, tmp_path, level))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_doubles_take_no_unit_that_a_core_may_lack(tmp_path: Path, target: str) -> None:
    builder = CaseBuilder("doubles")
    x = builder.input(8, name="x", dtype=DType.F64)
    builder.output(builder.op("mul", builder.op("add", x, x), x))
    job = Job(builder.graph(), {"x": np.arange(8.0)})
    text = compile_bare(job, target, tmp_path, texts=("asm",)).code.texts["asm"]
    assert "__aeabi_dmul" in text
    assert ".f64" not in text


def _affine(rows: int | Any = 3) -> Job:
    builder = CaseBuilder("affine")
    x = builder.input(rows, 4, name="x")
    weight = builder.weight(4, 5)
    builder.output(builder.op("add", builder.op("matmul", x, weight), builder.weight(5)))
    size = rows if isinstance(rows, int) else 2
    return Job(builder.graph(), {"x": np.arange(4 * size, dtype=np.float32).reshape(size, 4)})


@pytest.fixture
def affine(tmp_path: Path) -> CompiledModel:
    """y0 = x w + b for cortex-m55."""
    return compile_bare(_affine(), "cortex-m55", tmp_path, "affine")


MAIN = """
#include "affine.h"
#include "semihosting.h"
#include <string.h>
static uint8_t arena[AFFINE_ARENA_BYTES + 64] __attribute__((aligned(AFFINE_ARENA_ALIGNMENT)));
int main(void) {{
  static const float x[AFFINE_X_BYTES / sizeof(float)] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}};
  static float y[AFFINE_Y0_BYTES / sizeof(float)];
  affine_io io = {{.x = x, .y0 = y}};
  if (affine_run(&io, arena, AFFINE_ARENA_BYTES) || io.message) return 1;
  static const float wanted[] = {{{wanted}}};
  for (unsigned i = 0; i < sizeof y / sizeof *y; ++i)
    if (y[i] - wanted[i] > 1e-4f || wanted[i] - y[i] > 1e-4f) return 2;
  if (affine_run(&io, arena + 4, AFFINE_ARENA_BYTES) != 5 || !io.message) return 3;
  io.x = NULL;
  if (affine_run(&io, arena, AFFINE_ARENA_BYTES) != 2 || strcmp(io.message, "an input is missing"))
    return 4;
  return 42;
}}
"""


@needs_qemu
@needs_gcc
@pytest.mark.parametrize("form", ["lib", "c"])
def test_a_model_in_a_project_of_the_gnu_toolchain(
    tmp_path: Path, affine: CompiledModel, form: str
) -> None:
    job = _affine()
    wanted = run_graph(job.graph, job.inputs)["y0"].ravel()
    name = {"lib": "libaffine.a", "c": "affine.c"}[form]
    files = bare.link_bare(affine, form, tmp_path / name, {})
    assert tmp_path / "affine.h" in files
    main = MAIN.format(wanted=", ".join(f"{value}f" for value in wanted))
    assert _exit_status(tmp_path, main, files) == 42


LARGEST = """
#include "largest.h"
#include "semihosting.h"
static uint8_t arena[16384] __attribute__((aligned(64)));
int main(void) {
  static float x[LARGEST_X_BYTES / sizeof(float)];
  static int64_t places[LARGEST_Y0_BYTES / sizeof(int64_t)];
  for (unsigned i = 0; i < sizeof x / sizeof *x; ++i) x[i] = (float)(i * 7 % 100);
  largest_io io = {.x = x, .y0 = places};
  if (largest_run(&io, arena, sizeof arena) || io.message) return 1;
  for (unsigned i = 0; i < sizeof places / sizeof *places; ++i)
    if (x[places[i]] != 99 - (float)i) return 2;
  return 42;
}
"""


@needs_qemu
@needs_gcc
def test_operators_of_the_runtime_in_a_project_of_the_gnu_toolchain(tmp_path: Path) -> None:
    builder = CaseBuilder("largest")
    x = builder.input(100, name="x")
    builder.output(builder.op("argsort", x, count=5, descending=True))
    job = Job(builder.graph(), {"x": np.zeros(100, np.float32)})
    model = compile_bare(job, "cortex-m55", tmp_path, "largest")
    assert "ts_op_" in model.code.texts["asm"]
    files = bare.link_bare(model, "c", tmp_path / "largest.c", {})
    assert _exit_status(tmp_path, LARGEST, files) == 42


def _exit_status(folder: Path, main: str, files: list[Path]) -> int:
    """That of a program of `main` and the files of a model, as a project builds it with nothing of
    the runtime but what a board needs."""
    (folder / "main.c").write_text(main)
    (folder / "board.ld").write_text(bare.linker_script(BOARDS["cortex-m55"]))
    code = [str(path) for path in files if path.suffix in (".c", ".s", ".a")]
    board = Path(bare.__file__).parents[2] / "runtime" / "bare"
    includes = [f"-I{folder}", f"-I{board}"]
    sources = [str(folder / "main.c"), str(board / "startup.c"), *code]
    command = [
        GCC, "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard", "-Os", "-Wall", "-Werror",
        "-Wl,--fatal-warnings", "-Wl,--no-warn-rwx-segments", "-Wl,--no-warn-execstack",
        "-nostartfiles",
        "-Wl,--gc-sections", "-T", str(folder / "board.ld"), *includes, *sources, "-lm",
        "-o", str(folder / "program.elf"),
    ]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not built.returncode, built.stderr
    backend, target = resolve_target("cortex-m55")
    emulator = backend.emulator(target)
    assert emulator is not None
    command = [*emulator.command, str(folder / "program.elf")]
    return subprocess.run(command, check=False).returncode


@needs_qemu
def test_sizes_that_a_run_knows(tmp_path: Path) -> None:
    job = _affine(N)
    model = compile_bare(job, "cortex-m33", tmp_path, "rows")
    assert model.scratch_bytes == -1 or model.scratch_bytes >= 0
    header = bare.Interface(model).header("cortex-m33")
    assert "int64_t n;" in header
    assert "size_t y0_bytes;" in header
    run = run_models({"rows": model}, {"rows": job.inputs}, "cortex-m33", tmp_path)["rows"]
    assert run.outputs[0].shape == (2, 5)
    assert run.ticks > 0
    assert 0 < run.stack_bytes < 4096


@needs_qemu
def test_large_local_buffers_are_part_of_the_arena(tmp_path: Path) -> None:
    builder = CaseBuilder("softmax")
    x = builder.input(3, 2000, name="x")
    peak = builder.op("reduce_max", x, axes=(1,), keepdims=True)
    power = builder.op("exp", builder.op("sub", x, peak))
    total = builder.op("reduce_sum", power, axes=(1,), keepdims=True)
    builder.output(builder.op("div", power, total))
    job = Job(builder.graph(), {"x": np.ones((3, 2000), np.float32)})
    model = compile_bare(job, "cortex-m55", tmp_path, "softmax")
    run = run_models({"m": model}, {"m": job.inputs}, "cortex-m55", tmp_path)["m"]
    np.testing.assert_allclose(run.outputs[0], np.full((3, 2000), 1 / 2000, np.float32), 1e-5)
    assert run.stack_bytes < 2048


@needs_qemu
@pytest.mark.parametrize("target", ["cortex-m55", "cortex-m4"])
def test_nan_is_among_the_greatest(tmp_path: Path, target: str) -> None:
    cases = [case for case in ALL_CASES if case.name == "argsort_3_of_260_f32"]
    assert len(cases) == 1
    wrong = differences(cases, jobs_of(cases), run_all_bare(jobs_of(cases), target, tmp_path))
    assert not wrong, "\n".join(wrong)


@needs_qemu
@pytest.mark.parametrize("count", [150, 900])  # selected, and all sorted
def test_orders_are_found_in_the_arena(tmp_path: Path, count: int) -> None:
    builder = CaseBuilder("order")
    x = builder.input(1000, name="x")
    builder.output(builder.op("argsort", x, count=count, descending=False))
    numbers = np.arange(1000, dtype=np.float32) * 7 % 1000
    job = Job(builder.graph(), {"x": numbers})
    model = compile_bare(job, "cortex-m55", tmp_path, "order")
    run = run_models({"m": model}, {"m": job.inputs}, "cortex-m55", tmp_path)["m"]
    np.testing.assert_array_equal(numbers[run.outputs[0]], np.arange(count))
    assert run.stack_bytes < 1024


@needs_qemu
def test_an_error_of_the_model_is_told(tmp_path: Path) -> None:
    def build(c: CaseBuilder) -> None:
        table = c.input(4, 3, name="table")
        index = c.input(2, dtype=I64, low=0, high=4, name="index")
        c.output(c.op("gather", table, index, axis=0))

    case = Case("look_up", build)
    job = Job(case.graph(), {"table": np.zeros((4, 3), np.float32), "index": np.array([1, 9])})
    model = compile_bare(job, "cortex-m4", tmp_path, "look_up")
    run = run_models({"m": model}, {"m": job.inputs}, "cortex-m4", tmp_path)["m"]
    assert run.status == 7
    assert "gather" in run.message
    assert not run.outputs


def test_nothing_is_allocated_printed_or_kept(tmp_path: Path, affine: CompiledModel) -> None:
    files = bare.link_bare(affine, "lib", tmp_path / "libaffine.a", {})
    names = files[0].read_bytes()
    for word in (b"malloc", b"printf", b"pthread", b"__aeabi_unwind"):
        assert word not in names
    again = bare.link_bare(affine, "lib", tmp_path / "again.a", {})
    assert again[0].read_bytes() == names


def test_what_a_board_cannot_load_is_refused(tmp_path: Path, affine: CompiledModel) -> None:
    with pytest.raises(UsageError, match="cannot write 'so' for cortex-m55") as caught:
        bare.link_bare(affine, "so", tmp_path / "affine.so", {})
    assert "lib, elf, c" in caught.value.remedy


@pytest.mark.parametrize("name", ["bare.c", "Bare.c", "PLAN_ABI.h"])
def test_the_sources_of_the_runtime_keep_their_names(
    tmp_path: Path, affine: CompiledModel, name: str
) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is the name of a source"):
        bare.link_bare(affine, "c", tmp_path / name, {})


@pytest.mark.parametrize("name", ["affine.h", "Affine_code.S"])
def test_the_model_keeps_its_header_and_its_machine_code(
    tmp_path: Path, affine: CompiledModel, name: str
) -> None:
    with pytest.raises(UsageError, match="name of the model's header or machine code"):
        bare.link_bare(affine, "c", tmp_path / name, {})
    assert not (tmp_path / "bare.c").exists()


def test_without_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.shutil, "which", lambda name: None)
    backend, target = resolve_target("cortex-m7")
    assert backend.runs_here(target) is not None
    with pytest.raises(UsageError, match="cannot run code for thumbv7em") as caught:
        backend.emulator(target)
    assert "qemu-system-arm" in caught.value.why
    assert "qemu-system-arm" in caught.value.remedy


def test_without_the_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = CaseBuilder("atan")
    builder.output(builder.op("atan", builder.input(5)))
    model = compile_bare(Job(builder.graph(), {}), "cortex-m55", tmp_path, "arc")
    monkeypatch.setattr(bare.shutil, "which", lambda name: None)

    def run_zig(arguments: list[str], directory: Path) -> None:
        why = "ld.lld: error: undefined symbol: atanf"
        raise InternalError("zig cc failed", where=" ".join(arguments), why=why)

    monkeypatch.setattr(bare, "run_zig", run_zig)
    with pytest.raises(UsageError, match="functions of the C library") as caught:
        bare.link_bare(model, "elf", tmp_path / "arc.elf", {})
    assert "atanf" in caught.value.why
    assert GCC in caught.value.remedy


@needs_qemu
def test_a_program_that_ends_early_is_told(tmp_path: Path, affine: CompiledModel) -> None:
    from bare_models import description

    program = tmp_path / "affine.elf"
    bare.link_firmware([affine], tmp_path, program, [description(affine)])
    backend, target = resolve_target("cortex-m55")
    emulator = backend.emulator(target)
    assert emulator is not None
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "outputs.bin").mkdir()
    inputs = {"x": np.zeros((3, 4), np.float32)}
    with pytest.raises(FirmwareError, match="cannot be opened"):
        run_firmware(emulator.command, program, [(0, inputs)], DTYPES, tmp_path / "missing")


def test_other_files_are_no_programs(tmp_path: Path) -> None:
    other = tmp_path / "other.elf"
    other.write_bytes(b"\x7fELF\x01" + bytes(60))
    with pytest.raises(FirmwareError, match="is no program of Tensmith"):
        descriptions(other)
