"""What a GPU is to launch for the candidates of a batch, and the memory that they work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....compiler.errors import InternalError
from ....compiler.ir.dims import Dim, evaluate
from ....compiler.kernel.lower.scope import storage_elements
from ....compiler.kernel.plan.devices import all_steps
from ....compiler.kernel.plan.plan import Allocate, KernelCall, Place, Plan, bytes_of
from ..vetting import Vetted

LAUNCHES = "launches.json"  # of a batch: buffers, and launches by position


def launches_of(
    vetted: Sequence[Vetted], sizes: Mapping[str, int], prefix: str
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """The launches of a call, one behind the other, and the files with their code.

    sizes: of the kernel's symbols. prefix: of the files' names.
    """
    launches: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for own in vetted:
        for function, (image,) in zip(own.part, own.images, strict=True):
            name = f"{prefix}{function.symbol}.cubin"
            files[name] = image.data
            launches.append(
                {
                    "symbol": function.symbol, "file": name, "params": list(function.params),
                    "workspace": function.workspace, "scratch": function.scratch > 0,
                    "programs": evaluate(function.programs, sizes),
                    "sizes": [sizes[name] for name in function.symbols],
                    "threads": image.threads, "shared": image.shared,
                }
            )  # fmt: skip
    return launches, files


def first_call(plan: Plan, number: int) -> KernelCall | None:
    """Of a kernel, in the order of a run."""
    calls = (s for s in all_steps(plan.steps) if isinstance(s, KernelCall) and s.kernel == number)
    return next(calls, None)


def sizes_of(
    plan: Plan, number: int, call: KernelCall, sizes: Mapping[str, int]
) -> dict[str, int] | None:
    """The sizes of a kernel's symbols in a call, by those of the model's inputs; None where only a
    run knows them."""
    try:
        values = [evaluate(dim, sizes) for dim in call.sizes]
    except InternalError:
        return None
    return dict(zip(plan.kernels[number].kernel.symbols, values, strict=True))


def buffers_of(
    plan: Plan, number: int, call: KernelCall, sizes: Mapping[str, int]
) -> list[dict[str, Any]] | None:
    """The memory of a kernel's parameters in a call: bytes, type of elements, and whether it is a
    result; None where only a run knows how much there is. sizes: of the model's inputs."""
    kernel = plan.kernels[number].kernel
    found = [_bytes_at(plan, place) for place in call.places]
    try:
        bytes_ = [None if size is None else evaluate(size, sizes) for size in found]
    except InternalError:
        return None
    if any(size is None for size in bytes_):
        return None
    first_output = len(kernel.params) - kernel.outputs
    return [
        {"bytes": size, "dtype": buffer.dtype.value, "output": position >= first_output}
        for position, (buffer, size) in enumerate(zip(kernel.params, bytes_, strict=True))
    ]


def _bytes_at(plan: Plan, place: Place) -> Dim | None:
    """How much memory there is at a place, at most; None: only a run knows."""
    offset = place.offset
    if place.kind == "arena":
        return plan.arena[place.number].size - offset
    if place.kind == "weights":
        return plan.weights[place.number].size - offset
    if place.kind == "heap":
        steps = (step for step in all_steps(plan.steps) if isinstance(step, Allocate))
        size = next((step.size for step in steps if step.number == place.number), None)
        return None if size is None else size - offset
    value = (plan.inputs if place.kind == "input" else plan.outputs)[place.number]
    return bytes_of(value.dtype, storage_elements(value.type)) - offset
