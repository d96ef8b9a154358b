"""Two convolutions in bands of rows, so that what is between them never leaves the cache.

The second one is depthwise, so every block of channels is on its own. A band computes the rows of
the first that so many rows of the second need, in scratch memory with a border of zeros, and then
those rows. Rows at the seams of bands are computed twice; blocks of few channels make bands of many
rows, one of a whole image where it is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.dims import Dim, dmax, dmin, floordiv, mod, symbol
from ...ir.graph import Node, Value
from ..expr import Bound, Buffer, Const, Expr, Guarded, Load
from ..kernel import Axis, Stage, Store
from ..lower.reductions import REDUCE, accumulated, overhangs
from ..lower.scope import Index, Scope, as_dim
from .form import BandsForm


@dataclass(frozen=True)
class Bands:
    """Two convolutions of a region, in a form."""

    first: Node
    second: Node
    form: BandsForm

    @property
    def between(self) -> Value:
        """The value that the second one reads."""
        return self.second.inputs[0]

    @property
    def border(self) -> tuple[int, int]:
        """Columns of zeros before and behind a row."""
        _, (before, after) = overhangs(self.second)
        assert isinstance(before, int)
        assert isinstance(after, int)
        return before, max(after, 0)

    @property
    def count(self) -> int:
        """Bands of one image."""
        return -(-self.second.output.type.static_shape[1] // self.form.rows)

    @property
    def held_rows(self) -> int:
        """Rows of the first convolution in a band: those that its rows of the second need."""
        size, attrs = self.second.inputs[1].type.static_shape[0], self.second.attrs
        taps = (size - 1) * attrs["dilations"][0] + 1
        return int((self.form.rows - 1) * attrs["strides"][0] + taps)

    @property
    def made_rows(self) -> range:
        """Which of them are computed: all, but a band that is the whole image knows its edges."""
        if self.count > 1:
            return range(self.held_rows)
        height, pad = self.between.type.static_shape[1], self.second.attrs["pads"][0]
        return range(max(pad, 0), min(height + pad, self.held_rows))


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
        self.before, after = bands.border
        self.stride = self.before + self.width + after
        size = bands.held_rows * self.stride * bands.form.block
        self.rows = Buffer(f"l{next(scope.numbers)}", bands.between.dtype, size)
        outer = symbol(self.outer.name)
        self.shared: tuple[Axis, ...] = (self.outer,)
        self.first_channel: Dim = 0
        if bands.form.block < self.channels:
            group = scope.axis(self.channels // bands.form.block)
            self.shared = (self.outer, group)
            self.first_channel = symbol(group.name) * bands.form.block
        single = self.batch == 1
        self.image: Dim = 0 if single else floordiv(outer, bands.count)
        self.band: Dim = outer if single else mod(outer, bands.count)
        attrs = bands.second.attrs
        self.start = self.band * (bands.form.rows * attrs["strides"][0]) - attrs["pads"][0]

    def border_stages(self) -> Iterator[Stage]:
        """Zeros before and behind every row, and in rows outside the image that are not made."""
        bands, made = self.bands, self.bands.made_rows
        behind = self.before + self.width
        yield from self._zeros(range(bands.held_rows), range(self.before))
        yield from self._zeros(range(bands.held_rows), range(behind, self.stride))
        yield from self._zeros(range(made.start), range(self.before, behind))
        yield from self._zeros(range(made.stop, bands.held_rows), range(self.before, behind))

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
        place = self._place(row, column + self.before, channel)
        return Stage(axes, reduced.axes, (reduced.reduction,), (Store(self.rows, place, value),))

    def second_stage(self, outputs: dict[Value, Buffer]) -> Stage:
        """The band's rows of the second convolution and what follows it."""
        scope, conv, between = self.scope, self.bands.second, self.bands.between
        height, width = conv.output.type.static_shape[1:3]
        axes, (row, column, channel) = self._axes(self.bands.form.rows, width)
        scope.buffers[between] = self.rows
        scope.results[between] = self._held
        at = self.band * self.bands.form.rows + row
        index: Index = (self.image, at, column, self.first_channel + channel)
        reduced = REDUCE["conv"](scope, conv, index)
        result = reduced.finish(accumulated(0, reduced.reduction))
        scope.results[conv.output] = lambda _: result
        bounds = (Bound(at, 0, height),) if height % self.bands.form.rows else ()
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
        place = self._place(row - self.start, column + self.before, own)
        return Load(self.rows, place)

    def _axes(self, rows: int, columns: int) -> tuple[tuple[Axis, ...], tuple[Dim, Dim, Dim]]:
        own = [self.scope.axis(extent) for extent in (rows, columns, self.bands.form.block)]
        row, column, channel = (symbol(axis.name) for axis in own)
        return (*self.shared, *own), (row, column, channel)

    def _place(self, row: Dim, column: Dim, channel: Dim) -> Dim:
        return (row * self.stride + column) * self.bands.form.block + channel
