"""What `tensmith inspect --roofline` prints for people."""

from __future__ import annotations

from ..compiler.profile import KernelProfile
from .console import Console, human_bytes, human_count, human_seconds
from .roofline import Roofline, total_seconds

_COLUMNS = (
    "kernel",
    "calls",
    "of run",
    "measured",
    "predicted",
    "meas/pred",
    "FLOPs",
    "bytes",
    "bound",
    "GFLOP/s",
    "of roof",
)
_WIDTH = 150  # columns that a row takes
_TOO_GOOD = 1.15  # share of the roof that a kernel hardly has on a machine measured in peace


def show_roofline(console: Console, found: Roofline) -> None:
    """A row per kernel and sizes, the longest of a run first; then sums, and what is left out."""
    for note in found.notes:
        console.log(f"note: {note}")
    console.print()
    rows = [_row(kernel, found) for kernel in found.measured]
    console.table(
        "Kernels on one core, each by itself (times, FLOPs, bytes of a call)",
        _COLUMNS,
        rows,
        width=_WIDTH,
    )
    for kernel in found.profile.kernels:
        if kernel.reason:
            console.print(f"{_label(kernel, found)} was not measured: {kernel.reason}")
    if found.profile.functions:
        names = ", ".join(sorted(set(found.profile.functions)))
        console.print(f"not measured: functions of the runtime ({names})")
    if found.sizes:
        sizes = ", ".join(f"{name}={size}" for name, size in found.sizes.items())
        console.print(f"sizes: {sizes}")
    console.print(_machine(found))
    if found.measured:
        console.print(_summary(found))
    if any((kernel.roof_share or 0.0) > _TOO_GOOD for kernel in found.measured):
        console.log(
            "note: kernels above the roof: other programs slowed the measurement of the machine, "
            "or a cache kept more than is assumed"
        )


def _label(kernel: KernelProfile, found: Roofline) -> str:
    """The name, with the sizes of those symbols that are not the inputs'."""
    own = [f"{name}={n}" for name, n in kernel.sizes.items() if found.sizes.get(name) != n]
    return f"{kernel.kernel.name} ({', '.join(own)})" if own else kernel.kernel.name


def _row(kernel: KernelProfile, found: Roofline) -> list[str]:
    cost, seconds = kernel.cost, kernel.seconds
    assert cost is not None
    assert seconds is not None
    rate, share, total = kernel.flops_per_second, kernel.roof_share, found.seconds
    return [
        _label(kernel, found),
        f"{kernel.calls}" if kernel.certain else f"up to {kernel.calls}",
        f"{total_seconds(kernel) / total:.1%}" if total else "",
        human_seconds(seconds),
        human_seconds(cost.seconds),
        f"{seconds / cost.seconds:.2f}",
        human_count(cost.flops),
        human_bytes(cost.bytes),
        cost.bound,
        f"{rate / 1e9:.1f}" if rate else "",
        f"{share:.0%}" if share else "",
    ]


def _machine(found: Roofline) -> str:
    levels = ", ".join(
        f"{level.name} {level.bandwidth / 1e9:.0f}" for level in found.machine.levels
    )
    peaks = "".join(f", {name} {rate / 1e9:.0f}" for name, rate in found.peaks.items())
    return (
        f"one core: {found.machine.flops_per_second / 1e9:.0f} GFLOP/s{peaks}; GB/s: {levels} "
        f"({human_bytes(found.profile.evicted_bytes)} of other memory read before each call)"
    )


def _summary(found: Roofline) -> str:
    seconds = found.seconds
    bounds = ", ".join(
        f"{bound} {time / seconds:.0%}" for bound, time in found.seconds_by_bound().items()
    )
    return (
        f"{len(found.measured)} kernels: {human_seconds(seconds)} measured, "
        f"{human_seconds(found.predicted_seconds)} predicted, "
        f"{found.flops / seconds / 1e9:.1f} GFLOP/s, "
        f"{found.roof_seconds / seconds:.0%} of the roof; time by bound: {bounds}"
    )
