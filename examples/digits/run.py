"""Compiles the digits network to a program, runs that on the labelled images, compares.

    python examples/digits/run.py        # `run.sh` sets everything up first

Prints accuracy and median times, on one thread, of the program, of the same code called from
Python, and of ONNX Runtime called from Python. Engines take turns, so that all see the same
machine. Ends with exit code 4 where the scores differ from ONNX Runtime's by more than 1e-4 of the
largest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

import tensmith

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "build" / "digits"
MODEL, TEST_SET = HERE / "digits.onnx", HERE / "digits_test.npz"
PIXEL_MAX = 16
ROUNDS, WHOLE_SET_RUNS = 5, 20
TOLERANCE = 1e-4  # of the largest score
VERIFICATION_FAILED = 4

Run = Callable[[np.ndarray], np.ndarray]


class Measured(NamedTuple):
    """scores: (n, 10). single, batched: median seconds per image, one at a time and all at once."""

    scores: np.ndarray
    single: float
    batched: float


def run_program(program: Path, images: Path) -> Measured:
    """The compiled program; it times its runs itself."""
    scores = OUT / "scores.npy"

    def call(*options: str) -> dict[str, dict[str, float]]:
        command = [str(program), f"--input=image={images}", "--json", "--quiet", *options]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    single = call("--batch=1", f"--output=scores={scores}")
    batched = call("--warmup=2", f"--iterations={WHOLE_SET_RUNS}")
    result = np.load(scores)
    per_image = batched["seconds"]["median"] / len(result)
    return Measured(result, single["seconds"]["median"], per_image)


def run_callable(run: Run, images: np.ndarray) -> Measured:
    """A function from images to scores, in this process."""

    def timed(batch: np.ndarray) -> tuple[float, np.ndarray]:
        begin = time.perf_counter()
        scores = run(batch)
        return time.perf_counter() - begin, scores

    timed(images)
    batched = [timed(images)[0] for _ in range(WHOLE_SET_RUNS)]
    singles = [timed(images[i : i + 1]) for i in range(len(images))]
    scores = np.concatenate([scores for _, scores in singles])
    single = float(np.median([seconds for seconds, _ in singles]))
    return Measured(scores, single, float(np.median(batched)) / len(images))


def open_onnxruntime() -> Run:
    """The model in ONNX Runtime, on one thread, fully optimised."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(MODEL, options, providers=providers)
    return lambda images: session.run(["scores"], {"image": images})[0]


def compile_both() -> tuple[Path, Run]:
    """The program, and the same model as a shared library loaded into this process."""
    program, library = OUT / "digits", OUT / "digits.so"
    begin = time.perf_counter()
    artifact = tensmith.compile(MODEL, target="native", threads=1)
    artifact.save(program, "exe")
    print(f"compiled {MODEL.name} to a program in {time.perf_counter() - begin:.1f} s")
    artifact.save(library)
    module = tensmith.load(library, threads=1)
    return program, lambda images: module({"image": images})["scores"]


def main() -> int:
    """Prints the comparison; returns the exit code."""
    OUT.mkdir(parents=True, exist_ok=True)
    test_set = np.load(TEST_SET)
    images, labels = test_set["images"].astype(np.float32) / PIXEL_MAX, test_set["labels"]
    np.save(OUT / "images.npy", images)
    program, module = compile_both()
    session = open_onnxruntime()
    engines: dict[str, Callable[[], Measured]] = {
        "Tensmith, standalone program": lambda: run_program(program, OUT / "images.npy"),
        "Tensmith, from Python": lambda: run_callable(module, images),
        "ONNX Runtime, from Python": lambda: run_callable(session, images),
    }
    rounds = [{name: engine() for name, engine in engines.items()} for _ in range(ROUNDS)]

    print(f"{len(images)} labelled images, one thread, median time per image\n")
    print(f"{'':30}{'accuracy':>10}{'one by one':>14}{'all at once':>14}")
    for name in engines:
        accuracy = np.mean(rounds[0][name].scores.argmax(1) == labels)
        single = np.median([results[name].single for results in rounds]) * 1e6
        batched = np.median([results[name].batched for results in rounds]) * 1e6
        print(f"{name:30}{accuracy:10.4f}{single:11.2f} us{batched:11.2f} us")

    *ours, theirs = (measured.scores for measured in rounds[0].values())
    difference = max(float(np.abs(scores - theirs).max()) for scores in ours)
    peak = float(np.abs(theirs).max())
    print(f"\nlargest difference of a score: {difference:.2g}, largest score: {peak:.3g}")
    print(f"{program.relative_to(HERE.parents[1])}: {program.stat().st_size / 1000:.0f} kB")
    return 0 if difference <= TOLERANCE * peak else VERIFICATION_FAILED


if __name__ == "__main__":
    sys.exit(main())
