"""Timing models, alone or side by side with peers.

Every engine has a process of its own and the same inputs; outputs are compared before anything is
timed; the engines take turns in short rounds, so that a change of the machine's speed meets all.
A call is timed as a Python program sees it, for every engine alike.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..compiler.backend import resolve_target
from ..compiler.errors import RunError, UsageError, VerificationError
from ..compiler.ir.dims import FUNCTIONS, Dim, evaluate, symbol
from ..compiler.kernel.cost.machine import Peak
from .argument_checks import measures_of
from .compare import Tolerance, compare_outputs
from .engines import EngineSpec
from .processes import EngineProcess

Array = np.ndarray[Any, Any]
Progress = Callable[[str], None]

ROUNDS = 5


@dataclass(frozen=True)
class BenchOptions:
    """warmup: untimed calls of each engine. iterations, duration: at least so many timed calls
    and seconds per engine, over all rounds."""

    warmup: int = 5
    iterations: int = 20
    duration: float = 2.0


@dataclass(frozen=True)
class Timing:
    """What one engine took, in seconds per call; error: why it was not measured ("" if it was).

    throughput: calls per second. cpu_seconds: processor time of a call, of all threads.
    flops_per_second and peak_share: at the median; None when the FLOPs of the model, or the peak of
    the machine, are not known. max_abs: the largest difference of an output from ours.
    """

    engine: str
    version: str = ""
    error: str = ""
    calls: int = 0
    median: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    fastest: float = 0.0
    throughput: float = 0.0
    cpu_seconds: float = 0.0
    flops_per_second: float | None = None
    peak_share: float | None = None
    max_abs: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def bench(
    specs: Sequence[EngineSpec],
    inputs: Mapping[str, Array],
    options: BenchOptions,
    *,
    flops: int | None = None,
    peak: float | None = None,
    tolerance: Tolerance | None = None,
    progress: Progress | None = None,
) -> list[Timing]:
    """Time the engines; the first one is ours, and the others must agree with it.

    flops: of one call. peak: FLOP/s of the machine. An engine other than the first that cannot
    load or run the model gets a Timing with its error.
    Raises RunError when ours does not run, VerificationError when outputs disagree.
    """
    tell = progress or _silent
    with ExitStack() as stack:
        engines = [stack.enter_context(EngineProcess(spec)) for spec in specs]
        failures: dict[int, Timing] = {}
        outputs: dict[int, dict[str, Array]] = {}
        for index, engine in enumerate(engines):
            tell(f"loading {engine.spec.kind}")
            try:
                engine.open()
                outputs[index] = engine.run(dict(inputs))
            except RunError as error:
                if index == 0:
                    raise
                failures[index] = Timing(engine.spec.kind, engine.version, error=error.what)
        gaps = {
            index: _agree(engines[index].spec.kind, outputs[0], found, tolerance or Tolerance())
            for index, found in outputs.items()
            if index
        }
        running = {index: engines[index] for index in outputs}
        times, cpu = _measure(running, options, tell)
    return [
        failures[index]
        if index in failures
        else replace(
            _statistics(engine, times[index], cpu[index], flops, peak), max_abs=gaps.get(index)
        )
        for index, engine in enumerate(engines)
    ]


def _silent(text: str) -> None:
    del text


def _agree(
    kind: str, ours: Mapping[str, Array], theirs: Mapping[str, Array], tolerance: Tolerance
) -> float:
    """The largest difference. Raises VerificationError when some output is out of tolerance."""
    if set(ours) != set(theirs) and len(ours) == len(theirs):
        theirs = dict(zip(ours, theirs.values(), strict=True))
    differences = compare_outputs(ours, theirs, tolerance.of(kind))
    wrong = [f"output '{d.name}': {d.message}" for d in differences if not d.agrees]
    if wrong:
        raise VerificationError(
            f"the outputs disagree with {kind}: nothing was timed", why="; ".join(wrong)
        )
    return max((d.max_abs for d in differences), default=0.0)


def _measure(
    engines: Mapping[int, EngineProcess], options: BenchOptions, tell: Progress
) -> tuple[dict[int, list[int]], dict[int, float]]:
    """Nanoseconds of calls, and seconds of processor time of all of them, by engine."""
    times: dict[int, list[int]] = {index: [] for index in engines}
    cpu = dict.fromkeys(engines, 0.0)
    order = list(engines)
    for round_ in range(ROUNDS):
        for index in order:
            tell(f"round {round_ + 1} of {ROUNDS}: {engines[index].spec.kind}")
            found, used = engines[index].timed(
                warmup=options.warmup if round_ == 0 else min(1, options.warmup),
                iterations=-(-options.iterations // ROUNDS),
                duration=options.duration / ROUNDS,
            )
            times[index] += found
            cpu[index] += used
        order = order[1:] + order[:1]
    return times, cpu


def _statistics(
    engine: EngineProcess,
    nanoseconds: Sequence[int],
    cpu: float,
    flops: int | None,
    peak: float | None,
) -> Timing:
    seconds = np.asarray(nanoseconds, np.float64) * 1e-9
    median, p90, p99 = (float(value) for value in np.percentile(seconds, (50, 90, 99)))
    rate = flops / median if flops else None
    return Timing(
        engine=engine.spec.kind,
        version=engine.version,
        calls=len(seconds),
        median=median,
        p90=p90,
        p99=p99,
        fastest=float(seconds.min()),
        throughput=1.0 / float(seconds.mean()),
        cpu_seconds=cpu / len(seconds),
        flops_per_second=rate,
        peak_share=rate / peak if rate and peak else None,
    )


def measure_peak(threads: int) -> Peak:
    """What so many cores of this machine can do at most. Raises UsageError when no backend compiles
    for it."""
    backend, target = resolve_target("native")
    return measures_of(backend).peak(target, threads)


def flops_of(manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> int | None:
    """FLOPs of one run by the manifest, for the given sizes of symbols; None when not known."""
    flops = manifest.get("flops")
    if flops is None or isinstance(flops, int):
        return flops or None
    try:
        return evaluate(parse_dim(str(flops), sizes), sizes)
    except UsageError:
        return None


def parse_dim(text: str, names: Mapping[str, int] | Sequence[str]) -> Dim:
    """A dimension expression as `str(dim)` writes it; `names` are the symbols that may stand in it.

    Raises UsageError for anything else (a symbol that only the run binds).
    """
    aliases = {name: f"s{index}_" for index, name in enumerate(names)}
    symbols = {alias: symbol(name) for name, alias in aliases.items()}
    longest_first = sorted(map(re.escape, aliases), key=len, reverse=True)
    pattern = rf"(?<!\w)({'|'.join(longest_first)})(?!\w)"
    plain = re.sub(pattern, lambda match: aliases[match[0]], text) if aliases else text
    try:
        return _dim(ast.parse(plain, mode="eval").body, symbols)
    except (SyntaxError, KeyError):
        raise UsageError(f"'{text}' is not an expression of {list(names)}") from None


def _dim(node: ast.expr, symbols: Mapping[str, Dim]) -> Dim:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return symbols[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_dim(operand, symbols)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _dim(left, symbols) * _dim(right, symbols)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _dim(left, symbols) + _dim(right, symbols)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _dim(left, symbols) - _dim(right, symbols)
        case ast.Call(func=ast.Name(id=name), args=[first, second]):
            return FUNCTIONS[name](_dim(first, symbols), _dim(second, symbols))
    raise KeyError(ast.dump(node))
