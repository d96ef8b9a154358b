"""What judges candidates: the GPU that is there, which times them, or their code and a model.

Where there is no GPU nothing is measured: candidates pass whose code neither spills more registers
than the base's nor asks for too much shared memory, and the model of `candidates.py` ranks them, by
the registers and the shared memory that their code takes. Records say so in the class of machine.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from functools import cached_property
from statistics import median, quantiles
from typing import Any

import numpy as np

from ....compiler.errors import RunError, UsageError
from ....compiler.ir.types import DType
from ....compiler.target import GpuTarget
from ....compiler.tuning.task import BASE, Batch, CallTimes, MachineClass, Reading, Turn
from ..targets import runs_here
from .gpu import Gpu
from .launches import LAUNCHES
from .tunable import SECONDS

PREDICTED = "no GPU: vetted by the code and predicted"  # how names of such classes end
TOLD = 0.98  # of the base's time: what less than that saves, the model cannot tell
SAMPLES = 5  # of a candidate in one turn, at least
LEAST_SECONDS = 1e-3  # of a sample, so that the resolution of events is no matter
WEIGHT = 0.5  # half of the width in which floats are drawn
POISON = b"\xff"
RTOL, ATOL = 2e-2, 1e-2  # of results that were added up in another order, in halves too


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

    @cached_property
    def machine(self) -> MachineClass:
        """The GPU, by its name."""
        return MachineClass(self._gpu.name, {"target": self._target.name})

    def check(self, batch: Batch) -> Mapping[int, str]:
        """Why candidates do not compute what the base does, by position."""
        found = {n: built.error for n, built in enumerate(batch.built) if built.error}
        placed = self._place(batch)
        wanted = placed.results(BASE)
        for position in placed.positions:
            try:
                if position != BASE and (wrong := _difference(placed.results(position), wanted)):
                    found[position] = wrong
            except RunError as error:
                found[position] = str(error)
        return found

    def time(self, batch: Batch, turn: Turn) -> Reading:
        """One turn; operands may lie in the second-level cache, as in a run."""
        begin = time.perf_counter()
        placed = self._place(batch)
        failures = {n: built.error for n, built in enumerate(batch.built) if built.error}
        samples = []
        for position in (n for n in turn.order if n not in failures):
            times = placed.times(position, turn.seconds)
            quarter = quantiles(times, n=4)[0]
            samples.append(CallTimes(position, min(times), quarter, median(times), len(times)))
        return Reading(tuple(samples), time.perf_counter() - begin, failures)

    def close(self) -> None:
        """Leave the GPU."""
        self._gpu.close()

    def _place(self, batch: Batch) -> _Placed:
        if self._placed is None or self._placed.batch is not batch:
            self._gpu.clear()
            self._placed = _Placed(self._gpu, batch)
        return self._placed


class _Placed:
    """A batch on the GPU: functions and memory, the same for all candidates."""

    def __init__(self, gpu: Gpu, batch: Batch) -> None:
        self.batch, self._gpu = batch, gpu
        told = json.loads(batch.files[LAUNCHES])
        self._buffers: list[dict[str, Any]] = told["buffers"]
        self._launches = {int(n): own for n, own in told["launches"].items()}
        self.positions = sorted(self._launches)
        self._places = [gpu.memory(_drawn(n, own)) for n, own in enumerate(self._buffers)]
        most = max(one["workspace"] for own in self._launches.values() for one in own)
        self._workspace = gpu.memory(POISON * most)
        self._functions = {
            one["file"]: gpu.load(batch.files[one["file"]], one["symbol"], one["shared"])
            for own in self._launches.values()
            for one in own
        }

    def run(self, position: int) -> None:
        """One call of a candidate."""
        for one in self._launches[position]:
            shared = [self._workspace] if one["workspace"] else []
            addresses = [*(self._places[param] for param in one["params"]), *shared]
            if one["programs"]:
                function = self._functions[one["file"]]
                hidden = 1 if one["scratch"] else 2
                addresses += [0] * hidden
                self._gpu.launch(
                    function, one["programs"], one["threads"], one["shared"], addresses
                )

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


def _difference(given: list[tuple[DType, bytes]], wanted: list[tuple[DType, bytes]]) -> str:
    """How results differ by more than the order of sums makes them; "": they do not."""
    for number, ((dtype, own), (_, base)) in enumerate(zip(given, wanted, strict=True)):
        if own == base:
            continue
        if not dtype.is_float or dtype.is_narrow:
            return f"output {number} has other bits than the base's"
        a, b = (np.frombuffer(x, dtype.numpy).astype(np.float32) for x in (own, base))
        with np.errstate(invalid="ignore"):
            if not np.allclose(a, b, RTOL, ATOL * float(np.nanmax(np.abs(b), initial=1)), True):
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
    measurer = measurer_gpu(target, "local")
    try:
        return measurer.machine
    finally:
        measurer.close()


def oracle_of(machine: str) -> str:
    """What ranks candidates on machines of a class where nothing is timed; "": they are timed."""
    return "a model of the GPU, of code that passes" if machine.endswith(PREDICTED) else ""
