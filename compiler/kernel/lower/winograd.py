"""Winograd convolution: fewer multiplications by transforming tiles.

A tile of m outputs along each axis needs m + taps - 1 inputs along it. Both are transformed so that
the convolution becomes products of matrices over the channels, one for every point of a tile. A
kernel works on blocks of tiles whose transformed data stay in the second-level cache: transform the
inputs, multiply, transform back and store.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product as cartesian

import numpy as np

from ...ir.dims import Dim, floordiv, mod, symbol
from ...ir.graph import Graph, Node, Value
from ...ir.types import DType
from ..expr import Acc, Apply, Bound, Buffer, Const, Expr, Guarded, Load
from ..kernel import CACHE_LINE, Axis, Reduction, Stage, Store
from .reductions import REDUCE
from .scope import Index, Scope
from .winograd_transforms import Tiling, input_transform, output_transform, transform

LINE_ELEMENTS = CACHE_LINE // DType.F32.bytes
BLOCK_BYTES = 640 << 10  # transformed inputs and products of one block that stay in cache
WEIGHT_FACTOR = 3  # how much dearer a byte from memory is than one from the next cache
GROUP_CHANNELS = 32  # of the output, a multiple of which a group has
PANEL_BYTES = 48 * 4  # of the weights for one step of a sum
STREAM_BYTES_PER_CYCLE = 3.5  # assumed rate at which weights arrive from memory (one core)
NEAR_BYTES = 512 << 10  # weights of a network that stay in a core's own caches from run to run
NEAR_BYTES_PER_CYCLE = 20.0  # assumed rate at which they arrive from there
FMA_PER_CYCLE = 32.0  # of a 512-bit core; only ratios matter
MIN_CHANNELS = 8  # fewer leave most lanes of the transforms empty
MAX_POINTS = {1: 8, 2: 6}  # along an axis, by the number of axes: errors grow with both


@dataclass(frozen=True)
class Winograd:
    """A convolution to compute by Winograd's algorithm.

    tilings: of its spatial axes. threads: how many are expected to share the work.
    """

    conv: Node
    tilings: tuple[Tiling, ...]
    threads: int = 1

    @property
    def points(self) -> int:
        """Points of a tile."""
        return math.prod(tiling.points for tiling in self.tilings)

    @property
    def partition(self) -> tuple[int, int]:
        """(tiles per block, groups of output channels)."""
        batch, extents, outputs = _shape(self.conv.output)
        _, _, channels = _shape(self.conv.inputs[0])
        tiles = _together(batch) * _count(self.tilings, extents)
        return partition(tiles, channels, outputs, self.points, self.threads)

    def reach(self) -> list[tuple[int, int]]:
        """How far input tiles reach over the input's edges: (before, after) per spatial axis."""
        found = []
        pads = self.conv.attrs["pads"]
        (_, sizes, _), (_, extents, _) = _shape(self.conv.inputs[0]), _shape(self.conv.output)
        for tiling, extent, size, pad in zip(self.tilings, extents, sizes, pads, strict=False):
            last = tiling.covered(extent) + (tiling.taps - 1) * tiling.dilation
            found.append((pad, max(last - pad - size, 0)))
        return found


def _shape(value: Value) -> tuple[Dim, list[int], int]:
    """(images, spatial extents, channels), all but the first known."""
    batch, *known = value.shape
    *extents, channels = [n for n in known if isinstance(n, int)]
    return batch, extents, channels


def _together(batch: Dim) -> int:
    """Images whose tiles share blocks: all, or each on its own where their number is unknown."""
    return batch if isinstance(batch, int) else 1


def _count(tilings: tuple[Tiling, ...], extents: list[int]) -> int:
    """Tiles of one image."""
    return math.prod(t.tiles(extent) for t, extent in zip(tilings, extents, strict=True))


def has_near_weights(graph: Graph) -> bool:
    """Whether the weights of a whole network are few enough to stay in cache between runs."""
    weights = (value.type for value in graph.constants())
    return sum(math.prod(t.static_shape) * t.dtype.bytes for t in weights) <= NEAR_BYTES


def best_tilings(conv: Node, near: bool = False) -> tuple[Tiling, ...] | None:
    """The tilings with which Winograd is estimated to be fastest; None: direct convolution is.

    near: whether the network has near weights.
    """
    if conv.op != "conv":
        return None
    x, w, attrs = conv.inputs[0], conv.inputs[1], conv.attrs
    known = (*x.shape[1:], *conv.output.shape[1:], *w.shape)
    static = all(isinstance(n, int) for n in known)
    if set(attrs["strides"]) != {1} or attrs["groups"] != 1 or x.dtype is not DType.F32:
        return None
    if not static or attrs["layout"] != "NHWC":
        return None
    batch, extents, outputs = _shape(conv.output)
    *window, channels, _ = w.type.static_shape
    images = _together(batch)
    short = any(n < 4 for n, taps in zip(extents, window, strict=True) if taps > 1)
    if min(channels, outputs) < MIN_CHANNELS or short:
        return None
    work, taps = channels * outputs, math.prod(window)
    positions = images * math.prod(extents)
    rate = NEAR_BYTES_PER_CYCLE if near else STREAM_BYTES_PER_CYCLE
    best, least = None, 0.9 * _cycles(positions * taps * work, taps * work, taps * channels, rate)
    for tilings in _candidates(window, attrs["dilations"]):
        points, tiles = math.prod(t.points for t in tilings), images * _count(tilings, extents)
        if tiles < 4:
            continue
        cycles = _cycles(points * max(tiles, 6) * work, points * work, channels, rate)
        cycles += points * tiles * (channels + outputs) * 4 / 32  # transforms, from and to L2
        if cycles < least:
            best, least = tilings, cycles
    return best


def _candidates(window: list[int], dilations: tuple[int, ...]) -> list[tuple[Tiling, ...]]:
    """Tilings for a window: equal ones along axes with as many taps."""
    wide = [taps for taps in window if taps > 1]
    most = MAX_POINTS.get(len(wide), 0)
    sides = {taps: [m for m in range(2, most + 2 - taps) if (m + taps) % 2] for taps in set(wide)}
    if not wide or not all(sides.values()):
        return []
    found = []
    for chosen in cartesian(*sides.values()):
        m = {1: 1, **dict(zip(sides, chosen, strict=True))}
        found.append(
            tuple(
                Tiling(m[taps], taps, dilation if taps > 1 else 1)
                for taps, dilation in zip(window, dilations, strict=True)
            )
        )
    return found


def _cycles(multiply_adds: int, weights: int, depth: int, rate: float) -> float:
    """Estimated cycles of a product whose weights arrive at `rate` bytes per cycle.

    depth: of one sum. Weights arrive meanwhile if the next panel fits into the cache beside this.
    """
    compute, stream = multiply_adds / FMA_PER_CYCLE, weights * 4 / rate
    if depth * PANEL_BYTES > BLOCK_BYTES:
        return compute + stream
    return max(compute, stream) + 0.3 * min(compute, stream)


def partition(
    tiles: int, channels: int, outputs: int, points: int, threads: int = 1
) -> tuple[int, int]:
    """(tiles per block, groups of output channels) with which a thread moves the least.

    Every block reads the weights of its group anew unless they stay in cache; a block that is too
    large for the cache writes and reads what it transforms once each; every group transforms the
    same inputs. Threads get as many blocks each; those of one group fetch weights from memory for
    each other, to a cache that they share.
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
            far = (WEIGHT_FACTOR + sharing - 1) / sharing
            moved = far * weights * (turns if weights > BLOCK_BYTES else 1) + 2 * inputs
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
        self.conv, self.tilings = self.choice.conv, self.choice.tilings
        batch, self.extents, self.outputs = _shape(self.conv.output)
        _, _, self.channels = _shape(self.conv.inputs[0])
        self.along = [t.tiles(n) for t, n in zip(self.tilings, self.extents, strict=True)]
        self.tiles, self.points = _together(batch) * math.prod(self.along), self.choice.points
        self.block, self.groups = self.choice.partition
        self.group_outputs = self.outputs // self.groups
        self.outer = self.scope.axis(-(-self.tiles // self.block))
        self.group = self.scope.axis(self.groups)
        self.image = None if isinstance(batch, int) else self.scope.axis(batch)
        blocks = (self.outer, self.group)
        self.shared = (self.image, *blocks) if self.image else blocks
        numbers = self.scope.numbers
        self.input_stride = apart(self.block * self.channels)  # from point to point
        self.product_stride = apart(self.block * self.group_outputs)
        self.inputs_at = Buffer(f"l{next(numbers)}", DType.F32, self.points * self.input_stride)
        self.products_at = Buffer(f"l{next(numbers)}", DType.F32, self.points * self.product_stride)

    def tile(self, at: Axis) -> tuple[Dim, Dim, list[Dim]]:
        """(tile number, image, first output along every axis)."""
        number = symbol(self.outer.name) * self.block + symbol(at.name)
        first: list[Dim] = []
        rest: Dim = number
        for tiling, count in reversed(list(zip(self.tilings, self.along, strict=True))):
            tile, rest = mod(rest, count), floordiv(rest, count)
            step = tiling.dilation
            first.insert(0, floordiv(tile, step) * (tiling.m * step) + mod(tile, step))
        return number, symbol(self.image.name) if self.image else rest, first

    def places(self, first: list[Dim], at: tuple[int, ...]) -> tuple[Dim, ...]:
        """Where one value of a tile lies along the spatial axes."""
        return tuple(
            start + k * tiling.dilation
            for start, k, tiling in zip(first, at, self.tilings, strict=True)
        )

    def ragged(self, number: Dim) -> tuple[Bound, ...]:
        """The test that a tile exists, where the last block is not full."""
        return (Bound(number, 0, self.tiles),) if self.tiles % self.block else ()

    def input_stage(self) -> Stage:
        """Transform the input tiles of a block: V[point][tile][channel]."""
        at, channel = self.scope.axis(self.block), self.scope.axis(self.channels)
        number, image, first = self.tile(at)
        x, pads = self.conv.inputs[0], self.conv.attrs["pads"]
        c = symbol(channel.name)
        grid = np.empty([tiling.points for tiling in self.tilings], object)
        for point in np.ndindex(grid.shape):
            places = (p - pad for p, pad in zip(self.places(first, point), pads, strict=False))
            grid[point] = self._element(x, (image, *places, c), number)
        stores = []
        offset = symbol(at.name) * self.channels + c
        for n, value in enumerate(transform([*map(input_transform, self.tilings)], grid).flat):
            stores.append(Store(self.inputs_at, offset + n * self.input_stride, value))
        return Stage((*self.shared, at, channel), (), (), tuple(stores))

    def _element(self, x: Value, index: Index, number: Dim) -> Expr:
        value = self.scope.element(x, index)
        bounds = list(self.ragged(number))
        border = x.type.layout.border
        for axis, (low, high) in enumerate(self.choice.reach(), start=1):
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
        matrix = symbol(self.group.name) * self.points + p
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
        number, image, first = self.tile(at)
        o = symbol(output.name)
        grid = np.empty([tiling.points for tiling in self.tilings], object)
        offset = symbol(at.name) * self.group_outputs + o
        for n, point in enumerate(np.ndindex(grid.shape)):
            grid[point] = Load(self.products_at, offset + n * self.product_stride)
        place = symbol(self.group.name) * self.group_outputs + o
        stores = []
        results = transform([*map(output_transform, self.tilings)], grid)
        for within, value in np.ndenumerate(results):
            places, bounds = self.places(first, within), self.ragged(number)
            for tiling, extent, p in zip(self.tilings, self.extents, places, strict=True):
                if tiling.covered(extent) > extent:
                    bounds += (Bound(p, 0, extent),)
            stores += self._stores(outputs, (image, *places, place), value, bounds)
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

    These are the images where their number is unknown, blocks of tiles and groups of channels.
    """
    builder = _Builder(scope, choice)
    weights = scope.buffers[choice.conv.inputs[1]]
    stages = [builder.input_stage(), builder.product_stage(weights), builder.output_stage(outputs)]
    return stages, len(builder.shared)
