"""What is measured on a GPU, stage by stage, in the order of what it is worth.

    python -m benchmarks.gpu_stages builds/ [--dry-run]     # a process for `gpu_process.py`

reads names of stages, one a line, and answers each by a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tensmith.runtime.loader import load

from .gpu_index import GpuBuild, arrays_of, read_builds, sample, unpacked
from .gpu_peers import PEERS, peer_call, seconds_of, tensors, torch_or_reason
from .provenance import machine, revision

TOLERANCE = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2}  # of the peak of an output
RUNS, DRY_RUNS = 200, 3
FIRST = "gemm-4096x4096x4096"  # of single operators
ORDER = ("fp16", "tf32", "fp32")  # of precisions: all models in one, then in the next
# that a stage may take, by its kind: some peers compile for minutes
SECONDS = {"compiled": 300.0, "inductor": 300.0, "sanitizer": 120.0}
USUAL_SECONDS = 90.0  # of other kinds


@dataclass(frozen=True)
class GpuStage:
    """What is measured at once. kind: which method does it. build: of what; None: of no build."""

    kind: str
    build: GpuBuild | None = None

    @property
    def name(self) -> str:
        """Its file's, too."""
        return f"{self.kind}.{self.build.name}" if self.build else self.kind

    @property
    def seconds(self) -> float:
        """After which it hangs."""
        return SECONDS.get(self.kind, USUAL_SECONDS)


def stages_of(builds: Sequence[GpuBuild]) -> list[GpuStage]:
    """All stages, what is worth most first: whether outputs are right, how long a run of one
    input takes, what products, attention and launches take, how long torch takes for these, and
    then the same of many inputs."""
    models = sorted(
        (b for b in builds if b.kind == "model"), key=lambda b: ORDER.index(b.precision)
    )
    alone = [build for build in models if build.batch == 1]
    many = [build for build in models if build.batch > 1]
    others = sorted((b for b in builds if b.kind != "model"), key=lambda b: b.name != FIRST)
    of_kind = {kind: [b for b in others if b.kind == kind] for kind in ("gemm", "attention")}
    rest = [build for build in others if build.kind not in of_kind]
    found = [GpuStage("machine")]

    def add(kinds: Sequence[str], wanted: Sequence[GpuBuild]) -> None:
        found.extend(GpuStage(kind, build) for build in wanted for kind in kinds)

    add(["outputs"], alone)
    add(["outputs"], others)
    add(["time"], alone)
    add(["time", "eager"], of_kind["gemm"])
    add(["time", "eager"], of_kind["attention"])
    add(["time", "eager"], rest)
    found.append(GpuStage("overhead"))
    add(["eager"], alone)
    add(["compiled"], alone)
    add(["outputs", "time", "eager"], sorted(many, key=lambda build: -build.batch))
    add(["sanitizer"], smallest_of(builds))
    add(["compiled"], sorted(many, key=lambda build: -build.batch))
    add(["inductor"], models)
    return found


def smallest_of(builds: Sequence[GpuBuild]) -> list[GpuBuild]:
    """The smallest build of every kind, the smallest first."""
    found: dict[str, GpuBuild] = {}
    for build in sorted(builds, key=lambda build: (build.flops, build.batch, build.sizes)):
        found.setdefault(build.kind, build)
    return list(found.values())


@dataclass
class GpuStages:
    """Does stages, in this process. folder: of the builds. dry: no GPU is looked for."""

    folder: Path
    dry: bool
    _loaded: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def builds(self) -> list[GpuBuild]:
        """Of the folder."""
        return read_builds(self.folder)

    @cached_property
    def torch(self) -> tuple[Any, str]:
        """torch, or why there is none; asked for only where a stage wants it."""
        return (None, "a dry run") if self.dry else torch_or_reason()

    def run(self, name: str) -> dict[str, Any]:
        """What a stage gives. Raises whatever it fails with."""
        stage = next(stage for stage in stages_of(self.builds) if stage.name == name)
        if stage.build is None:
            return self._machine() if stage.kind == "machine" else self._overhead()
        if stage.kind in PEERS:
            return self._peer(stage.build, stage.kind)
        own = {"outputs": self._outputs, "time": self._time, "sanitizer": self._sanitizer}
        return own[stage.kind](stage.build)

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
        torch, why = self.torch
        found["torch"] = torch.__version__ if torch else why
        return found

    def _module(self, build: GpuBuild, **options: Any) -> Any:
        return load(unpacked(self.folder, build.library), **options)

    def _outputs(self, build: GpuBuild) -> dict[str, Any]:
        """The largest difference from a processor's outputs, relative to their peak, three runs:
        launches, then graphs."""
        module, feed = self._module(build), arrays_of(self.folder, build.inputs)
        wanted, worst = arrays_of(self.folder, build.outputs), 0.0
        for _ in range(3):
            got = module(feed)
            for name, want in wanted.items():
                want = want.astype("f8").reshape(-1)
                peak = float(np.abs(want).max()) or 1.0
                difference = np.abs(sample(np.asarray(got[name])).astype("f8") - want).max()
                worst = float(np.maximum(worst, difference / peak))  # NaN stays
        return {"difference": worst, "right": bool(worst <= TOLERANCE[build.precision])}

    def _seconds(self, build: GpuBuild) -> float:
        """Of a whole run with arrays of the host, as the host sees them."""
        durations = self._module(build).bench(
            arrays_of(self.folder, build.inputs),
            warmup=3,
            iterations=DRY_RUNS if self.dry else RUNS,
        )
        return float(np.median(durations))

    def _time(self, build: GpuBuild) -> dict[str, Any]:
        """Seconds of a run on tensors of the GPU, in torch's stream; without torch, of the host."""
        torch, why = self.torch
        if torch is None:
            return {"seconds": self._seconds(build), "of": "arrays of the host", "why": why}
        stream = torch.cuda.Stream()
        module = self._module(build, stream=stream.cuda_stream)
        feed = tensors(torch, self.folder, build.inputs)
        outputs = self._module(build)(arrays_of(self.folder, build.inputs))
        results = {name: torch.from_numpy(np.array(a)).cuda() for name, a in outputs.items()}
        with torch.cuda.stream(stream):
            found = seconds_of(torch, lambda: module.run_into(feed, results))
        rate = build.flops / found["seconds"] / 1e12 if build.flops else None
        return {**found, "tflops": rate}

    def _overhead(self) -> dict[str, Any]:
        """Seconds that a call takes with arrays of the host, and what one more launch adds."""
        chains = sorted((b for b in self.builds if b.kind == "chain"), key=lambda b: b.sizes)
        if len(chains) < 2:
            return {"skipped": "there are no chains of launches of two lengths"}
        few, many = chains[0], chains[-1]
        seconds = [self._seconds(few), self._seconds(many)]
        each = (seconds[1] - seconds[0]) / (many.sizes[0] - few.sizes[0])
        return {"call_s": seconds[0], "launch_s": each, "chains": [few.name, many.name]}

    def _sanitizer(self, build: GpuBuild) -> dict[str, Any]:
        """What compute-sanitizer finds in a run."""
        tool = shutil.which("compute-sanitizer")
        if tool is None or self.dry:
            return {"skipped": "a dry run" if self.dry else "compute-sanitizer is not installed"}
        files = [str(unpacked(self.folder, name)) for name in (build.library, build.inputs)]
        visit = [sys.executable, "-m", f"{__package__}.visit", *files, "0"]
        done = subprocess.run(
            [tool, "--error-exitcode", "9", *visit], capture_output=True, text=True, check=False
        )
        return {"clean": done.returncode == 0, "told": (done.stdout + done.stderr)[-2000:]}

    def _peer(self, build: GpuBuild, peer: str) -> dict[str, Any]:
        torch, why = self.torch
        if torch is None:
            return {"skipped": why}
        try:
            call, told = peer_call(torch, self.folder, build, peer)
        except ImportError as error:  # the process, which has imported torch, goes on
            return {"skipped": str(error)}
        return {**seconds_of(torch, call), **told}


def answers(stages: GpuStages) -> Iterator[dict[str, Any]]:
    """What each stage gives that stdin names, or how it fails."""
    for line in sys.stdin:
        try:
            yield stages.run(line.strip())
        except Exception as error:  # whatever fails, the other stages are worth their time
            yield {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Do the stages that stdin names."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_stages")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever others print
    if options.dry_run:
        from tensmith.backends.cuda.fake.install import stand_in
        from tensmith.backends.cuda.targets import TARGETS

        stand_in(TARGETS["cuda:sm_80"])
    for answer in answers(GpuStages(options.folder, options.dry_run)):
        sink.write(json.dumps(answer) + "\n")
        sink.flush()


if __name__ == "__main__":
    main()
