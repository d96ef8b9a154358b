"""What sizes decide becomes parameters, so that kernels that differ in nothing else are one.

A network halves its images again and again: the same kernel runs on floordiv(height + 1, 4),
floordiv(height + 1, 8) and so on, or on multiples of these. Behind lowering and scheduling, where
all that their form tells has been used, such sizes are numbers that a call hands over.
"""

from __future__ import annotations

import math

from ...ir.dims import Call, Dim, Monomial, Symbol, as_dim, symbol, terms_of
from ..kernel import Kernel

PARAMETER = "#"  # begins the names of sizes that calls compute


def parametrised(kernel: Kernel) -> tuple[Kernel, tuple[Dim, ...]]:
    """The kernel with parameters for what sizes decide, and the values of its symbols."""
    units = _units(kernel)
    names = {size: f"{PARAMETER}{number}" for number, size in enumerate(units)}

    def change(dim: Dim) -> Dim:
        changed: Dim = 0
        for monomial, factor in terms_of(dim):
            term: Dim = factor // _unit(monomial, units)
            for atom in monomial:
                term = term * (symbol(names[atom]) if atom in names else as_dim(atom))
            changed = changed + term
        return changed

    changed = kernel.map_dims(change)
    values = {name: as_dim(size) * units[size] for size, name in names.items()}
    return changed, tuple(values.get(name, symbol(name)) for name in changed.symbols)


def _units(kernel: Kernel) -> dict[Symbol | Call, int]:
    """The sizes that are computed from symbols alone, each with what divides all factors of it."""
    terms = [term for dim in kernel.all_dims() for term in terms_of(dim)]
    units: dict[Symbol | Call, int] = {}
    for monomial, factor in terms:
        for atom in monomial:
            if isinstance(atom, Call) and not any(name.startswith("$") for name in atom.symbols):
                units[atom] = math.gcd(units.get(atom, 0), factor)
    while True:
        uneven = [m for m, factor in terms if factor % _unit(m, units)]
        if not uneven:
            return units
        units |= {atom: 1 for monomial in uneven for atom in monomial if atom in units}


def _unit(monomial: Monomial, units: dict[Symbol | Call, int]) -> int:
    """What divides the factor of a product of sizes."""
    return math.prod(units.get(atom, 1) for atom in monomial)
