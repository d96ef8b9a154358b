"""A second version of a kernel for runs in which sizes that have different names are equal.

A reshape from [e, n] to [b, m] divides by sizes that a run decides: neighbouring elements of the
result may lie anywhere in the operand. Mostly the run finds e = b, and the same kernel reads row by
row. So such a kernel is made for the equal sizes, too, and a comparison in the plan takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations

from ..ir.dims import Call, Dim, Sym, substitute, symbol, symbols_of
from .kernel import Axis, Kernel
from .simplify import simplify

MAX_SYMBOLS = 8  # of a kernel for which pairs are tried
Pair = tuple[str, str]


def equal_sizes(kernel: Kernel) -> tuple[Pair, ...]:
    """Pairs of symbols that leave fewer divisions by sizes in a simplified kernel, once they are
    one; none where no pair of them does."""
    found: list[Pair] = []
    count = _divisions(kernel)
    while count and len(kernel.symbols) <= MAX_SYMBOLS:
        pairs = list(combinations(kernel.symbols, 2))
        trials = [with_equal(kernel, (pair,)) for pair in pairs]
        counts = [_divisions(trial) for trial in trials]
        if not counts or min(counts) >= count:
            break
        best = counts.index(min(counts))
        count, kernel = counts[best], trials[best]
        found.append(pairs[best])
    return tuple(found)


def with_equal(kernel: Kernel, pairs: tuple[Pair, ...]) -> Kernel:
    """The kernel for runs in which the symbols of each pair have one value."""
    for kept, other in pairs:
        kernel = _mapped(kernel, partial(substitute, values={other: symbol(kept)}))
    return simplify(kernel)


def _divisions(kernel: Kernel) -> int:
    """How many different divisions of axes by sizes its indices have."""
    found: dict[Call, None] = {}

    def note(dim: Dim) -> Dim:
        for monomial, _ in dim.terms if isinstance(dim, Sym) else ():
            for atom in monomial:
                if isinstance(atom, Call):
                    by_size = atom.fn in ("floordiv", "mod") and isinstance(atom.args[1], Sym)
                    if by_size and any(name.startswith("$") for name in symbols_of(atom.args[0])):
                        found[atom] = None
                    for arg in atom.args:
                        note(arg)
        return dim

    for stage in kernel.stages:
        for index in stage.all_indices():
            note(index)
    return len(found)


def _mapped(kernel: Kernel, change: Callable[[Dim], Dim]) -> Kernel:
    """The kernel with `change` applied to every extent and index."""

    def axes(old: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(Axis(axis.name, change(axis.extent)) for axis in old)

    stages = tuple(
        replace(
            stage.map_indices(change), axes=axes(stage.axes), reduce_axes=axes(stage.reduce_axes)
        )
        for stage in kernel.stages
    )
    return replace(kernel, stages=stages)
