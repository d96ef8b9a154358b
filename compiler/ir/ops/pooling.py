"""Poolings over windows of the spatial axes, as ONNX defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import Value
from ..types import DType, TensorType
from .common import FLOATS, NUMBERS, accurate, need_dtype
from .registry import EXACT, REQUIRED, Array, OpDef, Trait, register
from .windows import (
    check_window,
    output_dims,
    sizes_of,
    spatial_axes,
    tap,
    to_channels_first,
    to_channels_last,
)


def _infer(inputs: Sequence[Value], attrs: dict[str, Any], allowed: frozenset[DType]) -> TensorType:
    x = inputs[0]
    need_dtype(x, allowed, "the operand")
    rank = x.type.rank
    if not 3 <= rank <= 5:
        raise ValueError(f"rank {rank} is not 3, 4 or 5")
    axes = spatial_axes(attrs["layout"], rank)
    check_window(attrs, rank - 2)
    kernel = attrs["kernel"]
    if len(kernel) != rank - 2:
        raise ValueError(f"kernel {kernel} has {len(kernel)} entries, not {rank - 2}")
    if any(isinstance(size, int) and size < 1 for size in kernel):
        raise ValueError(f"kernel {kernel} must be positive")
    spatial = output_dims([x.shape[axis] for axis in axes], kernel, attrs)
    shape = list(x.shape)
    for axis, dim in zip(axes, spatial, strict=True):
        shape[axis] = dim
    return TensorType(x.dtype, tuple(shape))


def _infer_max(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    return [_infer(inputs, attrs, NUMBERS)]


def _infer_avg(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    return [_infer(inputs, attrs, FLOATS)]


def _window_reduce(
    x: Array, attrs: dict[str, Any], fill: Any, fn: Callable[[Array, Array], Array]
) -> Array:
    """x is channels first; what windows meet outside of it is `fill`."""
    spatial, kernel, pads = x.ndim - 2, attrs["kernel"], attrs["pads"]
    out = sizes_of(output_dims(x.shape[2:], kernel, attrs))
    margins = []
    for i in range(spatial):
        span = (kernel[i] - 1) * attrs["dilations"][i] + 1
        reach = (out[i] - 1) * attrs["strides"][i] + span
        margins.append((pads[i], max(0, reach - x.shape[2 + i] - pads[i])))
    padded = np.pad(x, [(0, 0), (0, 0), *margins], constant_values=fill)
    total: Array | None = None
    for offset in np.ndindex(*kernel):
        part = padded[tap(offset, attrs, out)]
        total = part.copy() if total is None else fn(total, part)
    assert total is not None
    return total


def _max_pool(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x = accurate(args[0])
    fill = -np.inf if x.dtype == np.float64 else np.iinfo(x.dtype).min
    return _in_layout(x, args[0].dtype, attrs, lambda y: _window_reduce(y, attrs, fill, np.maximum))


def _avg_pool(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """The average over what counts; 0 for a window that lies in padding alone."""

    def average(x: Array) -> Array:
        ones = np.ones((1, 1, *x.shape[2:]))
        inner = attrs
        if attrs["count_include_pad"]:
            pads, spatial = attrs["pads"], x.ndim - 2
            ones = np.pad(
                ones,
                [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)],
                constant_values=1,
            )
            inner = {**attrs, "pads": (0,) * len(pads)}
        total = _window_reduce(x, attrs, 0, np.add)
        count = _window_reduce(ones, inner, 0, np.add)
        crop: tuple[Any, ...] = (..., *(slice(0, n) for n in total.shape[2:]))
        return np.asarray(total / np.maximum(count[crop], 1))

    with np.errstate(all="ignore"):
        return _in_layout(accurate(args[0]), args[0].dtype, attrs, average)


def _in_layout(
    x: Array, dtype: np.dtype[Any], attrs: dict[str, Any], fn: Callable[[Array], Array]
) -> list[Array]:
    if attrs["layout"] == "NHWC":
        out = fn(x.transpose(to_channels_first(x.ndim))).transpose(to_channels_last(x.ndim))
    else:
        out = fn(x)
    return [np.asarray(out.astype(dtype, copy=False), order="C")]


_WINDOW = {
    "kernel": REQUIRED,
    "strides": REQUIRED,
    "pads": REQUIRED,
    "dilations": REQUIRED,
    "ceil_mode": False,
}
register(
    OpDef(
        "max_pool",
        _infer_max,
        _max_pool,
        Trait.POOLING,
        {**_WINDOW, "layout": "NCHW"},
        arity=(1, 1),
    )
)
register(
    OpDef(
        "avg_pool",
        _infer_avg,
        _avg_pool,
        Trait.POOLING,
        {**_WINDOW, **EXACT, "count_include_pad": False, "layout": "NCHW"},
        arity=(1, 1),
    )
)
