"""How wide offsets are: 32 bits, for which all tensors, and all that is reduced, have to be small
enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...compiler.ir.assumptions import AT_MOST
from ...compiler.ir.dims import (
    Dim,
    coefficient,
    is_nonnegative,
    is_position,
    product,
    substitute,
    symbols_of,
)
from ...compiler.kernel.expr import Expr, Guarded, Load, children
from ...compiler.kernel.kernel import Axis, Kernel, Stage
from ...compiler.kernel.lower.scope import storage_elements
from ...compiler.kernel.plan.plan import (
    Allocate,
    Branch,
    Launch,
    Plan,
    Repeat,
    Require,
    Step,
    bytes_of,
)

LIMIT = (1 << 31) - 1  # bytes of a tensor whose offsets fit 32 bits, those behind its end too
REASON = (
    "a tensor is larger than kernels of symbolic sizes address: give fixed ones by --shape when"
    " the model is compiled"
)
COUNTED = (
    "more elements are reduced to one than kernels of symbolic sizes count: give fixed ones by"
    " --shape when the model is compiled"
)


def index_type(plan: Plan) -> str:
    """64 bits where a tensor of known size needs them, or a reduction of as many elements, which
    need lie nowhere (those of all pairs, say)."""
    counts = (count for planned in plan.kernels for count in _reduced(planned.kernel))
    known = [size for size in (*_sizes(plan), *counts) if isinstance(size, int)]
    return "tl.int64" if max([0, *known]) > LIMIT else "tl.int32"


def limit_sizes(plan: Plan) -> None:
    """Have a run end with an error where a tensor of symbolic size, or a reduction, is too large
    for 32 bits.

    Where what is known needs 64 bits all offsets have these, and nothing is limited.
    """
    if index_type(plan) == "tl.int64":
        return
    known = dict.fromkeys(size for size in _sizes(plan) if not isinstance(size, int))
    first = [_limit(size) for size in known]
    plan.steps = (*first, *_limited(plan, plan.steps))


def _limit(size: Dim, reason: str = REASON) -> Require:
    return Require(AT_MOST, size, LIMIT, reason)


def _reduced(kernel: Kernel) -> Iterator[Dim]:
    """How many elements a stage reduces to one, where no tensor has as many for sure."""
    for stage in kernel.stages:
        count = product(axis.extent for axis in stage.reduce_axes)
        if isinstance(count, int) or not _is_stored(stage):
            yield count


def _is_stored(stage: Stage) -> bool:
    """Whether what is reduced of one result are elements of one tensor, each another."""
    loads = (load for one in stage.reductions for own in one.expressions for load in _always(own))
    return any(_is_another(load, stage.reduce_axes) for load in loads)


def _always(expression: Expr) -> Iterator[Load]:
    """The loads of arguments that happen at every point."""
    pending = [expression]
    while pending:
        part = pending.pop()
        if isinstance(part, Load) and part.buffer.local is None:
            yield part
        if not isinstance(part, Guarded):
            pending += children(part)


def _is_another(load: Load, axes: Sequence[Axis]) -> bool:
    """Whether a load is of another element at every point of axes, for sure."""
    steps = []
    for axis in axes:
        if axis.extent == 1:
            continue
        stride = coefficient(load.offset, axis.name)
        if not stride or is_position(stride):
            return False
        steps.append((stride if is_nonnegative(stride) else -stride, axis.extent))
    return not load.dynamic and _are_nested(steps, 0)


def _are_nested(steps: Sequence[tuple[Dim, Dim]], inner: Dim) -> bool:
    """Whether strides, of axes with those extents, are at least `inner` in some order, and each as
    large as the one before reaches."""
    return not steps or any(
        is_nonnegative(stride - inner)
        and _are_nested([*steps[:n], *steps[n + 1 :]], stride * extent)
        for n, (stride, extent) in enumerate(steps)
    )


def _counted(plan: Plan, step: Launch) -> Iterator[Step]:
    """Checks of what a launch reduces."""
    function = plan.functions[step.function]
    sizes = dict(zip(function.symbols, step.sizes, strict=True))
    for count in dict.fromkeys(_reduced(plan.kernels[function.kernel].kernel)):
        if not isinstance(count, int):
            yield _limit(substitute(count, sizes), COUNTED)


def _sizes(plan: Plan) -> Iterator[Dim]:
    """Bytes of all tensors whose size is known before the run, or by its inputs."""
    yield from (buffer.size for buffer in plan.arena)
    yield from (weight.size for weight in plan.weights)
    for value in (*plan.inputs, *plan.outputs):
        size = bytes_of(value.dtype, storage_elements(value.type))
        if symbols_of(size) <= set(plan.symbols):
            yield size


def _limited(plan: Plan, steps: Sequence[Step]) -> Iterator[Step]:
    """The steps with a check of every size that only they know."""
    for step in steps:
        if isinstance(step, Launch):
            yield from _counted(plan, step)
        if isinstance(step, Allocate) and not isinstance(step.size, int):
            yield _limit(step.size)
        if isinstance(step, Branch):
            then, otherwise = (tuple(_limited(plan, own)) for own in (step.then, step.otherwise))
            yield replace(step, then=then, otherwise=otherwise)
        elif isinstance(step, Repeat):
            yield replace(step, body=tuple(_limited(plan, step.body)))
        else:
            yield step
