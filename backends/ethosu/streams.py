"""From a region of integer operators to its command stream."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ...compiler.ir.graph import Graph
from ...compiler.target import NpuTarget
from .tosa.region import tosa_of
from .tosa.writer import serialised
from .vela import CommandStream, compiled


def stream_of(region: Graph, target: NpuTarget) -> CommandStream:
    """The command stream of a region; its operators have the names of the region's nodes.

    Raises NotCompiled where Vela refuses it.
    """
    graph = tosa_of(region)
    stream = compiled(serialised(graph), target)
    made_for = {operator.output.name: operator.location for operator in graph.operators}
    operators = tuple(
        replace(operator, name=made_for.get(_tensor(operator.name, made_for), ""))
        for operator in stream.estimate.operators
    )
    return replace(stream, estimate=replace(stream.estimate, operators=operators))


def _tensor(name: str, known: Collection[str]) -> str:
    """The tensor of a graph that one of Vela's is, or is part of: "add_3" of "add_3_int32"."""
    while name and name not in known:
        name = name.rpartition("_")[0]
    return name
