"""`python -m random_models --count 2000`, in tests/: compare a range of seeds with ONNX Runtime.

Every batch has a process of its own; what ends it, or keeps it longer than its time, is found out
seed by seed. `--save FOLDER` writes the models that are not right, with their inputs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx

from .builder import Features
from .check import BATCH, check
from .emulated import on_target
from .generate import sample
from .gpu import on_gpu

SECONDS = 60.0  # of one model; a batch has a third of that for each of its models
GPU_SECONDS = 180.0  # the same, where they are interpreted


def main() -> int:
    """Run the command line; the exit code is 1 when something was found."""
    parser = argparse.ArgumentParser(prog="random_models", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=200, help="how many seeds")
    parser.add_argument("--save", type=Path, help="folder for models that are not right")
    parser.add_argument("--gpu", action="store_true", help="planned for a GPU, in an interpreter")
    parser.add_argument("--target", help="run in an emulator: aarch64..., cortex-m...")
    parser.add_argument("--inside", action="store_true", help="check in this process")
    names = [item.name for item in fields(Features)]
    for sign, word in (("on", "with"), ("off", "without")):
        parser.add_argument(f"--{sign}", nargs="*", choices=names, default=[], help=f"{word} these")
    options = parser.parse_args()
    features = Features(**dict.fromkeys(options.on, True) | dict.fromkeys(options.off, False))
    seeds = range(options.first, options.first + options.count)
    if options.inside:
        with tempfile.TemporaryDirectory() as folder:
            compiled = on_target(options.target) if options.target else None
            compiled = on_gpu if options.gpu else compiled
            found = check(seeds, Path(folder), features, compiled)
        for finding in found:
            print(str(finding).replace("\n", " | "), flush=True)
        return bool(found)
    seconds = GPU_SECONDS if options.gpu else SECONDS
    return _run(seeds, features, seconds, sys.argv[1:], options.save)


def batches(seeds: range) -> Iterator[range]:
    """The seeds in parts that do not cross a multiple of the size of a batch."""
    first = seeds.start
    while first < seeds.stop:
        last = min((first // BATCH + 1) * BATCH, seeds.stop)
        yield range(first, last)
        first = last


def _run(
    seeds: range, features: Features, seconds: float, words: list[str], save: Path | None
) -> bool:
    start, lines = time.monotonic(), []
    for batch in batches(seeds):
        found = _apart(batch, words, seconds / 3 * len(batch))
        if found is None:
            parts = [(seed, _apart(range(seed, seed + 1), words, seconds)) for seed in batch]
            found = [
                line
                for seed, part in parts
                for line in ([f"{seed} died or took too long"] if part is None else part)
            ]
        for line in found:
            print(line, flush=True)
            if save:
                _save(int(line.split()[0]), features, save)
        lines += found
        done = batch.stop - seeds.start
        print(f"{done} models, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(f"{len(seeds)} models, {len(lines)} findings")
    return bool(lines)


def _apart(batch: range, words: list[str], seconds: float) -> list[str] | None:
    """The findings of a batch checked in a process of its own; None when that did not finish."""
    command = [sys.executable, "-m", "random_models", *words, "--inside"]
    command += ["--first", str(batch.start), "--count", str(len(batch))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False,
            cwd=Path(__file__).resolve().parents[1],
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    if done.returncode not in (0, 1) or (done.returncode and not done.stdout):
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return done.stdout.splitlines()


def _save(seed: int, features: Features, folder: Path) -> None:
    given = sample(seed, features)
    own = folder / str(seed)
    own.mkdir(parents=True, exist_ok=True)
    onnx.save(given.model, own / "model.onnx")
    for number, call in enumerate(given.calls):
        np.savez(own / f"inputs_{number}.npz", **call)


if __name__ == "__main__":
    sys.exit(main())
