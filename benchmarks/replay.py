"""Is the machine code the same? Compiles models at two revisions and compares what they emit.

    python -m benchmarks.replay HEAD~1                       # the working tree against a revision
    python -m benchmarks.replay v1.0 --models resnet18,magika --targets x86-64-v4 --levels 2
    python -m benchmarks.replay HEAD~1 --full                # every target, thread count and level

A restructuring changes no byte of any object and no byte of the packed constants; where one does,
the first kernel that differs is named with the first line that does. Models: the example, the
exported zoo (`python -m benchmarks.zoo`), and those of a folder of real models where one lies
beside the project. Without --full every model is compiled for one setting of each target, in turn,
so that together the models see all settings. What a revision emits is kept in `out/replay/`, and
is not compiled again. Exit status 1 where something differs or only one side compiles.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out" / "replay"
WORKER = Path(__file__).with_name("replay_worker.py")
TARGETS = ("x86-64-v3", "x86-64-v4", "aarch64")
THREADS, LEVELS = (1, 2), (0, 1, 2, 3)
LARGEST = 64 << 20  # bytes of a model file of the real ones that is taken without being named
log = Console(stderr=True)


@dataclass(frozen=True)
class Job:
    """A model and what it is compiled for."""

    model: Path
    target: str
    threads: int
    level: int

    @property
    def name(self) -> str:
        """For people."""
        own = self.model.parent.name if self.model.stem == "model" else self.model.stem
        return f"{own} {self.target} -O{self.level} {self.threads} thread(s)"

    @property
    def key(self) -> str:
        """What its result is kept under: the same for the same bytes of the model."""
        digest = hashlib.sha256(self.model.read_bytes()).hexdigest()[:16]
        return f"{self.model.name}-{digest}-{self.target}-{self.threads}-{self.level}"

    def request(self, asm: bool) -> str:
        """What the worker is told."""
        fields = {"model": str(self.model), "target": self.target, "threads": self.threads}
        return json.dumps({**fields, "level": self.level, "asm": asm})


class Side:
    """One revision: its tree, what it has emitted so far, and workers that compile with it.

    kept: where results are stored; None: they are not (files may change).
    """

    def __init__(self, tree: Path, kept: Path | None) -> None:
        self.tree = tree
        self.kept = kept
        self.results: dict[str, Any] = {}
        if kept and kept.exists():
            self.results = json.loads(kept.read_text())
        self._lock = threading.Lock()

    def result(self, job: Job) -> dict[str, Any]:
        """The digests of a job."""
        key = job.key
        if key not in self.results:
            answer = self.compile(job, asm=False)
            with self._lock:
                self.results[key] = answer
                if self.kept:
                    self.kept.parent.mkdir(parents=True, exist_ok=True)
                    self.kept.write_text(json.dumps(self.results, indent=1))
        found: dict[str, Any] = self.results[key]
        return found

    def compile(self, job: Job, asm: bool) -> dict[str, Any]:
        """Compile in a process of its own, which has this side's package in front of its path.

        Raises RuntimeError when the process does not answer.
        """
        source = self.tree / "build" / "src"
        with self._lock:
            source.mkdir(parents=True, exist_ok=True)
            if not (source / "tensmith").exists():
                (source / "tensmith").symlink_to(Path("../.."))
        environment = {**os.environ, "PYTHONPATH": str(source)}
        done = subprocess.run(
            [sys.executable, str(WORKER)], input=job.request(asm) + "\n", env=environment,
            capture_output=True, text=True, check=False, cwd=source,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            last = done.stderr[-400:]
            raise RuntimeError(f"{job.name} with {self.tree} ended ({done.returncode}): {last}")
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer


def first_difference(old: dict[str, str], new: dict[str, str]) -> str:
    """The first function of two listings that differs, and the first line in it."""
    for symbol in dict.fromkeys((*old, *new)):
        if symbol not in old or symbol not in new:
            return f"{symbol or 'preamble'}: only {'after' if symbol in new else 'before'}"
        if old[symbol] != new[symbol]:
            pairs = itertools.zip_longest(
                old[symbol].splitlines(), new[symbol].splitlines(), fillvalue="(end)"
            )
            was, now = next((was, now) for was, now in pairs if was != now)
            return f"{symbol}: '{was.strip()}' became '{now.strip()}'"
    return "the listings are equal; the objects are not"


def compare(job: Job, old: Side, new: Side) -> str:
    """What differs in a job; empty where nothing does."""
    was, now = old.result(job), new.result(job)
    if was == now:
        return ""
    if "error" in was or "error" in now:
        return f"before: {was.get('error', 'compiles')}; after: {now.get('error', 'compiles')}"
    if was["code"] == now["code"]:
        return "the packed constants differ"
    listings = [side.compile(job, asm=True)["functions"] for side in (old, new)]
    return first_difference(*listings)


def jobs_of(models: list[Path], targets: list[str], levels: list[int], full: bool) -> list[Job]:
    """Every setting of every model, or one setting of each target in turn (higher levels first)."""
    settings = list(itertools.product(THREADS, sorted(levels, reverse=True)))
    jobs = []
    for number, model in enumerate(models):
        for place, target in enumerate(targets):
            turn = [settings[(number + place) % len(settings)]]
            for threads, level in settings if full else turn:
                jobs.append(Job(model, target, threads, level))
    return jobs


def find_models(names: list[str]) -> list[Path]:
    """Model files: those that are named, or all that are at hand, the smallest first."""
    zoo = ROOT / "benchmarks" / "zoo"
    real = ROOT.parent / "shared" / "models"
    places = [ROOT / "examples", zoo, real]
    every = [path for place in places for path in sorted(place.rglob("*.onnx"))]
    if not names:
        small = [p for p in every if real not in p.parents or p.stat().st_size <= LARGEST]
        return sorted(small, key=lambda path: (path.stat().st_size, str(path)))
    chosen = []
    for name in names:
        same = [p for p in every if name in (p.stem, p.parent.name)]
        if not same and not Path(name).is_file():
            raise typer.BadParameter(f"{name}: no such model")
        chosen.append((same or [Path(name)])[0].resolve())
    return chosen


@contextmanager
def tree_of(revision: str) -> Iterator[tuple[Path, str]]:
    """A tree of a revision, which lies in `out/replay/` meanwhile, and its commit."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise typer.BadParameter(done.stderr.strip())
        return done.stdout.strip()

    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    tree = OUT / f"tree-{commit[:12]}"
    if not tree.exists():
        git("worktree", "add", "--detach", str(tree), commit)
    try:
        yield tree, commit
    finally:
        git("worktree", "remove", "--force", str(tree))


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main(
    revision: Annotated[str, typer.Argument(help="what the working tree is compared with")],
    models: Annotated[str, typer.Option(help="names or files, with commas; default: all")] = "",
    targets: Annotated[str, typer.Option(help="with commas")] = ",".join(TARGETS),
    levels: Annotated[str, typer.Option(help="with commas")] = ",".join(map(str, LEVELS)),
    full: Annotated[bool, typer.Option("--full", help="every setting of every model")] = False,
    processes: Annotated[int, typer.Option(min=1, help="how many compile at once")] = 2,
) -> None:
    """Compare the machine code of the working tree with that of a revision."""
    chosen = find_models(_names(models))
    jobs = jobs_of(chosen, _names(targets), [int(n) for n in _names(levels)], full)
    differing = 0
    with tree_of(revision) as (tree, commit), ThreadPoolExecutor(processes) as pool:
        old, new = Side(tree, OUT / f"{commit[:12]}.json"), Side(ROOT, None)
        found = pool.map(lambda job: compare(job, old, new), jobs)
        for number, (job, difference) in enumerate(zip(jobs, found, strict=True), start=1):
            log.print(f"[dim]{number}/{len(jobs)}[/dim] {job.name}", highlight=False)
            if difference:
                differing += 1
                print(f"{job.name}: {difference}", flush=True)
    print(f"{len(jobs) - differing} of {len(jobs)} the same")
    raise typer.Exit(1 if differing else 0)


if __name__ == "__main__":
    typer.run(main)
