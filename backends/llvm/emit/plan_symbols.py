"""The symbolic dims of a plan: variables of its function, and expressions of them."""

from __future__ import annotations

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.dims import Dim, symbols_of
from .access import index_value
from .builder import I64, Emitter
from .indices import Int


class PlanSymbols:
    """Variables of the function that an emitter fills."""

    def __init__(self, e: Emitter) -> None:
        self.e = e
        self.slots: dict[str, ir.Value] = {}

    def assign(self, name: str, value: Int) -> None:
        """Give a symbol a value."""
        if name not in self.slots:
            self.slots[name] = self.e.local(I64, align=8)
        self.e.b.store(self.e.as_index(value), self.slots[name])

    def env(self, names: frozenset[str] | set[str]) -> dict[str, Int]:
        """Values of symbols. Raises InternalError for those that have none yet."""
        missing = [name for name in names if name not in self.slots]
        if missing:
            raise InternalError(f"the symbolic dimension(s) {missing} are used before they are set")
        held = self.e.held
        return {
            name: held[name] if name in held else self.e.b.load(self.slots[name], typ=I64)
            for name in sorted(names)
        }

    def dim(self, dim: Dim) -> Int:
        """The value of an expression."""
        return index_value(self.e, dim, self.env(symbols_of(dim)))
