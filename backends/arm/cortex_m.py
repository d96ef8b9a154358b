"""Cortex-M targets as data, and the boards of QEMU that their programs run on.

Cores: Arm's technical reference manuals. Boards: QEMU's documentation of mps2 and mps3.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.target import CpuTarget, instructions_of

# The features, by LLVM's names, that each is part of.
INSTRUCTIONS = {
    "fma": ("vfp4d16sp",),
    "saturate": ("vfp4d16sp",),
    "smlad": ("dsp",),
    "mve": ("mve",),
    "vmladava": ("mve",),
}
_SCALAR = ("dsp", "vfp4d16sp")
_VECTOR = (*_SCALAR, "mve", "mve.fp")


@dataclass(frozen=True)
class MemoryRange:
    """Memory of a board, in bytes."""

    origin: int
    length: int


@dataclass(frozen=True)
class EmulatedBoard:
    """A machine of QEMU.

    vectors: where these lie. code: where machine code does. data: where constants, tensors and the
    stack do.
    tick_ns: nanoseconds between two steps of SysTick, with the processor's clock.
    """

    machine: str
    vectors: MemoryRange
    code: MemoryRange
    data: MemoryRange
    tick_ns: float


_LOW = MemoryRange(0, 1 << 10), MemoryRange(1 << 10, (4 << 20) - 1024)
_AN386 = (*_LOW, MemoryRange(0x21000000, 16 << 20))
_AN500 = (*_LOW, MemoryRange(0x60000000, 16 << 20))
_AN505 = (
    MemoryRange(0x10000000, 1 << 10),
    MemoryRange(0x10000400, (4 << 20) - 1024),
    MemoryRange(0x80000000, 16 << 20),
)
_AN547 = (
    MemoryRange(0, 1 << 10),
    MemoryRange(0x01000000, 2 << 20),
    MemoryRange(0x60000000, 1 << 30),
)
BOARDS = {
    "cortex-m4": EmulatedBoard("mps2-an386", *_AN386, tick_ns=40.0),
    "cortex-m7": EmulatedBoard("mps2-an500", *_AN500, tick_ns=40.0),
    "cortex-m33": EmulatedBoard("mps2-an505", *_AN505, tick_ns=50.0),
    "cortex-m55": EmulatedBoard("mps3-an547", *_AN547, tick_ns=31.25),
    "cortex-m85": EmulatedBoard("mps3-an547", *_AN547, tick_ns=31.25),
}


def _core(
    name: str, architecture: str, features: tuple[str, ...], lacks: tuple[str, ...] = ()
) -> CpuTarget:
    vectors = "mve" in features
    return CpuTarget(
        name=name, backend="arm", triple=f"{architecture}-none-none-eabihf", cpu=name, tune=name,
        features=features, instructions=instructions_of(features, INSTRUCTIONS),
        vector_bits=128 if vectors else 32, vector_registers=8 if vectors else 10, masked=vectors,
        broadcast_operands=vectors, fma_ports=1, l1_bytes=16 << 10, l2_bytes=256 << 10, lacks=lacks,
        bare=True,
    )  # fmt: skip


TARGETS: dict[str, CpuTarget] = {
    target.name: target
    for target in (
        _core("cortex-m4", "thumbv7em", _SCALAR),
        # an option of the M7, which LLVM takes for granted
        _core("cortex-m7", "thumbv7em", _SCALAR, ("fp64",)),
        _core("cortex-m33", "thumbv8m.main", _SCALAR),
        _core("cortex-m55", "thumbv8.1m.main", _VECTOR),
        _core("cortex-m85", "thumbv8.1m.main", _VECTOR),
    )
}
