"""Pooling: windows that slide, and windows of all there is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.assumptions import AT_MOST
from .....compiler.ir.dims import dmax, dmin
from .....compiler.ir.ops.windows import extent, windows
from ...site import Site
from ...table import lowers
from .nn import window_attributes
from .patches import places_of_maxima


@dataclass(frozen=True)
class _Pool:
    """The windows of a pooling over x, N C spatial....

    window: strides, dilations and pads. cut_off: by how much an axis is too small for its only
    window, which ends with the padding. dims: the spatial sizes of the result, of which one is 0
    where there is no window.
    """

    sizes: tuple[Dim, ...]
    batch: tuple[Dim, ...]
    kernel: tuple[int, ...]
    window: dict[str, tuple[Dim, ...]]
    ceil_mode: bool
    cut_off: tuple[int, ...]
    dims: tuple[Dim, ...]

    @property
    def empty(self) -> bool:
        """Whether there is no window at all."""
        return 0 in self.dims

    def nothing(self, s: Site, dtype: DType) -> Value:
        """A result without elements."""
        return s.expand(s.scalar(0, dtype), (*self.batch, *self.dims))

    @property
    def may_miss(self) -> bool:
        """Whether a window may lie in padding alone, or meet it on both sides of the input."""
        pads, count = self.window["pads"], len(self.sizes)
        for i, pad in enumerate(pads):
            apart = pad != 0 and self.window["dilations"][i % count] != 1
            if apart or (isinstance(pad, int) and pad >= self.kernel[i % count]):
                return True
        return False

    def taken_share(self) -> float:
        """How many times more elements the windows have that are cut off than are left of them."""
        share = 1.0
        for i, missing in enumerate(self.cut_off):
            dilation = int(self.window["dilations"][i])  # type: ignore[arg-type]
            left = (_span(self.kernel, self.window, i) - missing - 1) // dilation + 1
            share *= self.kernel[i] / left
        return share

    def filled_up(self) -> dict[str, tuple[Dim, ...]]:
        """Windows whose padding ends with the last one, so that all of them are whole."""
        count = len(self.sizes)
        pads = list(self.window["pads"])
        for i, size in enumerate(self.sizes):
            span, stride = _span(self.kernel, self.window, i), self.window["strides"][i]
            end = (self.dims[i] - 1) * stride + span
            pads[count + i] += dmax(end - size - pads[i] - pads[count + i], 0)
        return {**self.window, "pads": tuple(pads)}


def _span(kernel: tuple[int, ...], window: dict[str, tuple[Dim, ...]], axis: int) -> int:
    return int(extent(kernel[axis], window["dilations"][axis]))  # type: ignore[arg-type]


def pool_of(s: Site, x: Value) -> _Pool:
    """The windows that a node's attributes describe.

    As ONNX Runtime, whose quotients are rounded to 0, a window that an input is too small for by
    less than a stride is cut off, and there is none where a whole stride is missing. Sizes that
    only a run knows have to be large enough.
    """
    kernel = tuple(s.ints("kernel_shape"))
    window = window_attributes(s, x, kernel)
    ceil_mode = bool(s.integer("ceil_mode", 0))
    cut_off = [0] * len(kernel)
    if ceil_mode:
        _require_elements(s, x)
    pads, dims = list(window["pads"]), []
    for i, size in enumerate(x.shape[2:]):
        stride, dilation = window["strides"][i], window["dilations"][i]
        high = len(kernel) + i
        room = size + pads[i] + pads[high] - _span(kernel, window, i)
        if isinstance(room, int) and isinstance(stride, int) and size != 0 and room < 0:
            if -2 * stride < room <= -stride:
                dims.append(0)
                continue
            if room > -stride and not ceil_mode:
                pads[high], cut_off[i] = pads[high] - room, -room
        around = (pads[i], pads[high])
        dims.append(windows(size, kernel[i], stride, dilation, around, ceil_mode))  # type: ignore[arg-type]
    window = {**window, "pads": tuple(pads)}
    return _Pool(x.shape[2:], x.shape[:2], kernel, window, ceil_mode, tuple(cut_off), tuple(dims))


@lowers("MaxPool")
def max_pool(s: Site) -> list[Value]:
    x = s.input(0)
    pool = pool_of(s, x)
    if pool.empty:
        return [pool.nothing(s, x.dtype), pool.nothing(s, DType.I64)][: 1 + s.wants(1)]
    out = s.emit("max_pool", [x], kernel=pool.kernel, ceil_mode=pool.ceil_mode, **pool.window)
    maxima = _at_least(s, out) if pool.may_miss else out
    if not s.wants(1):
        return [maxima]
    places = places_of_maxima(s, x, pool.kernel, pool.window, out)
    s.emitter.places_in[places] = x.shape
    return [maxima, places]


def _at_least(s: Site, maxima: Value) -> Value:
    """Maxima of windows that may lie in padding alone: there they are the least finite number."""
    if maxima.dtype not in (DType.F32, DType.F64):
        return maxima
    least = float(np.finfo(np.float32 if maxima.dtype is DType.F32 else np.float64).min)
    return s.op_("max", maxima, least)


@lowers("AveragePool")
def average_pool(s: Site) -> Value:
    return window_means(s)


def window_means(s: Site, *, whole: bool = False) -> Value:
    """The means of windows; whole: where padding counts, what a window has beyond it does, too."""
    x = s.input(0)
    pool, counted = pool_of(s, x), bool(s.integer("count_include_pad", 0))
    if pool.empty:
        return pool.nothing(s, x.dtype)
    clipped = any(pool.cut_off) and s.opset >= 19
    filled = whole and counted and pool.ceil_mode
    out = s.emit(
        "avg_pool",
        [x],
        kernel=pool.kernel,
        ceil_mode=pool.ceil_mode and not filled,
        count_include_pad=counted,
        **(pool.filled_up() if filled else pool.window),
    )
    # before opset 19, ONNX Runtime divides by the whole window
    return s.op_("mul", out, pool.taken_share()) if counted and clipped else out


@lowers("LpPool")
def lp_pool(s: Site) -> Value:
    """p-th root of the sum of p-th powers: the average over all of the window times its size."""
    x, p = s.input(0), float(s.integer("p", 2))
    pool = pool_of(s, x)
    if pool.empty:
        return pool.nothing(s, x.dtype)
    powers = s.op_("pow", s.op_("abs", x), p)
    window = pool.window if not pool.ceil_mode else pool.filled_up()
    mean = s.emit(
        "avg_pool",
        [powers],
        kernel=pool.kernel,
        ceil_mode=False,
        count_include_pad=True,
        **window,
    )
    return s.op_("pow", s.op_("mul", mean, float(math.prod(pool.kernel))), 1.0 / p)


def _require_elements(s: Site, x: Value) -> None:
    """Refuse pictures without elements, unless there is no picture."""
    for dim in x.shape[2:]:
        if dim == 0 or not isinstance(dim, int):
            s.require(dmin(x.shape[0], 1), AT_MOST, dim, "a picture without elements")


@lowers("GlobalAveragePool", "GlobalMaxPool")
def global_pool(s: Site) -> Value:
    x = s.input(0)
    _require_elements(s, x)
    kind = "mean" if s.op == "GlobalAveragePool" else "max"
    return s.reduce(kind, x, range(2, x.type.rank))


@lowers("GlobalLpPool")
def global_lp_pool(s: Site) -> Value:
    x, p = s.input(0), float(s.integer("p", 2))
    powers = s.op_("pow", s.op_("abs", x), p)
    return s.op_("pow", s.reduce("sum", powers, range(2, x.type.rank)), 1.0 / p)
