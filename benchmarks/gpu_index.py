"""The builds of a folder: what they are, and their files. Numpy suffices to read them."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

INDEX = "builds.json"
PACKED = ".xz"  # behind the name of a file that travels
MOST_STORED = 1 << 16  # elements of an output that are compared


@dataclass(frozen=True)
class GpuBuild:
    """One library and what it is compared with; paths are relative to the folder of builds.

    kind: "model" (of the zoo, by the name `model`), or "gemm" (m, n, k), "conv" (batch, channels,
    size, outputs, taps), "attention" (batch, heads, length, depth), "chain" (launches), with those
    sizes. outputs: a sample of each (`sample`). flops: of a run, 0 where nobody counted.
    """

    name: str
    kind: str
    precision: str
    batch: int
    library: str
    inputs: str
    outputs: str
    model: str = ""
    sizes: tuple[int, ...] = ()
    flops: int = 0


def read_builds(folder: Path) -> list[GpuBuild]:
    """The builds of a folder. Raises FileNotFoundError where none were made."""
    index = folder / INDEX
    if not index.exists():
        raise FileNotFoundError(f"{index} is not there: make it by --build")
    found = json.loads(index.read_text())
    return [GpuBuild(**{**entry, "sizes": tuple(entry["sizes"])}) for entry in found]


def add_build(folder: Path, build: GpuBuild) -> None:
    """Note a build that is complete."""
    index = folder / INDEX
    known = [b for b in (read_builds(folder) if index.exists() else []) if b.name != build.name]
    index.write_text(index_text([*known, build]))


def index_text(builds: Sequence[GpuBuild]) -> str:
    """What the index of builds is written as."""
    return json.dumps([asdict(build) for build in builds], indent=1) + "\n"


def pack(path: Path) -> None:
    """Put a file, compressed, in its place."""
    packed = path.with_name(path.name + PACKED)
    with path.open("rb") as given, lzma.open(packed, "wb", preset=1) as made:
        shutil.copyfileobj(given, made, 1 << 20)
    path.unlink()


def unpacked(folder: Path, name: str) -> Path:
    """A file of the folder, unpacked where it is not yet. Raises FileNotFoundError where it is
    missing."""
    path = folder / name
    packed = path.with_name(name + PACKED)
    if not path.exists() and packed.exists():
        new = path.with_name(name + ".new")
        with lzma.open(packed, "rb") as given, new.open("wb") as made:
            shutil.copyfileobj(given, made, 1 << 20)
        new.replace(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file '{path}'")
    return path


def arrays_of(folder: Path, name: str) -> dict[str, Any]:
    """The arrays of a file, by name."""
    with np.load(unpacked(folder, name)) as arrays:
        return {key: arrays[key] for key in arrays.files}


def sample(array: Any) -> Any:
    """Evenly spread elements of an array: all of a small one."""
    flat = array.reshape(-1)
    return flat[:: 1 | flat.size // MOST_STORED] if flat.size > MOST_STORED else flat
