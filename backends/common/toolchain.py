"""C for the targets: flags, and the compiled runtime, which is kept in the user's cache."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...compiler.errors import UsageError
from ...compiler.scratch import cache_folders, writable_cache
from .elf import MACHINES
from .zig import library_folder, run_zig

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
CORE_SOURCES = (
    "bounds.c",
    "cache.c",
    "callbacks.c",
    "check.c",
    "counters.c",
    "cpu.c",
    "cumulative.c",
    "detect.c",
    "elements.c",
    "forest.c",
    "instance.c",
    "memory.c",
    "numbers.c",
    "ordering.c",
    "pool.c",
    "sort.c",
    "tensor.c",
    "weights.c",
)
SHARED_SOURCES = (*CORE_SOURCES, "ffi.c", "python.c")
PROGRAM_SOURCES = (
    *CORE_SOURCES,
    "energy.c",
    "feed.c",
    "inflate.c",
    "main.c",
    "npy.c",
    "options.c",
    "probe.c",
    "report.c",
    "samples.c",
    "save.c",
)

_HOSTED = ("-D_GNU_SOURCE", "-O2", "-fPIC")
_BARE = ("-Os", "-ffreestanding", "-fshort-enums", "-fno-unwind-tables")
_BARE_HEADERS = ("arm-linux-musl", "generic-musl")  # zig's, of string.h and math.h
_C_FLAGS = (
    "-std=c11",
    "-g0",
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
_SUMS = "sha256"  # in an entry of the cache: a line for each object
_NEW = ".new-"  # begins the name of an entry that is being written
_ABANDONED_SECONDS = 86400.0


@dataclass(frozen=True)
class CTarget:
    """What to compile C for.

    static: against musl into a program that needs no libraries. processor: of a machine without an
    operating system, by zig's names of it and of what it has; "" elsewhere.
    """

    arch: str
    static: bool
    processor: str = ""

    @property
    def zig_name(self) -> str:
        """Name for `zig cc -target`: glibc 2.17 is the oldest of the Linux systems in use."""
        if self.processor:
            return f"{self.arch}-freestanding-eabihf"
        libc = "musl" if self.static else "gnu.2.17"
        return f"{self.arch}-linux-{libc}"

    @property
    def flags(self) -> tuple[str, ...]:
        """Options of the compiler."""
        if not self.processor:
            static = ("-DTS_STATIC",) if self.static else ()
            return (*_HOSTED, *_C_FLAGS, *static, f"-I{RUNTIME}")
        headers = [str(library_folder() / "libc" / "include" / name) for name in _BARE_HEADERS]
        found = [word for folder in headers for word in ("-isystem", folder)]
        own = (f"-I{RUNTIME}", f"-I{RUNTIME / 'bare'}")
        return (f"-mcpu={self.processor}", *_BARE, *_C_FLAGS, *found, *own)


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


def compile_c(sources: Sequence[Path], target: CTarget, directory: Path) -> list[Path]:
    """Compile C files into `directory`, one object of the same stem each."""
    objects = [directory / f"{source.stem}.o" for source in sources]
    for source, path in zip(sources, objects, strict=True):
        inside = source.name if source.parent == directory else source
        options = ["cc", "-target", target.zig_name, *target.flags, "-c", inside, "-o", path.name]
        run_zig(options, directory)
    return objects


@functools.cache
def _runtime_digest() -> str:
    digest = hashlib.sha256()
    for part in (importlib.metadata.version("ziglang"), *_C_FLAGS, *_HOSTED, *_BARE):
        digest.update(part.encode() + b"\0")
    for path in sorted(RUNTIME.rglob("*.[ch]")):
        name = path.relative_to(RUNTIME).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def runtime_objects(sources: Sequence[str], target: CTarget, directory: Path) -> list[Path]:
    """Objects of runtime sources for a target, in a folder of their own in `directory`.

    They are compiled at the first use of these sources; later uses copy them from the cache, if
    they are there as they were compiled.
    """
    key = hashlib.sha256("\0".join(sources).encode()).hexdigest()[:8]
    name = "-".join(filter(None, (target.zig_name, target.processor)))
    entry = Path("runtime", f"{_runtime_digest()}-{name}-{key}")
    own = directory / "runtime"
    own.mkdir()
    objects = [own / f"{Path(source).stem}.o" for source in sources]
    if any(_restored(folder / entry, objects) for folder in cache_folders()):
        return objects
    compile_c([RUNTIME / source for source in sources], target, own)
    kept = writable_cache()
    if kept is not None:
        with suppress(OSError):  # what is not kept is compiled again
            _keep(objects, kept / entry)
    return objects


def _restored(entry: Path, objects: Sequence[Path]) -> bool:
    """Copy an entry of the cache to the objects, unless files are missing or damaged."""
    try:
        sums = (entry / _SUMS).read_text(encoding="ascii").split()
        for path, expected in zip(objects, sums, strict=True):
            data = (entry / path.name).read_bytes()
            if hashlib.sha256(data).hexdigest() != expected:
                return False
            path.write_bytes(data)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return False
    return True


def _keep(objects: Sequence[Path], entry: Path) -> None:
    """Store objects as an entry of the cache, which appears as a whole."""
    entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in entry.parent.glob(f"{_NEW}*"):  # by a process that was ended
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=_NEW, dir=entry.parent))
    try:
        for path in objects:
            shutil.copyfile(path, new / path.name)
        sums = "\n".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in objects)
        (new / _SUMS).write_text(sums, encoding="ascii")
        shutil.rmtree(entry, ignore_errors=True)  # damaged
        os.replace(new, entry)
    finally:
        shutil.rmtree(new, ignore_errors=True)
