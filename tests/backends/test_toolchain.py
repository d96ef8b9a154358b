"""The compiled runtime in the cache, and zig where its files cannot be written."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tensmith.backends.common import toolchain, zig
from tensmith.backends.common.toolchain import CTarget
from tensmith.compiler.errors import InternalError, UsageError

TARGET = CTarget("x86_64", static=False)
SOURCES = ("memory.c", "bounds.c")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A cache of the test's own, and a compiler that copies its source; notes what it compiles."""
    monkeypatch.setenv("TENSMITH_CACHE_DIR", str(tmp_path / "cache"))
    names = []

    def compile_c(sources: list[Path], target: CTarget, directory: Path) -> list[Path]:
        names.extend(source.name for source in sources)
        for source in sources:
            (directory / f"{source.stem}.o").write_bytes(source.read_bytes())
        return []

    monkeypatch.setattr(toolchain, "compile_c", compile_c)
    return names


def objects(folder: Path) -> list[bytes]:
    folder.mkdir()
    return [path.read_bytes() for path in toolchain.runtime_objects(SOURCES, TARGET, folder)]


def entry_of(cache: Path) -> Path:
    (entry,) = (cache / "runtime").iterdir()
    return entry


def test_the_second_use_compiles_nothing(compiled: list[str], tmp_path: Path) -> None:
    first = objects(tmp_path / "a")
    assert compiled == list(SOURCES)
    assert objects(tmp_path / "b") == first
    assert compiled == list(SOURCES)


@pytest.mark.parametrize("damage", ["truncated", "other bytes", "missing", "no sums"])
def test_damaged_entries_are_made_anew(compiled: list[str], tmp_path: Path, damage: str) -> None:
    first = objects(tmp_path / "a")
    entry = entry_of(tmp_path / "cache")
    victim = entry / "memory.o"
    match damage:
        case "truncated":
            victim.write_bytes(victim.read_bytes()[:-1])
        case "other bytes":
            victim.write_bytes(bytes(victim.stat().st_size))
        case "missing":
            victim.unlink()
        case _:
            (entry / "sha256").write_text("")
    for name in "bc":
        assert objects(tmp_path / name) == first
    assert compiled == [*SOURCES, *SOURCES]


def test_what_ended_processes_left_is_removed(compiled: list[str], tmp_path: Path) -> None:
    left = tmp_path / "cache" / "runtime" / ".new-left"
    fresh = left.with_name(".new-fresh")
    left.mkdir(parents=True)
    fresh.mkdir()
    (tmp_path / "cache").chmod(0o700)
    old = time.time() - 2 * toolchain._ABANDONED_SECONDS
    os.utime(left, (old, old))
    objects(tmp_path / "a")
    assert not left.exists()
    assert fresh.is_dir()


def test_without_a_cache_every_use_compiles(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(toolchain, "writable_cache", lambda: None)
    objects(tmp_path / "a")
    objects(tmp_path / "b")
    assert compiled == [*SOURCES, *SOURCES]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Zig replaced: notes the caches that it is run with; one in a folder "bad" makes it fail."""
    caches: list[Path] = []

    def run(arguments: list[str], directory: Path, cache: Path) -> subprocess.CompletedProcess[str]:
        caches.append(cache)
        return subprocess.CompletedProcess(arguments, int("bad" in cache.parts), "", "no good")

    monkeypatch.setattr(zig, "_run", run)
    return caches


def test_a_cache_that_zig_fails_with_is_removed(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept, work = tmp_path / "bad", tmp_path / "work"
    (kept / "zig" / "o").mkdir(parents=True)
    monkeypatch.setattr(zig, "writable_cache", lambda: kept)
    zig.run_zig(["cc"], work)
    assert runs == [kept / "zig", work / "zig-cache"]
    assert not (kept / "zig").exists()


def test_zig_without_a_cache(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(zig, "writable_cache", lambda: None)
    zig.run_zig(["cc"], tmp_path)
    with pytest.raises(InternalError, match="no good"):
        zig.run_zig(["cc"], tmp_path / "bad")
    assert runs == [tmp_path / "zig-cache", tmp_path / "bad" / "zig-cache"]


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [
        (1, "error: unable to write: NoSpaceLeft", "TENSMITH_CACHE_DIR"),
        (
            1,
            "ld.lld: error: failed to write output: No space left on device",
            "where space is short",
        ),
        (1, "error: unable to create: ReadOnlyFileSystem", "TENSMITH_WORK_DIR"),
        (-signal.SIGXFSZ, "", "ulimit -f"),
        (-signal.SIGKILL, "", "memory is short"),
    ],
)
def test_failures_of_the_system_are_no_faults(code: int, text: str, advice: str) -> None:
    error = zig._failure(["cc"], subprocess.CompletedProcess([], code, "", text))
    assert isinstance(error, UsageError)
    assert advice in str(error)


def test_other_failures_are(tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text("int f(void) { return nothing; }")
    with pytest.raises(InternalError, match="nothing"):
        zig.run_zig(["cc", "-c", "x.c", "-o", "x.o"], tmp_path)


def test_zig_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "zig"
    program.write_text("")
    monkeypatch.setattr(zig, "_program", lambda: program)
    with pytest.raises(UsageError, match="noexec"):
        zig.run_zig(["cc"], tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install"):
        zig._program()
