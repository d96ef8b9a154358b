"""The Python interface to tuning: `tensmith.tune`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from ...compiler.tuning.events import Event
from ...compiler.tuning.session import TuningSession
from ..durations import seconds_of
from ..given import ModelLike
from ..request import CompileRequest, Compiling
from ..shapes import DimSpec, shape_of
from .tune import TuneOptions, TuneResult, TuneWatch, tune_request


def tune(
    model: ModelLike,
    *,
    output: str | Path | None = None,
    records: str | Path | None = None,
    trials: int | None = None,
    time_budget: str | float | None = None,
    kernels: str = "*",
    allow_reordering: bool = False,
    objective: str = "latency",
    seed: int = 0,
    workers: str = "local",
    machine: str = "",
    listener: Callable[[Event], None] | None = None,
    shapes: Mapping[str, Sequence[DimSpec] | str] | None = None,
    **compiling: Unpack[Compiling],
) -> TuneResult:
    """Measure a model's kernels in other forms, and compile it with those that are faster.

    model, shapes, compiling: as for `compile`. output: where the binary is written, if anywhere.
    records: the file of all that is measured (default: the knob `records`, or the user's own); the
    same call goes on with the session in it. trials, time_budget (seconds, or "10m"): of all calls
    together; ten minutes where neither is given. kernels: a pattern for their names.
    allow_reordering: choices too that change the order of sums. workers: what measures
    (`workers.py`); machine: of which class, where there are several. listener: told what happens
    (`compiler/tuning/events.py`).

    `result.artifact` is the tuned binary where that is faster as a whole by 1 %, at 95 %, or the
    untuned one. Ctrl-C is a KeyboardInterrupt; what was measured until then stays in the records.
    Raises what `compile` raises, and UsageError for a target that is not tuned, or another
    machine's, and for records that another program writes.
    """
    request = CompileRequest(
        shapes={key: shape_of(key, dims) for key, dims in (shapes or {}).items()},
        allow_reordering=allow_reordering,
        **compiling,
    )
    seconds = seconds_of(time_budget) if isinstance(time_budget, str) else time_budget
    options = TuneOptions(
        records=None if records is None else Path(records), trials=trials, seconds=seconds,
        kernels=kernels, seed=seed, workers=workers, machine=machine, objective=objective,
    )  # fmt: skip
    watch = _Listening(listener) if listener else TuneWatch()
    return tune_request(model, request, options, watch, None if output is None else Path(output))


class _Listening(TuneWatch):
    def __init__(self, listener: Callable[[Event], None]) -> None:
        self.listener = listener

    def opened(self, session: TuningSession, trials: int) -> None:
        """Nothing but events is told."""

    def told(self, event: Event) -> None:
        """Pass it on."""
        self.listener(event)
