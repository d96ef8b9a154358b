"""One file of the sweep: `python -m benchmarks.wild_check SECONDS MODEL INPUTS.npz ...`."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import tensmith
from tensmith.compiler.errors import TensmithError, UnsupportedError
from tensmith.driver.compare import compare_outputs
from tensmith.driver.engines import EngineSpec, onnxruntime_session, open_engine

ROUNDS, SECONDS = 7, 0.05  # turns of each engine, and how long one lasts
HALF_ATOL = 5e-3  # of values near one, five times the spacing of float16 there
Run = Callable[[Any], Any]


def _turns(ours: Run, theirs: Run, inputs: Any) -> tuple[float, float]:
    """Seconds of CPU of one call of each, the least of some turns; both have one thread."""
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for index, run in enumerate((ours, theirs)):
            count, start = 0, time.process_time()
            while (spent := time.process_time() - start) < SECONDS or not count:
                run(inputs)
                count += 1
            best[index] = min(best[index], spent / count)
    return best[0], best[1]


def expected_of(model: Path, samples: list[Any]) -> list[Any]:
    """What ONNX Runtime gives, for every set of inputs."""
    truth = open_engine(EngineSpec("onnxruntime", model, plain=True))
    return [truth(inputs) for inputs in samples]


def result(model: Path, files: list[Path]) -> dict[str, Any]:
    """The fields of `wild.Result` but the name."""
    samples = []
    for file in files:
        with np.load(file) as stored:
            samples.append({name: stored[name] for name in stored.files})
    try:
        wanted = expected_of(model, samples)
    except UnsupportedError as error:  # of our reader: which outputs are strings or maps
        return {"status": "refused", "detail": str(error)[:300].replace("\n", " ")}
    except Exception as error:  # the exporter's fault; it raises what it likes
        detail = f"ONNX Runtime fails: {error}"[:300].replace("\n", " ")
        return {"status": "not exported", "detail": detail}
    start = time.process_time()
    try:
        artifact = tensmith.compile(model)
    except TensmithError as error:
        return {"status": "refused", "detail": str(error)[:300].replace("\n", " ")}
    seconds = time.process_time() - start
    module = artifact.load()
    # every engine rounds the values of float16 files at other places
    half = model.stem.endswith(".half")
    tolerance = replace(artifact.tolerance(), rtol=1e-2, atol=HALF_ATOL) if half else None
    for number, (inputs, expected) in enumerate(zip(samples, wanted, strict=True)):
        try:
            found = module(inputs)
        except RuntimeError as error:
            return {"status": "wrong", "detail": f"inputs {number}: {str(error)[:300]}",
                    "compile_seconds": seconds}  # fmt: skip
        wrong = [
            d
            for d in compare_outputs(found, expected, tolerance or artifact.tolerance())
            if not d.agrees
        ]
        if wrong:
            detail = f"inputs {number}: '{wrong[0].name}': {wrong[0].message}"
            return {"status": "wrong", "detail": detail, "compile_seconds": seconds}
    session = onnxruntime_session(EngineSpec("onnxruntime", model))
    ours, theirs = _turns(module, lambda given: session.run(None, given), inputs)
    return {"status": "right", "compile_seconds": seconds, "ours": ours, "theirs": theirs}


if __name__ == "__main__":
    limit, model, *files = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    print(json.dumps(result(Path(model), [Path(name) for name in files])))
