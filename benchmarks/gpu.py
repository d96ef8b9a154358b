"""Measure on an NVIDIA GPU that is at hand for minutes only.

    python -m benchmarks.gpu --build builds/                 # on any machine, without a GPU
    python -m benchmarks.gpu builds/ --minutes 12            # where the GPU is; again: what is left
    python -m benchmarks.gpu --dry-run builds/               # every step on the driver that is none

Where the GPU is, numpy and the sources suffice for Tensmith; torch, where it is installed, is what
it is compared with: as a CUDA graph, compiled with max-autotune, and by AOTInductor, single
operators as cuBLAS, cuDNN and torch's attention. Every stage writes its JSON to `builds/results/`
when it ends, and a later call begins behind the last one; an error is a result too (`--again` tries
it once more).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tensmith

from .gpu_builds import BATCHES, MODELS, PRECISIONS, GpuBuild, read_builds
from .gpu_peers import PEERS, peer_call, seconds_of, tensors, torch_or_reason
from .provenance import machine, revision

TOLERANCE = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2}  # of the peak of an output
OVERHEAD_RUNS = 200


@dataclass(frozen=True)
class GpuStage:
    """What is measured at once: a name, which is its file's, and what measures it."""

    name: str
    run: Callable[[], dict[str, Any]]


class GpuSession:
    """One call of the script. folder: of the builds. dry: no GPU is looked for."""

    def __init__(self, folder: Path, dry: bool) -> None:
        self.folder, self.dry = folder, dry
        self.results = folder / "results"
        self.results.mkdir(exist_ok=True)
        self.torch, self.no_torch = (None, "a dry run") if dry else torch_or_reason()

    def stages(self) -> Iterator[GpuStage]:
        """All stages, what matters most first."""
        builds = read_builds(self.folder)
        yield GpuStage("machine", self._machine)
        for build in builds:
            yield GpuStage(f"outputs.{build.name}", partial(self._outputs, build))
        yield GpuStage("overhead", partial(self._overhead, builds[0]))
        yield GpuStage("sanitizer", partial(self._sanitizer, builds[0]))
        for build in builds:
            yield GpuStage(f"time.{build.name}", partial(self._time, build))
        for build in builds:
            for peer in PEERS if build.kind == "model" else PEERS[:1]:
                yield GpuStage(f"{peer}.{build.name}", partial(self._peer, build, peer))

    def _machine(self) -> dict[str, Any]:
        found: dict[str, Any] = {"host": machine(), "revision": revision(), "dry": self.dry}
        query = [
            "nvidia-smi",
            "--query-gpu=name,driver_version,memory.total",
            "--format=csv,noheader",
        ]
        if shutil.which(query[0]):
            told = subprocess.run(query, capture_output=True, text=True, check=False)
            found["gpu"] = told.stdout.strip()
        found["torch"] = self.torch.__version__ if self.torch else self.no_torch
        return found

    def _feed(self, build: GpuBuild) -> dict[str, Any]:
        with np.load(self.folder / build.inputs) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def _outputs(self, build: GpuBuild) -> dict[str, Any]:
        """The largest difference from a processor's outputs, relative to their peak, three runs:
        launches, then graphs."""
        module = tensmith.load(self.folder / build.library)
        worst = 0.0
        with np.load(self.folder / build.outputs) as arrays:
            for _ in range(3):
                got = module(self._feed(build))
                for name in arrays.files:
                    want = arrays[name].astype("f8")
                    peak = float(np.abs(want).max()) or 1.0
                    worst = max(worst, float(np.abs(got[name].astype("f8") - want).max()) / peak)
        return {"difference": worst, "right": worst <= TOLERANCE[build.precision]}

    def _overhead(self, build: GpuBuild) -> dict[str, Any]:
        """Seconds of a whole run with arrays of the host, as the host sees them."""
        durations = tensmith.load(self.folder / build.library).bench(
            self._feed(build), warmup=3, iterations=3 if self.dry else OVERHEAD_RUNS
        )
        return {"build": build.name, "median_s": float(np.median(durations))}

    def _sanitizer(self, build: GpuBuild) -> dict[str, Any]:
        tool = shutil.which("compute-sanitizer")
        if tool is None or self.dry:
            return {"skipped": "a dry run" if self.dry else "compute-sanitizer is not installed"}
        files = [str(self.folder / name) for name in (build.library, build.inputs)]
        program = [sys.executable, "-m", "benchmarks.visit", *files, "0"]
        command = [tool, "--error-exitcode", "9", *program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return {"clean": done.returncode == 0, "told": (done.stdout + done.stderr)[-2000:]}

    def _time(self, build: GpuBuild) -> dict[str, Any]:
        """Seconds of a run on tensors of the GPU, in torch's stream; without torch, of the host."""
        if self.torch is None:
            return {**self._overhead(build), "why": self.no_torch}
        torch = self.torch
        stream = torch.cuda.Stream()
        module = tensmith.load(self.folder / build.library, stream=stream.cuda_stream)
        feed = tensors(torch, self.folder, build.inputs)
        wanted = tensors(torch, self.folder, build.outputs)
        results = {name: torch.empty_like(tensor) for name, tensor in wanted.items()}
        with torch.cuda.stream(stream):
            seconds = seconds_of(torch, lambda: module.run_into(feed, results))
        return {"seconds": seconds, "tflops": build.flops / seconds / 1e12 if build.flops else None}

    def _peer(self, build: GpuBuild, peer: str) -> dict[str, Any]:
        if self.torch is None:
            return {"skipped": self.no_torch}
        seconds = seconds_of(self.torch, peer_call(self.torch, self.folder, build, peer))
        return {"seconds": seconds}

    def run(self, minutes: float, again: bool) -> int:
        """Run what is left, until time is up; how many stages are still left then."""
        begun, left = time.monotonic(), 0
        for stage in self.stages():
            path = self.results / f"{stage.name}.json"
            done = json.loads(path.read_text()) if path.exists() else None
            if done is not None and not (again and "error" in done):
                continue
            if time.monotonic() - begun > 60 * minutes:
                left += 1
                continue
            started = time.monotonic()
            try:
                found = stage.run()
            except Exception as error:  # whatever fails, the other stages are worth their time
                found = {"error": f"{type(error).__name__}: {error}"}
            found["stage_s"] = round(time.monotonic() - started, 3)
            new = path.with_suffix(".new")
            new.write_text(json.dumps(found, indent=1) + "\n")
            new.replace(path)
            print(stage.name, json.dumps(found), flush=True)
        return left


def dry_builds(folder: Path) -> None:
    """Small builds, in place of models."""
    import onnx

    from .gpu_builds import INDEX, add_build, attention, compiled, conv, gemm

    if (folder / INDEX).exists():
        return
    for model, build in (gemm(20, 24, 40), conv(1, 8, 6, 16, 3), attention(1, 2, 20, 16)):
        path = folder / f"{build.name}.onnx"
        onnx.save(model, path)
        add_build(folder, compiled(folder, build, path, "cuda:sm_80"))


def main(arguments: list[str] | None = None) -> int:
    """The command line; other than 0 where stages are left."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="of the builds, and of results")
    parser.add_argument("--build", action="store_true", help="make the builds, on any machine")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU, small builds")
    parser.add_argument("--minutes", type=float, default=12.0, help="begin no stage after so many")
    parser.add_argument("--again", action="store_true", help="try once more what was an error")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.build:
        from .gpu_builds import make_builds

        batches = [int(batch) for batch in options.batches.split(",")]
        models, precisions = options.models.split(","), options.precisions.split(",")
        for name in make_builds(options.folder, models, batches, precisions):
            print(name, flush=True)
        return 0
    if options.dry_run:
        from tensmith.backends.cuda.fake.install import stand_in
        from tensmith.backends.cuda.targets import TARGETS

        dry_builds(options.folder)
        stand_in(TARGETS["cuda:sm_80"])
    left = GpuSession(options.folder, options.dry_run).run(options.minutes, options.again)
    print(f"{left} stages are left" if left else "all stages are done")
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main())
