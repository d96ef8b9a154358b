"""The time of every kernel of a model, measured and predicted, beside what the machine allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..compiler.compilation import Stages
from ..compiler.errors import UnsupportedError, UsageError
from ..compiler.ir.types import DType
from ..compiler.kernel.cost.machine import Machine
from ..compiler.kernel.instruction import instruction_for
from ..compiler.profile import KernelProfile, Profile, ProfileOptions
from ..compiler.target import CpuTarget, Target
from .argument_checks import (
    check_runs_here,
    make_work_dir,
    measures_of,
    remove_work_dir,
    require_available,
    unsupported_nodes,
)
from .building import quantised_as
from .halves import InPrecision
from .model_build import import_model
from .request import AUTO, INT8, WEIGHT_BITS, CompileRequest
from .samples import Sampler

_PRODUCTS = {
    "int8": (DType.U8, DType.I8, DType.I32),
    "bf16": (DType.BF16, DType.BF16, DType.F32),
}


@dataclass(frozen=True)
class Roofline:
    """A profile of a model. sizes: of its inputs' symbolic dims. notes: choices made for the user.

    Sums are over all calls of one run, of what was measured; seconds on one core. peaks: operations
    per second of products of lower precision that the target has instructions for, by precision.
    """

    profile: Profile
    machine: Machine
    sizes: Mapping[str, int]
    notes: tuple[str, ...]
    peaks: Mapping[str, float] = field(default_factory=dict)

    @property
    def measured(self) -> list[KernelProfile]:
        """The kernels with a time, those that take most of a run first."""
        timed = [kernel for kernel in self.profile.kernels if kernel.seconds is not None]
        return sorted(timed, key=total_seconds, reverse=True)

    @property
    def seconds(self) -> float:
        """Of all measured kernels."""
        return sum(map(total_seconds, self.measured))

    @property
    def predicted_seconds(self) -> float:
        """Of the same kernels."""
        return sum(k.calls * k.cost.seconds for k in self.measured if k.cost)

    @property
    def roof_seconds(self) -> float:
        """The least that the bounds of the same kernels allow."""
        return sum(k.calls * k.cost.roof_seconds for k in self.measured if k.cost)

    @property
    def flops(self) -> int:
        """Of the same kernels."""
        return sum(k.calls * k.cost.flops for k in self.measured if k.cost)

    def seconds_by_bound(self) -> dict[str, float]:
        """Measured seconds of the kernels under each bound, the longest first."""
        found: dict[str, float] = {}
        for kernel in self.measured:
            if kernel.cost:
                bound = kernel.cost.bound
                found[bound] = found.get(bound, 0.0) + total_seconds(kernel)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, Any]:
        """For `--json`. Kernels in the order of their first calls."""
        levels = [
            {**asdict(level), "capacity": int(level.capacity) if level.capacity < 1e18 else None}
            for level in self.machine.levels
        ]
        return {
            "machine": {
                "flops_per_second": self.machine.flops_per_second,
                "peaks": dict(self.peaks),
                "levels": levels,
                "label": self.machine.label,
            },
            "sizes": dict(self.sizes),
            "evicted_bytes": self.profile.evicted_bytes,
            "seconds": self.seconds,
            "predicted_seconds": self.predicted_seconds,
            "roof_seconds": self.roof_seconds,
            "flops": self.flops,
            "seconds_by_bound": self.seconds_by_bound(),
            "live_bytes": list(self.profile.live_bytes),
            "arena_bytes": self.profile.arena_bytes,
            "kernels": [kernel.to_json() for kernel in self.profile.kernels],
            "unmeasured_functions": list(self.profile.functions),
        }


def total_seconds(kernel: KernelProfile) -> float:
    """Measured seconds of all calls in a run; 0 where nothing was measured."""
    return kernel.calls * (kernel.seconds or 0.0)


def roofline(path: Path, request: CompileRequest) -> Roofline:
    """Compile an ONNX file's kernels, measure them one by one on one core, and predict them, in the
    precision of the request.

    Symbolic dims that the request's shapes leave get a default size.
    Raises UsageError for a target that is not this machine's or has no such measurement, else as
    `api.compile`.
    """
    if request.precision == AUTO:
        raise UsageError(
            "kernels are measured in one precision, and auto is none",
            remedy="name one: --precision int8",
        )
    backend, target = request.resolve()
    require_available(backend)
    check_runs_here(backend, target)
    stages = Stages(progress=request.progress)
    work_dir = make_work_dir()
    try:
        return _measured(path, request, stages, work_dir)
    finally:
        remove_work_dir(work_dir)


def _measured(path: Path, request: CompileRequest, stages: Stages, work_dir: Path) -> Roofline:
    backend, target = request.resolve()
    measures = measures_of(backend)
    if request.precision in (INT8, *WEIGHT_BITS):
        with stages.stage("quantise"):
            path = quantised_as(request, path, work_dir).path
    with stages.stage("import"):
        graph = import_model(path, request.shapes)
    unsupported = unsupported_nodes(graph, backend, target)
    if unsupported:
        raise UnsupportedError(unsupported, where=f"target '{target.name}'")
    sampler = Sampler(graph)
    sizes = sampler.usual_sizes
    InPrecision(request.precision, target).rewrite(graph)
    with stages.stage("measuring the machine"):
        machine = measures.machine(target)
    options = request.options(path, work_dir, target)
    wanted = ProfileOptions(sizes, machine, progress=request.progress)
    profile = measures.profile(graph, target, options, stages, wanted)
    notes = tuple(
        f"the symbolic dimension '{name}' is {size}; --shape gives another size"
        for name, size in sizes.items()
    )
    return Roofline(profile, machine, sizes, notes, _peaks(machine, target))


def _peaks(machine: Machine, target: Target) -> dict[str, float]:
    """Of products that the target has instructions for which are faster than those of f32."""
    found = {}
    for name, (left, right, total) in _PRODUCTS.items():
        instruction = instruction_for(left, right, total, target.instructions)
        if instruction is not None and isinstance(target, CpuTarget):
            gain = instruction.gain(target)
            if gain > 1:
                found[name] = machine.flops_per_second * gain
    return found
