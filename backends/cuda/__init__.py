"""The CUDA backend: NVIDIA's GPUs, with kernels in Triton's language and a host on x86-64.

Triton is imported in processes of its own only: to compile (`worker.py`), and where its interpreter
takes the place of a GPU (`fake/`).
"""

from __future__ import annotations

from ...compiler.backend import Backend, Emulator
from ...compiler.errors import UsageError
from ...compiler.target import GpuTarget
from ..common.link import link
from .estimate import estimate_cuda
from .forms import FORMS
from .pipeline import compile_cuda, host_kernels, supports_cuda
from .targets import NATIVE, TARGETS, parse_target, runs_here
from .triton_package import reason_unavailable
from .tuning import TUNING


def emulator(target: GpuTarget) -> Emulator | None:
    """Programs for a GPU have no emulator. Raises UsageError where there is no GPU for them."""
    if reason := runs_here(target):
        raise UsageError(
            "a program for a GPU runs where there is one",
            why=reason,
            remedy="make a shared library (--emit so): the interpreter runs that, slowly",
        )
    return None


def stand_in(target: GpuTarget) -> None:
    """Put the fake driver into this process."""
    from .fake.install import stand_in as install

    install(target)


BACKEND = Backend(
    name="cuda",
    targets=(*TARGETS, NATIVE),
    parse_target=parse_target,
    supports=supports_cuda,
    compile=compile_cuda,
    link=link,
    available=reason_unavailable,
    runs_here=runs_here,
    emulator=emulator,
    stand_in=stand_in,
    estimate=estimate_cuda,
    host_kernels=host_kernels,
    tuning=TUNING,
    texts=("llvm", "asm", *FORMS),
)
