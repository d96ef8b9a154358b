"""A second version of a kernel for runs whose sizes fit together as they mostly do.

A reshape from [e, n] to [b, m] divides by sizes that a run decides: neighbouring elements of the
result may lie anywhere in the operand. Mostly the run finds e = b, or a size to be a multiple of
the window that it is cut into, and the same kernel reads row by row. So such a kernel is made for
these sizes, too, and a comparison in the plan takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from ...ir.dims import Call, Dim, Sym, Symbol, all_calls, floordiv, substitute, symbol, symbols_of
from ..kernel import Kernel
from ..simplify import simplify

MAX_SYMBOLS = 8  # of a kernel for which pairs are tried
UNIT = "/"  # in the name of the number of windows in a size


@dataclass(frozen=True)
class Fit:
    """What is supposed of the size `name`: that it is another one, or `factor` times a whole."""

    name: str
    other: str = ""
    factor: int = 1

    @property
    def value(self) -> Dim:
        """What the size is, by the other one or by how often the factor goes into it."""
        return symbol(self.other or f"{self.name}{UNIT}{self.factor}") * self.factor

    @property
    def condition(self) -> tuple[Dim, Dim]:
        """Two dims that are equal where it holds."""
        size = symbol(self.name)
        return size, symbol(self.other) if self.other else floordiv(size, self.factor) * self.factor


def fitting(kernel: Kernel) -> tuple[Fit, ...]:
    """What leaves fewer divisions by sizes in a simplified kernel; empty where nothing does."""
    found: tuple[Fit, ...] = ()
    count, shorter = _divisions(kernel), kernel
    while count and len(kernel.symbols) <= MAX_SYMBOLS:
        choices = list(_choices(shorter))
        trials = [_supposing(shorter, choice) for choice in choices]
        counts = [_divisions(trial) for trial in trials]
        if not counts or min(counts) >= count:
            break
        best = counts.index(min(counts))
        count, shorter = counts[best], trials[best]
        found += choices[best]
    return found


def fitted(kernel: Kernel, fits: tuple[Fit, ...]) -> Kernel:
    """The kernel for runs in which all of that holds."""
    units = {f"{fit.name}{UNIT}{fit.factor}": fit for fit in fits if not fit.other}
    values = {name: floordiv(symbol(fit.name), fit.factor) for name, fit in units.items()}
    return _supposing(kernel, fits).map_dims(partial(substitute, values=values))


def _supposing(kernel: Kernel, fits: tuple[Fit, ...]) -> Kernel:
    """The kernel without the sizes that the suppositions express by others."""
    for fit in fits:
        kernel = kernel.map_dims(partial(substitute, values={fit.name: fit.value}))
    return simplify(kernel)


def _choices(kernel: Kernel) -> Iterator[tuple[Fit, ...]]:
    """What may be supposed at once: multiples, singly and together, and two sizes being one."""
    multiples = tuple(_multiples(kernel))
    if len(multiples) > 1:
        yield multiples
    yield from ((fit,) for fit in multiples)
    sizes = [name for name in kernel.symbols if UNIT not in name]
    yield from ((Fit(other, name),) for name, other in combinations(sizes, 2))


def _multiples(kernel: Kernel) -> Iterator[Fit]:
    """Sizes of which whole windows are counted: each with the first constant that divides it."""
    seen: set[str] = set()
    for call in _calls(kernel):
        top, bottom = call.args
        if call.fn != "floordiv" or not isinstance(bottom, int) or not isinstance(top, Sym):
            continue
        (monomial, factor), *more = top.terms
        if not more and factor == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
            name = monomial[0].name
            if not name.startswith("$") and UNIT not in name and name not in seen:
                seen.add(name)
                yield Fit(name, factor=bottom)


def _calls(kernel: Kernel) -> list[Call]:
    """Every call in the kernel's indices, each once."""
    return all_calls(index for stage in kernel.stages for index in stage.all_indices())


def _divisions(kernel: Kernel) -> int:
    """How many different divisions of axes by sizes its indices have."""
    return sum(
        call.fn in ("floordiv", "mod")
        and isinstance(call.args[1], Sym)
        and any(name.startswith("$") for name in symbols_of(call.args[0]))
        for call in _calls(kernel)
    )
