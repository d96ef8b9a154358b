"""What the vectors of Arm's Helium (MVE) need that others do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .numbering import NumberingBuilder

_I32 = ir.IntType(32)
_SIZE, _INFINITY = 0x7FFFFFFF, 0x7F800000  # of an f32: all but the sign, the size of infinity
_LANES = {"float": 4, "half": 8}  # of one register
_Compare = Callable[..., ir.Value]


class MveBuilder(NumberingBuilder):
    """Comparisons of vectors of floats that hold of NaN what they should.

    VCMP's lt and le hold for NaN (Armv8-M Architecture Reference Manual, VCMP, floating-point).
    LLVM 22 exchanges operands so that it needs neither, but exchanges them back where one has the
    same number in all lanes, which the instruction takes from a scalar register: operands are
    hidden from it where that does harm, and NaN are told by their bits.
    """

    def fcmp_ordered(self, op: str, a: ir.Value, b: ir.Value, *rest: Any, **more: Any) -> ir.Value:
        """As llvmlite has it."""
        first, second = op not in ("<", "<="), op not in (">", ">=")
        return self._compared(super().fcmp_ordered, op, (a, first), (b, second), *rest, **more)

    def fcmp_unordered(
        self, op: str, a: ir.Value, b: ir.Value, *rest: Any, **more: Any
    ) -> ir.Value:
        """As llvmlite has it."""
        first, second = op not in (">", ">="), op not in ("<", "<=")
        return self._compared(super().fcmp_unordered, op, (a, first), (b, second), *rest, **more)

    def _compared(
        self,
        compare: _Compare,
        op: str,
        left: tuple[ir.Value, bool],
        right: tuple[ir.Value, bool],
        *rest: Any,
        **more: Any,
    ) -> ir.Value:
        """left, right: the operands, and whether each would be to the right of lt or le."""
        (a, hide_a), (b, hide_b) = left, right
        kind = a.type
        if not isinstance(kind, ir.VectorType) or str(kind.element) not in _LANES:
            return compare(op, a, b, *rest, **more)
        if a is b and op in ("uno", "ord") and isinstance(kind.element, ir.FloatType):
            return self._class(a, nan=op == "uno")
        if op in ("==", "!="):
            ordered = compare == super().fcmp_ordered
            hide_a = hide_b = ordered == (op == "!=")
        hidden_a, hidden_b = (
            self._hidden(value) if hide else value for value, hide in ((a, hide_a), (b, hide_b))
        )
        return compare(op, hidden_a, hidden_b, *rest, **more)

    def _class(self, x: ir.Value, nan: bool) -> ir.Value:
        """Whether an f32 is NaN, or is a number."""
        kind = ir.VectorType(_I32, x.type.count)
        size, infinity = (
            ir.Constant(kind, [ir.Constant(_I32, bits)] * kind.count) for bits in (_SIZE, _INFINITY)
        )
        bits = self.and_(self.bitcast(x, kind), size)
        return self.icmp_signed(">" if nan else "<=", bits, infinity)

    def _hidden(self, value: ir.Value) -> ir.Value:
        """The same vector, of which LLVM does not see where it comes from."""
        if isinstance(value, ir.instructions.LoadInstr):
            return value
        width, count = _LANES[str(value.type.element)], value.type.count
        if isinstance(value, ir.Constant):
            same = len({str(lane) for lane in value.constant}) == 1
            count = width if same and count > width else count
        parts = [
            self._register(self._lanes(value, range(start, min(start + width, count)), width))
            for start in range(0, count, width)
        ]
        whole = parts[0]
        for part in parts[1:]:
            whole = self._lanes_of_two(whole, part)
        places = [lane % whole.type.count for lane in range(value.type.count)]
        return self._lanes(whole, places, len(places))

    def _register(self, vector: ir.Value) -> ir.Value:
        kind = ir.FunctionType(vector.type, [vector.type])
        return self.asm(kind, "", "=w,0", [vector], False)

    def _lanes(self, vector: ir.Value, places: Any, count: int) -> ir.Value:
        """So many lanes of a vector; those behind the given places count for nothing."""
        wanted = [*places, *[0] * (count - len(places))]
        if wanted == list(range(vector.type.count)):
            return vector
        mask = ir.Constant(ir.VectorType(_I32, count), wanted)
        return self.shuffle_vector(vector, vector, mask)

    def _lanes_of_two(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Two vectors, of which the second may be shorter, end to end."""
        second = self._lanes(b, range(b.type.count), a.type.count)
        count = a.type.count + b.type.count
        mask = ir.Constant(ir.VectorType(_I32, count), list(range(count)))
        return self.shuffle_vector(a, second, mask)
