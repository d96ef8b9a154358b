"""Pooling: windows that slide, and windows of all there is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.assumptions import AT_MOST
from .....compiler.ir.dims import dmax, dmin
from .....compiler.ir.ops.windows import extent, windows
from ...site import NotSupported, Site
from ...table import lowers
from .nn import window_attributes
from .patches import places_of_maxima


@dataclass(frozen=True)
class _Pool:
    """The windows of a pooling over x, N C spatial....

    window: strides, dilations and pads. cut_off: whether a window that does not fit ends with the
    padding. dims: the spatial sizes of the result, of which one is 0 where there is no window.
    """

    sizes: tuple[Dim, ...]
    batch: tuple[Dim, ...]
    kernel: tuple[int, ...]
    window: dict[str, tuple[Dim, ...]]
    ceil_mode: bool
    cut_off: bool
    dims: tuple[Dim, ...]

    @property
    def empty(self) -> bool:
        """Whether there is no window at all."""
        return 0 in self.dims

    def nothing(self, s: Site, dtype: DType) -> Value:
        """A result without elements."""
        return s.expand(s.scalar(0, dtype), (*self.batch, *self.dims))

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
    ceil_mode, cut_off = bool(s.integer("ceil_mode", 0)), False
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
                pads[high], cut_off = pads[high] - room, True
        around = (pads[i], pads[high])
        dims.append(windows(size, kernel[i], stride, dilation, around, ceil_mode))  # type: ignore[arg-type]
    window = {**window, "pads": tuple(pads)}
    return _Pool(x.shape[2:], x.shape[:2], kernel, window, ceil_mode, cut_off, tuple(dims))


@lowers("MaxPool")
def max_pool(s: Site) -> list[Value]:
    x = s.input(0)
    pool = pool_of(s, x)
    if pool.empty:
        return [pool.nothing(s, x.dtype), pool.nothing(s, DType.I64)][: 1 + s.wants(1)]
    out = s.emit("max_pool", [x], kernel=pool.kernel, ceil_mode=pool.ceil_mode, **pool.window)
    if not s.wants(1):
        return [out]
    return [out, places_of_maxima(s, x, pool.kernel, pool.window, out)]


@lowers("AveragePool")
def average_pool(s: Site) -> Value:
    x = s.input(0)
    pool, counted = pool_of(s, x), bool(s.integer("count_include_pad", 0))
    if pool.empty:
        return pool.nothing(s, x.dtype)
    clipped = pool.cut_off and s.opset >= 19  # before, ONNX Runtime divides by the whole window
    if clipped and counted and any(s.ints("pads", [])):
        raise NotSupported(
            f"a padded window does not fit into {x.type}, and its padding counts",
            "pad the input, or pin a larger one",
        )
    return s.emit(
        "avg_pool",
        [x],
        kernel=pool.kernel,
        ceil_mode=pool.ceil_mode,
        count_include_pad=counted and not clipped,
        **pool.window,
    )


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
