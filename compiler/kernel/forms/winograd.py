"""Winograd convolution: fewer multiplications by transforming tiles.

A tile of m outputs along each axis needs m + taps - 1 inputs along it. Both are transformed so that
the convolution becomes products of matrices over the channels, one for every point of a tile. A
kernel works on blocks of tiles whose transformed data stay in the second-level cache: transform the
inputs, multiply, transform back and store.

Floats are transformed and added up in f32; words that bytes were made, by constant ones, in 16 bits
and in i32, exactly: 16 bits hold what transforms make of bytes, and what wraps on the way to sums
that i32 holds wraps back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ...ir.dims import Dim, ceildiv, dmin, floordiv, mod, product, symbol
from ...ir.graph import Node, Value
from ...ir.ops.step_groups import GROUP
from ...ir.types import DType
from ..expr import Acc, Apply, Bound, Buffer, Const, Expr, Guarded, Load
from ..kernel import CACHE_LINE, Axis, Reduction, Stage, Store
from ..lower.reductions import REDUCE
from ..lower.scope import Index, Scope
from .form import WinogradForm
from .winograd_transforms import (
    WORDS,
    FilterTransform,
    Tiling,
    input_transform,
    output_transform,
    transform,
    whole_factor,
)

SHORT = 4  # sides of pictures below which tiles are mostly empty


@dataclass(frozen=True)
class Winograd:
    """A convolution that is computed by Winograd's algorithm, in a form."""

    conv: Node
    form: WinogradForm

    @property
    def tilings(self) -> tuple[Tiling, ...]:
        """Of the spatial axes."""
        window, attrs = self.conv.inputs[1].type.static_shape[:-2], self.conv.attrs
        axes = zip(self.form.outputs, window, attrs["dilations"], attrs["strides"], strict=True)
        return tuple(
            Tiling(m, taps, step if taps > 1 else 1, stride) for m, taps, step, stride in axes
        )

    @property
    def points(self) -> int:
        """Points of a tile."""
        return math.prod(tiling.points for tiling in self.tilings)

    @property
    def filter_transform(self) -> FilterTransform:
        """Of the weights: the outputs of every group of the convolution, or else of the form, are
        matrices of their own."""
        channels = int(self.conv.inputs[1].shape[-2])
        groups = int(self.conv.attrs["groups"])
        parts = groups if groups > 1 else self.form.groups
        return FilterTransform(self.tilings, channels, parts, are_words(self.conv))

    def reach(self) -> list[tuple[int, int]]:
        """How far input tiles reach over the input's edges, at most: (before, after) per spatial
        axis."""
        found = []
        pads = self.conv.attrs["pads"]
        (_, sizes, _), (_, extents, _) = shape_of(self.conv.inputs[0]), shape_of(self.conv.output)
        for tiling, extent, size, pad in zip(self.tilings, extents, sizes, pads, strict=False):
            window, stride = (tiling.taps - 1) * tiling.dilation, tiling.stride
            last = longer(extent * stride, size) + tiling.most_beyond(extent) * stride - stride
            beyond = last + 1 + window - pad
            found.append((pad, max(beyond, 0)))
        return found

    def enough(self) -> tuple[tuple[Dim, Dim], ...]:
        """Pairs of dims that are equal where a picture is large enough for tiles, if only a run
        knows; empty where every picture is."""
        if not self.form.least:
            return ()
        _, extents, _ = shape_of(self.conv.output)
        sides = [n for n, m in zip(extents, self.form.outputs, strict=True) if m > 1]
        pairs = [(dmin(side, SHORT), SHORT) for side in sides if not isinstance(side, int)]
        return (*pairs, (dmin(product(extents), self.form.least), self.form.least))


def are_words(conv: Node) -> bool:
    """Whether a convolution is of words by constant ones, two of which are multiplied at once."""
    types = (conv.inputs[0].dtype, conv.inputs[1].dtype, conv.attrs["accumulate"])
    return types == (WORDS.left, WORDS.right, WORDS.accumulate)


def shape_of(value: Value) -> tuple[Dim, list[Dim], int]:
    """(images, spatial extents, channels), of which the last are known."""
    batch, *extents, channels = value.shape
    assert isinstance(channels, int)
    return batch, extents, channels


def longer(extent: Dim, size: Dim) -> int:
    """How many elements an axis of the output, or what it strides over, has more than one of the
    input."""
    difference = extent - size
    assert isinstance(difference, int)
    return difference


def images_together(batch: Dim, extents: Sequence[Dim]) -> int:
    """Images whose tiles share blocks: all, or each on its own where their number or their size is
    unknown."""
    known = isinstance(batch, int) and all(isinstance(extent, int) for extent in extents)
    return int(batch) if known else 1  # type: ignore[arg-type]


def apart(elements: int, dtype: DType) -> int:
    """So many elements or a few more, an odd number of cache lines.

    A tile's points are so far apart: with a power of two all would be in one set of a cache.
    """
    in_line = CACHE_LINE // dtype.bytes
    lines = -(-elements // in_line)
    return (lines + (lines % 2 == 0)) * in_line


@dataclass
class _Builder:
    scope: Scope
    choice: Winograd

    def __post_init__(self) -> None:
        self.conv, self.tilings = self.choice.conv, self.choice.tilings
        batch, self.extents, self.outputs = shape_of(self.conv.output)
        _, _, self.channels = shape_of(self.conv.inputs[0])
        self.along = [t.tiles(n) for t, n in zip(self.tilings, self.extents, strict=True)]
        together = images_together(batch, self.extents)
        self.tiles, self.points = together * product(self.along), self.choice.points
        self.block, self.groups = self.choice.form.block, self.choice.form.groups
        self.per_group = int(self.conv.inputs[1].shape[-2])  # channels that an output reads
        self.parts = self.channels // self.per_group  # groups of the convolution
        if self.parts > 1:
            self.parts //= self.groups
        self.group_channels = self.per_group * self.parts
        self.group_outputs = self.outputs // self.groups
        self.outer = self.scope.axis(ceildiv(self.tiles, self.block))
        self.group = self.scope.axis(self.groups)
        self.image = None if together == batch else self.scope.axis(batch)
        blocks = (self.outer, self.group)
        self.shared = (self.image, *blocks) if self.image else blocks
        numbers = self.scope.numbers
        self.words = are_words(self.conv)
        data, total = self.conv.inputs[0].dtype, self.conv.output.dtype
        self.input_stride = apart(self.block * self.group_channels, data)  # from point to point
        self.product_stride = apart(self.block * self.group_outputs, total)
        self.inputs_at = Buffer(f"l{next(numbers)}", data, self.points * self.input_stride)
        self.products_at = Buffer(f"l{next(numbers)}", total, self.points * self.product_stride)

    def tile(self, at: Axis) -> tuple[Dim, Dim, list[Dim]]:
        """(tile number, image, first output along every axis).

        Where only a run knows how many tiles there are, what is left of the last block repeats the
        last one.
        """
        number = symbol(self.outer.name) * self.block + symbol(at.name)
        first: list[Dim] = []
        rest: Dim = number
        if not isinstance(self.tiles, int):
            rest = number = dmin(number, self.tiles - 1)
        for tiling, count in reversed(list(zip(self.tilings, self.along, strict=True))):
            last = len(first) + 1 == len(self.along) and not isinstance(self.tiles, int)
            tile, rest = (rest, 0) if last else (mod(rest, count), floordiv(rest, count))
            step = tiling.dilation
            first.insert(0, floordiv(tile, step) * (tiling.m * step) + mod(tile, step))
        return number, symbol(self.image.name) if self.image else rest, first

    def places(self, first: list[Dim], at: tuple[int, ...]) -> tuple[Dim, ...]:
        """Where one result of a tile lies along the spatial axes."""
        return tuple(
            start + k * tiling.dilation
            for start, k, tiling in zip(first, at, self.tilings, strict=True)
        )

    def sources(self, first: list[Dim], at: tuple[int, ...]) -> list[Dim]:
        """Where one value that a tile reads lies along the spatial axes."""
        pads = self.conv.attrs["pads"]
        return [
            start * tiling.stride + k * tiling.dilation - pad
            for start, k, tiling, pad in zip(first, at, self.tilings, pads, strict=False)
        ]

    def ragged(self, number: Dim) -> tuple[Bound, ...]:
        """The test that a tile exists, where the last block is not full."""
        known = isinstance(self.tiles, int)
        return (Bound(number, 0, self.tiles),) if known and mod(self.tiles, self.block) else ()

    def input_stage(self) -> Stage:
        """Transform the input tiles of a block: V[point][tile][channel]."""
        at, channel = self.scope.axis(self.block), self.scope.axis(self.group_channels)
        number, image, first = self.tile(at)
        x, c = self.conv.inputs[0], symbol(channel.name)
        place = c if self.group_channels == self.channels else self._behind(self.group_channels, c)
        grid = np.empty([tiling.points for tiling in self.tilings], object)
        for point in np.ndindex(grid.shape):
            grid[point] = self._element(x, (image, *self.sources(first, point), place), number)
        stores = []
        offset = symbol(at.name) * self.group_channels + c
        for n, value in enumerate(transform([*map(input_transform, self.tilings)], grid).flat):
            stores.append(Store(self.inputs_at, offset + n * self.input_stride, value))
        return Stage((*self.shared, at, channel), (), (), tuple(stores))

    def _behind(self, each: int, channel: Dim) -> Dim:
        """A channel behind those of the groups before."""
        return symbol(self.group.name) * each + channel

    def _element(self, x: Value, index: Index, number: Dim) -> Expr:
        value = self.scope.element(x, index)
        bounds = list(self.ragged(number))
        border, outside = x.type.layout.border, self.conv.attrs["pad_value"]
        filled = x.type.layout.fill == outside
        for axis, (low, high) in enumerate(self.choice.reach(), start=1):
            covered = border and border[axis][0] >= low and border[axis][1] >= high
            if not (covered and filled) and (low or high):
                bounds.append(Bound(index[axis], 0, x.shape[axis]))  # type: ignore[arg-type]
        other = Const(float(outside) if x.dtype.is_float else outside, x.dtype)
        return Guarded(tuple(bounds), value, other) if bounds else value

    def product_stage(self, weights: Buffer) -> Stage:
        """Multiply by the transformed weights: M[point][tile][output]."""
        point, at = self.scope.axis(self.points), self.scope.axis(self.block)
        outputs = self.group_outputs // self.parts
        steps = WORDS.steps if self.words else 1
        depth = self.per_group // steps
        output, channel = self.scope.axis(outputs), self.scope.axis(depth)
        p, t, o, c = (symbol(axis.name) for axis in (point, at, output, channel))
        parts = (self.scope.axis(self.parts),) if self.parts > 1 else ()
        part = symbol(parts[0].name) if parts else 0
        source = t * (self.group_channels // steps) + part * depth + c
        left = Load(self._as_read(self.inputs_at), p * (self.input_stride // steps) + source)
        matrix = self._behind(self.parts, part) * self.points + p
        right = Load(self._as_read(weights), (matrix * depth + c) * outputs + o)
        total = self.conv.output.dtype
        body = Apply("wdot2" if self.words else "mul", (left, right), total)
        offset = p * self.product_stride + t * self.group_outputs + part * outputs + o
        store = Store(self.products_at, offset, Acc(0, total))
        axes = (*self.shared, *parts, point, at, output)
        return Stage(axes, (channel,), (Reduction("sum", body),), (store,))

    def _as_read(self, operand: Buffer) -> Buffer:
        """An operand of the products, of which words are read in groups."""
        return replace(operand, dtype=GROUP) if self.words else operand

    def _result(self, value: Expr) -> Expr:
        """A sum of the convolution of what the transforms make: of words, so many times it.

        The quotient by an odd number is the product with its inverse modulo 2^32.
        """
        if not self.words:
            return value
        odd, twos = whole_factor(self.tilings)
        if odd > 1:
            inverse = int(np.uint32(pow(odd, -1, 1 << 32)).view(np.int32))
            value = Apply("mul", (value, Const(inverse, value.dtype)), value.dtype)
        return Apply("shr", (value, Const(twos, value.dtype)), value.dtype)

    def output_stage(self, outputs: dict[Value, Buffer]) -> Stage:
        """Transform back, apply what follows the convolution, and store."""
        at, output = self.scope.axis(self.block), self.scope.axis(self.group_outputs)
        number, image, first = self.tile(at)
        o = symbol(output.name)
        grid = np.empty([tiling.points for tiling in self.tilings], object)
        offset = symbol(at.name) * self.group_outputs + o
        for n, point in enumerate(np.ndindex(grid.shape)):
            grid[point] = Load(self.products_at, offset + n * self.product_stride)
        place = self._behind(self.group_outputs, o)
        stores = []
        back = partial(output_transform, whole=self.words)
        results = transform([*map(back, self.tilings)], grid)
        for within, value in np.ndenumerate(results):
            places, bounds = self.places(first, within), self.ragged(number)
            for tiling, extent, p in zip(self.tilings, self.extents, places, strict=True):
                if tiling.most_beyond(extent):
                    bounds += (Bound(p, 0, extent),)
            stores += self._stores(outputs, (image, *places, place), value, bounds)
        return Stage((*self.shared, at, output), (), (), tuple(stores))

    def _stores(
        self, outputs: dict[Value, Buffer], index: Index, value: Expr, bounds: tuple[Bound, ...]
    ) -> list[Store]:
        """What follows the convolution, at one output element."""
        probe = REDUCE["conv"](Scope(dict(self.scope.buffers)), self.conv, index)
        result = probe.finish(self._result(value))
        self.scope.results[self.conv.output] = lambda _: result
        stores = []
        for target, buffer in outputs.items():
            element = self.scope.element(target, index)
            if bounds:
                zero = Const(0.0 if element.dtype.is_float else 0, element.dtype)
                element = Guarded(bounds, element, zero)
            offset, dynamic = self.scope.address(target.type, index)
            stores.append(Store(buffer, offset, element, dynamic, bounds))
        return stores


def winograd_stages(
    scope: Scope, choice: Winograd, outputs: dict[Value, Buffer]
) -> tuple[list[Stage], int]:
    """The three stages of a convolution and what follows it, and how many axes they share.

    These are the images where their number or size is unknown, blocks of tiles and groups of
    channels.
    """
    builder = _Builder(scope, choice)
    weights = scope.buffers[choice.conv.inputs[1]]
    stages = [builder.input_stage(), builder.product_stage(weights), builder.output_stage(outputs)]
    return stages, len(builder.shared)
