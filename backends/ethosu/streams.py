"""From a region of integer operators to its command stream."""

from __future__ import annotations

from ...compiler.ir.graph import Graph
from ...compiler.target import NpuTarget
from .tosa.region import tosa_of
from .tosa.writer import serialised
from .vela import CommandStream, compiled


def stream_of(region: Graph, target: NpuTarget) -> CommandStream:
    """The command stream of a region. Raises NotCompiled where Vela refuses it."""
    return compiled(serialised(tosa_of(region)), target)
