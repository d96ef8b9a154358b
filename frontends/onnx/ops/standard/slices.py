"""Slices: bounds that are known, that are computed from dims, and that only a run knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.assumptions import AT_MOST
from .....compiler.ir.dims import dmax, dmin, has_calls, is_nonnegative
from ...site import Site
from ...table import lowers
from ..shared.run_time import TOO_MUCH, is_known, matches, shape_vector, vector

_FAR = 10**9  # slice bounds from here on mean "to the end"; exporters write 2**31 - 1, 2**63 - 1
_UNBOUNDED = ((1 << 31) - 1, (1 << 63) - 1)  # as an end: as far as the step goes


@lowers("Slice", "DynamicSlice")
def slice_(s: Site) -> Value:
    """Slice; DynamicSlice, which files of 2019 hold, is the form of opset 10 in earlier ones."""
    x = s.input(0)
    if s.opset < 10 and s.op == "Slice":
        starts: Sequence[Dim] = s.ints("starts")
        ends: Sequence[Dim] = s.ints("ends")
        axes, steps = s.ints("axes", range(len(starts))), [1] * len(starts)
    else:
        low, high, given, stride = _of_one_length(s)
        computed = any(s.known(value) is None for value in (low, high))
        if computed or any(v is not None and not is_known(s, v) for v in (given, stride)):
            return _slice_at_run_time(s, x, low, high, given, stride)
        starts, ends = s.dims(low), s.dims(high)
        axes = list(range(len(starts))) if given is None else s.numbers(given, "axes")
        steps = [1] * len(starts) if stride is None else s.numbers(stride, "steps")
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ValueError("starts, ends, axes and steps differ in length")
    if 0 in steps:
        raise ValueError("a step is 0")
    steps = [max(min(step, TOO_MUCH), -TOO_MUCH) for step in steps]
    places = s.axes(axes, x.type.rank)
    sizes = [x.shape[axis] for axis in places]
    spans = [Span(*each) for each in zip(sizes, starts, ends, steps, strict=True)]
    if any(span.is_involved() for span in spans):
        vectors = (s.emitter.virtual(list(v)) for v in (starts, ends, axes, steps))
        return _slice_at_run_time(s, x, *vectors)
    lows: list[Dim] = [0] * x.type.rank
    highs, strides = list(x.shape), [1] * x.type.rank
    for axis, span in zip(places, spans, strict=True):
        for count in span.counted_back():
            s.require(1, AT_MOST, count, f"needs 1 <= {count}, the negative of a bound")
        lows[axis], highs[axis] = span.bounds()
        strides[axis] = span.step
    return s.emit("slice", [x], starts=tuple(lows), stops=tuple(highs), steps=tuple(strides))


@dataclass(frozen=True)
class Span:
    """What a slice takes of an axis, as ONNX has it: bounds may be negative and far outside."""

    size: Dim
    start: Dim
    stop: Dim
    step: int

    def bounds(self) -> tuple[Dim, Dim]:
        """Normalised, as the core operator wants them.

        Those of crops count as positions inside of the axis, which is checked at run time.
        """
        if self._is_crop():
            return self.start, self._last()
        lowest = 0 if self.step > 0 else -1
        highest = self.size if self.step > 0 else self.size - 1
        low, high = self._clamped(self.start, 0, highest), self._end(lowest, highest)
        if low == 0 and high == self.size:
            return low, high
        span = high - low if self.step > 0 else low - high
        if isinstance(span, int):
            return (low, high) if span >= 0 else (low, low)
        return low, dmax(low, high) if self.step > 0 else dmin(low, high)

    def is_involved(self) -> bool:
        """Whether nothing is known of a bound's sign, and it or the size is no simple dim."""
        bounds = (self.start, self.stop)
        unsigned = [dim for dim in bounds if not (_is_signed(dim) or dim == self.size)]
        if not unsigned or self._is_crop():
            return False
        return any(has_calls(dim) for dim in (self.size, *unsigned))

    def _is_crop(self) -> bool:
        """Whether bounds of unknown signs are apart by what cannot be negative.

        Exporters write that for crops; the number of elements then is simple.
        """
        if self.start == self.size - 1 or (_is_signed(self.start) and _is_signed(self.stop)):
            return False
        return is_nonnegative((self._last() - self.start) * self.step)

    def _last(self) -> Dim:
        """The end, where it is the axis's that end, or the place before its beginning."""
        if not isinstance(self.stop, int):
            return self.stop
        if self.step > 0:
            return self.size if self.stop >= _FAR else self.stop
        return -1 if self.stop <= -_FAR or self.stop in _UNBOUNDED else self.stop

    def _end(self, lowest: int, highest: Dim) -> Dim:
        if self.step < 0 and self.stop in _UNBOUNDED:
            return lowest
        return self._clamped(self.stop, lowest, highest)

    def _clamped(self, bound: Dim, lowest: int, highest: Dim) -> Dim:
        if isinstance(bound, int) and abs(bound) >= _FAR:
            return highest if bound > 0 else lowest
        if bound == 0 and self.step > 0:  # no size is less
            return 0
        if bound == self.size or is_nonnegative(bound):
            return dmin(bound, highest)
        if bound == self.size - 1:  # negative only where there is nothing to take
            return dmin(dmax(bound, lowest), highest)
        if is_nonnegative(-bound - 1) or self._counts_back(bound):
            return dmin(dmax(bound + self.size, lowest), highest)
        negative = dmax(dmin(-bound, 1), 0)  # 1 or 0
        return dmin(dmax(bound + self.size * negative, lowest), highest)

    def _counts_back(self, bound: Dim) -> bool:
        """Whether a bound that is not positive is taken to be negative.

        That is where it is simple then; 0 would be another place, the beginning of the axis.
        """
        return is_nonnegative(-bound) and is_nonnegative(self.size + bound)

    def counted_back(self) -> list[Dim]:
        """How far from the end bounds are that must not be 0, which a run has to check."""
        found = [dim for dim in (self.start, self.stop) if not is_nonnegative(dim)]
        return [-dim for dim in found if self._counts_back(dim) and not is_nonnegative(-dim - 1)]


def _of_one_length(s: Site) -> tuple[Value, Value, Value | None, Value | None]:
    """starts, ends, axes and steps; any of them says how many there are where others leave it
    open."""
    start, stop, axes, steps = s.input(1), s.input(2), s.optional(3), s.optional(4)
    given = [v for v in (start, stop, axes, steps) if v is not None and v.type.is_static]
    if not given or not given[0].type.rank:
        return start, stop, axes, steps
    count = given[0].type.static_shape[0]
    return (
        s.counted(start, count),
        s.counted(stop, count),
        None if axes is None else s.counted(axes, count),
        None if steps is None else s.counted(steps, count),
    )


def _is_signed(dim: Dim) -> bool:
    return is_nonnegative(dim) or is_nonnegative(-dim)


def _slice_at_run_time(
    s: Site, x: Value, starts: Value, ends: Value, axes: Value | None, steps: Value | None
) -> Value:
    """Slice whose bounds, axes or steps are data: gathers along the axes that it may cut, where its
    steps are not 1.
    """
    rank = x.type.rank
    count = int(vector(s, starts).type.elements)  # type: ignore[arg-type]
    if axes is None:
        axes = s.emitter.virtual(list(range(count)))
    if steps is None:
        steps = s.emitter.virtual([1] * count)
    hits = matches(s, axes, rank)
    hit = s.op_("ne", s.reduce("max", hits, [1], keepdims=False), 0)

    def per_axis(values: Value, otherwise: Value | int) -> Value:
        row = s.reshape(vector(s, values), (1, count))
        total = s.reduce("sum", s.op_("mul", hits, row), [1], keepdims=False)
        return s.op_("where", hit, total, otherwise)

    dims = s.emitter.real(shape_vector(s, x.shape))
    step = per_axis(steps, 1)
    if not is_known(s, steps):
        s.require_nonzero(step, "a step is 0")
    elif 0 in s.numbers(steps, "steps"):
        raise ValueError("a step is 0")
    step = s.op_("min", s.op_("max", step, -TOO_MUCH), TOO_MUCH)
    first, number = _span(s, per_axis(starts, 0), per_axis(ends, dims), step, dims)
    cut = _axes_cut(s, axes, rank)
    lengths = s.dims(s.emit("gather", [number, s.emitter.virtual(cut)], axis=0))
    if is_known(s, steps) and set(s.numbers(steps, "steps")) == {1}:
        low: list[Dim] = [0] * rank
        high = list(x.shape)
        begins = s.dims(s.emit("gather", [first, s.emitter.virtual(cut)], axis=0))
        for axis, begin, length in zip(cut, begins, lengths, strict=True):
            low[axis], high[axis] = begin, begin + length
        return s.emit("slice", [x], starts=tuple(low), stops=tuple(high), steps=(1,) * rank)
    for axis, length in zip(cut, lengths, strict=True):
        line = s.iota((length,), 0, DType.I64)
        place = s.op_("add", s.op_("mul", line, s.take(step, 0, axis)), s.take(first, 0, axis))
        x = s.emit("gather", [x, place], axis=axis)
    return x


def _axes_cut(s: Site, axes: Value, rank: int) -> list[int]:
    if not is_known(s, axes):
        return list(range(rank))
    return s.axes(s.numbers(axes, "axes"), rank)


def _span(s: Site, start: Value, end: Value, step: Value, dims: Value) -> tuple[Value, Value]:
    """Per axis the first position and the number of positions, clamped as ONNX says."""
    forward = s.op_("gt", step, 0)

    def clamped(bound: Value, lowest: Value) -> Value:
        bound = s.op_("where", s.op_("lt", bound, 0), s.op_("add", bound, dims), bound)
        highest = s.op_("where", forward, dims, s.op_("sub", dims, 1))
        return s.op_("min", s.op_("max", bound, lowest), highest)

    zero = s.op_("mul", dims, 0)
    first = clamped(start, zero)
    before = s.op_("where", forward, zero, s.op_("sub", zero, 1))
    last = clamped(end, before)
    for unbounded in _UNBOUNDED:
        back = s.op_("and", s.op_("eq", end, unbounded), s.op_("not", forward))
        last = s.op_("where", back, before, last)
    distance = s.op_("sub", last, first)
    distance = s.op_("where", forward, distance, s.op_("neg", distance))
    steps = s.op_("div", s.op_("sub", distance, 1), s.op_("abs", step))
    return first, s.op_("where", s.op_("gt", distance, 0), s.op_("add", steps, 1), 0)
