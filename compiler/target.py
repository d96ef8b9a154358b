"""A compilation target as data: what the hardware has, never which hardware it is."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UsageError


@dataclass(frozen=True)
class Target:
    """One processor to compile for.

    name: the target string. backend: name of the backend that compiles for it.
    triple, cpu, tune: LLVM's names. cpu is the instruction set that code may use, tune the
    processor whose latencies it is scheduled for.
    features: what the code needs of a CPU, checked at load; with cpu, all it may use.
    vector_bits: width of a SIMD register. vector_registers: how many there are.
    masked: whether loads and stores can be masked per lane at full speed.
    broadcast_operands: whether an FMA can take a scalar from memory as operand.
    fma_ports: fused multiply-adds per cycle. l1_bytes, l2_bytes: data caches of one core.
    """

    name: str
    backend: str
    triple: str
    cpu: str
    tune: str
    features: tuple[str, ...]
    vector_bits: int
    vector_registers: int
    masked: bool
    broadcast_operands: bool
    fma_ports: int
    l1_bytes: int
    l2_bytes: int

    def __post_init__(self) -> None:
        if self.vector_bits not in (128, 256, 512):
            raise UsageError(f"target '{self.name}': vectors of {self.vector_bits} bits")
        if self.vector_registers < 8:
            raise UsageError(f"target '{self.name}': {self.vector_registers} vector registers")

    def lanes(self, bits: int) -> int:
        """Elements of `bits` bits in one SIMD register, at least one."""
        return max(1, self.vector_bits // bits)
