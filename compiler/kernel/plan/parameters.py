"""What sizes decide becomes parameters, so that kernels that differ in nothing else are one.

A network halves its images again and again: the same kernel runs on floordiv(height + 1, 4),
floordiv(height + 1, 8) and so on, or on multiples of these. Behind lowering and scheduling, where
all that their form tells has been used, such sizes are numbers that a call hands over. Of kernels
that only fill memory all sizes and places are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ...ir.dims import (
    Call,
    Dim,
    Monomial,
    Symbol,
    as_dim,
    coefficient,
    substitute,
    symbol,
    terms_of,
)
from ..expr import Const, IndexValue
from ..kernel import Axis, Kernel

PARAMETER = "#"  # begins the names of sizes that calls compute


def parametrised(
    kernel: Kernel, values: Mapping[str, Dim] | None = None
) -> tuple[Kernel, tuple[Dim, ...]]:
    """The kernel with parameters for what sizes decide, and the values of its symbols.

    values: of symbols that are parameters already.
    """
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
    own = {name: as_dim(size) * units[size] for size, name in names.items()}
    values = {**own, **(values or {})}
    return changed, tuple(values.get(name, symbol(name)) for name in changed.symbols)


def of_any_size(filling: Kernel) -> tuple[Kernel, dict[str, Dim]]:
    """A kernel whose stages store a number each, with parameters for it, if it is an integer, and
    for all extents, strides other than 1 and places of the first element; and their values."""
    values: dict[str, Dim] = {}

    def parameter(value: Dim) -> Dim:
        name = f"{PARAMETER}{len(values)}"
        values[name] = value
        return symbol(name)

    stages = []
    for stage in filling.stages:
        [store] = stage.stores
        value = store.value
        if isinstance(value, Const) and not isinstance(value.value, float):
            value = IndexValue(parameter(value.value), value.dtype)
        offset = parameter(substitute(store.offset, {axis.name: 0 for axis in stage.axes}))
        axes = []
        for axis in stage.axes:
            stride = coefficient(store.offset, axis.name)
            assert stride is not None
            offset = offset + (1 if stride == 1 else parameter(stride)) * symbol(axis.name)
            axes.append(Axis(axis.name, parameter(axis.extent)))
        filled = replace(store, offset=offset, value=value)
        stages.append(replace(stage, axes=tuple(axes), stores=(filled,)))
    return replace(filling, stages=tuple(stages)), values


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
