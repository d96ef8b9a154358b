"""What a command stream does wrong: the rules by name, and the error that reports one."""

from __future__ import annotations

from enum import Enum

from ....compiler.errors import TensmithError


class Rule(Enum):
    """The rules that the simulator holds a stream to; the value says what was broken."""

    PAYLOAD = "the driver payload is malformed"
    CONFIG = "the payload is for another accelerator"
    ARCHITECTURE = "the payload is for another version of the architecture"
    TRUNCATED = "the stream ends before its STOP"
    OPCODE = "unknown command"
    RESERVED_BITS = "reserved bits of a command are set"
    REGISTER_VALUE = "a register has a value that the hardware does not know"
    UNSET_REGISTER = "an operation uses a register that nothing has set"
    NOT_SIMULATED = "the simulator does not know what the hardware computes here"
    REGION = "an operation uses a region that has no memory"
    READ_ONLY = "an operation writes to memory that may only be read"
    OUT_OF_BOUNDS = "an access leaves its region"
    ALIGNMENT = "an address, stride or length is not aligned"
    GEOMETRY = "sizes of an operation's tensors do not fit together"
    OFM_BLOCK = "the OFM block is not one that the accelerator has"
    SHRAM_LAYOUT = "buffers in the shared RAM are too small or overlap"
    LUT_NOT_LOADED = "a lookup table was not loaded, or was overwritten"
    WEIGHT_STREAM = "the weight stream is damaged or has another length than the operation needs"
    SCALE_STREAM = "the scale stream is shorter than the operation needs"
    ACCUMULATOR_OVERFLOW = "a sum does not fit the accumulators"
    MISSING_DMA_WAIT = "an operation does not wait for a DMA transfer that it conflicts with"
    MISSING_KERNEL_WAIT = "a DMA transfer does not wait for an operation that it conflicts with"
    BLOCKDEP = "BLOCKDEP lets blocks overlap of which one reads what the other writes"
    OVERLAP = "an operation overwrites its own input before it has read it"
    CHAIN = "chained operations do not fit together"
    BRANCH = "a branch leads outside the stream, or the stream does not end"


class SimulationError(TensmithError):
    """A command stream breaks a rule of the hardware.

    rule: which. position: the word of the stream at which the command begins, or None where the
    payload is at fault.
    """

    def __init__(self, rule: Rule, why: str, position: int | None = None) -> None:
        self.rule, self.position = rule, position
        super().__init__(
            f"{rule.name}: {rule.value}",
            where="" if position is None else f"word {position} of the command stream",
            why=why,
            remedy="the stream was made for other hardware or memory, or its compiler has a fault",
        )
