"""Where an emitter asks whether an access may be; `sanitize.py` answers, where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir


class Checks:
    """Every access may be. watching: whether accesses are looked at one by one."""

    watching = False

    def add_arguments(
        self, names: Sequence[str], bases: Sequence[ir.Value], table: ir.Value
    ) -> None:
        """Make the kernel's buffers known, whose sizes a table has."""

    def add_local(self, name: str, base: ir.Value, size: int) -> None:
        """Make memory of the kernel's own known, of `size` bytes."""

    def together(
        self, buffer: str, pointer: ir.Value, size: int, lanes: int, mask: ir.Value | None
    ) -> ir.Value:
        """The address to use for `lanes` neighbours in a buffer, of `size` bytes each."""
        return pointer

    def apart(self, buffer: str, pointers: ir.Value, size: int, mask: ir.Value | None) -> ir.Value:
        """The addresses to use for one element of a buffer in each lane."""
        return pointers
