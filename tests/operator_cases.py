"""The operator cases that backends compile, and what is wrong with their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from compiled import Array, Arrays, Job
from suites.cases import Case, compare

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType

# (which cases, why they are not for a compiler)
SKIPPED: tuple[tuple[Callable[[Case], bool], str], ...] = (
    (
        lambda case: any(node.op == "fused" for node in case.graph().nodes),
        "fused nodes are made by the compiler, they are no input of it",
    ),
)


def without_denormals(inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """Compiled models flush denormal numbers to zero: the reference gets zeros from the start."""

    def flushed(array: Array) -> Array:
        if DType.of(array.dtype) not in (DType.F32, DType.F64):
            return array
        small = np.abs(array) < np.finfo(array.dtype).tiny
        return np.where(small, np.copysign(array.dtype.type(0), array), array)

    return {name: flushed(array) for name, array in inputs.items()}


def jobs_of(cases: Sequence[Case]) -> dict[str, Job]:
    """What to compile and run, by name, of the cases that are for a compiler."""
    chosen = [case for case in cases if not any(skips(case) for skips, _ in SKIPPED)]
    return {case.name: Job(case.graph(), without_denormals(case.inputs())) for case in chosen}


def differences(
    cases: Sequence[Case], jobs: Mapping[str, Job], results: Mapping[str, Any]
) -> list[str]:
    """A line for every case whose results, or the error in place of them, are not as the
    reference says."""
    wrong = []
    for case in (case for case in cases if case.name in jobs):
        got = results[case.name]
        want = run_graph(case.graph(), jobs[case.name].inputs)
        try:
            if isinstance(got, Exception):
                raise got
            assert sorted(got) == sorted(want)
            for name, array in want.items():
                compare(name, got[name], array, case.tolerance)
        except Exception as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {error}")
    return wrong
