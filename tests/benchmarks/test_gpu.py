"""The script that measures on a GPU, on the driver that is none: all stages, and going on later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_runs import needs_triton

from tensmith.benchmarks import gpu, gpu_process, gpu_stages, provenance
from tensmith.benchmarks.gpu_builds import patterned
from tensmith.benchmarks.gpu_index import (
    MOST_STORED,
    GpuBuild,
    add_build,
    pack,
    read_builds,
    sample,
    unpacked,
)
from tensmith.benchmarks.gpu_stages import GpuStage, GpuStages, stages_of

HOUR = 3600.0


def results_of(folder: Path) -> dict[str, Any]:
    return {p.stem: json.loads(p.read_text()) for p in (folder / "results").iterdir()}


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages may take as long as they do."""
    monkeypatch.setattr(gpu_stages, "USUAL_SECONDS", HOUR)
    monkeypatch.setattr(gpu_stages, "SECONDS", {})


def dry_run(folder: Path, *options: str, minutes: int = 600) -> int:
    return gpu.main([str(folder), "--dry-run", "--minutes", str(minutes), *options])


@needs_triton
@pytest.mark.usefixtures("unhurried")
def test_a_dry_run_walks_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "builds"
    assert dry_run(folder, minutes=0) == 1
    assert not list((folder / "results").iterdir()), "no time for any stage"
    assert dry_run(folder) == 0
    assert "all stages are done" in capsys.readouterr().out
    results, builds = results_of(folder), read_builds(folder)
    kinds = [build.kind for build in builds]
    assert kinds == ["gemm", "conv", "attention", "chain", "chain"]
    assert not [name for name, found in results.items() if "error" in found], results
    for build in builds:
        assert results[f"outputs.{build.name}"]["right"], results
        assert results[f"time.{build.name}"]["seconds"] > 0
        assert results[f"eager.{build.name}"]["skipped"] == "a dry run"
    assert results["machine"]["dry"]
    assert results["overhead"]["call_s"] > 0
    sanitized = {name for name in results if name.startswith("sanitizer.")}
    assert sanitized == {f"sanitizer.{b.name}" for b in builds[:4]}, "one of every kind, by itself"
    assert dry_run(folder) == 0
    assert capsys.readouterr().out.count("\n") == 1, "nothing is done twice"
    archive = tmp_path / "builds.tar"
    assert gpu.main([str(folder), "--pack", str(archive)]) == 0
    with tarfile.open(archive) as packed:
        names = [Path(name).name for name in packed.getnames()]
    assert len(names) == 1 + 3 * len(builds)
    assert all(name == "builds.json" or name.endswith(".xz") for name in names)


@needs_triton
@pytest.mark.usefixtures("unhurried")
def test_errors_are_results_that_can_be_tried_again(tmp_path: Path) -> None:
    """What is wrong with one build is told of that alone."""
    assert dry_run(tmp_path, minutes=0) == 1
    first, second, *_ = read_builds(tmp_path)
    library = tmp_path / f"{first.library}.xz"
    hidden = library.rename(library.with_suffix(".hidden"))
    np.savez(tmp_path / second.outputs, y=np.full(16 * 36, 7, "f2"))
    dry_run(tmp_path)
    results = results_of(tmp_path)
    assert "there is no file" in results[f"outputs.{first.name}"]["error"]
    assert not results[f"outputs.{second.name}"]["right"]
    assert "not timed" in results[f"time.{first.name}"]["error"]
    hidden.rename(library)
    assert dry_run(tmp_path) == 0, "nothing is left"
    assert "error" in results_of(tmp_path)[f"outputs.{first.name}"]
    dry_run(tmp_path, "--again")
    results = results_of(tmp_path)
    assert results[f"outputs.{first.name}"]["right"]
    assert results[f"time.{first.name}"]["seconds"] > 0


def a_build(kind: str, name: str, batch: int = 1) -> GpuBuild:
    return GpuBuild(name, kind, "fp16", batch, f"{name}.so", "", "", sizes=(1,))


def test_what_is_worth_most_comes_first() -> None:
    builds = [a_build("model", "m32", 32), a_build("conv", "c"), a_build("gemm", "g"),
              a_build("attention", "a"), a_build("model", "m1"), a_build("chain", "k1"),
              replace(a_build("gemm", "gemm-4096x4096x4096"), flops=1)]  # fmt: skip
    names = [stage.name for stage in stages_of(builds)]
    assert len(set(names)) == len(names)
    order = ["machine", "outputs.m1", "outputs.gemm-4096x4096x4096", "outputs.c", "time.m1",
             "time.gemm-4096x4096x4096", "eager.gemm-4096x4096x4096", "time.g", "time.a", "time.c",
             "overhead", "eager.m1", "compiled.m1", "outputs.m32", "time.m32", "eager.m32",
             "sanitizer.g", "sanitizer.m1", "compiled.m32", "inductor.m32"]  # fmt: skip
    assert [name for name in names if name in order] == order


def test_an_archive_holds_what_is_worth_most(tmp_path: Path) -> None:
    """Up to a size, which it keeps; what is smaller and worth less goes in where there is room."""
    folder, archive, block = tmp_path / "builds", tmp_path / "builds.tar", 1 << 15
    folder.mkdir()
    sizes = {"m32": 1, "c": 1, "g": 9, "m1": 4}
    for name, size in sizes.items():
        kind, batch = ("model", int(name[1:])) if name[0] == "m" else ("conv", 1)
        build = a_build("gemm" if name == "g" else kind, name, batch)
        add_build(folder, replace(build, inputs="shared.npz", outputs=f"{name}.npz"))
        (folder / f"{name}.so.xz").write_bytes(bytes(size * block))
        (folder / f"{name}.npz.xz").write_bytes(bytes(block))
    (folder / "shared.npz.xz").write_bytes(bytes(block))
    everything = ["m1", "c", "g", "m32"]
    for most, left in ((None, []), (30, []), (11, ["g"]), (9, ["g", "m32"]), (1, everything)):
        found = gpu.pack_builds(folder, archive, most and most * block)
        assert found == left
        assert most is None or archive.stat().st_size <= most * block
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path / f"{most}", filter="data")
        kept = read_builds(tmp_path / f"{most}" / "builds")
        assert {build.name for build in kept} == set(sizes) - set(found)
        for build in kept:
            for name in (build.library, build.inputs, build.outputs):
                wanted = (folder / f"{name}.xz").read_bytes()
                assert (tmp_path / f"{most}" / "builds" / f"{name}.xz").read_bytes() == wanted


def test_an_archive_of_many_files_keeps_its_limit(tmp_path: Path) -> None:
    """One that is just reached, with times of change that are no whole seconds."""
    folder, archive = tmp_path / "builds", tmp_path / "builds.tar"
    folder.mkdir()
    names = [f"c{index}" for index in range(10)]
    for name in names:
        build = replace(a_build("conv", name), inputs=f"{name}.in", outputs=f"{name}.out")
        add_build(folder, build)
        for file in (build.library, build.inputs, build.outputs):
            path = folder / f"{file}.xz"
            path.write_bytes(bytes(1000))
            os.utime(path, (1.5, 1.5))
    assert gpu.pack_builds(folder, archive) == []
    size = archive.stat().st_size
    assert gpu.pack_builds(folder, archive, size) == []
    assert archive.stat().st_size == size
    assert gpu.pack_builds(folder, archive, size - 1)
    assert archive.stat().st_size < size


def test_a_limit_of_no_archive_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gpu.main([str(tmp_path / "builds"), "--most", "64"])
    assert "give --pack FILE.tar" in capsys.readouterr().err
    assert not (tmp_path / "builds").exists()


def process(script: str, monkeypatch: pytest.MonkeyPatch) -> gpu_process.StageProcess:
    """One that answers as a script does."""
    found = gpu_process.StageProcess(Path(), dry=True)
    monkeypatch.setattr(found, "_command", [sys.executable, "-c", script])
    return found


def test_a_stage_that_hangs_or_dies_takes_its_process_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = """
import os, sys, time
for line in sys.stdin:
    if line == "dies\\n":
        print("illegal access", file=sys.stderr, flush=True)
        os._exit(3)
    if line == "hangs\\n":
        time.sleep(60)
    print('{"error": "refused"}' if line == "fails\\n" else '{"pid": %d}' % os.getpid(), flush=True)
"""
    stages = process(script, monkeypatch)
    first = stages.run("a", 30)
    assert stages.run("b", 30) == first, "one process does several stages"
    assert stages.run("hangs", 0.2) is None
    second = stages.run("c", 30)
    assert second is not None
    assert second != first
    died = stages.run("dies", 30)
    assert died is not None
    assert "status 3" in died["error"]
    assert "illegal access" in died["error"]
    third = stages.run("d", 30)
    assert stages.run("fails", 30) == {"error": "refused"}
    assert stages.run("e", 30) not in (first, second, third)
    stages.close()


def test_a_process_that_dies_between_stages_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import os, sys
line = sys.stdin.readline()
print('{"pid": %d}' % os.getpid(), flush=True)
print("worn out", file=sys.stderr, flush=True)
os._exit(4)
"""
    stages = process(script, monkeypatch)
    first = stages.run("a", HOUR)
    assert first is not None
    os.waitid(os.P_PID, first["pid"], os.WEXITED | os.WNOWAIT)
    died = stages.run("b", HOUR)
    assert died is not None
    assert "status 4" in died["error"]
    assert "worn out" in died["error"]
    second = stages.run("c", HOUR)
    assert second is not None
    assert second["pid"] != first["pid"]
    stages.close()


def test_a_half_line_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; sys.stdin.readline(); sys.stdout.write('{')"
    found = process(script, monkeypatch).run("a", HOUR)
    assert found is not None
    assert "status 0" in found["error"]


# begins a process that holds a pipe open, and answers or dies, or does neither
BEGINS = """
import os, subprocess, sys
line = sys.stdin.readline()
child = "print(flush=True); import time; time.sleep(3600)"
begun = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE,
                         pass_fds=[int(sys.argv[1])])
begun.stdout.readline()
if line == "dies\\n":
    os._exit(3)
print('{"error": "refused"}' if line == "fails\\n" else "", end="\\n" * (line != "hangs\\n"))
sys.stdout.flush()
begun.wait()
"""


@pytest.mark.parametrize("how", ["dies", "fails", "hangs"])
def test_what_a_stage_has_begun_ends_with_it(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As what compute-sanitizer checks, which would go on using the GPU."""
    reading, writing = os.pipe()
    stages = gpu_process.StageProcess(Path(), dry=True)
    command = [sys.executable, "-c", BEGINS, str(writing)]
    monkeypatch.setattr(stages, "_command", command)
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **options: popen(*args, pass_fds=[writing], **options)
    )
    stages.run(how, 1.0 if how == "hangs" else HOUR)
    os.close(writing)
    assert os.read(reading, 1) == b"", "nobody holds the pipe"
    os.close(reading)


def test_what_is_sanitized_is_kept_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every library has a stage and a limit of its own; the checker's status tells."""
    builds = [a_build("gemm", "g"), a_build("conv", "c"), replace(a_build("gemm", "h"), flops=9)]
    found = [stage for stage in stages_of(builds) if stage.kind == "sanitizer"]
    assert {stage.build.name for stage in found if stage.build} == {"g", "c"}
    tool = tmp_path / "compute-sanitizer"
    tool.write_text('#!/bin/sh\necho "$@"\ncase "$*" in *c.so*) exit 9;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("g.so", "c.so"):
        (tmp_path / name).write_bytes(b"")
    stages = GpuStages(tmp_path, dry=False)
    monkeypatch.setattr(GpuStages, "builds", [replace(b, inputs=b.library) for b in builds])
    assert not stages.run("sanitizer.c")["clean"]
    clean = stages.run("sanitizer.g")
    assert clean["clean"]
    assert "g.so" in clean["told"]
    assert GpuStage("sanitizer", builds[0]).seconds == gpu_stages.SECONDS["sanitizer"]


def test_a_stage_that_time_ends_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "builds.json").write_text("[]")
    session = gpu.GpuSession(tmp_path, dry=True)
    monkeypatch.setattr(session, "_process", process("import time; time.sleep(60)", monkeypatch))
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0.05)
    assert session.run(minutes=0.2 / 60, again=False) == 2
    assert not results_of(tmp_path)


def test_nothing_but_numpy_is_needed_where_the_gpu_is() -> None:
    code = """
import sys
for name in ("onnx", "llvmlite", "triton", "torch", "networkx", "ziglang", "typer"):
    sys.modules[name] = None
from tensmith.benchmarks import gpu, gpu_stages, visit
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_travel_packed(tmp_path: Path) -> None:
    """Weights of one pattern take next to nothing, in other layouts too; their rows differ."""
    weights = patterned((700, 1100), 0.5)
    assert abs(weights.std() - 0.5) < 0.02
    assert np.linalg.matrix_rank(weights[:64, :64]) == 64
    taps = patterned((96, 128, 3, 3), 0.5).transpose(0, 2, 3, 1)
    for array in map(np.ascontiguousarray, (weights, weights.T, taps)):
        path = tmp_path / "w"
        path.write_bytes(array.tobytes())
        pack(path)
        assert not path.exists()
        assert (tmp_path / "w.xz").stat().st_size < 20000 + array.nbytes / 100
        assert unpacked(tmp_path, "w").read_bytes() == array.tobytes()
    assert sample(weights).size < 2 * MOST_STORED <= 1 << 17
    assert np.array_equal(sample(weights[:9]), weights[:9].reshape(-1))


def test_what_does_not_run_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that hangs would do so for as long again; results may lie in a folder of their own,
    and what was not timed says so, and is when a call tries the rest again."""
    add_build(tmp_path, a_build("gemm", "g"))
    results = tmp_path / "elsewhere" / "results"
    script = """
import sys
for line in sys.stdin:
    print('{"error": "hangs"}' if line.startswith("outputs.") else '{"seconds": 1}', flush=True)
"""
    for again in (False, True):
        session = gpu.GpuSession(tmp_path, dry=True, results=results)
        monkeypatch.setattr(session, "_process", process(script, monkeypatch))
        left = session.run(HOUR, again=again)
        kept = {path.stem: json.loads(path.read_text()) for path in results.iterdir()}
        assert ("error" in kept["outputs.g"], "error" in kept["time.g"]) == (not again, not again)
        assert again or "not timed" in kept["time.g"]["error"]
        assert left == 0
        script = script.replace('"error": "hangs"', '"right": true')
    assert not (tmp_path / "results").exists()


def test_a_machine_without_git_has_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.revision() is None
