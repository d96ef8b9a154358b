"""Two convolutions in bands of rows, so that what is between them never leaves the cache.

The second one is depthwise. A band computes the rows of the first that so many rows of the second
need, in scratch memory with a border of zeros, and then those rows. Rows at the seams of bands are
computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...ir.dims import Dim, dmax, dmin, floordiv, mod, symbol
from ...ir.graph import Graph, Node, Value
from ...ir.ops.registry import Trait, has_trait
from ...ir.types import DType
from ..expr import EXPENSIVE, Bound, Buffer, Const, Expr, Guarded, Load
from ..kernel import Axis, Stage, Store
from .reductions import REDUCE, accumulated, overhangs
from .scope import Index, Scope, as_dim

BAND_BYTES = 640 << 10  # of the rows between the convolutions that one band holds
MIN_BETWEEN_BYTES = 3 << 19  # less than that stays in a second-level cache, mostly
SLOW_BYTES_PER_CYCLE = 16.0  # assumed, of what the second-level cache does not hold (one core)
FLOPS_PER_CYCLE = 50.0  # assumed, of a convolution on a 512-bit core; only ratios matter
FUNCTION_CYCLES = 4.0  # assumed, of a transcendental function for one element on such a core


@dataclass(frozen=True)
class Bands:
    """Two convolutions of a region and the value that the second reads.

    rows: of the second one's output in a band. before, after: columns of zeros around a row.
    """

    first: Node
    second: Node
    between: Value
    rows: int
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


def bands_of(region: Graph, threads: int = 1) -> Bands | None:
    """How a region of two convolutions is computed in bands; None for any other region.

    threads: how many share the bands; whether there are any does not depend on it.
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
    bands = _sized(first, second, between, functions)
    return _shared(bands, threads) if bands else None


def _shared(bands: Bands, threads: int) -> Bands:
    """Bands as many or a few more, so that the thread with the most of them has the least work."""
    images, rows, *_ = bands.second.output.type.static_shape
    even = -(-bands.count // threads) * threads
    choices = (replace(bands, rows=-(-rows // n)) for n in range(bands.count, even + 1))
    return min(choices, key=lambda own: -(-images * own.count // threads) * own.held_rows)


def _plain(conv: Node) -> bool:
    """Whether a convolution is two-dimensional, channels last and of known size."""
    values = (*conv.inputs, conv.output)
    static = all(value.type.is_static for value in values)
    return static and conv.attrs["layout"] == "NHWC" and len(conv.inputs[1].shape) == 4


def _reach(conv: Node, rows: int) -> int:
    """Rows of the input that so many rows of the output need."""
    size, attrs = conv.inputs[1].type.static_shape[0], conv.attrs
    return int((rows - 1) * attrs["strides"][0] + (size - 1) * attrs["dilations"][0] + 1)


def _sized(first: Node, second: Node, between: Value, functions: int) -> Bands | None:
    """The bands that save more than they compute twice; None when none do.

    functions: how many transcendental ones follow the first convolution.
    """
    batch, height, width, channels = between.type.static_shape
    _, (before, after) = overhangs(second)
    if not isinstance(after, int) or between.dtype is not DType.F32:
        return None
    after = max(after, 0)
    row_bytes = (width + before + after) * channels * between.dtype.bytes
    total = batch * height * width * channels * between.dtype.bytes
    out_rows = second.output.type.static_shape[1]
    most = next(
        (r for r in range(out_rows, 0, -1) if _reach(second, r) * row_bytes <= BAND_BYTES), 0
    )
    if total < MIN_BETWEEN_BYTES or not most:
        return None
    count = -(-out_rows // most)
    bands = Bands(first, second, between, -(-out_rows // count), before, after)
    twice = bands.count * bands.held_rows / height - 1
    work = 2 * batch * height * width * math.prod(first.inputs[1].type.static_shape)
    cycles = work / FLOPS_PER_CYCLE + functions * FUNCTION_CYCLES * total / between.dtype.bytes
    saved = 2 * total / SLOW_BYTES_PER_CYCLE
    return bands if saved > 1.5 * twice * cycles else None


def band_stages(
    scope: Scope, bands: Bands, outputs: dict[Value, Buffer]
) -> tuple[list[Stage], int]:
    """The stages of both convolutions and what follows them; one axis (the band) is shared."""
    builder = _Builder(scope, bands)
    first = builder.first_stage()
    return [*builder.border_stages(), first, builder.second_stage(outputs)], 1


class _Builder:
    def __init__(self, scope: Scope, bands: Bands) -> None:
        self.scope, self.bands = scope, bands
        self.batch, self.height, self.width, self.channels = bands.between.type.static_shape
        self.outer = scope.axis(self.batch * bands.count)
        self.stride = bands.before + self.width + bands.after
        size = bands.held_rows * self.stride * self.channels
        self.rows = Buffer(f"l{next(scope.numbers)}", bands.between.dtype, size)
        outer = symbol(self.outer.name)
        single = self.batch == 1
        self.image: Dim = 0 if single else floordiv(outer, bands.count)
        self.band: Dim = outer if single else mod(outer, bands.count)
        attrs = bands.second.attrs
        self.start = self.band * (bands.rows * attrs["strides"][0]) - attrs["pads"][0]

    def border_stages(self) -> Iterator[Stage]:
        """Zeros before and behind every row."""
        zero = Const(0.0, self.rows.dtype)
        behind = self.bands.before + self.width
        for start, count in ((0, self.bands.before), (behind, self.bands.after)):
            if count:
                axes, (row, column, channel) = self._axes(self.bands.held_rows, count)
                place = self._place(row, column + start, channel)
                yield Stage(axes, (), (), (Store(self.rows, place, zero),))

    def first_stage(self) -> Stage:
        """The rows of the first convolution that a band needs; those outside are zeros."""
        scope, conv = self.scope, self.bands.first
        axes, (row, column, channel) = self._axes(self.bands.held_rows, self.width)
        at = self.start + row
        inside = dmin(dmax(at, 0), self.height - 1)
        index: Index = (self.image, inside, column, channel)
        reduced = REDUCE["conv"](scope, conv, index)
        result = reduced.finish(accumulated(0, reduced.reduction))
        scope.results[conv.output] = lambda _: result
        value = scope.element(self.bands.between, index)
        known = Guarded((Bound(at, 0, self.height),), value, Const(0.0, value.dtype))
        place = self._place(row, column + self.bands.before, channel)
        return Stage(axes, reduced.axes, (reduced.reduction,), (Store(self.rows, place, known),))

    def second_stage(self, outputs: dict[Value, Buffer]) -> Stage:
        """The band's rows of the second convolution and what follows it."""
        scope, conv, between = self.scope, self.bands.second, self.bands.between
        height, width = conv.output.type.static_shape[1:3]
        axes, (row, column, channel) = self._axes(self.bands.rows, width)
        scope.buffers[between] = self.rows
        scope.results[between] = self._held
        at = self.band * self.bands.rows + row
        index: Index = (self.image, at, column, channel)
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
        place = self._place(row - self.start, column + self.bands.before, channel)
        return Load(self.rows, place)

    def _axes(self, rows: int, columns: int) -> tuple[tuple[Axis, ...], tuple[Dim, Dim, Dim]]:
        own = [self.scope.axis(extent) for extent in (rows, columns, self.channels)]
        row, column, channel = (symbol(axis.name) for axis in own)
        return (self.outer, *own), (row, column, channel)

    def _place(self, row: Dim, column: Dim, channel: Dim) -> Dim:
        return (row * self.stride + column) * self.channels + channel
