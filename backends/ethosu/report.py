"""What is told of a model for an Ethos-U: placement, memory, and Vela's estimate."""

from __future__ import annotations

from ...compiler.compilation import NpuReport, NpuSegment, PlacedOperator
from .placement import Placement

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
            )
            for stream in placement.streams
        ),
        operators=tuple(
            PlacedOperator(node.name, node.op, node.segment, node.reason, node.computes)
            for node in placement.nodes
        ),
    )
