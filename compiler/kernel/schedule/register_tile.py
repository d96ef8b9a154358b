"""The choice of a register tile: how many rows and vectors of a reduction are computed at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product as cartesian

from ...target import CpuTarget
from ..contraction import Contraction, extent_of
from ..cost.tile_cycles import pieces, step_cycles
from ..forms.step_groups import products_of_groups
from ..kernel import CACHE_LINE, Axis, Stage

L1_PAGE = 4096  # bytes; addresses so far apart share a set in current first-level caches
L1_WAYS_FOR_ROWS = 8  # of one set: the others hold what streams past
COLLISION_CYCLES = 0.05  # per row and step, where rows push each other out of the first-level cache
LATE_FACTOR = 3.0  # how much dearer a vector from memory is than one from the second-level cache
MOST_ROWS, MOST_VECTORS = 12, 6  # of a tile whose registers are counted exactly
# how much more time a tile of groups may take for fewer kinds of edges, each with code as long
# as its own: what follows sums of integers is several times as long as what follows floats
EDGE_SHARE = 0.03
PANEL_SHARE = 0.25  # of the second-level cache, for a panel that all rows share


def adds_apart(stage: Stage) -> bool:
    """Whether a stage adds up products of words, which one instruction makes and another adds."""
    return "wdot2" in products_of_groups(stage)


def _row_stride_unknown(contraction: Contraction, row: str) -> bool:
    """Whether the distance between rows of some operand is only known at run time."""
    return not all(isinstance(operand.stride(row), int) for operand in contraction.operands)


def _rows_collide(contraction: Contraction, row: str) -> bool:
    """Whether all rows of some operand fall into the same sets of a first-level cache."""
    for operand in contraction.operands:
        stride = operand.stride(row)
        if isinstance(stride, int) and stride and stride * operand.load.dtype.bytes % L1_PAGE == 0:
            return True
    return False


def _least_vectors(beside: int, columns: int, spare: int, target: CpuTarget) -> int:
    """Vectors of a panel that is a cache line wide, where two rows of it fit beside each other.

    A tile of one row reads narrower ones slower: measured on one Zen 3 core, 10 % for the two
    products of a gated layer. With many rows, higher tiles are 6 % faster instead.
    """
    line = min(columns, -(-CACHE_LINE * 8 // target.vector_bits))
    fits = 3 * line * beside + spare <= target.vector_registers
    return line if beside > 1 and fits else 1


def register_tile(
    contraction: Contraction,
    row: Axis,
    vector: Axis,
    lanes: int,
    target: CpuTarget,
    shared_loads: bool,
    most_vectors: int = 4,
) -> tuple[int, int]:
    """(rows, vectors): the tile with the least estimated time that fits the register file.

    shared_loads: whether all rows share the loads along the vector axis. Model: `step_cycles` per
    reduction step; edge tiles cost what their smaller size costs. Reductions side by side share
    the loads of the rows. Of tiles of groups that take about the least time it is the one with the
    fewest kinds of edges.
    """
    columns = -(-extent_of(vector) // lanes)
    beside, depth = contraction.beside, contraction.depth
    # Broadcast values that no instruction takes from memory need registers, several in flight. Of
    # 16 registers only one is left for them: 4 x 3 and 6 x 2 tiles are fastest all the same.
    spare = 1 if target.vector_registers <= 16 or target.broadcast_operands else 3
    spare += adds_apart(contraction.stage)  # for a product that is added next
    found: list[tuple[float, int, tuple[int, int]]] = []
    most = 12 if target.vector_registers >= 32 else 8  # neighbours' windows stay in registers, too
    max_vectors, max_rows, max_tile = (most_vectors, 14, 32) if shared_loads else (2, 8, most)
    if shared_loads and _row_stride_unknown(contraction, row.name):
        max_rows = 8  # every row needs an address register
    few = not isinstance(row.extent, int)  # there may be one
    least = _least_vectors(beside, columns, spare, target) if shared_loads and few else 1
    collide = shared_loads and _rows_collide(contraction, row.name)
    may_split = isinstance(vector.extent, int) and contraction.static_depth
    for rows, vectors in cartesian(range(1, max_rows + 1), range(1, max_vectors + 1)):
        if rows * vectors * beside > max_tile:
            continue
        if vectors < least:
            continue
        in_use = rows * vectors * beside + (vectors * beside if shared_loads else 2) + spare
        if in_use > target.vector_registers or rows > extent_of(row) or vectors > columns:
            continue

        panel = depth * vectors * beside * target.vector_bits // 8 if shared_loads else 0
        far = float(panel > target.l1_bytes // 2)
        if not may_split and panel > target.l2_bytes * PANEL_SHARE:
            far = LATE_FACTOR  # nothing is fetched ahead

        def step(r: int, v: int, far: float = far) -> float:
            loads = (r + v * beside) if shared_loads else r * v + v
            evicted = COLLISION_CYCLES * r if collide and r > L1_WAYS_FOR_ROWS else 0.0
            broadcasts = r if shared_loads else 0
            return evicted + step_cycles(
                r * v * beside, loads, broadcasts, far * v * beside, target
            )

        parts = list(cartesian(pieces(extent_of(row), rows), pieces(columns, vectors)))
        time = sum(many_r * many_v * step(r, v) for (many_r, r), (many_v, v) in parts)
        found.append((time, len(parts), (rows, vectors)))
    return _quickest(found, EDGE_SHARE if products_of_groups(contraction.stage) else 0.0)


def _quickest(found: list[tuple[float, int, tuple[int, int]]], share: float) -> tuple[int, int]:
    """Of (time, kinds of tiles, tile) the tile with the fewest kinds among those that take at most
    a share more than the least time; (1, 1) of none."""
    least = min((time for time, _, _ in found), default=0.0)
    near = [item for item in found if item[0] <= least * (1 + share)]
    _, _, tile = min(near, key=lambda item: (item[1], item[0]), default=(0.0, 0, (1, 1)))
    return tile


def least_tile(
    row: Axis,
    columns: int,
    target: CpuTarget,
    registers: Callable[[int, int], int],
    cycles: Callable[[int, int], float],
) -> tuple[int, int]:
    """(rows, vectors) of the tile, of two rows or more, with the least time over a whole stage.

    columns: vectors along the axis. registers, cycles: that a tile takes, of so many rows and
    vectors; the edges cost what their smaller tiles do.
    """
    best, least = (1, 1), float("inf")
    for rows in range(2, min(MOST_ROWS, extent_of(row)) + 1):
        for vectors in range(1, min(MOST_VECTORS, columns) + 1):
            if registers(rows, vectors) > target.vector_registers:
                continue
            time = sum(
                count_r * count_v * cycles(r, v)
                for count_r, r in pieces(extent_of(row), rows)
                for count_v, v in pieces(columns, vectors)
            )
            if time < least:
                best, least = (rows, vectors), time
    return best
