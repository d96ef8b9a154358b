"""What judges candidates: the GPU that is there, which times them, or their code and a model.

Where there is no GPU nothing is measured: candidates pass whose code neither spills more registers
than the base's nor asks for too much shared memory, and the model of `candidates.py` ranks them, by
the registers and the shared memory that their code takes. Records say so in the class of machine.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import median, quantiles
from typing import Any

import numpy as np

from ....compiler.errors import RunError, UsageError
from ....compiler.ir.types import DType
from ....compiler.target import GpuTarget
from ....compiler.tuning.task import (
    BASE,
    Batch,
    CallTimes,
    MachineClass,
    Reading,
    Turn,
    machine_of,
)
from ..targets import runs_here
from .gpu import Gpu, GpuHangsError
from .launches import LAUNCHES
from .tunable import SECONDS

PREDICTED = "no GPU: vetted by the code and predicted"  # how names of such classes end
# of the base's time: what saves less than that, the model cannot tell; assumed, not measured
TOLD = 0.98
SAMPLES = 5  # of a candidate in one turn, at least
LEAST_SECONDS = 1e-3  # of a sample, so that the resolution of events is no matter
WEIGHT = 0.5  # half of the width in which floats are drawn
POISON = b"\xff"
# How far results may lie apart whose sums were added up in another order, as a share of their
# size: by what multiplies (tensor cores of 9.0 keep 14 bits of sums of 8-bit floats: DeepSeek-V3's
# report, 3.3.2), and one step of halves for each of some roundings to these. Assumed, not measured.
SUMS = {"f32": 1e-4, "i8": 1e-4, "tf32": 1e-3, "f16": 1e-3, "f8": 1e-2}
HALF_STEPS, ROUNDINGS = {DType.F16: 2.0**-10, DType.BF16: 2.0**-7}, 4


class VettingOracle:
    """Tells what is predicted of code that passes; see `Measurer`."""

    exact = True

    def __init__(self, target: GpuTarget) -> None:
        self.machine = MachineClass(f"{target.name}, {PREDICTED}", {"target": target.name})

    def check(self, batch: Batch) -> Mapping[int, str]:
        """Nothing is run; what its code rules out is told."""
        return {n: built.error for n, built in enumerate(batch.built) if built.error}

    def time(self, batch: Batch, turn: Turn) -> Reading:
        """The predictions; differences from the base that the model cannot tell are none."""
        seconds: dict[str, float] = json.loads(batch.files[SECONDS])
        failures = {n: built.error for n, built in enumerate(batch.built) if built.error}
        samples = []
        for position in (n for n in turn.order if n not in failures):
            own, base = seconds[str(position)], seconds[str(BASE)]
            told = own if own < TOLD * base else max(own, base)
            samples.append(CallTimes(position, told, told, told, count=1))
        return Reading(tuple(samples), 0.0, failures)

    def close(self) -> None:
        """Nothing is held."""


class GpuMeasurer:
    """Times on the first GPU of this machine, in this process; see `Measurer`."""

    exact = False

    def __init__(self, target: GpuTarget) -> None:
        self._target, self._gpu = target, Gpu()
        self._placed: _Placed | None = None
        self._broken = ""  # by which candidate, after which the GPU runs nothing any more

    @cached_property
    def machine(self) -> MachineClass:
        """The GPU, by its name."""
        return MachineClass(self._gpu.name, {"target": self._target.name})

    def check(self, batch: Batch) -> Mapping[int, str]:
        """Why candidates do not compute what the base does, by position. Where one leaves the GPU
        out of use, those behind it are told of when they are to be timed.

        Raises RunError where the base fails, or the GPU is out of use already.
        """
        found = {n: built.error for n, built in enumerate(batch.built) if built.error}
        placed = self._place(batch)
        for position in placed.positions:
            if not self._broken and (wrong := self._wrong(placed, position)):
                found[position] = wrong
        return found

    def time(self, batch: Batch, turn: Turn) -> Reading:
        """One turn; operands may lie in the second-level cache, as in a run.

        Raises RunError as `check` does.
        """
        begin = time.perf_counter()
        placed = self._place(batch)
        failures = {n: built.error for n, built in enumerate(batch.built) if built.error}
        samples = []
        for position in turn.order:
            if self._broken or position in failures:
                continue
            if wrong := self._wrong(placed, position):
                failures[position] = wrong
                continue
            try:
                times = placed.times(position, turn.seconds)
            except RunError as error:
                failures[position] = self._failed(placed, position, error)
                continue
            quarter = quantiles(times, n=4)[0]
            samples.append(CallTimes(position, min(times), quarter, median(times), len(times)))
        seconds = time.perf_counter() - begin
        return Reading(tuple(samples), seconds, failures, disturbed=self._broken)

    def _wrong(self, placed: _Placed, position: int) -> str:
        """Why a candidate does not compute what the base does, found once; "": it does."""
        if position not in placed.compared:
            wanted = placed.wanted
            try:
                given = wanted if position == BASE else placed.results(position)
                wrong = _difference(given, wanted, placed.tolerance)
            except RunError as error:
                wrong = self._failed(placed, position, error)
            placed.compared[position] = wrong
        return placed.compared[position]

    def _failed(self, placed: _Placed, position: int, error: RunError) -> str:
        """How a candidate failed. An illegal access leaves a process no GPU (CUDA's driver API,
        CUDA_ERROR_ILLEGAL_ADDRESS): then the base fails, too; nor does one that does not end.
        Raises the base's own error."""
        if position == BASE:
            raise error
        if isinstance(error, GpuHangsError) or not _runs(placed):
            batch = placed.batch
            self._broken = (
                f"the GPU is out of use since candidate '{batch.built[position].candidate}' of "
                f"task '{batch.task}' failed on it: {error.what}"
            )
        return error.what

    def close(self) -> None:
        """Leave the GPU."""
        self._gpu.close()

    def _place(self, batch: Batch) -> _Placed:
        if self._broken:
            remedy = "call tune again: the session goes on, without that candidate"
            raise RunError(self._broken, remedy=remedy)
        if self._placed is None or self._placed.batch is not batch:
            self._gpu.clear()
            self._placed = _Placed(self._gpu, batch)
        return self._placed


def _runs(placed: _Placed) -> bool:
    """Whether the GPU runs the base."""
    try:
        placed.results(BASE)
    except RunError:
        return False
    return True


class _Placed:
    """A batch on the GPU: functions and memory, the same for all candidates. compared: why results
    are not the base's, by position ("": they are), of those that were compared."""

    def __init__(self, gpu: Gpu, batch: Batch) -> None:
        self.batch, self._gpu = batch, gpu
        told = json.loads(batch.files[LAUNCHES])
        self._buffers: list[dict[str, Any]] = told["buffers"]
        self._launches = {int(n): own for n, own in told["launches"].items()}
        self.positions = sorted(self._launches)
        self.tolerance = _tolerance(told["rates"], [DType(own["dtype"]) for own in self._buffers])
        self.compared: dict[int, str] = {}
        self._places = [gpu.memory(_drawn(n, own)) for n, own in enumerate(self._buffers)]
        most = max(one["workspace"] for own in self._launches.values() for one in own)
        self._workspace = gpu.memory(POISON * most)
        self._functions = {
            one["file"]: gpu.load(batch.files[one["file"]], one["symbol"], one["shared"])
            for own in self._launches.values()
            for one in own
        }

    @cached_property
    def wanted(self) -> list[tuple[DType, bytes]]:
        """What the base leaves."""
        return self.results(BASE)

    def run(self, position: int) -> None:
        """One call of a candidate."""
        for one in self._launches[position]:
            shared = [self._workspace] if one["workspace"] else []
            tensors = [self._places[param] for param in one["params"]]
            hidden = [*shared, 0] if one["scratch"] else [0, 0]
            own = [] if one["scratch"] else shared
            if one["programs"]:
                self._gpu.launch(
                    self._functions[one["file"]], one["programs"], one["threads"], one["shared"],
                    [*tensors, *own, *one["sizes"], *hidden],
                )  # fmt: skip

    def results(self, position: int) -> list[tuple[DType, bytes]]:
        """What a candidate leaves, where nothing was before."""
        outputs = [(n, own) for n, own in enumerate(self._buffers) if own["output"]]
        for n, own in outputs:
            self._gpu.fill(self._places[n], POISON * own["bytes"])
        self.run(position)
        return [
            (DType(own["dtype"]), self._gpu.read(self._places[n], own["bytes"]))
            for n, own in outputs
        ]

    def times(self, position: int, seconds: float) -> list[float]:
        """Seconds of a call, several times, in about so many seconds."""
        self.run(position)
        once = self._timed(position, 1)
        calls = max(1, int(LEAST_SECONDS / max(once, 1e-7)))
        count = max(SAMPLES, int(seconds / max(calls * once, 1e-6)))
        return [self._timed(position, calls) / calls for _ in range(min(count, 1000))]

    def _timed(self, position: int, calls: int) -> float:
        self._gpu.begin()
        for _ in range(calls):
            self.run(position)
        return self._gpu.end()


def _drawn(number: int, buffer: Mapping[str, Any]) -> bytes:
    """What a parameter's memory holds: floats around 0, bytes of all kinds, wider integers 0, which
    are legal where they are indices."""
    dtype, size = DType(buffer["dtype"]), int(buffer["bytes"])
    if buffer["output"]:
        return POISON * size
    rng = np.random.default_rng(zlib.crc32(f"{number} {dtype.value} {size}".encode()))
    if dtype.is_float and not dtype.is_narrow:
        wide = rng.uniform(-WEIGHT, WEIGHT, size // dtype.bytes).astype(np.float32)
        stored: bytes = wide.astype(dtype.numpy).tobytes()
        return stored
    if dtype.bits == 8 and not dtype.is_narrow and dtype is not DType.BOOL:
        return bytes(rng.bytes(size))
    return bytes(size)


def _tolerance(rates: Sequence[str], dtypes: Sequence[DType]) -> float:
    """How far equal results may lie apart, as a share of the largest, and of themselves."""
    steps = max(HALF_STEPS.get(dtype, 0.0) for dtype in dtypes)
    return max(SUMS[rate] for rate in rates) + ROUNDINGS * steps


def _difference(
    given: list[tuple[DType, bytes]], wanted: list[tuple[DType, bytes]], tolerance: float
) -> str:
    """How results differ by more than the order of sums makes them; "": they do not."""
    for number, ((dtype, own), (_, base)) in enumerate(zip(given, wanted, strict=True)):
        if own == base:
            continue
        if not dtype.is_float or dtype.is_narrow:
            return f"output {number} has other bits than the base's"
        a, b = (np.frombuffer(x, dtype.numpy).astype(np.float32) for x in (own, base))
        peak = float(np.max(np.abs(b[np.isfinite(b)]), initial=0))
        with np.errstate(invalid="ignore"):
            if not np.allclose(a, b, tolerance, tolerance * peak, equal_nan=True):
                return (
                    f"output {number} differs from the base's by more than the order of sums does"
                )
    return ""


def measurer_gpu(target: GpuTarget, worker: str) -> VettingOracle | GpuMeasurer:
    """What judges candidates, on this machine: its GPU, or a model where it has none for the
    target. Raises UsageError for another machine."""
    if worker != "local":
        raise UsageError(f"'{worker}' is no worker for '{target.name}'", remedy="--workers local")
    return VettingOracle(target) if runs_here(target) else GpuMeasurer(target)


def machine_gpu(target: GpuTarget) -> MachineClass:
    """What records are of."""
    return machine_of(measurer_gpu(target, "local"))


def oracle_of(machine: str) -> str:
    """What ranks candidates on machines of a class where nothing is timed; "": they are timed."""
    return "a model of the GPU, of code that passes" if machine.endswith(PREDICTED) else ""
