"""The arithmetic of register tiles in cycles: what schedules and the cost model agree on."""

from __future__ import annotations

from ...target import CpuTarget

# more than another load costs, where it is an instruction of its own: fitted to tiles of 13 x 1,
# 7 x 1, 5 x 2, 6 x 2 and 4 x 3 vectors on one Zen 3 core
BROADCAST_CYCLES = 1 / 6
FMA_LATENCY = 4  # cycles, on current x86 and Arm cores


def step_cycles(
    operations: float, loads: float, broadcasts: float, far: float, target: CpuTarget
) -> float:
    """Estimated cycles of one reduction step of a tile.

    The most of FMAs / ports, loads / 2 and the latency of an accumulation, a little for every
    load, and half a cycle for every vector (`far` of them) that comes from the second-level cache.
    broadcasts: loads among them that fill all lanes with one element.
    """
    loading = loads / 2
    if not target.broadcast_operands:
        loading += BROADCAST_CYCLES * broadcasts
    bound = max(operations / target.fma_ports, loading, FMA_LATENCY + 1)
    return 0.5 * far + bound + 0.1 * loads


def pieces(extent: int, tile: int) -> list[tuple[int, int]]:
    """[(how many, size)] of full tiles and the edge tile."""
    full, rest = divmod(extent, tile)
    return [(full, tile)] * bool(full) + [(1, rest)] * bool(rest)
