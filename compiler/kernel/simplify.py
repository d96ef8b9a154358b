"""Rewrites of stages that change no value: split, drop and merge axes.

Fewer and longer axes give the code generator longer vector loops and cheaper index arithmetic.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

from ..ir.dims import (
    FUNCTIONS,
    Atom,
    Call,
    Dim,
    Sym,
    Symbol,
    coefficient,
    floordiv,
    is_position,
    map_atoms,
    mod,
    substitute,
    symbol,
    symbols_of,
)
from .axis_names import halves_of
from .index_ranges import fold_divisions
from .kernel import Axis, Kernel, Stage


def simplify(kernel: Kernel) -> Kernel:
    """The kernel with axes split where indices divide them, unit axes dropped, runs merged."""
    stages = [_fold_divisions(stage) for stage in kernel.stages]
    stages = [_split_axes(stage, kernel.shared) for stage in stages]
    stages = [_drop_unit_axes(_fold_divisions(stage)) for stage in stages]
    shared = kernel.shared
    if shared:
        shared = sum(axis.extent != 1 for axis in kernel.stages[0].axes[: kernel.shared])
    stages, shared = _merge_shared(stages, shared)
    stages = [_merge_axes(stage, shared) for stage in stages]
    return replace(kernel, stages=tuple(stages), shared=shared)


def _fold_divisions(stage: Stage) -> Stage:
    """Without the divisions in indices that the axes' extents decide."""
    extents = {axis.name: axis.extent for axis in stage.axes + stage.reduce_axes}
    return stage.map_indices(cache(lambda dim: fold_divisions(dim, extents)))


def _divisors(dim: Dim, names: frozenset[str], found: dict[str, set[Dim]]) -> None:
    """Collect, per axis, dims by which floordiv or mod divides the bare axis."""
    if isinstance(dim, int) or not is_position(dim):
        return
    for mono, _ in dim.terms:
        for atom in mono:
            if not isinstance(atom, Call):
                continue
            top, bottom = atom.args
            for arg in atom.args:
                _divisors(arg, names, found)
            if atom.fn in ("floordiv", "mod") and not is_position(bottom):
                name = _bare_axis(top)
                if name in names:
                    found.setdefault(name, set()).add(bottom)


def _bare_axis(dim: Dim) -> str:
    if isinstance(dim, Sym) and len(dim.terms) == 1:
        mono, coef = dim.terms[0]
        if coef == 1 and len(mono) == 1 and isinstance(mono[0], Symbol):
            return mono[0].name
    return ""


def _is_multiple(large: Dim, small: Dim) -> bool:
    """Whether `large` is a multiple of `small`, and another number, by their form."""
    return large != small and small != 1 and floordiv(large, small) * small == large


def _finds_position(stage: Stage) -> bool:
    """Whether the stage's result is a position along its reduction axis, which then must stay."""
    return any(r.kind.startswith("arg") for r in stage.reductions)


def _split_axes(stage: Stage, shared: int) -> Stage:
    """Split axes by a divisor in indices that divides their extent and all other divisors."""
    while True:
        free = stage.axes[shared:] + (() if _finds_position(stage) else stage.reduce_axes)
        splittable = {a.name: a for a in free}
        found: dict[str, set[Dim]] = {}
        for index in stage.all_indices():
            _divisors(index, frozenset(splittable), found)
        for name, divisors in found.items():
            by = min(divisors, key=_size_order)
            if _is_multiple(splittable[name].extent, by):
                stage = split_axis(stage, splittable[name], by)
                break
        else:
            return stage


def _size_order(dim: Dim) -> tuple[int, int, str]:
    """Constants by size, then products of ever more sizes."""
    if isinstance(dim, int):
        return 0, dim, ""
    return max(len(mono) for mono, _ in dim.terms), abs(dim.terms[0][1]), str(dim)


def split_axis(stage: Stage, axis: Axis, by: Dim) -> Stage:
    """The stage with an axis, of an extent that `by` divides, as two: blocks and inside them."""
    first, second = halves_of(axis.name)
    outer, inner = Axis(first, floordiv(axis.extent, by)), Axis(second, by)
    o, i = symbol(outer.name), symbol(inner.name)

    def change(dim: Dim) -> Dim:
        return _replace_divided(dim, axis.name, o, i, by)

    def expand(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(
            part for a in axes for part in ((outer, inner) if a.name == axis.name else (a,))
        )

    changed = stage.map_indices(change)
    return replace(changed, axes=expand(stage.axes), reduce_axes=expand(stage.reduce_axes))


def _replace_divided(dim: Dim, name: str, o: Dim, i: Dim, by: Dim) -> Dim:
    """Substitute name = o*by + i, knowing that 0 <= i < by."""
    if isinstance(dim, int) or name not in symbols_of(dim):
        return dim

    def change(atom: Atom) -> Dim:
        if isinstance(atom, Symbol):
            return o * by + i if atom.name == name else symbol(atom.name)
        top, bottom = atom.args
        if _bare_axis(top) == name and (bottom == by or _is_multiple(bottom, by)):
            if atom.fn == "floordiv":
                return floordiv(o, floordiv(bottom, by))
            if atom.fn == "mod":
                return mod(o, floordiv(bottom, by)) * by + i
        args = [_replace_divided(arg, name, o, i, by) for arg in atom.args]
        return FUNCTIONS[atom.fn](args[0], args[1])

    return map_atoms(dim, change)


def _drop_unit_axes(stage: Stage) -> Stage:
    needed = stage.reduce_axes if _finds_position(stage) else ()
    gone = {a.name: 0 for a in stage.axes + stage.reduce_axes if a.extent == 1 and a not in needed}
    if not gone:
        return stage
    changed = stage.map_indices(lambda dim: substitute(dim, gone))
    return replace(
        changed,
        axes=tuple(a for a in stage.axes if a.name not in gone),
        reduce_axes=tuple(a for a in stage.reduce_axes if a.name not in gone),
    )


def _mergeable(stage: Stage, outer: Axis, inner: Axis) -> bool:
    """Whether every index sees the two axes only as outer*extent(inner) + inner."""
    for index in stage.all_indices():
        names = symbols_of(index)
        if outer.name not in names and inner.name not in names:
            continue
        a, b = coefficient(index, outer.name), coefficient(index, inner.name)
        if a is None or b is None or a != b * inner.extent:
            return False
    return not (_finds_position(stage) and outer in stage.reduce_axes)


def _merge(stage: Stage, outer: Axis, inner: Axis) -> Stage:
    merged = Axis(inner.name, outer.extent * inner.extent)
    changed = stage.map_indices(lambda dim: substitute(dim, {outer.name: 0}))

    def shorten(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(merged if a == inner else a for a in axes if a != outer)

    return replace(changed, axes=shorten(stage.axes), reduce_axes=shorten(stage.reduce_axes))


def _merge_axes(stage: Stage, shared: int) -> Stage:
    """Merge neighbouring axes after the shared ones, and neighbouring reduction axes."""
    changed = True
    while changed:
        changed = False
        for axes in (stage.axes[shared:], stage.reduce_axes):
            for outer, inner in pairwise(axes):
                if _mergeable(stage, outer, inner):
                    stage = _merge(stage, outer, inner)
                    changed = True
                    break
            if changed:
                break
    return stage


def _merge_shared(stages: list[Stage], shared: int) -> tuple[list[Stage], int]:
    """Merge neighbouring shared axes where every stage allows it."""
    position = 0
    while position + 1 < shared:
        pairs = [(s.axes[position], s.axes[position + 1]) for s in stages]
        if all(_mergeable(s, *pair) for s, pair in zip(stages, pairs, strict=True)):
            stages = [_merge(s, *pair) for s, pair in zip(stages, pairs, strict=True)]
            shared -= 1
        else:
            position += 1
    return stages, shared
