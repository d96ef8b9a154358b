"""What stands for programs that measure themselves: made-up times, the same in every run."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tensmith.compiler.compilation import KernelInfo
from tensmith.compiler.economics.serving import ServingLayout
from tensmith.compiler.kernel.cost.cost import KernelCost, ParameterBytes
from tensmith.compiler.kernel.cost.machine import Level, Machine
from tensmith.compiler.profile import KernelProfile, Profile
from tensmith.driver.planning.builds import Build
from tensmith.driver.planning.probe_reports import ProbeReport
from tensmith.driver.roofline import Roofline

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


def fake_profile(path: Path, request: Any) -> Roofline:
    """Two kernels, one of which counts no operations; and three steps of memory."""
    info = KernelInfo("f32_gemm", ("matmul",), 2000, "", 1)
    operand = ParameterBytes("x", 500, False, False)
    cost = KernelCost(
        2000, (operand,), 1e-6, (("L1", 500.0),), (("L1", 1e-7),), 1e-6, "compute", 1e-6
    )
    timed = KernelProfile(info, {}, 1, True, cost, 2e-6)
    plain = KernelProfile(KernelInfo("copy", ("copy",), 0, "", 1), {}, 1, True, None, None, "none")
    machine = Machine(1e10, (Level("L1", 1e4, 1e10), Level("memory", float("inf"), 1e9)), "fake")
    return Roofline(Profile((timed, plain), (), 0, (64, 256, 128), 320), machine, {}, ())
