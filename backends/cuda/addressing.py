"""How wide offsets are: 32 bits, for which all tensors have to be small enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...compiler.ir.assumptions import AT_MOST
from ...compiler.ir.dims import Dim, symbols_of
from ...compiler.kernel.lower.scope import storage_elements
from ...compiler.kernel.plan.plan import (
    Allocate,
    Branch,
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


def index_type(plan: Plan) -> str:
    """64 bits where a tensor of known size needs them."""
    known = [size for size in _sizes(plan) if isinstance(size, int)]
    return "tl.int64" if max([0, *known]) > LIMIT else "tl.int32"


def limit_sizes(plan: Plan) -> None:
    """Have a run end with an error where a tensor of symbolic size is too large for 32 bits.

    Where tensors of known sizes need 64 bits all offsets have these, and nothing is limited.
    """
    if index_type(plan) == "tl.int64":
        return
    known = dict.fromkeys(size for size in _sizes(plan) if not isinstance(size, int))
    first = [_limit(size) for size in known]
    plan.steps = (*first, *_limited(plan.steps))


def _limit(size: Dim) -> Require:
    return Require(AT_MOST, size, LIMIT, REASON)


def _sizes(plan: Plan) -> Iterator[Dim]:
    """Bytes of all tensors whose size is known before the run, or by its inputs."""
    yield from (buffer.size for buffer in plan.arena)
    yield from (weight.size for weight in plan.weights)
    for value in (*plan.inputs, *plan.outputs):
        size = bytes_of(value.dtype, storage_elements(value.type))
        if symbols_of(size) <= set(plan.symbols):
            yield size


def _limited(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps with a check of every size that only they know."""
    for step in steps:
        if isinstance(step, Allocate) and not isinstance(step.size, int):
            yield _limit(step.size)
        if isinstance(step, Branch):
            then, otherwise = tuple(_limited(step.then)), tuple(_limited(step.otherwise))
            yield replace(step, then=then, otherwise=otherwise)
        elif isinstance(step, Repeat):
            yield replace(step, body=tuple(_limited(step.body)))
        else:
            yield step
