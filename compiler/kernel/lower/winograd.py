"""Winograd convolution F(m x m, 3 x 3): fewer multiplications by transforming tiles.

An m x m tile of the output needs an a x a tile of the input, a = m + 2. Both are transformed so
that the convolution becomes a*a matrix products over the channels (Lavin and Gray 2015,
arXiv:1509.09308; the matrices are theirs). A kernel works on blocks of tiles whose transformed
data stay in the second-level cache: transform the inputs, multiply, transform back and store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.dims import Dim, floordiv, mod, symbol
from ...ir.graph import Node, Value
from ...ir.types import DType
from ..expr import Acc, Apply, Bound, Buffer, Const, Expr, Guarded, Load
from ..kernel import Axis, Reduction, Stage, Store
from .reductions import REDUCE
from .scope import Index, Scope

Line = Sequence[Expr]
Combine = Callable[[Line], list[Expr]]

LINE_ELEMENTS = 16  # f32 elements in a cache line
BLOCK_BYTES = 640 << 10  # transformed inputs and products of one block that stay in cache
WEIGHT_FACTOR = 3  # how much dearer a byte from memory is than one from the next cache
GROUP_CHANNELS = 32  # of the output, a multiple of which a group has
PANEL_BYTES = 48 * 4  # of the weights for one step of a sum
STREAM_BYTES_PER_CYCLE = 3.5  # assumed rate at which weights arrive from memory (one core)
FMA_PER_CYCLE = 32.0  # of a 512-bit core; only ratios matter

# G of F(2,3) and F(4,3): weights are transformed as G w G^T
FILTER_TRANSFORM = {
    2: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    4: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
}


@dataclass(frozen=True)
class Winograd:
    """A convolution to compute by Winograd's algorithm.

    m: side of a tile of the output, 2 or 4. threads: how many are expected to share the work.
    """

    conv: Node
    m: int
    threads: int = 1

    @property
    def partition(self) -> tuple[int, int]:
        """(tiles per block, groups of output channels)."""
        batch, height, width, outputs = self.conv.output.type.static_shape
        tiles = batch * -(-height // self.m) * -(-width // self.m)
        channels = self.conv.inputs[0].type.static_shape[3]
        return partition(tiles, channels, outputs, (self.m + 2) ** 2, self.threads)


@dataclass(frozen=True)
class FilterTransform:
    """Weights [3, 3, C, O] become [groups, a*a, C, O/groups], computed in float64, rounded once.

    channels: C.
    """

    m: int
    channels: int
    groups: int = 1

    @property
    def rows(self) -> int:
        """Rows of the matrix [groups * a*a * C, O/groups]."""
        return (self.m + 2) ** 2 * self.channels * self.groups

    def apply(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The transformed weights, [groups * a*a * C, O/groups]."""
        g = FILTER_TRANSFORM[self.m]
        outer = np.kron(g, g)  # rows: points (a, b); columns: taps (i, j)
        wide = (outer @ data.reshape(9, -1).astype(np.float64)).astype(data.dtype)
        grouped = wide.reshape(len(outer) * self.channels, self.groups, -1).transpose(1, 0, 2)
        return grouped.reshape(self.rows, -1)


def _add(a: Expr, b: Expr) -> Expr:
    return Apply("add", (a, b), DType.F32)


def _sub(a: Expr, b: Expr) -> Expr:
    return Apply("sub", (a, b), DType.F32)


def _times(factor: float, a: Expr) -> Expr:
    return Apply("mul", (a, Const(factor, DType.F32)), DType.F32)


def _input_2(d: Line) -> list[Expr]:
    return [_sub(d[0], d[2]), _add(d[1], d[2]), _sub(d[2], d[1]), _sub(d[1], d[3])]


def _output_2(m: Line) -> list[Expr]:
    return [_add(_add(m[0], m[1]), m[2]), _sub(_sub(m[1], m[2]), m[3])]


def _input_4(d: Line) -> list[Expr]:
    even_1, odd_1 = _sub(d[4], _times(4, d[2])), _sub(d[3], _times(4, d[1]))
    even_2, odd_2 = _sub(d[4], d[2]), _times(2, _sub(d[3], d[1]))
    return [
        _add(_sub(_times(4, d[0]), _times(5, d[2])), d[4]),
        _add(even_1, odd_1),
        _sub(even_1, odd_1),
        _add(even_2, odd_2),
        _sub(even_2, odd_2),
        _add(_sub(_times(4, d[1]), _times(5, d[3])), d[5]),
    ]


def _output_4(m: Line) -> list[Expr]:
    sum_1, difference_1 = _add(m[1], m[2]), _sub(m[1], m[2])
    sum_2, difference_2 = _add(m[3], m[4]), _sub(m[3], m[4])
    return [
        _add(_add(m[0], sum_1), sum_2),
        _add(difference_1, _times(2, difference_2)),
        _add(sum_1, _times(4, sum_2)),
        _add(_add(difference_1, _times(8, difference_2)), m[5]),
    ]


INPUT_TRANSFORM: dict[int, Combine] = {2: _input_2, 4: _input_4}
OUTPUT_TRANSFORM: dict[int, Combine] = {2: _output_2, 4: _output_4}


def transform(combine: Combine, grid: Sequence[Line]) -> list[list[Expr]]:
    """A 1-d transform applied to the columns and then to the rows of a grid."""
    columns = [combine([row[j] for row in grid]) for j in range(len(grid[0]))]
    size = len(columns[0])
    return [combine([column[i] for column in columns]) for i in range(size)]


def tile_size(conv: Node) -> int | None:
    """The output tile (2 or 4) with which Winograd is estimated to be fastest; None: direct is."""
    if conv.op != "conv" or len(conv.inputs[1].shape) != 4:
        return None
    x, w, attrs = conv.inputs[0], conv.inputs[1], conv.attrs
    plain = attrs["strides"] == (1, 1) and attrs["dilations"] == (1, 1) and attrs["groups"] == 1
    if not plain or w.shape[:2] != (3, 3) or x.dtype is not DType.F32:
        return None
    static = x.type.is_static and conv.output.type.is_static and w.type.is_static
    if not static or attrs["layout"] != "NHWC":
        return None
    batch, height, width, outputs = conv.output.type.static_shape
    channels = x.type.static_shape[3]
    if min(channels, outputs) < 16 or min(height, width) < 4:
        return None
    work = channels * outputs
    positions = batch * height * width
    best, best_cycles = None, 0.9 * _cycles(positions * 9 * work, 9 * work, 9 * channels)
    for m in (2, 4):
        points, tiles = (m + 2) ** 2, batch * -(-height // m) * -(-width // m)
        if tiles < 4:
            continue
        cycles = _cycles(points * max(tiles, 6) * work, points * work, channels)
        cycles += points * tiles * (channels + outputs) * 4 / 32  # transforms, from and to L2
        if cycles < best_cycles:
            best, best_cycles = m, cycles
    return best


def _cycles(multiply_adds: int, weights: int, depth: int) -> float:
    """Estimated cycles of a product whose weights are streamed from memory.

    depth: of one sum. Weights arrive meanwhile if the next panel fits into the cache beside this.
    """
    compute, stream = multiply_adds / FMA_PER_CYCLE, weights * 4 / STREAM_BYTES_PER_CYCLE
    if depth * PANEL_BYTES > BLOCK_BYTES:
        return compute + stream
    return max(compute, stream) + 0.3 * min(compute, stream)


def reach(conv: Node, m: int) -> list[tuple[int, int]]:
    """How far the input tiles reach over the input's edges: (before, after) per spatial axis."""
    pads = conv.attrs["pads"]
    found = []
    for axis in (0, 1):
        tiles = -(-int(conv.output.shape[1 + axis]) // m)
        after = tiles * m + 2 - pads[axis] - int(conv.inputs[0].shape[1 + axis])
        found.append((pads[axis], max(after, 0)))
    return found


def partition(
    tiles: int, channels: int, outputs: int, points: int, threads: int = 1
) -> tuple[int, int]:
    """(tiles per block, groups of output channels) with which a thread moves the least.

    Every block reads the weights of its group anew unless they stay in cache; a block that is too
    large for the cache writes and reads what it transforms once each; every group transforms the
    same inputs. Threads get as many blocks each.
    """
    best, least = (tiles, 1), float("inf")
    dividing = [g for g in range(1, threads + 1) if threads % g == 0]
    for groups in (g for g in dividing if outputs % (g * GROUP_CHANNELS) == 0 or g == 1):
        sharing = threads // groups
        weights = points * channels * outputs * 4 // groups
        for blocks in range(sharing, max(sharing, -(-tiles // 6)) + 1, sharing):
            size, turns = -(-tiles // blocks), blocks // sharing
            inputs = turns * points * size * channels * 4
            products = turns * points * size * outputs * 4 // groups
            moved = WEIGHT_FACTOR * weights * (turns if weights > BLOCK_BYTES else 1) + 2 * inputs
            moved += 2 * (inputs + products) if (inputs + products) > BLOCK_BYTES * turns else 0
            if moved < least:
                best, least = (size, groups), moved
    return best


def apart(elements: int) -> int:
    """So many f32 elements or a few more, an odd number of cache lines.

    A tile's points are so far apart: with a power of two all would be in one set of a cache.
    """
    lines = -(-elements // LINE_ELEMENTS)
    return (lines + (lines % 2 == 0)) * LINE_ELEMENTS


@dataclass
class _Builder:
    scope: Scope
    choice: Winograd

    def __post_init__(self) -> None:
        self.conv, self.m = self.choice.conv, self.choice.m
        x = self.conv.inputs[0]
        batch, height, width, self.outputs = self.conv.output.type.static_shape
        self.channels = x.type.static_shape[3]
        self.rows, self.columns = -(-height // self.m), -(-width // self.m)
        self.tiles = batch * self.rows * self.columns
        self.points = (self.m + 2) ** 2
        self.block, self.groups = self.choice.partition
        self.group_outputs = self.outputs // self.groups
        self.outer = self.scope.axis(-(-self.tiles // self.block))
        self.group = self.scope.axis(self.groups)
        self.shared = (self.outer, self.group) if self.groups > 1 else (self.outer,)
        numbers = self.scope.numbers
        self.input_stride = apart(self.block * self.channels)  # from point to point
        self.product_stride = apart(self.block * self.group_outputs)
        self.inputs_at = Buffer(f"l{next(numbers)}", DType.F32, self.points * self.input_stride)
        self.products_at = Buffer(f"l{next(numbers)}", DType.F32, self.points * self.product_stride)

    def tile(self, at: Axis) -> tuple[Dim, Dim, Dim, Dim]:
        """(tile number, image, first output row, first output column)."""
        number = symbol(self.outer.name) * self.block + symbol(at.name)
        image = floordiv(number, self.rows * self.columns)
        row = mod(floordiv(number, self.columns), self.rows) * self.m
        return number, image, row, mod(number, self.columns) * self.m

    def ragged(self, number: Dim) -> tuple[Bound, ...]:
        """The test that a tile exists, where the last block is not full."""
        return (Bound(number, 0, self.tiles),) if self.tiles % self.block else ()

    def input_stage(self) -> Stage:
        """Transform the input tiles of a block: V[point][tile][channel]."""
        at, channel = self.scope.axis(self.block), self.scope.axis(self.channels)
        number, image, row, column = self.tile(at)
        x, pads = self.conv.inputs[0], self.conv.attrs["pads"]
        c, size = symbol(channel.name), self.m + 2
        grid: list[list[Expr]] = []
        for i in range(size):
            line: list[Expr] = []
            for j in range(size):
                index = (image, row + i - pads[0], column + j - pads[1], c)
                line.append(self._element(x, index, number))
            grid.append(line)
        stores = []
        for i, line in enumerate(transform(INPUT_TRANSFORM[self.m], grid)):
            for j, value in enumerate(line):
                offset = symbol(at.name) * self.channels + c
                point = (i * size + j) * self.input_stride
                stores.append(Store(self.inputs_at, offset + point, value))
        return Stage((*self.shared, at, channel), (), (), tuple(stores))

    def _element(self, x: Value, index: Index, number: Dim) -> Expr:
        value = self.scope.element(x, index)
        bounds = list(self.ragged(number))
        border = x.type.layout.border
        for axis, (low, high) in enumerate(reach(self.conv, self.m), start=1):
            covered = border and border[axis][0] >= low and border[axis][1] >= high
            if not covered and (low or high):
                bounds.append(Bound(index[axis], 0, x.shape[axis]))  # type: ignore[arg-type]
        return Guarded(tuple(bounds), value, Const(0.0, DType.F32)) if bounds else value

    def product_stage(self, weights: Buffer) -> Stage:
        """Multiply by the transformed weights: M[point][tile][output]."""
        point, at = self.scope.axis(self.points), self.scope.axis(self.block)
        output, channel = self.scope.axis(self.group_outputs), self.scope.axis(self.channels)
        p, t, o, c = (symbol(axis.name) for axis in (point, at, output, channel))
        left = Load(self.inputs_at, p * self.input_stride + t * self.channels + c)
        matrix = p + symbol(self.group.name) * self.points if self.groups > 1 else p
        right = Load(weights, (matrix * self.channels + c) * self.group_outputs + o)
        body = Apply("mul", (left, right), DType.F32)
        offset = p * self.product_stride + t * self.group_outputs + o
        store = Store(self.products_at, offset, Acc(0, DType.F32))
        return Stage(
            (*self.shared, point, at, output), (channel,), (Reduction("sum", body),), (store,)
        )

    def output_stage(self, outputs: dict[Value, Buffer]) -> Stage:
        """Transform back, apply what follows the convolution, and store."""
        at, output = self.scope.axis(self.block), self.scope.axis(self.group_outputs)
        number, image, row, column = self.tile(at)
        t, o, size = symbol(at.name), symbol(output.name), self.m + 2
        at_tile = t * self.group_outputs + o
        grid = [
            [
                Load(self.products_at, (i * size + j) * self.product_stride + at_tile)
                for j in range(size)
            ]
            for i in range(size)
        ]
        results = transform(OUTPUT_TRANSFORM[self.m], grid)
        _, height, width, _ = self.conv.output.type.static_shape
        place = o + symbol(self.group.name) * self.group_outputs if self.groups > 1 else o
        stores = []
        for i, line in enumerate(results):
            for j, value in enumerate(line):
                index = (image, row + i, column + j, place)
                bounds = self.ragged(number)
                if self.rows * self.m > height:
                    bounds += (Bound(row + i, 0, height),)
                if self.columns * self.m > width:
                    bounds += (Bound(column + j, 0, width),)
                stores += self._stores(outputs, index, value, bounds)
        return Stage((*self.shared, at, output), (), (), tuple(stores))

    def _stores(
        self, outputs: dict[Value, Buffer], index: Index, value: Expr, bounds: tuple[Bound, ...]
    ) -> list[Store]:
        """What follows the convolution, at one output element."""
        probe = REDUCE["conv"](Scope(dict(self.scope.buffers)), self.conv, index)
        result = probe.finish(value)
        self.scope.results[self.conv.output] = lambda _: result
        stores = []
        for target, buffer in outputs.items():
            element = self.scope.element(target, index)
            if bounds:
                element = Guarded(bounds, element, Const(0.0, DType.F32))
            offset, dynamic = self.scope.address(target.type, index)
            stores.append(Store(buffer, offset, element, dynamic, bounds))
        return stores


def winograd_stages(
    scope: Scope, choice: Winograd, outputs: dict[Value, Buffer]
) -> tuple[list[Stage], int]:
    """The three stages of a convolution and what follows it, and how many axes they share.

    These are the blocks of tiles and, where there are several, the groups of output channels.
    """
    builder = _Builder(scope, choice)
    weights = scope.buffers[choice.conv.inputs[1]]
    stages = [builder.input_stage(), builder.product_stage(weights), builder.output_stage(outputs)]
    return stages, len(builder.shared)
