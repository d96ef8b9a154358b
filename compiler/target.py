"""A compilation target as data: what the hardware has, never which hardware it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .errors import UsageError

STACK_BYTES = 64 << 10  # of one buffer of a kernel; larger ones lie in scratch memory
_BARE_STACK_BYTES = 512  # the same without an operating system, where stacks are a few KiB


@dataclass(frozen=True)
class Target:
    """What every kind of hardware has; each kind adds its own figures.

    name: the target string. backend: name of the backend that compiles for it.
    triple: LLVM's name of the machine that programs run on; "" where nothing is linked.
    features: what the code needs of the hardware, checked at load.
    instructions: what computes several steps of a product at once, by name: "fma", "vnni", ...
    """

    name: str
    backend: str
    triple: str = ""
    features: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, str]:
        """What it is called, and by whom."""
        return {"name": self.name, "backend": self.backend, "triple": self.triple}

    @property
    def has_system(self) -> bool:
        """Whether programs run in an operating system, which loads libraries."""
        return True


def instructions_of(
    features: Collection[str], table: Mapping[str, Collection[str]]
) -> tuple[str, ...]:
    """The instructions of a table, name -> features that it is part of, that hardware has."""
    return tuple(name for name, needed in table.items() if set(needed) <= set(features))


@dataclass(frozen=True, kw_only=True)
class CpuTarget(Target):
    """One core of a processor.

    cpu, tune: LLVM's names. cpu is the instruction set that code may use, tune the
    processor whose latencies it is scheduled for. With cpu, features are all that code may use, and
    lacks (LLVM's names) what some processors of that name are without, so that none of it is used.
    vector_bits: width of a SIMD register. vector_registers: how many there are.
    masked: whether loads and stores can be masked per lane at full speed.
    broadcast_operands: whether an FMA can take a scalar from memory as operand.
    fma_ports: fused multiply-adds per cycle. costs: of instructions that take longer here than
    elsewhere, in multiply-adds of a vector. l1_bytes, l2_bytes: data caches of one core. bare:
    programs run without an operating system: no threads, memory that the caller gives, addresses of
    32 bits.
    """

    cpu: str
    tune: str
    vector_bits: int
    vector_registers: int
    masked: bool
    broadcast_operands: bool
    fma_ports: int
    l1_bytes: int
    l2_bytes: int
    costs: tuple[tuple[str, float], ...] = ()
    lacks: tuple[str, ...] = ()
    bare: bool = False

    @property
    def has_system(self) -> bool:
        """Whether programs run in an operating system, which loads libraries."""
        return not self.bare

    @property
    def stack_bytes(self) -> int:
        """What one buffer of a kernel may take of the stack."""
        return _BARE_STACK_BYTES if self.bare else STACK_BYTES

    def __post_init__(self) -> None:
        if self.vector_bits not in (32, 128, 256, 512):
            raise UsageError(f"target '{self.name}': vectors of {self.vector_bits} bits")
        if self.vector_registers < 8:
            raise UsageError(f"target '{self.name}': {self.vector_registers} vector registers")

    @property
    def names(self) -> dict[str, str]:
        """What it is called, and by whom."""
        return {**super().names, "cpu": self.cpu, "tune": self.tune}

    def cost(self, instruction: str, usual: float) -> float:
        """Multiply-adds of a vector that take as long as an instruction."""
        return dict(self.costs).get(instruction, usual)

    def lanes(self, bits: int) -> int:
        """Elements of `bits` bits in one SIMD register, at least one."""
        return max(1, self.vector_bits // bits)


@dataclass(frozen=True, kw_only=True)
class GpuTarget(Target):
    """A graphics processor, or several that one file is for; figures are of the least of them, but
    for rates, bandwidth and clock, which are the highest.

    architectures: what code is made for, as numbers: 80 for compute capability 8.0. ptx: the
    architecture of code that drivers compile for GPUs not known yet, 0: there is none. host: the
    processor beside it, which runs the plan. sms: multiprocessors. shared_bytes: of memory that a
    block of threads may have. registers: of 32 bits, of a multiprocessor. rates: products that one
    adds up in a cycle, by their elements. bandwidth: bytes of memory per cycle. clock: cycles per
    second, of data sheets.
    """

    architectures: tuple[int, ...]
    ptx: int = 0
    host: CpuTarget
    sms: int
    shared_bytes: int
    registers: int
    rates: tuple[tuple[str, int], ...]
    bandwidth: int
    clock: float

    def __post_init__(self) -> None:
        if not self.architectures:
            raise UsageError(f"target '{self.name}': no architecture")

    @property
    def names(self) -> dict[str, str]:
        """What it is called, and by whom."""
        return {**super().names, "architectures": " ".join(f"sm_{n}" for n in self.architectures)}


@dataclass(frozen=True, kw_only=True)
class NpuTarget(Target):
    """A processor for neural networks: it computes in integers alone, from command streams.

    architecture: its maker's name of the family. macs: multiply-adds of bytes in a cycle, of all
    cores; cores: how many there are. host: the processor beside it. system_config, memory_mode: of
    clocks, bandwidths and of what lies in which memory, by the names of a configuration file
    (config; "": the compiler's own). optimise: "Performance" or "Size". arena_bytes: of fast
    memory that may be used; None: what the memory mode says.
    """

    architecture: str
    macs: int
    cores: int
    host: CpuTarget
    system_config: str
    memory_mode: str
    optimise: str = "Performance"
    config: str = ""
    arena_bytes: int | None = None

    @property
    def has_system(self) -> bool:
        """Whether programs of the host run in an operating system."""
        return self.host.has_system

    def __post_init__(self) -> None:
        if self.macs < 1 or self.cores < 1:
            raise UsageError(f"target '{self.name}': {self.macs} MACs of {self.cores} cores")
        if self.optimise not in ("Performance", "Size"):
            raise UsageError(
                f"target '{self.name}': nothing is optimised for '{self.optimise}'",
                remedy="choose Performance or Size",
            )
        if self.arena_bytes is not None and self.arena_bytes < 1:
            raise UsageError(f"target '{self.name}': an arena of {self.arena_bytes} bytes")

    @property
    def names(self) -> dict[str, str]:
        """What it is called, and by whom."""
        memory = {"system_config": self.system_config, "memory_mode": self.memory_mode}
        return {**super().names, **memory, "optimise": self.optimise}
