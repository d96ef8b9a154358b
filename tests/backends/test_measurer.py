"""What measures kernels: candidates that fail are told, and machines that ssh reaches."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from compiled import Setting
from llvmlite import ir
from tuned_batches import measurer_here, opened, product

from tensmith.backends.llvm import codegen
from tensmith.backends.llvm.tuning import host
from tensmith.backends.llvm.tuning import measurer as measuring
from tensmith.backends.llvm.tuning import tunable as opening
from tensmith.backends.llvm.tuning.host import remove_left, run_limited
from tensmith.backends.llvm.tuning.measurer import CpuMeasurer
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import ScheduleError, UsageError
from tensmith.compiler.tuning.task import Turn, WaitEndedError

OLD = 1000.0  # seconds since folders of a test were made
SHORT = 0.0005  # seconds


@pytest.fixture(params=["x86-64-v3", "x86-64-v4"])
def target(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if missing := Setting(name, 2).missing():
        pytest.skip(missing)
    return name


@pytest.fixture
def measurer(target: str) -> Iterator[CpuMeasurer]:
    with closing(measurer_here(target)) as found:
        yield found


def returning(b: ir.IRBuilder) -> None:
    """Writes nothing."""


def crashing(b: ir.IRBuilder) -> None:
    nowhere = ir.Constant(ir.IntType(64), 64).inttoptr(ir.PointerType())
    b.store(ir.Constant(ir.IntType(32), 1), nowhere, align=4)


def illegal(b: ir.IRBuilder) -> None:
    b.call(b.module.declare_intrinsic("llvm.trap", fnty=ir.FunctionType(ir.VoidType(), [])), [])


def hanging(b: ir.IRBuilder) -> None:
    loop = b.append_basic_block("loop")
    b.branch(loop)
    b.position_at_end(loop)
    b.branch(loop)
    b.position_at_end(b.append_basic_block("never"))


FAULTS = {
    returning: "element 0 of output 0",
    crashing: "SIGSEGV",
    illegal: "lacks an instruction",
    hanging: "longer than",
}


def faulty_object(body: Callable[[ir.IRBuilder], None], target: str) -> bytes:
    parsed = resolve_target(target)[1]
    module = codegen.new_module("faulty", parsed)
    pointer, long = ir.PointerType(), ir.IntType(64)
    kind = ir.FunctionType(ir.VoidType(), [pointer, pointer, long, long])
    function = ir.Function(module, kind, "tensmith_candidate_0000")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    body(b)
    b.ret_void()
    return bytes(codegen.target_machine(parsed, 0).emit_object(codegen.parse(module)))


def test_faulty_candidates_are_told_and_others_go_on(
    target: str, measurer: CpuMeasurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunable = opened(product, target, tmp_path)
    [task] = tunable.tasks
    candidates = tunable.candidates(task)[: len(FAULTS) + 3]
    whole, made = opening.kernel_object, []

    def sometimes(*args):  # type: ignore[no-untyped-def]
        made.append(args)
        if 2 <= len(made) < 2 + len(FAULTS):
            return faulty_object(list(FAULTS)[len(made) - 2], target)
        return whole(*args)

    monkeypatch.setattr(opening, "kernel_object", sometimes)
    monkeypatch.setattr(measuring, "CHECK_SECONDS", 2.0)
    batch = tunable.build(task, candidates)
    told = measurer.check(batch)
    assert list(told) == list(range(1, 1 + len(FAULTS)))
    for reason, words in zip(told.values(), FAULTS.values(), strict=True):
        assert words in reason

    monkeypatch.setattr(measuring, "ENTRY_SECONDS", 0.5)
    monkeypatch.setattr(measuring, "START_SECONDS", 0.5)
    order = (0, 2, 5, 3, 6, 4, 0)
    reading = measurer.time(batch, Turn(order, SHORT))
    assert [sample.position for sample in reading.samples] == [0, 5, 6, 0]
    assert set(reading.failures) == {2, 3, 4}
    assert "SIGSEGV" in reading.failures[2]
    assert "did not end in time" in reading.failures[4]


def test_what_cannot_be_emitted_is_told(
    target: str, measurer: CpuMeasurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunable = opened(product, target, tmp_path)
    [task] = tunable.tasks
    candidates = tunable.candidates(task)[:3]
    whole = opening.kernel_object

    def refusing(planned, *args):  # type: ignore[no-untyped-def]
        if planned.schedule == tunable._ways_of(task).way(candidates[1].choice).schedule:
            raise ScheduleError("it cannot be emitted so")
        return whole(planned, *args)

    monkeypatch.setattr(opening, "kernel_object", refusing)
    batch = tunable.build(task, candidates)
    assert [bool(built.error) for built in batch.built] == [False, True, False]
    assert list(measurer.check(batch)) == [1]
    reading = measurer.time(batch, Turn((2, 1, 0), SHORT))
    assert [sample.position for sample in reading.samples] == [2, 0]


def test_kernels_of_other_machines_are_not_timed() -> None:
    backend, parsed = resolve_target("aarch64")
    if backend.runs_here(parsed) is None:
        pytest.skip("this machine runs the target's code")
    assert backend.tuning is not None
    with pytest.raises(UsageError, match="emulator"):
        backend.tuning.measurer(parsed, "local")


def test_machine_is_told(measurer: CpuMeasurer) -> None:
    machine = measurer.machine
    assert machine.name == measurer.machine.name
    assert {"vendor", "features", "cores", "architecture"} <= set(machine.facts)
    assert " " not in machine.name


# elsewhere ------------------------------------------------------------------------------------


def test_a_machine_that_ssh_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program in the place of ssh that runs the last argument here, in another folder."""
    if missing := Setting("x86-64-v3", 2).missing():
        pytest.skip(missing)
    home = tmp_path / "home"
    home.mkdir()
    script = tmp_path / "ssh"
    script.write_text(
        '#!/bin/sh\necho "$@" >> "$0.log"\nfor last; do :; done\n'
        f'cd {home} || exit 255\n[ -e {home}/lost ] && exit 255\nexec sh -c "$last"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    backend, parsed = resolve_target("x86-64-v3")
    assert backend.tuning is not None
    measurer = backend.tuning.measurer(parsed, "ssh://someone@somewhere:2200")
    assert "-p 2200 someone@somewhere" in (tmp_path / "ssh.log").read_text()
    tunable = opened(product, "x86-64-v3", tmp_path)
    [task] = tunable.tasks
    batch = tunable.build(task, tunable.candidates(task)[:2])
    assert measurer.check(batch) == {}
    reading = measurer.time(batch, Turn((1, 0), SHORT))
    assert [sample.position for sample in reading.samples] == [1, 0]
    assert measurer.machine.name == backend.tuning.machine(parsed).name
    (home / "lost").touch()
    with pytest.raises(OSError, match="lost"):
        measurer.time(batch, Turn((0,), SHORT))
    (home / "lost").unlink()
    measurer.close()
    assert list(home.iterdir()) == []

    other = resolve_target("aarch64")[1]
    with pytest.raises(UsageError, match="x86_64"):
        backend.tuning.measurer(other, "ssh://somewhere")
    for address in ("ssh://", "ssh://-oProxyCommand=x", "ssh://a:b:c", "ssh://somewhere/path"):
        with pytest.raises(UsageError, match="no address"):
            backend.tuning.measurer(parsed, address)
    (home / "lost").touch()
    with pytest.raises(UsageError, match="not reached"):
        backend.tuning.measurer(parsed, "ssh://somewhere")


def test_folders_of_programs_that_were_killed_are_removed(tmp_path: Path) -> None:
    names = ("tensmith-tuning-left", "tensmith-tuning-used", "tensmith-tuning-other", "another")
    folders = {name: tmp_path / name for name in names}
    for name, folder in folders.items():
        folder.mkdir()
        if name != names[2]:
            (folder / "owner").touch()
        long_ago = folder.stat().st_mtime - OLD
        os.utime(folder, (long_ago, long_ago))
    (tmp_path / "tensmith-tuning-new").mkdir()
    (tmp_path / "tensmith-tuning-new" / "owner").touch()
    with (folders[names[1]] / "owner").open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        remove_left(tmp_path)
    left = {folder.name for folder in tmp_path.iterdir()}
    assert left == {*names[1:], "tensmith-tuning-new"}


def test_a_program_that_cannot_be_built_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(target: Any, folder: Path) -> Path:
        raise UsageError("there is no runtime")

    monkeypatch.setattr(host, "build_program", refused)
    monkeypatch.setattr(
        host, "make_folder", lambda prefix: Path(tempfile.mkdtemp(prefix=prefix, dir=tmp_path))
    )
    with pytest.raises(UsageError, match="no runtime"):
        host.LocalHost(resolve_target("x86-64-v3")[1])
    assert not list(tmp_path.iterdir())


def test_a_stop_ends_the_wait_for_another_program() -> None:
    asked: list[float] = []

    def waiting(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) == 2

    with pytest.raises(WaitEndedError):
        run_limited(["sleep", "600"], 600.0, waits=True, waiting=waiting)
    assert asked == sorted(asked)
    ended = run_limited(["echo", "locked"], 600.0, waits=True, waiting=lambda seconds: False)
    assert ended.output == "locked\n"
