"""The arithmetic of register tiles in cycles: what schedules and the cost model agree on."""

from __future__ import annotations

from ..target import Target

FMA_LATENCY = 4  # cycles, on current x86 and Arm cores


def step_cycles(operations: float, loads: float, far: float, target: Target) -> float:
    """Estimated cycles of one reduction step of a tile.

    The most of FMAs / ports, loads / 2 and the latency of an accumulation, a little for every
    load, and half a cycle for every vector (`far` of them) that comes from the second-level cache.
    """
    bound = max(operations / target.fma_ports, loads / 2, FMA_LATENCY + 1)
    return 0.5 * far + bound + 0.1 * loads


def pieces(extent: int, tile: int) -> list[tuple[int, int]]:
    """[(how many, size)] of full tiles and the edge tile."""
    full, rest = divmod(extent, tile)
    return [(full, tile)] * bool(full) + [(1, rest)] * bool(rest)
