"""NVIDIA's GPUs as data: compute capabilities 8.0 to 12.0, and that of this machine.

Figures: "CUDA C++ Programming Guide", table of technical specifications per compute capability;
multiprocessors, rates, bandwidth and clock are those of the usual product (A100, A10, L4, H100,
B200, RTX 5090).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

from ...compiler.errors import UsageError
from ...compiler.target import GpuTarget
from ..common.hosts import x86_64_v3

HOST = x86_64_v3("cuda")
NATIVE = "cuda:native"
ALL = "cuda"


EXACT = 90  # the first architecture whose code runs on it alone
ELEMENTS = ("f32", "tf32", "f16", "i8", "f8")


@dataclass(frozen=True)
class _Gpu:
    """instructions: what multiplies matrices, by the names of PTX; those of elements that not every
    kind takes have these behind. rates: products per cycle and multiprocessor of `ELEMENTS`;
    bandwidth: bytes of memory per cycle; clock: in Hz, at which the rates make the peaks: all of
    data sheets."""

    architecture: int
    sms: int
    shared_kib: int
    rates: tuple[int, ...]
    bandwidth: int
    clock: float
    instructions: tuple[str, ...]


_MMA = ("mma", "mma.tf32", "mma.int8")
_GPUS = (
    _Gpu(80, 108, 163, (64, 512, 1024, 2048, 1024), 1100, 1.41e9, _MMA),
    _Gpu(86, 72, 99, (128, 256, 512, 1024, 512), 350, 1.695e9, _MMA),
    _Gpu(89, 58, 99, (128, 256, 512, 1024, 1024), 150, 2.04e9, (*_MMA, "mma.fp8")),
    _Gpu(
        90,
        132,
        227,
        (128, 1024, 2048, 4096, 4096),
        1800,
        1.83e9,
        (*_MMA, "mma.fp8", "wgmma", "tma"),
    ),
    _Gpu(
        100,
        148,
        227,
        (128, 2048, 4096, 8192, 8192),
        4300,
        1.85e9,
        (*_MMA, "mma.fp8", "tcgen05", "tma"),
    ),
    _Gpu(120, 170, 99, (128, 128, 256, 1024, 512), 750, 2.41e9, (*_MMA, "mma.fp8", "tma")),
)
_PORTABLE = (80, 90, 100, 120)  # code for 8.0 runs on 8.6 and 8.9


def _target(name: str, *gpus: _Gpu, ptx: int = 0) -> GpuTarget:
    common = set(gpus[0].instructions).intersection(*(gpu.instructions for gpu in gpus))
    return GpuTarget(
        name=name, backend="cuda", triple=HOST.triple, features=HOST.features,
        instructions=tuple(name for name in gpus[0].instructions if name in common),
        architectures=tuple(gpu.architecture for gpu in gpus), ptx=ptx, host=HOST,
        sms=min(gpu.sms for gpu in gpus),
        shared_bytes=min(gpu.shared_kib for gpu in gpus) << 10, registers=64 << 10,
        rates=tuple(zip(ELEMENTS, map(max, zip(*(gpu.rates for gpu in gpus), strict=True)),
                        strict=True)),
        bandwidth=max(gpu.bandwidth for gpu in gpus), clock=max(gpu.clock for gpu in gpus),
    )  # fmt: skip


TARGETS: dict[str, GpuTarget] = {
    ALL: _target(ALL, *(gpu for gpu in _GPUS if gpu.architecture in _PORTABLE), ptx=80),
    **{f"cuda:sm_{gpu.architecture}": _target(f"cuda:sm_{gpu.architecture}", gpu)
       for gpu in _GPUS},
}  # fmt: skip


def targets_of(target: GpuTarget) -> dict[int, GpuTarget]:
    """A target for each architecture of one: that GPU's, but for shared memory, of which all have
    enough that run the code."""
    if len(target.architectures) == 1:
        return {target.architectures[0]: target}
    found = {}
    for number in target.architectures:
        older = number < EXACT
        running = [gpu for gpu in _GPUS if gpu.architecture == number or (
            older and gpu.architecture // 10 == number // 10 and gpu.architecture > number
        )]  # fmt: skip
        shared = min(gpu.shared_kib for gpu in running) << 10
        found[number] = replace(TARGETS[f"cuda:sm_{number}"], shared_bytes=shared)
    return found


def parse_target(text: str) -> GpuTarget | None:
    """The target for a name in `TARGETS` or "cuda:native"; None for another backend's.

    Raises UsageError for "cuda:native" without a GPU, and for one that no code can be made for.
    """
    if text == NATIVE:
        return _native()
    if text.startswith("cuda:") and text not in TARGETS:
        raise UsageError(
            f"no code can be made for the GPU '{text}'", remedy=f"known ones: {', '.join(TARGETS)}"
        )
    return TARGETS.get(text)


def _native() -> GpuTarget:
    found = compute_capability()
    if isinstance(found, str):
        raise UsageError(
            f"there is no GPU here to compile for ('{NATIVE}')",
            why=found,
            remedy=f"name the target that code is for: {', '.join(TARGETS)}",
        )
    # The newest architecture whose code the GPU runs: that of its generation, before 9.0.
    fitting = [gpu for gpu in _GPUS if gpu.architecture == found
               or (gpu.architecture < 90 and gpu.architecture // 10 == found // 10
                   and gpu.architecture <= found)]  # fmt: skip
    if not fitting:
        raise UsageError(
            f"no code can be made for a GPU of compute capability {found // 10}.{found % 10}",
            remedy=f"known ones: {', '.join(TARGETS)}",
        )
    return replace(_target(NATIVE, fitting[-1]), name=f"cuda:sm_{fitting[-1].architecture}")


def runs_here(target: GpuTarget) -> str | None:
    """Why this machine's GPU cannot run code for the target, or None."""
    found = compute_capability()
    if isinstance(found, str):
        return found
    fits = any(
        number == found or (number < EXACT and number // 10 == found // 10 and number <= found)
        for number in target.architectures
    )
    if fits or (target.ptx and target.ptx <= found):
        return None
    return f"the GPU has compute capability {found // 10}.{found % 10}, code is for {target.name}"


def compute_capability() -> int | str:
    """10 times the compute capability of this machine's first GPU, or why there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"the NVIDIA driver cannot be loaded: {error}"
    if hasattr(driver, "tensmith_fake_device"):
        return "what is loaded as the NVIDIA driver is none"
    count, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver offers no GPU"
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), 0)
    for number, attribute in ((major, 75), (minor, 76)):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
    return 10 * major.value + minor.value
