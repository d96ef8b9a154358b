"""Indices, sizes and loop counters: numbers that are known now, or that a run computes."""

from __future__ import annotations

from typing import TypeAlias

from llvmlite import ir

Int: TypeAlias = int | ir.Value  # a number that is known now, or at run time


class IndexArithmetic:
    """What appends arithmetic of indices to a function, and folds what is known.

    index_type: of those that a run computes.
    """

    b: ir.IRBuilder
    index_type: ir.IntType

    def as_index(self, value: Int) -> ir.Value:
        """The index as an LLVM value."""
        return ir.Constant(self.index_type, value) if isinstance(value, int) else value

    def add(self, a: Int, b: Int) -> Int:
        """a + b, folded when known."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0 and isinstance(a, int):
            return b
        if b == 0 and isinstance(b, int):
            return a
        return self.b.add(self.as_index(a), self.as_index(b), flags=("nsw",))

    def sub(self, a: Int, b: Int) -> Int:
        """a - b, folded when known."""
        if isinstance(b, int):
            return self.add(a, -b)
        return self.b.sub(self.as_index(a), b, flags=("nsw",))

    def mul(self, a: Int, b: Int) -> Int:
        """a * b, folded when known."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if isinstance(a, int):
            a, b = b, a
        if isinstance(b, int) and b in (0, 1):
            return a if b else 0
        return self.b.mul(self.as_index(a), self.as_index(b), flags=("nsw",))

    def floordiv(self, a: Int, b: Int) -> Int:
        """a // b rounding down, for b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        a, b = self.as_index(a), self.as_index(b)
        quotient = self.b.sdiv(a, b)
        rest = self.b.srem(a, b)
        negative = self.b.icmp_signed("<", rest, self.as_index(0))
        return self.b.sub(quotient, self.b.zext(negative, self.index_type))

    def mod(self, a: Int, b: Int) -> Int:
        """a mod b in [0, b), for b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        a, b = self.as_index(a), self.as_index(b)
        rest = self.b.srem(a, b)
        negative = self.b.icmp_signed("<", rest, self.as_index(0))
        return self.b.select(negative, self.b.add(rest, b), rest)

    def minmax(self, kind: str, a: Int, b: Int) -> Int:
        """The smaller ("min") or larger ("max") of two integers."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b) if kind == "min" else max(a, b)
        a, b = self.as_index(a), self.as_index(b)
        return self.b.select(self.b.icmp_signed("<" if kind == "min" else ">", a, b), a, b)
