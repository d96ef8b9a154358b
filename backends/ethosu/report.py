"""What is told of a model for an Ethos-U: placement, memory, and Vela's estimate."""

from __future__ import annotations

from ...compiler.compilation import NodeCycles, NpuReport, NpuSegment, PlacedOperator
from .placement import Placement
from .vela import CommandStream

ORIGIN = "estimated by Vela"


def report_of(placement: Placement) -> NpuReport:
    """The report of a placement."""
    return NpuReport(
        origin=ORIGIN,
        segments=tuple(
            NpuSegment(
                cycles=stream.estimate.cycles,
                npu_cycles=stream.estimate.npu_cycles,
                macs=stream.estimate.macs,
                command_bytes=len(stream.commands),
                weight_bytes=len(stream.weights),
                arena_bytes=stream.scratch_bytes,
                fast_bytes=stream.fast_bytes,
                memories={
                    name: (used.peak_bytes, used.read_bytes, used.written_bytes)
                    for name, used in stream.estimate.memories.items()
                },
                nodes=_nodes(stream),
                unchecked=stream.unchecked,
            )
            for stream in placement.streams
        ),
        operators=tuple(
            PlacedOperator(node.name, node.op, node.segment, node.reason, node.computes)
            for node in placement.nodes
        ),
    )


def _nodes(stream: CommandStream) -> tuple[NodeCycles, ...]:
    """The operators of a stream, those of one node together."""
    found: dict[str, NodeCycles] = {}
    for own in stream.estimate.operators:
        before = found.get(own.name, NodeCycles(own.name, 0, 0))
        cycles, macs = before.cycles + own.cycles, before.macs + own.macs
        found[own.name] = NodeCycles(own.name, cycles, macs)
    return tuple(found.values())
