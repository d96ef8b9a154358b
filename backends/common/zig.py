"""Zig, the C compiler and linker: where it keeps its files, and what its failures mean."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ...compiler.errors import InternalError, TensmithError, UsageError
from ...compiler.knobs import CACHE_DIR, WORK_DIR, child_environment
from ...compiler.scratch import writable_cache

# What zig, LLVM and the C library say where a file system is to blame and not the compiler.
_REFUSED = re.compile(
    r"NoSpaceLeft|DiskQuota|FileTooBig|ReadOnlyFileSystem|AccessDenied|PermissionDenied|NotDir"
    r"|SystemResources|FdQuotaExceeded|OutOfMemory|InputOutput|No space left|Disk quota"
    r"|File too large|Read-only file system|Permission denied|Input/output error"
)
_LIMITS = {
    signal.SIGXFSZ: "it reached the limit of file sizes (`ulimit -f`)",
    signal.SIGXCPU: "it reached the limit of processor time (`ulimit -t`)",
    signal.SIGKILL: "it was killed, as the system does where memory is short",
    signal.SIGTERM: "it was told to end",
    signal.SIGBUS: "it could not write a mapped file, as where a disk is full",
}


def run_zig(arguments: Sequence[str | Path], directory: Path) -> None:
    """Run `zig ARGUMENTS` in `directory`.

    Its files (the C library that it compiles at the first use) are kept in the user's cache where
    that can be written, else in `directory`. A cache that zig fails with is made anew. Files should
    be named relative to `directory`: zig mistakes some characters in the names of folders.
    Raises InternalError with its output when it fails, UsageError where the system is to blame.
    """
    kept = writable_cache()
    own = directory / "zig-cache"
    if kept is not None:
        result = _run(arguments, directory, kept / "zig")
        if not result.returncode:
            return
    result = _run(arguments, directory, own)
    if kept is not None and not result.returncode:
        shutil.rmtree(kept / "zig", ignore_errors=True)  # damaged, or not to be written everywhere
    if result.returncode:
        raise _failure(arguments, result)


def _run(
    arguments: Sequence[str | Path], directory: Path, cache: Path
) -> subprocess.CompletedProcess[str]:
    command = [str(_program()), *map(str, arguments)]
    environment = child_environment(ZIG_GLOBAL_CACHE_DIR=str(cache), ZIG_LOCAL_CACHE_DIR=str(cache))
    try:
        return subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise UsageError(
            "cannot run zig, the C compiler",
            where=command[0],
            why=error.strerror or str(error),
            remedy="Python's packages must lie where programs may run (not on a noexec mount)",
        ) from None


def _program() -> Path:
    """The executable in the package `ziglang`. Raises UsageError when it is not installed."""
    found = importlib.util.find_spec("ziglang")
    if found is None or not found.origin:
        raise UsageError(
            "zig, the C compiler, is not installed", remedy="pip install --force-reinstall ziglang"
        )
    return Path(found.origin).parent / "zig"


def library_folder() -> Path:
    """Where zig keeps the headers of C libraries. Raises UsageError when it is not installed."""
    return _program().parent / "lib"


def _failure(
    arguments: Sequence[str | Path], result: subprocess.CompletedProcess[str]
) -> TensmithError:
    what, where = f"zig {arguments[0]} failed", " ".join(map(str, arguments))
    limit = _LIMITS.get(signal.Signals(-result.returncode)) if result.returncode < 0 else ""
    if "self exe path" in result.stderr:
        return UsageError(what, why="it finds itself by /proc", remedy="mount /proc")
    if not limit and not result.stderr.strip():
        limit = "it ended without a word, as where a limit of the system ends it"
    if limit or _REFUSED.search(result.stderr):
        return UsageError(
            f"{what}: the system refused it something",
            why=limit or result.stderr.strip()[-1000:],
            remedy=f"where space is short, free some, also for the output, or set "
            f"{CACHE_DIR.variable} (100 MB) and {WORK_DIR.variable} to other folders; where open "
            "files or memory are, raise the limits (`ulimit`)",
        )
    return InternalError(what, where=where, why=result.stderr[-4000:])
