"""Contractions: matmul, conv, conv_transpose. Floats are accumulated in f64 and rounded once.

With the attribute `accumulate` the operands of `matmul` and `conv` may be of different types, whose
elements are converted to that one: products of bytes add up in i32, those of bf16 and of 8-bit
floats in f32. The
operands of a `matmul` whose attribute `product` is `dot4` or `dot2` are groups of elements, as
`pack_groups` makes them: an element of either holds several steps of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dims import Dim
from ..graph import Value
from ..types import DType, TensorType, broadcast_shapes
from .common import NUMBERS, need_dtype, same_dtype, unify
from .registry import EXACT, REQUIRED, Array, OpDef, Trait, register
from .step_groups import GROUP, GROUP_PRODUCTS, ungrouped
from .windows import (
    channel_axis,
    check_window,
    extent,
    output_dims,
    sizes_of,
    spatial_axes,
    tap,
    to_channels_first,
    to_channels_last,
)

FLOAT_BYTES = frozenset({DType.F8E4M3FN, DType.F8E5M2})
_EXACT = 1 << 53  # integers up to here are exact in f64


def _operands(a: Array, b: Array, terms: int) -> tuple[Array, Array]:
    """Both operands in the type to accumulate in: f64 where that is exact (it is also fast)."""
    if not (DType.of(a.dtype).is_integer and DType.of(b.dtype).is_integer):
        return a.astype(np.float64), b.astype(np.float64)
    largest = [max((abs(int(x.max())), abs(int(x.min())))) if x.size else 0 for x in (a, b)]
    if largest[0] * largest[1] * max(1, terms) < _EXACT:
        return a.astype(np.float64), b.astype(np.float64)
    if a.dtype != b.dtype:
        return a.astype(np.int64), b.astype(np.int64)
    return a, b


def _rounded(x: Array, dtype: np.dtype[Any]) -> Array:
    if DType.of(dtype).is_float:
        return x.astype(dtype, copy=False)
    # by way of i64, so that what does not fit wraps
    return x.astype(np.int64).astype(dtype) if x.dtype != dtype else x


def _result_type(inputs: Sequence[Value], attrs: dict[str, Any]) -> DType:
    """The type that is added up in: that of the operands, unless another is asked for."""
    wanted: DType | None = attrs.get("accumulate")
    if attrs.get("product"):
        if same_dtype(inputs) is not GROUP or attrs["product"] not in GROUP_PRODUCTS:
            what = inputs[0].dtype.value
            raise ValueError(f"elements of {what} are no groups for '{attrs['product']}'")
        return GROUP_PRODUCTS[attrs["product"]].accumulate
    allowed = NUMBERS | FLOAT_BYTES if wanted is DType.F32 else NUMBERS
    for value in inputs[:2]:
        need_dtype(value, allowed, "the operand")
    if wanted is None:
        return same_dtype(inputs)
    if wanted not in NUMBERS or any(v.dtype.is_float > wanted.is_float for v in inputs[:2]):
        raise ValueError(f"products of {inputs[0].dtype} and {inputs[1].dtype} are no {wanted}")
    same_dtype([*inputs[2:], Value(TensorType(wanted, ()))])
    return wanted


def _accumulated(attrs: dict[str, Any], args: Sequence[Array]) -> np.dtype[Any]:
    wanted: DType | None = attrs.get("accumulate")
    return args[0].dtype if wanted is None else wanted.numpy


def _infer_matmul(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    a, b = inputs
    dtype = _result_type(inputs, attrs)
    if a.type.rank < 2 or b.type.rank < 2:
        raise ValueError(f"ranks {a.type.rank} and {b.type.rank}: matmul needs 2 or more")
    unify(a.shape[-1], b.shape[-2], "the contracted dimensions differ")
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return [TensorType(dtype, (*batch, a.shape[-2], b.shape[-1]))]


def _matmul(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    left, right = args
    dtype = _accumulated(attrs, args)
    if attrs["product"]:
        of = GROUP_PRODUCTS[attrs["product"]]
        left, right = ungrouped(left, of.left, -1), ungrouped(right, of.right, -2)
        dtype = of.accumulate.numpy
    a, b = _operands(left, right, left.shape[-1])
    with np.errstate(all="ignore"):
        return [_rounded(np.matmul(a, b), dtype)]


def _filter_dims(w: Value, layout: str) -> tuple[tuple[Dim, ...], Dim, Dim]:
    """Spatial dims, and the two channel dims in the order of the channels-first layout."""
    if layout == "NCHW":
        return w.shape[2:], w.shape[0], w.shape[1]
    return w.shape[:-2], w.shape[-1], w.shape[-2]


def _check_operands(inputs: Sequence[Value], attrs: dict[str, Any]) -> tuple[DType, int]:
    x, w = inputs[:2]
    dtype = _result_type(inputs, attrs)
    rank = x.type.rank
    if not 3 <= rank <= 5 or w.type.rank != rank:
        raise ValueError(f"ranks {rank} and {w.type.rank}: both must be 3, 4 or 5")
    spatial_axes(attrs["layout"], rank)
    check_window(attrs, rank - 2)
    if not isinstance(attrs["groups"], int) or attrs["groups"] < 1:
        raise ValueError(f"groups {attrs['groups']} is not positive")
    return dtype, rank


def _check_bias(inputs: Sequence[Value], channels: Dim) -> None:
    if len(inputs) == 3:
        if inputs[2].type.rank != 1:
            raise ValueError(f"the bias has rank {inputs[2].type.rank}, not 1")
        unify(inputs[2].shape[0], channels, "bias and output channels differ")


def _assemble(layout: str, batch: Dim, channels: Dim, spatial: tuple[Dim, ...]) -> tuple[Dim, ...]:
    if layout == "NCHW":
        return (batch, channels, *spatial)
    return (batch, *spatial, channels)


def _infer_conv(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    dtype, rank = _check_operands(inputs, attrs)
    x, w = inputs[:2]
    layout, groups = attrs["layout"], attrs["groups"]
    kernel, out_channels, in_per_group = _filter_dims(w, layout)
    channels = x.shape[channel_axis(layout, rank)]
    unify(channels, in_per_group * groups, "input channels and filter channels x groups differ")
    if isinstance(out_channels, int) and out_channels % groups:
        raise ValueError(f"{out_channels} output channels do not divide into {groups} groups")
    _check_bias(inputs, out_channels)
    sizes = [x.shape[axis] for axis in spatial_axes(layout, rank)]
    spatial = output_dims(sizes, kernel, attrs)
    return [TensorType(dtype, _assemble(layout, x.shape[0], out_channels, spatial))]


def _channels_first(args: Sequence[Array], layout: str) -> tuple[Array, Array]:
    x, w = args[:2]
    if layout == "NHWC":
        x = x.transpose(to_channels_first(x.ndim))
        w = w.transpose((w.ndim - 1, w.ndim - 2, *range(w.ndim - 2)))
    return x, w


def _finish(out: Array, args: Sequence[Array], layout: str, dtype: np.dtype[Any]) -> list[Array]:
    if len(args) == 3:
        out = out + args[2].astype(out.dtype).reshape(-1, *(1,) * (out.ndim - 2))
    if layout == "NHWC":
        out = out.transpose(to_channels_last(out.ndim))
    return [np.asarray(_rounded(out, dtype), order="C")]


def _conv(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """The sum over the kernel's elements of one matmul (over channels) each."""
    x, w = _channels_first(args, attrs["layout"])
    groups, spatial = attrs["groups"], x.ndim - 2
    kernel = w.shape[2:]
    x, w = _operands(x, w, int(np.prod(w.shape[1:])))
    pads = attrs["pads"]
    out_dims = sizes_of(output_dims(x.shape[2:], kernel, attrs))
    around = [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)]
    x = np.pad(x, around, constant_values=attrs["pad_value"])
    x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    w = w.reshape(groups, w.shape[0] // groups, w.shape[1], *kernel)
    points = int(np.prod(out_dims))
    out = np.zeros((x.shape[0], groups, w.shape[1], points), x.dtype)
    with np.errstate(all="ignore"):
        for offset in np.ndindex(*kernel):
            part = x[tap(offset, attrs, out_dims)]
            part = part.reshape(x.shape[0], groups, x.shape[2], points)
            weights = w[(slice(None), slice(None), slice(None), *offset)]
            out += weights * part if x.shape[2] == 1 else np.matmul(weights, part)
        out = out.reshape(x.shape[0], groups * w.shape[1], *out_dims)
        return _finish(out, args, attrs["layout"], _accumulated(attrs, args))


def _infer_conv_transpose(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    dtype, rank = _check_operands(inputs, attrs)
    x, w = inputs[:2]
    layout, groups = attrs["layout"], attrs["groups"]
    if layout == "NCHW":
        kernel, in_channels, out_per_group = w.shape[2:], w.shape[0], w.shape[1]
    else:
        kernel, in_channels, out_per_group = w.shape[:-2], w.shape[-2], w.shape[-1]
    channels = x.shape[channel_axis(layout, rank)]
    unify(channels, in_channels, "input channels and filter channels differ")
    if isinstance(channels, int) and channels % groups:
        raise ValueError(f"{channels} input channels do not divide into {groups} groups")
    _check_bias(inputs, out_per_group * groups)
    extra = attrs["output_padding"]
    if len(extra) != rank - 2:
        raise ValueError(f"output_padding has {len(extra)} entries, not {rank - 2}")
    pads, spatial = attrs["pads"], []
    for i, axis in enumerate(spatial_axes(layout, rank)):
        stride, dilation = attrs["strides"][i], attrs["dilations"][i]
        full = (x.shape[axis] - 1) * stride + extent(kernel[i], dilation)
        size = full + extra[i] - pads[i] - pads[rank - 2 + i]
        if isinstance(size, int) and size < 0:
            raise ValueError(f"padding {pads} leaves nothing of axis {axis}")
        spatial.append(size)
    shape = _assemble(layout, x.shape[0], out_per_group * groups, tuple(spatial))
    return [TensorType(dtype, shape)]


def _conv_transpose(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """Each input element adds its multiple of the kernel to the output."""
    x, w = args[:2]
    if attrs["layout"] == "NHWC":
        x = x.transpose(to_channels_first(x.ndim))
        w = w.transpose((w.ndim - 2, w.ndim - 1, *range(w.ndim - 2)))
    groups, spatial, kernel = attrs["groups"], x.ndim - 2, w.shape[2:]
    x, w = _operands(x, w, int(w.size // max(1, w.shape[1])))
    sizes = x.shape[2:]
    full = [
        (n - 1) * attrs["strides"][i]
        + (kernel[i] - 1) * attrs["dilations"][i]
        + 1
        + attrs["output_padding"][i]
        for i, n in enumerate(sizes)
    ]
    x = x.reshape(x.shape[0], groups, w.shape[0] // groups, int(np.prod(sizes)))
    w = w.reshape(groups, w.shape[0] // groups, w.shape[1], *kernel)
    out = np.zeros((x.shape[0], groups, w.shape[2], *full), x.dtype)
    for offset in np.ndindex(*kernel):
        part = np.matmul(w[(slice(None), slice(None), slice(None), *offset)].swapaxes(1, 2), x)
        out[tap(offset, attrs, sizes)] += part.reshape(*part.shape[:3], *sizes)
    pads = attrs["pads"]
    crop: list[Any] = [slice(pads[i], full[i] - pads[spatial + i]) for i in range(spatial)]
    out = out.reshape(x.shape[0], groups * w.shape[2], *full)[(..., *crop)]
    return _finish(out, args, attrs["layout"], args[0].dtype)


_WINDOW = {"strides": REQUIRED, "pads": REQUIRED, "dilations": REQUIRED, "groups": 1}
_ACCUMULATE = {"accumulate": None}
_PRODUCT = {**_ACCUMULATE, "product": None}
register(OpDef("matmul", _infer_matmul, _matmul, Trait.CONTRACTION, _PRODUCT, (2, 2)))
register(
    OpDef(
        "conv",
        _infer_conv,
        _conv,
        Trait.CONTRACTION,
        {**_WINDOW, **EXACT, **_ACCUMULATE, "layout": "NCHW", "pad_value": 0},
        arity=(2, 3),
    )
)
register(
    OpDef(
        "conv_transpose",
        _infer_conv_transpose,
        _conv_transpose,
        Trait.CONTRACTION,
        {**_WINDOW, "output_padding": REQUIRED, "layout": "NCHW"},
        arity=(2, 3),
    )
)
