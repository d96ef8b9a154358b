"""Processors that stand beside accelerators."""

from __future__ import annotations

from ...compiler.target import CpuTarget

_FEATURES = ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16", "avx", "avx2", "bmi", "bmi2",
             "f16c", "fma", "lzcnt", "movbe", "xsave")  # fmt: skip


def x86_64_v3(backend: str) -> CpuTarget:
    """A PC or server of the last ten years, for the host code of a backend."""
    return CpuTarget(
        name="x86-64-v3", backend=backend, triple="x86_64-unknown-linux-gnu", cpu="x86-64-v3",
        tune="x86-64-v3", features=_FEATURES, instructions=("fma",), vector_bits=256,
        vector_registers=16, masked=True, broadcast_operands=False, fma_ports=2,
        l1_bytes=32 << 10, l2_bytes=256 << 10,
    )  # fmt: skip
