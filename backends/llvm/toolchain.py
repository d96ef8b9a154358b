"""The C compiler and linker (zig), and the compiled runtime, which is cached per user."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...compiler.errors import InternalError, UsageError
from ...compiler.knobs import child_environment
from .elf import MACHINES

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
CORE_SOURCES = (
    "bounds.c",
    "callbacks.c",
    "check.c",
    "cpu.c",
    "detect.c",
    "elements.c",
    "instance.c",
    "memory.c",
    "pool.c",
    "sort.c",
    "tensor.c",
    "weights.c",
)
SHARED_SOURCES = (*CORE_SOURCES, "ffi.c", "python.c")
PROGRAM_SOURCES = (
    *CORE_SOURCES,
    "feed.c",
    "inflate.c",
    "main.c",
    "npy.c",
    "options.c",
    "report.c",
)

_C_FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-g0",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fno-sanitize=all",
    "-fno-addrsig",
    "-fno-ident",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-Wall",
    "-Wextra",
)


@dataclass(frozen=True)
class CTarget:
    """What to compile C for. static: against musl into a program that needs no libraries."""

    arch: str
    static: bool

    @property
    def zig_name(self) -> str:
        """Name for `zig cc -target`: glibc 2.17 is the oldest of the Linux systems in use."""
        libc = "musl" if self.static else "gnu.2.17"
        return f"{self.arch}-linux-{libc}"


def arch_of(triple: str) -> str:
    """CPU architecture of an LLVM triple. Raises UsageError for one without a runtime."""
    arch, _, system = triple.partition("-")
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch)
    if arch not in MACHINES or "linux" not in system:
        raise UsageError(
            f"cannot link for '{triple}'",
            why="the runtime is for Linux on " + " and ".join(MACHINES),
            remedy="choose another target, or emit llvm or asm",
        )
    return arch


def run_zig(arguments: Sequence[str | Path], directory: Path) -> None:
    """Run `zig ARGUMENTS` in `directory`; raises InternalError with its output when it fails."""
    command = [sys.executable, "-m", "ziglang", *map(str, arguments)]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if result.returncode:
        raise InternalError(
            f"zig {arguments[0]} failed", where=" ".join(command), why=result.stderr[-4000:]
        )


def compile_c(sources: Sequence[Path], target: CTarget, directory: Path) -> list[Path]:
    """Compile C files into `directory`, one object of the same stem each."""
    flags = (*_C_FLAGS, *(("-DTS_STATIC",) if target.static else ()), f"-I{RUNTIME}")
    objects = [directory / f"{source.stem}.o" for source in sources]
    for source, path in zip(sources, objects, strict=True):
        run_zig(["cc", "-target", target.zig_name, *flags, "-c", source, "-o", path], directory)
    return objects


def cache_dir() -> Path:
    """The user's cache folder of Tensmith (below XDG_CACHE_HOME, or ~/.cache)."""
    base = child_environment().get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "tensmith"


@functools.cache
def _runtime_digest() -> str:
    digest = hashlib.sha256()
    for part in (importlib.metadata.version("ziglang"), *_C_FLAGS):
        digest.update(part.encode() + b"\0")
    for path in sorted(RUNTIME.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def runtime_objects(sources: Sequence[str], target: CTarget) -> list[Path]:
    """Objects of runtime sources for a target, compiled at the first use of these sources."""
    key = hashlib.sha256("\0".join(sources).encode()).hexdigest()[:8]
    folder = cache_dir() / "runtime" / f"{_runtime_digest()}-{target.zig_name}-{key}"
    objects = [folder / f"{Path(source).stem}.o" for source in sources]
    if all(path.is_file() for path in objects):
        return objects
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        compile_c([RUNTIME / source for source in sources], target, Path(temporary))
        folder.mkdir(exist_ok=True)
        for path in objects:  # atomic, and the same bytes whoever comes first
            os.replace(Path(temporary) / path.name, path)
    return objects
