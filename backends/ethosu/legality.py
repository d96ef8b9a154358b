"""What an Ethos-U takes, in the words of its limits.

Sources: Vela 5.2, SUPPORTED_OPS.md; TOSA 1.0 specification, profile PRO-INT, level 8K. Operators
are asked about as they are in integers, channels last.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.quantization import REACHED
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.rewrite import scalar
from ...compiler.ir.types import DType
from ...compiler.target import NpuTarget
from .tosa.contractions import steps_of
from .tosa.graph import Array
from .tosa.lowering import narrowed
from .tosa.movement import constant_places, moved_places, repeated, runs
from .tosa.region import is_lowered

INSIDE = frozenset({DType.I32, DType.I16, DType.BOOL})  # what no segment takes or gives
_STORED = frozenset({DType.I8, DType.I16, DType.I32})
_MOST_RANK = 6
MOST_SIZE = 1 << 16
_MOST_KERNEL, _MOST_TAPS = 64, 1 << 12
_MOST_POOL = 256
MOST_STRIDE = 3
_MOST_PARTS = 32  # of what a gather is made of, each moved by itself
_MOST_WEIGHTS = 127 * (1 << 16)  # sum of the magnitudes of one channel's
_EDGES = ("quantize", "dequantize")
_DECOMPOSED = (
    "softmax", "layer_norm", "avg_pool", "reduce_mean", "div", "attention", "argmax", "argmin",
)  # fmt: skip

Rule = Callable[[Node, NpuTarget], str | None]
_RULES: dict[str, Rule] = {}


def _of(*ops: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(ops, rule))
        return rule

    return add


def legality(node: Node, target: NpuTarget) -> str | None:
    """Why a node does not run on the processor, or None when it does."""
    values = [*node.inputs, *node.outputs]
    floats = next((value for value in values if value.dtype.is_float), None)
    if node.op == "requantize":
        floats = None  # its scale is a multiplier and a shift
    if node.op in _EDGES:
        return "floats become integers, or integers floats, outside of the processor"
    if floats is not None and (reason := _dynamic_reason(values)):
        return reason
    if floats is not None and _never_integer(node):
        return f"the processor has no operator '{node.op}'"
    if floats is not None:
        return f"it computes in {floats.dtype}, and the processor in integers alone"
    if not is_lowered(node.op) or len(node.outputs) != 1:
        return f"the processor has no operator '{node.op}'"
    stored = next((value for value in values if value.dtype not in _STORED), None)
    if stored is not None and node.op not in ("requantize", "gather"):
        return f"the processor has no elements of {stored.dtype}"
    return _shape_reason(values) or (_RULES[node.op](node, target) if node.op in _RULES else None)


def _never_integer(node: Node) -> bool:
    """Whether no rule makes integers of an operator, whatever is quantised."""
    tensors = [value for value in node.inputs if scalar(value) is None]
    table = has_trait(node, Trait.POINTWISE) and len(tensors) == 1
    return not (table or is_lowered(node.op) or node.op in _DECOMPOSED)


def carries(node: Node) -> bool:
    """Whether a node only moves bytes, and lays margins around them."""
    return node.op == "pad" or has_trait(node, Trait.INDEX_MAP | Trait.VIEW)


def computes(node: Node) -> bool:
    """Whether a node does more than to move elements, or to convert them from floats and back, or
    to the integers that places are."""
    counts = node.op == "cast" and node.output.dtype is DType.I64
    return not (carries(node) or counts or node.op in _EDGES)


def _dynamic_reason(values: list[Value]) -> str | None:
    """Why a node whose sizes a run decides is none for a command stream, or None."""
    value = next((value for value in values if not value.type.is_static), None)
    if value is None:
        return None
    return f"sizes are fixed in a command stream, and {value.type} has some of a run (--shape)"


def _shape_reason(values: list[Value]) -> str | None:
    if reason := _dynamic_reason(values):
        return reason
    for value in values:
        if value.type.rank > _MOST_RANK:
            return f"tensors have at most {_MOST_RANK} axes, not {value.type.rank}"
        sizes = value.type.static_shape
        if 0 in sizes:
            return f"{value.type} has no elements"
        if not value.is_constant and max(sizes, default=1) > MOST_SIZE:
            return f"axes have at most {MOST_SIZE} elements, not {max(sizes)}"
    return None


@_of("conv")
def _conv(node: Node, target: NpuTarget) -> str | None:
    return conv_reason(node)


def conv_reason(node: Node) -> str | None:
    """Why a convolution of integers runs on no Ethos-U, or None."""
    if reason := _shape_reason([*node.inputs, *node.outputs]):
        return reason
    weights, attrs = node.inputs[1].data, node.attrs
    if weights is None:
        return "weights are constant on the processor"
    if node.output.type.rank != 4 or attrs["layout"] != "NHWC":
        return f"convolutions have two spatial axes, not {node.output.type.rank - 2}"
    channels = node.inputs[0].shape[-1]
    if attrs["groups"] not in (1, channels):
        return (
            f"channels are in {attrs['groups']} groups: such a convolution reads bytes, and its "
            "sums become bytes in the next step alone"
        )
    height, width = weights.shape[:2]
    if height > _MOST_KERNEL or height * width > _MOST_TAPS:
        return (
            f"kernels are at most {_MOST_KERNEL} high and have {_MOST_TAPS} elements, not "
            f"{height} x {width}"
        )
    if (stride := max(steps_of(node))) > MOST_STRIDE:
        return f"strides are at most {MOST_STRIDE}, not {stride}"
    if len(node.inputs) > 2 or attrs["pad_value"] != 0:
        return "its bias, or what lies around it, is no part of the sum"
    return _weights_reason(weights)


@_of("conv_transpose")
def _conv_transpose(node: Node, target: NpuTarget) -> str | None:
    weights, attrs = node.inputs[1].data, node.attrs
    if weights is None:
        return "weights are constant on the processor"
    if node.output.type.rank != 4 or attrs["layout"] != "NHWC" or attrs["groups"] != 1:
        return "transposed convolutions have two spatial axes and one group of channels"
    if set(attrs["dilations"]) != {1} or not set(attrs["strides"]) <= {1, 2}:
        return "transposed convolutions have strides of 1 and 2, and no dilation"
    if len(node.inputs) > 2:
        return "its bias is no part of the sum"
    return _weights_reason(weights)


@_of("matmul")
def _matmul(node: Node, target: NpuTarget) -> str | None:
    if node.attrs["accumulate"] is not None or node.attrs["product"]:
        return "its operands are packed for another processor"
    for value in node.inputs:
        if value.data is not None and (reason := _weights_reason(value.data)):
            return reason
        if value.data is None and not _is_of_bytes(value):
            return "products are of bytes, and one of its operands has more bits"
    return None


def _is_of_bytes(value: Value) -> bool:
    """Whether an i32 is the difference of a byte and a zero point."""
    return narrowed(value)[0].dtype is DType.I8


def _weights_reason(weights: Array) -> str | None:
    low, high = REACHED[DType.I8]
    if weights.size and (weights.min() < low or weights.max() > high):
        return "weights are signed bytes less no zero point"
    others = tuple(range(weights.ndim - 1))
    magnitudes = np.abs(weights.astype(np.int64)).sum(axis=others)
    if magnitudes.size and magnitudes.max() > _MOST_WEIGHTS:
        return f"the magnitudes of a channel's weights add up to more than {_MOST_WEIGHTS}"
    return None


@_of("max_pool")
def _max_pool(node: Node, target: NpuTarget) -> str | None:
    return pool_reason(node)


def pool_reason(node: Node) -> str | None:
    """Why maxima of windows run on no Ethos-U, or None."""
    attrs = node.attrs
    if reason := _shape_reason([*node.inputs, *node.outputs]):
        return reason
    if node.output.type.rank != 4 or attrs["layout"] != "NHWC":
        return f"poolings have two spatial axes, not {node.output.type.rank - 2}"
    if node.output.dtype is not DType.I8:
        return f"poolings are of i8, not of {node.output.dtype}"
    if set(attrs["dilations"]) != {1}:
        return "windows of poolings have no dilation"
    if attrs["kernel"][0] > _MOST_POOL or math.prod(attrs["kernel"]) > _MOST_POOL * _MOST_POOL:
        return f"windows are at most {_MOST_POOL} x {_MOST_POOL}, not {attrs['kernel']}"
    if (stride := max(steps_of(node))) > MOST_STRIDE:
        return f"strides are at most {MOST_STRIDE}, not {stride}"
    pads, kernel = attrs["pads"], attrs["kernel"]
    if any(pads[axis + side] >= kernel[axis] for axis in (0, 1) for side in (0, 2)):
        return "a window would lie in padding alone"
    return None


@_of("requantize")
def _requantize(node: Node, target: NpuTarget) -> str | None:
    total, scale, zero, *bias = node.inputs
    if node.attrs["rounding"] not in ("single", "double") or bias:
        return "it rounds floats to nearest, and the processor scales by a multiplier and a shift"
    if scale.data is None or zero.data is None or zero.data.size != 1:
        return "scales and zero points are constant on the processor"
    if not (scale.data > 0).all() or not (scale.data < 2.0**29).all():
        return "scales are positive, and below 2 to the power of 29"
    if total.dtype not in _STORED or node.output.dtype not in _STORED:
        return f"the processor has no elements of {node.output.dtype}"
    if scale.data.size > 1 and scale.data.size != scale.shape[-1]:
        return "scales are of the last axis, that of channels"
    if node.output.dtype is not DType.I8 and int(zero.data.reshape(())):
        return "bytes alone have a zero point"
    return None


@_of("add", "sub", "mul", "max", "min")
def _arithmetic(node: Node, target: NpuTarget) -> str | None:
    dtype = node.output.dtype
    if dtype is DType.I32 or (node.op in ("max", "min") and dtype is DType.I8):
        return None
    return f"'{node.op}' is of i32 on the processor, not of {dtype}"


@_of("cast")
def _cast(node: Node, target: NpuTarget) -> str | None:
    if node.output.dtype is DType.I32 and node.inputs[0].dtype in (DType.I8, DType.I16):
        return None
    return f"the processor does not turn {node.inputs[0].dtype} into {node.output.dtype}"


@_of("byte_table")
def _byte_table(node: Node, target: NpuTarget) -> str | None:
    signed = node.inputs[0].dtype is node.output.dtype is DType.I8
    return None if signed and len(node.inputs) == 1 else "tables are of signed bytes"


@_of("gather")
def _gather(node: Node, target: NpuTarget) -> str | None:
    if node.output.dtype is not DType.I8:
        return f"elements are picked of i8, not of {node.output.dtype}"
    places = constant_places(node)
    if places is None:
        return "places that a run knows are not picked at"
    size = int(node.inputs[0].shape[node.attrs["axis"]])
    parts = repeated(places, size) or len(runs(places))
    if parts > _MOST_PARTS:
        return f"it picks {parts} parts, and more than {_MOST_PARTS} are slower than on the host"
    return None


@_of("slice")
def _slice(node: Node, target: NpuTarget) -> str | None:
    if min(node.attrs["steps"], default=1) > 0:
        return None
    parts = sum(len(runs(places)) for _, places in moved_places(node) or ())
    return None if parts <= _MOST_PARTS else "axes of many elements are not turned around"


@_of("pad")
def _pad(node: Node, target: NpuTarget) -> str | None:
    if node.attrs["mode"] != "constant":
        parts = sum(len(runs(places)) for _, places in moved_places(node) or ())
        if node.output.dtype is not DType.I8 or not 0 < parts <= _MOST_PARTS:
            return f"margins are of one number, not in the mode '{node.attrs['mode']}'"
        return None
    if len(node.inputs) > 1 and scalar(node.inputs[1]) is None:
        return "what margins hold is constant"
    return None


@_of("reduce_sum")
def _reduce_sum(node: Node, target: NpuTarget) -> str | None:
    return None if node.output.dtype is DType.I32 else "sums are of i32 on the processor"


@_of("reduce_max", "reduce_min")
def _reduce_extreme(node: Node, target: NpuTarget) -> str | None:
    return None if node.output.dtype is DType.I8 else "extremes along axes are of i8"
