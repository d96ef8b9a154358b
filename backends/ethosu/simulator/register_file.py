"""The registers of the NPU while a stream runs: what was set last."""

from __future__ import annotations

from typing import NoReturn

from .driver_payload import StreamCommand
from .violations import Rule, SimulationError


class RegisterFile:
    """Values by name of the register. `position`: of the operation that reads them."""

    def __init__(self) -> None:
        self._set: dict[str, StreamCommand] = {}
        self.position = 0

    def set(self, instruction: StreamCommand) -> None:
        self._set[instruction.format.name] = instruction

    def field(self, register: str, name: str) -> int:
        """A field of a register. Raises SimulationError for one that was not set."""
        if register not in self._set:
            self.fail(Rule.UNSET_REGISTER, register)
        return self._set[register].field(name)

    def value(self, register: str) -> int:
        """The value of a register that has only one."""
        return self.field(register, "value")

    def signed(self, register: str, bits: int = 16) -> int:
        """The value of a register as a signed number of so many bits."""
        value = self.value(register)
        return value - (1 << bits) if value >> bits - 1 else value

    def address(self, register: str) -> int:
        """40 bits of an address, length or, as it is, of a stride."""
        return self.field(register, "low") | self.field(register, "high") << 32

    def stride(self, register: str) -> int:
        """A stride, which may be negative."""
        value = self.address(register)
        return value - (1 << 40) if value >> 39 else value

    def fail(self, rule: Rule, why: str) -> NoReturn:
        raise SimulationError(rule, why, self.position)
