"""Operators that move elements: views, permutations, concatenation, slices, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import RunError
from ..assumptions import assume_at_most, assume_equal, assume_one_or_equal
from ..dims import Dim, ceildiv, dmin, product
from ..graph import Value
from ..types import TensorType, broadcast_dims
from .common import differ, need_axis, same_dtype, unify
from .registry import REQUIRED, Array, OpDef, Trait, register

PAD_MODES = ("constant", "reflect", "edge", "wrap")


def _infer_reshape(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, shape = inputs[0], attrs["shape"]
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        raise ValueError(f"shape {shape} has a negative dimension")
    if differ(x.type.elements, product(shape)):
        raise ValueError(f"{x.type} has {x.type.elements} elements, not {product(shape)}")
    assume_equal(x.type.elements, product(shape))
    return [TensorType(x.dtype, tuple(shape))]


def _reshape(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    if args[0].size != int(product(attrs["shape"])):  # type: ignore[arg-type]
        raise RunError(f"{args[0].size} elements do not make the shape {attrs['shape']}")
    return [args[0].reshape(attrs["shape"])]


def _infer_transpose(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, perm = inputs[0], attrs["perm"]
    if sorted(perm) != list(range(x.type.rank)):
        raise ValueError(f"perm {perm} is no permutation of {x.type.rank} axes")
    return [TensorType(x.dtype, tuple(x.shape[axis] for axis in perm))]


def _transpose(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    return [np.asarray(np.transpose(args[0], attrs["perm"]), order="C")]


def _infer_broadcast_to(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, shape = inputs[0], attrs["shape"]
    if x.type.rank > len(shape):
        raise ValueError(f"{x.type} has more axes than the shape {shape}")
    for dim, wanted in zip(x.shape, shape[len(shape) - x.type.rank :], strict=True):
        if broadcast_dims(dim, wanted) != wanted and isinstance(wanted, int):
            raise ValueError(f"dimension {dim} does not broadcast to {wanted}")
    return [TensorType(x.dtype, tuple(shape))]


def _broadcast_to(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    return [np.asarray(np.broadcast_to(args[0], attrs["shape"]), order="C")]


def _infer_expand(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, shape = inputs[0], attrs["shape"]
    if x.type.rank != len(shape):
        raise ValueError(f"{x.type} has not as many axes as the shape {shape}")
    for dim, wanted in zip(x.shape, shape, strict=True):
        if dim != 1 and differ(dim, wanted):
            raise ValueError(f"dimension {dim} does not broadcast to {wanted}")
        assume_one_or_equal(dim, wanted)
    return [TensorType(x.dtype, tuple(shape))]


def _expand(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    for dim, wanted in zip(args[0].shape, attrs["shape"], strict=True):
        if dim not in (1, wanted):
            raise RunError(f"the shape {args[0].shape} does not broadcast to {attrs['shape']}")
    return _broadcast_to(args, attrs)


def _infer_concat(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    dtype, first = same_dtype(inputs), inputs[0]
    axis = need_axis(attrs["axis"], first.type.rank)
    shape: list[Dim] = list(first.shape)
    for value in inputs[1:]:
        if value.type.rank != len(shape):
            raise ValueError(f"ranks {len(shape)} and {value.type.rank} differ")
        for i, dim in enumerate(value.shape):
            joined = shape[i] + dim if i == axis else unify(shape[i], dim, f"axis {i} differs")
            shape[i] = joined
    return [TensorType(dtype, tuple(shape))]


def _concat(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    return [np.concatenate(list(args), axis=attrs["axis"])]


def _slice_dim(size: Dim, start: Dim, stop: Dim, step: int) -> Dim:
    """Elements of a normalised slice: 0 <= start <= stop <= size, or backwards to -1."""
    forward = step > 0
    low, high = (start, stop) if forward else (stop, start)
    if isinstance(high - low, int) and high - low < 0:  # type: ignore[operator]
        raise ValueError(f"a slice from {start} to {stop} with step {step} is not normalised")
    limits = (0, size) if forward else (-1, size - 1)
    for bound in (start, stop):
        below, above = bound - limits[0], limits[1] - bound
        if (isinstance(below, int) and below < 0) or (isinstance(above, int) and above < 0):
            raise ValueError(f"slice bound {bound} is outside of [{limits[0]}, {limits[1]}]")
        assume_at_most(limits[0], bound)
        assume_at_most(bound, limits[1])
    assume_at_most(low, high)
    return ceildiv(high - low, abs(step))


def _infer_slice(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x = inputs[0]
    starts, stops, steps = attrs["starts"], attrs["stops"], attrs["steps"]
    if not len(starts) == len(stops) == len(steps) == x.type.rank:
        raise ValueError(f"starts, stops and steps need {x.type.rank} entries each")
    if any(not isinstance(step, int) or step == 0 for step in steps):
        raise ValueError(f"steps {steps} must be integers other than 0")
    dims = zip(x.shape, starts, stops, steps, strict=True)
    return [TensorType(x.dtype, tuple(_slice_dim(*each) for each in dims))]


def _slice(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    index = []
    for size, start, stop, step in zip(
        args[0].shape, attrs["starts"], attrs["stops"], attrs["steps"], strict=True
    ):
        try:
            count = _slice_dim(size, start, stop, step)
        except ValueError as error:
            raise RunError(str(error)) from error
        end = None if step < 0 and stop == -1 else stop
        index.append(slice(start, end, step) if count else slice(0, 0))
    return [np.asarray(args[0][tuple(index)], order="C")]


def _infer_pad(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, pads, mode = inputs[0], attrs["pads"], attrs["mode"]
    rank = x.type.rank
    _check_pad(inputs, attrs)
    for i, dim in enumerate(x.shape if mode != "constant" else ()):
        for pad in (pads[i], pads[rank + i]):
            least = _least_padded(mode, pad)
            if isinstance(dim, int) and isinstance(least, int) and dim < least:
                raise ValueError(f"axis {i} of size {dim} cannot be padded by {pad} ({mode})")
            assume_at_most(least, dim)
    shape = tuple(dim + pads[i] + pads[rank + i] for i, dim in enumerate(x.shape))
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        raise ValueError(f"pads {pads} crop more than there is of {x.type}")
    return [TensorType(x.dtype, shape)]


def _least_padded(mode: str, pad: Dim) -> Dim:
    """How long an axis must be at least to be padded by `pad` with elements of its own."""
    if mode == "reflect" and isinstance(pad, int):
        return pad + 1 if pad else 0
    return pad + dmin(pad, 1) if mode == "reflect" else dmin(pad, 1)


def _check_pad(inputs: Sequence[Value], attrs: dict[str, Any]) -> None:
    pads, mode, rank = attrs["pads"], attrs["mode"], inputs[0].type.rank
    if mode not in PAD_MODES:
        raise ValueError(f"mode '{mode}' is not one of {' '.join(PAD_MODES)}")
    if len(pads) != 2 * rank:
        raise ValueError(f"pads has {len(pads)} entries, not {2 * rank}")
    for pad in pads if mode != "constant" else ():
        if isinstance(pad, int) and pad < 0:
            raise ValueError(f"pads {pads} must not be negative: that is a slice")
        assume_at_most(0, pad)
    if len(inputs) == 2:
        same_dtype(inputs)
        if mode != "constant":
            raise ValueError(f"mode '{mode}' takes no value")
        if inputs[1].type.rank:
            raise ValueError(f"the value has rank {inputs[1].type.rank}, not 0")


def _pad(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, rank = args[0], args[0].ndim
    widths = list(zip(attrs["pads"][:rank], attrs["pads"][rank:], strict=True))
    if attrs["mode"] == "constant":
        return [_pad_constant(x, widths, args[1] if len(args) == 2 else np.zeros((), x.dtype))]
    for size, pads in zip(x.shape, widths, strict=True):
        if min(pads) < 0 or any(size < _least_padded(attrs["mode"], pad) for pad in pads):
            raise RunError(f"shape {x.shape} cannot be padded by {attrs['pads']} ({attrs['mode']})")
    return [np.pad(x, widths, mode=attrs["mode"])]


def _pad_constant(x: Array, widths: list[tuple[int, int]], value: Array) -> Array:
    """Not by np.pad: its constant_values go through Python numbers, and it does not crop."""
    shape = tuple(n + low + high for n, (low, high) in zip(x.shape, widths, strict=True))
    if min(shape, default=0) < 0:
        raise RunError(f"shape {x.shape} cannot be cropped by {widths}")
    out = np.full(shape, value, x.dtype)
    source, target = [], []
    for n, (low, high) in zip(x.shape, widths, strict=True):
        first, last = min(max(-low, 0), n), max(n + min(high, 0), 0)
        source.append(slice(first, last))
        target.append(slice(first + low, max(last + low, first + low)))
    if 0 not in x[tuple(source)].shape:
        out[tuple(target)] = x[tuple(source)]
    return out


_MAP = Trait.INDEX_MAP
_REPEAT = _MAP | Trait.BROADCAST
_SHAPE = {"shape": REQUIRED}
register(OpDef("reshape", _infer_reshape, _reshape, Trait.VIEW | _MAP, _SHAPE, arity=(1, 1)))
register(OpDef("transpose", _infer_transpose, _transpose, _MAP, {"perm": REQUIRED}, arity=(1, 1)))
register(OpDef("broadcast_to", _infer_broadcast_to, _broadcast_to, _REPEAT, _SHAPE, arity=(1, 1)))
register(OpDef("expand", _infer_expand, _expand, _REPEAT, _SHAPE, arity=(1, 1)))
register(OpDef("concat", _infer_concat, _concat, attrs={"axis": REQUIRED}, arity=(1, None)))
register(
    OpDef(
        "slice",
        _infer_slice,
        _slice,
        _MAP,
        {"starts": REQUIRED, "stops": REQUIRED, "steps": REQUIRED},
        arity=(1, 1),
    )
)
register(OpDef("pad", _infer_pad, _pad, attrs={"pads": REQUIRED, "mode": "constant"}, arity=(1, 2)))
