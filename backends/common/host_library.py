"""C of Tensmith that runs in this process: compiled once for a user, as a shared library."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...compiler.scratch import cache_folders, temporary_folder, writable_cache, written_whole
from .toolchain import RUNTIME
from .zig import run_zig

_FLAGS = (
    "-std=c11",
    "-O2",
    "-g0",
    "-fPIC",
    "-shared",
    "-s",
    "-fno-sanitize=all",
    "-Wall",
    "-Wextra",
)


def host_library(
    name: str, sources: Sequence[Path], headers: Sequence[Path] = (), *options: str
) -> Path:
    """A shared library of C files, from the user's cache or made anew.

    name: its file name, which is its soname as well. headers: files that they include;
    options: for the compiler. Raises what `run_zig` raises.
    """
    target = f"{platform.machine()}-linux-gnu.2.17"
    flags = ("-target", target, *_FLAGS, f"-I{RUNTIME}")
    digest = hashlib.sha256()
    for part in (importlib.metadata.version("ziglang"), target, *_FLAGS, *options):
        digest.update(part.encode() + b"\0")
    for path in (*sources, *headers):
        digest.update(path.read_bytes() + b"\0")
    entry = Path("host", digest.hexdigest()[:32], name)
    for folder in cache_folders():
        if (folder / entry).is_file():
            return folder / entry
    kept = writable_cache()
    path = (kept or Path(tempfile.mkdtemp(prefix="tensmith-host-"))) / entry
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with temporary_folder("tensmith-host-") as made, written_whole(path) as new:
        soname = ("-Xlinker", "-soname", "-Xlinker", name)
        run_zig(["cc", *flags, *soname, "-o", name, *sources, *options], Path(made))
        new.write_bytes(Path(made, name).read_bytes())
    return path
