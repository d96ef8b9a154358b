"""Two convolutions in bands of rows, so that what is between them never leaves the cache.

The second one is depthwise, so every block of channels is on its own. A band computes the rows of
the first that so many rows of the second need, in scratch memory with a border of zeros, and then
those rows. Rows at the seams of bands are computed twice; blocks of few channels make bands of many
rows, one of a whole image where it is small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.dims import Dim, dmax, dmin, floordiv, mod, symbol
from ...ir.graph import Graph, Node, Value
from ...ir.ops.registry import Trait, has_trait
from ...ir.types import DType
from ..expr import EXPENSIVE, Bound, Buffer, Const, Expr, Guarded, Load
from ..kernel import Axis, Stage, Store
from .reductions import REDUCE, accumulated, overhangs
from .scope import Index, Scope, as_dim

# of the rows between the convolutions that one band holds; larger ones where smaller do not pay
BAND_BYTES = (256 << 10, 640 << 10)
MIN_BETWEEN_BYTES = 128 << 10  # less than that stays in cache anyway
BLOCKS = (48, 32)  # channels of a block; the first that divides their number
SLOW_BYTES_PER_CYCLE = 16.0  # assumed, of what the second-level cache does not hold (one core)
FLOPS_PER_CYCLE = 50.0  # assumed, of a convolution on a 512-bit core; only ratios matter
FUNCTION_CYCLES = 4.0  # assumed, of a transcendental function for one element on such a core


@dataclass(frozen=True)
class Bands:
    """Two convolutions of a region and the value that the second reads.

    rows: of the second one's output in a band. block: channels that are computed together.
    before, after: columns of zeros around a row.
    """

    first: Node
    second: Node
    between: Value
    rows: int
    block: int
    before: int
    after: int

    @property
    def count(self) -> int:
        """Bands of one image."""
        return -(-self.second.output.type.static_shape[1] // self.rows)

    @property
    def held_rows(self) -> int:
        """Rows of the first convolution in a band."""
        return _reach(self.second, self.rows)

    @property
    def made_rows(self) -> range:
        """Which of them are computed: all, but a band that is the whole image knows its edges."""
        if self.count > 1:
            return range(self.held_rows)
        height, pad = self.between.type.static_shape[1], self.second.attrs["pads"][0]
        return range(max(pad, 0), min(height + pad, self.held_rows))


def bands_of(region: Graph, threads: int = 1) -> Bands | None:
    """How a region of two convolutions is computed in bands; None for any other region.

    threads: how many share the bands.
    """
    convs = [node for node in region.nodes if node.op in REDUCE]
    if len(convs) != 2 or any(node.op != "conv" for node in convs):
        return None
    first, second = convs
    pointwise = all(has_trait(n, Trait.POINTWISE) for n in region.nodes if n not in convs)
    between = second.inputs[0]
    if not pointwise or between.producer is None or not _plain(first) or not _plain(second):
        return None
    if second.attrs["groups"] != between.type.static_shape[-1] or first.attrs["groups"] != 1:
        return None
    functions = sum(n.op in EXPENSIVE for n in region.nodes[: region.nodes.index(second)])
    return _sized(first, second, between, functions, threads)


def _plain(conv: Node) -> bool:
    """Whether a convolution is two-dimensional, channels last and of known size."""
    values = (*conv.inputs, conv.output)
    static = all(value.type.is_static for value in values)
    return static and conv.attrs["layout"] == "NHWC" and len(conv.inputs[1].shape) == 4


def _reach(conv: Node, rows: int) -> int:
    """Rows of the input that so many rows of the output need."""
    size, attrs = conv.inputs[1].type.static_shape[0], conv.attrs
    return int((rows - 1) * attrs["strides"][0] + (size - 1) * attrs["dilations"][0] + 1)


def _block(channels: int) -> int:
    """Channels of a block: all of them where no size divides their number."""
    return next((size for size in BLOCKS if channels % size == 0), channels)


def _sized(first: Node, second: Node, between: Value, functions: int, threads: int) -> Bands | None:
    """The bands that save more than they compute twice; None when none do.

    functions: how many transcendental ones follow the first convolution.
    """
    batch, height, width, channels = between.type.static_shape
    _, (before, after) = overhangs(second)
    total = batch * height * width * channels * between.dtype.bytes
    if not isinstance(before, int) or not isinstance(after, int):
        return None
    if between.dtype is not DType.F32 or total < MIN_BETWEEN_BYTES:
        return None
    after, block = max(after, 0), _block(channels)
    row_bytes = (width + before + after) * block * between.dtype.bytes
    out_rows = second.output.type.static_shape[1]
    sizes = {-(-out_rows // count) for count in range(1, out_rows + 1)}
    choices = [Bands(first, second, between, rows, block, before, after) for rows in sizes]
    work = 2 * batch * height * width * math.prod(first.inputs[1].type.static_shape)
    cycles = work / FLOPS_PER_CYCLE + functions * FUNCTION_CYCLES * total / between.dtype.bytes
    saved = 2 * total / SLOW_BYTES_PER_CYCLE

    def most_work(own: Bands) -> tuple[int, int]:
        """Rows that the thread with the most bands computes, and how many bands there are."""
        return -(-batch * own.count // threads) * len(own.made_rows), own.count

    for limit in BAND_BYTES:
        fitting = [own for own in choices if own.held_rows * row_bytes <= limit]
        best = min(fitting, key=most_work, default=None)
        if best and saved > 1.5 * cycles * (best.count * len(best.made_rows) / height - 1):
            return best
    return None


def band_stages(
    scope: Scope, bands: Bands, outputs: dict[Value, Buffer]
) -> tuple[list[Stage], int]:
    """The stages of both convolutions and what follows them, and how many axes they share.

    These are the bands and, where there are several, the blocks of channels.
    """
    builder = _Builder(scope, bands)
    first = builder.first_stage()
    stages = [*builder.border_stages(), first, builder.second_stage(outputs)]
    return stages, len(builder.shared)


class _Builder:
    def __init__(self, scope: Scope, bands: Bands) -> None:
        self.scope, self.bands = scope, bands
        self.batch, self.height, self.width, self.channels = bands.between.type.static_shape
        self.outer = scope.axis(self.batch * bands.count)
        self.stride = bands.before + self.width + bands.after
        size = bands.held_rows * self.stride * bands.block
        self.rows = Buffer(f"l{next(scope.numbers)}", bands.between.dtype, size)
        outer = symbol(self.outer.name)
        self.shared: tuple[Axis, ...] = (self.outer,)
        self.first_channel: Dim = 0
        if bands.block < self.channels:
            group = scope.axis(self.channels // bands.block)
            self.shared, self.first_channel = (self.outer, group), symbol(group.name) * bands.block
        single = self.batch == 1
        self.image: Dim = 0 if single else floordiv(outer, bands.count)
        self.band: Dim = outer if single else mod(outer, bands.count)
        attrs = bands.second.attrs
        self.start = self.band * (bands.rows * attrs["strides"][0]) - attrs["pads"][0]

    def border_stages(self) -> Iterator[Stage]:
        """Zeros before and behind every row, and in rows outside the image that are not made."""
        bands, made = self.bands, self.bands.made_rows
        behind = bands.before + self.width
        yield from self._zeros(range(bands.held_rows), range(bands.before))
        yield from self._zeros(range(bands.held_rows), range(behind, self.stride))
        yield from self._zeros(range(made.start), range(bands.before, behind))
        yield from self._zeros(range(made.stop, bands.held_rows), range(bands.before, behind))

    def _zeros(self, rows: range, columns: range) -> Iterator[Stage]:
        if len(rows) and len(columns):
            axes, (row, column, channel) = self._axes(len(rows), len(columns))
            place = self._place(row + rows.start, column + columns.start, channel)
            yield Stage(axes, (), (), (Store(self.rows, place, Const(0.0, self.rows.dtype)),))

    def first_stage(self) -> Stage:
        """The rows of the first convolution that a band needs; those outside are zeros."""
        scope, conv = self.scope, self.bands.first
        made = self.bands.made_rows
        axes, (row, column, channel) = self._axes(len(made), self.width)
        row = row + made.start
        at = self.start + row
        inside = dmin(dmax(at, 0), self.height - 1) if self.bands.count > 1 else at
        index: Index = (self.image, inside, column, self.first_channel + channel)
        reduced = REDUCE["conv"](scope, conv, index)
        result = reduced.finish(accumulated(0, reduced.reduction))
        scope.results[conv.output] = lambda _: result
        value = scope.element(self.bands.between, index)
        if self.bands.count > 1:
            value = Guarded((Bound(at, 0, self.height),), value, Const(0.0, value.dtype))
        place = self._place(row, column + self.bands.before, channel)
        return Stage(axes, reduced.axes, (reduced.reduction,), (Store(self.rows, place, value),))

    def second_stage(self, outputs: dict[Value, Buffer]) -> Stage:
        """The band's rows of the second convolution and what follows it."""
        scope, conv, between = self.scope, self.bands.second, self.bands.between
        height, width = conv.output.type.static_shape[1:3]
        axes, (row, column, channel) = self._axes(self.bands.rows, width)
        scope.buffers[between] = self.rows
        scope.results[between] = self._held
        at = self.band * self.bands.rows + row
        index: Index = (self.image, at, column, self.first_channel + channel)
        reduced = REDUCE["conv"](scope, conv, index)
        result = reduced.finish(accumulated(0, reduced.reduction))
        scope.results[conv.output] = lambda _: result
        bounds = (Bound(at, 0, height),) if height % self.bands.rows else ()
        stores = []
        for target, buffer in outputs.items():
            element = scope.element(target, index)
            if bounds:
                element = Guarded(bounds, element, Const(0.0, element.dtype))
            offset, dynamic = scope.address(target.type, index)
            stores.append(Store(buffer, offset, element, dynamic, bounds))
        return Stage(axes, reduced.axes, (reduced.reduction,), tuple(stores))

    def _held(self, index: Index) -> Expr:
        """An element between the convolutions, from the band's rows."""
        _, row, column, channel = (as_dim(at) for at in index)
        own = channel - self.first_channel
        place = self._place(row - self.start, column + self.bands.before, own)
        return Load(self.rows, place)

    def _axes(self, rows: int, columns: int) -> tuple[tuple[Axis, ...], tuple[Dim, Dim, Dim]]:
        own = [self.scope.axis(extent) for extent in (rows, columns, self.bands.block)]
        row, column, channel = (symbol(axis.name) for axis in own)
        return (*self.shared, *own), (row, column, channel)

    def _place(self, row: Dim, column: Dim, channel: Dim) -> Dim:
        return (row * self.stride + column) * self.bands.block + channel
