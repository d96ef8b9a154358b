"""From a region of integer operators to its command stream."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from ...compiler.ir.graph import Graph
from ...compiler.target import NpuTarget
from .stream_check import NotSimulated, fault_of
from .tosa.graph import NUMPY, Tensor
from .tosa.region import tosa_of
from .tosa.writer import serialised
from .vela import ALIGNMENT, CommandStream, Extent, NotCompiled, WrongStream, compiled

MOST_SMALLER = 4  # arenas that are tried, each smaller than the last
_OTHER = {"Performance": "Size", "Size": "Performance"}


def stream_of(region: Graph, target: NpuTarget) -> CommandStream:
    """The command stream of a region; its operators have the names of the region's nodes.

    Raises NotCompiled where Vela refuses it, or leaves out an input or output.
    """
    graph = tosa_of(region)
    stream = compiled(serialised(graph), target)
    _require_places(graph.inputs, stream.inputs)
    _require_places(graph.outputs, stream.outputs)
    made_for = {operator.output.name: operator.location for operator in graph.operators}
    operators = tuple(
        replace(operator, name=made_for.get(_tensor(operator.name, made_for), ""))
        for operator in stream.estimate.operators
    )
    return replace(stream, estimate=replace(stream.estimate, operators=operators))


def frugal_stream_of(region: Graph, target: NpuTarget) -> CommandStream:
    """As `stream_of`, in a smaller arena where Vela, told that it has to do with less than it took,
    finds one that takes no more cycles. Of memory that the processor has to itself all may be used.

    Raises NotCompiled where Vela refuses the region.
    """
    stream = stream_of(region, target)
    for _ in range(MOST_SMALLER if not stream.fast_bytes else 0):
        less = stream.scratch_bytes - ALIGNMENT
        if less <= 0:
            break
        try:
            smaller = stream_of(region, replace(target, arena_bytes=less))
        except NotCompiled:
            break
        slower = smaller.estimate.cycles > stream.estimate.cycles
        if slower or smaller.scratch_bytes >= stream.scratch_bytes:
            break
        stream = smaller
    return stream


def right_stream_of(region: Graph, target: NpuTarget) -> CommandStream:
    """A stream that gives the bits of its region: that of `frugal_stream_of`, or, where that is
    wrong, one that Vela makes otherwise, if the memory holds it. One that the simulator cannot run
    is taken, and says so.

    Raises NotCompiled where Vela refuses the region, or makes no stream of it that is right.
    """
    fault = ""
    for make, own in (
        (frugal_stream_of, target),
        (stream_of, target),
        (stream_of, replace(target, optimise=_OTHER[target.optimise])),
    ):
        stream = make(region, own)
        if fault and stream.exceeds(own):
            continue
        try:
            found = fault_of(region, stream)
        except NotSimulated as unknown:
            return replace(stream, unchecked=str(unknown))
        if not found:
            return stream
        fault = fault or found
    raise WrongStream(fault)


def _require_places(tensors: Sequence[Tensor], places: Sequence[Extent]) -> None:
    """Raises WrongStream where Vela has left out an input or output."""
    wanted = [math.prod(tensor.shape) * NUMPY[tensor.type].itemsize for tensor in tensors]
    if wanted != (found := [place.size for place in places]):
        raise WrongStream(f"inputs or outputs have {found} bytes and not {wanted}")


def _tensor(name: str, known: Collection[str]) -> str:
    """The tensor of a graph that one of Vela's is, or is part of: "add_3" of "add_3_int32"."""
    while name and name not in known:
        name = name.rpartition("_")[0]
    return name
