"""What stands for programs that measure themselves: made-up times, the same in every run."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from tensmith.compiler.economics.serving import ServingLayout
from tensmith.driver.planning.builds import Build
from tensmith.driver.planning.probe_reports import ProbeReport

BASE = {"fp32": 1e-3, "bf16": 0.8e-3, "int8": 0.5e-3}


class FakeProbe:
    """seconds of a run by precision; two threads save a third, a batch of n takes n / 2 times as
    long. Counts its calls; at the call `stop` it raises KeyboardInterrupt. cores: of the machine.
    """

    def __init__(self, stop: int = 0, cores: int = 2) -> None:
        self.stop, self.cores, self.calls = stop, cores, 0

    def __call__(
        self,
        build: Build,
        layout: ServingLayout,
        rows: Path,
        *,
        seconds: float,
        load: float | None = None,
        cache: int = 0,
    ) -> ProbeReport:
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        variant = build.variant
        mean = (
            BASE[variant.precision] * (0.01 if cache else 1) * (2 / 3 if layout.threads > 1 else 1)
        )
        mean *= layout.batch / 2 if layout.batch > 1 else 1
        mean *= 1 + zlib.crc32(variant.name.encode()) % 97 / 1000
        quantiles = np.linspace(0.95 * mean, 1.05 * mean, 400)
        return ProbeReport(
            model=variant.label,
            processor="fake",
            cores=self.cores,
            instances=layout.instances,
            threads=layout.threads,
            batch=layout.batch,
            load=load,
            calls=1000,
            quantiles=tuple(quantiles.tolist()),
            p99=3 * mean if load else 1.05 * mean,
            cpu_seconds=mean * layout.threads,
            wall_seconds=1000 * mean / layout.instances,
            peak_bytes=50 << 20,
            joules=None,
            no_energy="fake",
        )
