"""Convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.dims import ceildiv, dmax, floordiv
from ...site import Site
from ...table import MICROSOFT, lowers
from .activations import by_name


def window_attributes(s: Site, x: Value, kernel: Sequence[Dim]) -> dict[str, tuple[Dim, ...]]:
    """strides, dilations and pads of a node over `x` (channels first).

    Raises ValueError for lengths that do not fit and for an unknown auto_pad.
    """
    spatial = x.type.rank - 2
    if spatial < 1:
        raise ValueError(f"the input has rank {x.type.rank}, at least 3 is needed")
    strides = s.ints("strides", [1] * spatial)
    dilations = s.ints("dilations", [1] * spatial)
    if len(strides) != spatial or len(dilations) != spatial or len(kernel) != spatial:
        raise ValueError(f"strides, dilations and kernel must have {spatial} entries")
    if min(strides) < 1 or min(dilations) < 1:
        raise ValueError(f"strides {strides} and dilations {dilations} must be positive")
    auto = s.text("auto_pad", "NOTSET")
    pads: list[Dim] = list(s.ints("pads", [0] * (2 * spatial)))
    if auto == "VALID":
        pads = [0] * (2 * spatial)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            dmax((ceildiv(size, st) - 1) * st + (k - 1) * d + 1 - size, 0)
            for size, k, st, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
        ]
        small = [floordiv(total, 2) for total in totals]
        large = [total - part for total, part in zip(totals, small, strict=True)]
        pads = small + large if auto == "SAME_UPPER" else large + small
    elif auto != "NOTSET":
        raise ValueError(f"auto_pad '{auto}' does not exist")
    if len(pads) != 2 * spatial:
        raise ValueError(f"pads has {len(pads)} entries, {2 * spatial} are needed")
    return {"strides": tuple(strides), "dilations": tuple(dilations), "pads": tuple(pads)}


def convolve(s: Site, x: Value, w: Value, bias: Value | None) -> Value:
    """The convolution that the node's attributes describe; x is NC..., w is OI...."""
    if w.type.rank != x.type.rank:
        raise ValueError(f"input and filter have ranks {x.type.rank} and {w.type.rank}")
    w = _of_kernel(s, w)
    window, groups = window_attributes(s, x, w.shape[2:]), s.integer("group", 1)
    x = _of_channels(s, x, w.shape[1] * groups)
    operands = [x, w] if bias is None else [x, w, bias]
    return s.emit("conv", operands, groups=groups, **window)


def _of_kernel(s: Site, w: Value) -> Value:
    """The filter, whose spatial sizes `kernel_shape` says where w leaves them open."""
    kernel = s.ints("kernel_shape", [])
    if kernel and len(kernel) != w.type.rank - 2:
        raise ValueError(f"kernel_shape differs from that of the filter, {w.type}")
    for axis, size in enumerate(kernel, 2):
        w = s.sized(w, axis, size)
    return w


def _of_channels(s: Site, x: Value, channels: Dim) -> Value:
    """x, whose number of channels the filter says where x leaves it open."""
    return s.sized(x, 1, channels) if isinstance(channels, int) else x


@lowers("Conv")
def conv(s: Site) -> Value:
    return convolve(s, s.input(0), s.input(1), s.optional(2))


@lowers("FusedConv", domain=MICROSOFT)
def fused_conv(s: Site) -> Value:
    out = convolve(s, s.input(0), s.input(1), s.optional(2))
    residual = s.optional(3)
    if residual is not None:
        out = s.op_("add", out, residual)
    values = s.floats("activation_params", [])
    if s.text("activation", "") == "Clip":
        return s.op_("min", s.op_("max", out, values[0]), values[1])
    return by_name(s, s.text("activation"), out, values) if s.has("activation") else out


@lowers("ConvTranspose")
def conv_transpose(s: Site) -> Value:
    return spread(s, s.input(0), s.input(1), s.optional(2))


def spread(
    s: Site, x: Value, w: Value, bias: Value | None, given: Sequence[Dim] | None = None
) -> Value:
    """The transposed convolution that the node's attributes describe; given: pads instead of
    theirs."""
    if w.type.rank != x.type.rank:
        raise ValueError(f"input and filter have ranks {x.type.rank} and {w.type.rank}")
    w = _of_kernel(s, w)
    spatial, kernel = x.type.rank - 2, w.shape[2:]
    auto = s.text("auto_pad", "NOTSET")
    strides, dilations = s.ints("strides", [1] * spatial), s.ints("dilations", [1] * spatial)
    extra: list[Dim] = list(s.ints("output_padding", [0] * spatial))
    pads: list[Dim] = list(s.ints("pads", [0] * (2 * spatial)) if given is None else given)
    if any(len(item) != spatial for item in (strides, dilations, extra)):
        raise ValueError(f"strides, dilations and output_padding must have {spatial} entries")
    if len(pads) != 2 * spatial or auto == "VALID":
        pads = [0] * (2 * spatial)
    sizes: list[Dim] = []
    sizes += s.ints("output_shape", [])[-spatial:]
    if auto in ("SAME_UPPER", "SAME_LOWER") and not sizes:
        sizes = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    for i, size in enumerate(sizes):
        full = (x.shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 + extra[i]
        total = full - size
        if isinstance(total, int) and total < 0:
            extra[i], total = extra[i] - total, 0
        half = floordiv(total, 2)
        first = half if auto == "SAME_UPPER" else total - half
        pads[i], pads[spatial + i] = first, total - first
    x = _of_channels(s, x, w.shape[0])
    operands = [x, w] if bias is None else [x, w, bias]
    return s.emit(
        "conv_transpose",
        operands,
        strides=tuple(strides),
        dilations=tuple(dilations),
        pads=tuple(pads),
        output_padding=tuple(extra),
        groups=s.integer("group", 1),
    )


@lowers("ConvInteger")
def conv_integer(s: Site) -> Value:
    x = centred(s, s.input(0), s.optional(2), DType.I32)
    w = centred(s, s.input(1), s.optional(3), DType.I32)
    return convolve(s, x, w, None)


def centred(s: Site, x: Value, zero: Value | None, dtype: DType, axis: int = 0) -> Value:
    """x minus its zero point (a scalar, or a vector along `axis`), in a wider type."""
    wide = s.cast(x, dtype)
    if zero is None:
        return wide
    offset = s.cast(zero, dtype)
    if offset.type.rank == 1 and offset.shape[0] != 1:
        offset = s.reshape(
            offset, [offset.shape[0] if a == axis else 1 for a in range(x.type.rank)]
        )
    elif offset.type.rank == 1:
        offset = s.reshape(offset, ())
    return s.op_("sub", wide, offset)
