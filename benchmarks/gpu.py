"""Measure on an NVIDIA GPU, within minutes.

    python -m benchmarks.gpu --build builds/                 # on any machine, without a GPU
    python -m benchmarks.gpu builds/ --minutes 9             # where the GPU is; again: what is left
    python -m benchmarks.gpu --dry-run builds/               # every step on the driver that is none

Where the GPU is, numpy and the sources suffice for Tensmith (a folder on PYTHONPATH that has them
as `tensmith`); torch, where it is installed, is what it is compared with: as a CUDA graph,
compiled with max-autotune, and by AOTInductor, single operators as cuBLAS, cuDNN and torch's
attention; models of the zoo need transformers, too. What is worth most comes first
(`gpu_stages.py`). Stages run in a process of their own, which is ended where it takes too long.
Every stage writes its JSON to `builds/results/` when it ends, and a later call begins behind the
last one; an error is a result too (`--again` tries it once more). `--pack FILE.tar` puts what the
other machine needs into one file; `--most 64`: what is worth most, in at most 64 MiB.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .gpu_index import INDEX, PACKED, GpuBuild, index_text, read_builds
from .gpu_process import StageProcess
from .gpu_stages import GpuStage, stages_of

LEAST_SECONDS = 5.0  # for which a stage is begun


class GpuSession:
    """One call of the script. folder: of the builds. dry: no GPU is looked for. results: folder of
    what stages give; None: `results` among the builds."""

    def __init__(self, folder: Path, dry: bool, results: Path | None = None) -> None:
        self._stages = stages_of(read_builds(folder))
        self._results = results or folder / "results"
        self._results.mkdir(parents=True, exist_ok=True)
        self._process = StageProcess(folder, dry)

    def run(self, minutes: float, again: bool) -> int:
        """Run what is left, until time is up; how many stages are still left then. A stage that is
        ended as time is up is one of them."""
        end, left = time.monotonic() + 60 * minutes, 0
        try:
            for stage in self._stages:
                if not self._is_done(stage, again):
                    left += not self._run(stage, end - time.monotonic())
        finally:
            self._process.close()
        return left

    def _path(self, stage: GpuStage) -> Path:
        return self._results / f"{stage.name}.json"

    def _is_done(self, stage: GpuStage, again: bool) -> bool:
        path = self._path(stage)
        return path.exists() and not (again and "error" in json.loads(path.read_text()))

    def _run(self, stage: GpuStage, seconds: float) -> bool:
        """Whether a stage has a result, for which so many seconds are left."""
        if self._is_pointless(stage):
            self._write(stage, {"error": "not timed: its outputs are not right"})
            return True
        if seconds < LEAST_SECONDS:
            return False
        started = time.monotonic()
        found = self._process.run(stage.name, min(seconds, stage.seconds))
        if found is None:
            if seconds < stage.seconds:
                return False
            found = {"error": f"it did not end within {stage.seconds:g} s"}
        self._write(stage, {**found, "stage_s": round(time.monotonic() - started, 3)})
        return True

    def _is_pointless(self, stage: GpuStage) -> bool:
        """Whether a build would be timed that does not run."""
        path = self._results / f"outputs.{stage.build.name}.json" if stage.build else None
        timed = stage.kind == "time" and path is not None and path.exists()
        return timed and path is not None and "error" in json.loads(path.read_text())

    def _write(self, stage: GpuStage, found: dict[str, Any]) -> None:
        path = self._path(stage)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(found, indent=1) + "\n")
        new.replace(path)
        print(stage.name, json.dumps(found), flush=True)


def pack_builds(folder: Path, archive: Path, most: int | None = None) -> list[str]:
    """Put what is measured into an archive of `most` bytes, the builds that are worth most first;
    the names of those that it has no room for."""
    left, names, chosen = [], list[str](), list[GpuBuild]()
    for build in sorted(read_builds(folder), key=_worth_of(folder)):
        files = [f"{name}{PACKED}" for name in (build.library, build.inputs, build.outputs)]
        more = [name for name in files if name not in names]
        index = index_text([*chosen, build]).encode()
        sizes = [len(index), *((folder / name).stat().st_size for name in (*names, *more))]
        if most is not None and _archived_bytes(sizes) > most:
            left.append(build.name)
            continue
        names += more
        chosen.append(build)
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as made:  # one block ahead of each
        entry, text = tarfile.TarInfo(f"{folder.name}/{INDEX}"), index_text(chosen).encode()
        entry.size = len(text)
        made.addfile(entry, io.BytesIO(text))
        for name in names:
            made.add(folder / name, f"{folder.name}/{name}", filter=_of_nobody)
    return left


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry without its owner, whose number USTAR may have no room for."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _worth_of(folder: Path) -> Callable[[GpuBuild], int]:
    """The place of a build among all, by the first of the stages that need it."""
    stages = [stage.build.name for stage in stages_of(read_builds(folder)) if stage.build]
    return lambda build: stages.index(build.name)


def _archived_bytes(sizes: Sequence[int]) -> int:
    """Of an archive of files of such sizes: each in blocks, behind one that describes it."""
    blocks = sum(1 + math.ceil(size / tarfile.BLOCKSIZE) for size in sizes)
    records = math.ceil((blocks + 2) * tarfile.BLOCKSIZE / tarfile.RECORDSIZE)
    return records * tarfile.RECORDSIZE


def dry_builds(folder: Path) -> None:
    """Small builds, in place of models."""
    import onnx

    from .gpu_builds import attention, chain, compiled, conv, gemm
    from .gpu_index import add_build

    if (folder / INDEX).exists():
        return
    small = gemm(20, 24, 40), conv(1, 8, 6, 16, 3), attention(1, 2, 20, 16), chain(1), chain(3)
    for model, build in small:
        path = folder / f"{build.name}.onnx"
        onnx.save(model, path)
        add_build(folder, compiled(folder, build, path, "cuda:sm_80"))


def main(arguments: list[str] | None = None) -> int:
    """The command line; other than 0 where stages are left."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="of the builds, and of results")
    parser.add_argument("--build", action="store_true", help="make the builds, on any machine")
    parser.add_argument("--pack", type=Path, metavar="FILE.tar", help="of the builds, to be copied")
    parser.add_argument("--most", type=float, metavar="MIB", help="of that file; more is left out")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU, small builds")
    parser.add_argument("--results", type=Path, help="folder of these, where not in that of builds")
    parser.add_argument("--minutes", type=float, default=9.0, help="end after so many")
    parser.add_argument("--again", action="store_true", help="try once more what was an error")
    parser.add_argument("--target", default="cuda", help="of the builds")
    for name in ("models", "batches", "precisions"):
        parser.add_argument(f"--{name}", help="of the builds, with commas between them")
    options = parser.parse_args(arguments)
    if options.most is not None and not options.pack:
        parser.error("--most limits the file of --pack: give --pack FILE.tar, too")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.build:
        from .gpu_builds import BATCHES, MODELS, PRECISIONS, make_builds

        batches = options.batches.split(",") if options.batches else BATCHES
        models = options.models.split(",") if options.models else MODELS
        precisions = options.precisions.split(",") if options.precisions else PRECISIONS
        given = models, [int(batch) for batch in batches], precisions, options.target
        for name in make_builds(options.folder, *given):
            print(name, flush=True)
    if options.pack:
        most = None if options.most is None else int(options.most * (1 << 20))
        left_out = pack_builds(options.folder, options.pack, most)
        print(f"{options.pack}: {options.pack.stat().st_size} bytes")
        print("".join(f"left out: {name}\n" for name in left_out), end="")
    if options.build or options.pack:
        return 0
    if options.dry_run:
        dry_builds(options.folder)
    session = GpuSession(options.folder, options.dry_run, options.results)
    left = session.run(options.minutes, options.again)
    print(f"{left} stages are left" if left else "all stages are done")
    return int(left > 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the stage, too
    sys.exit(main())
