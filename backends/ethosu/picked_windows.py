"""Poolings and convolutions of each channel whose windows are far apart, brought near.

An Ethos-U moves windows by up to three elements. Maxima of windows that do not overlap are those of
groups of rows and of columns, each of which is an axis of its own in another shape of the same
bytes. Other windows move by the largest part of their stride that the processor can move by, and
every nth row and column of what they make is taken: up to `MOST_MORE` times as many windows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType
from .conv_chain import ConvChain, chain_of, splice
from .legality import MOST_STRIDE, conv_reason, pool_reason
from .tosa.contractions import steps_of
from .tosa.lowering import narrowed

APART, NEAR = "apart", "near"
MOST_MORE = 4  # times as many windows
HOST_CYCLES = 2  # for each element of a window: it is loaded, and compared or added (assumed)
_IMAGE_RANK = 4
_LEAST = -128


def wide_windows(graph: Graph) -> list[Node]:
    """Poolings, and convolutions of each channel, in bytes, whose windows are too far apart."""
    return [node for node in graph.nodes if _is_wide(node)]


def host_cycles(node: Node) -> int:
    """What the host takes for windows, at `HOST_CYCLES`."""
    return HOST_CYCLES * math.prod(node.output.type.static_shape) * math.prod(_kernel(node))


def moved_bytes(node: Node) -> int:
    """How many bytes the host reads and makes where windows stay apart."""
    return math.prod(node.inputs[0].type.static_shape) + math.prod(node.output.type.static_shape)


def bring_near(graph: Graph, node: Node) -> bool:
    """Rewrite a node of `wide_windows`, in place, with what makes bytes of its sums; False: that
    takes too many more windows, or the processor does not take the result."""
    chain = chain_of(node, graph.uses()) if node.op == "conv" else None
    if node.op == "conv" and (chain is None or not _is_by_channel(chain)):
        return False
    for way in (_of_groups, _picked):
        nodes: list[Node] = []
        result = way(Builder(nodes, node.name), node, chain)
        if result is not None and not any(_reason(made) for made in nodes):
            splice(graph, chain.nodes if chain else [node], nodes, result)
            return True
    return False


def _reason(node: Node) -> str | None:
    if node.op == "conv":
        return conv_reason(node)
    return pool_reason(node) if node.op == "max_pool" else None


def _is_wide(node: Node) -> bool:
    if node.op not in ("max_pool", "conv") or node.output.type.rank != _IMAGE_RANK:
        return False
    if node.attrs["layout"] != "NHWC" or not node.inputs[0].type.is_static:
        return False
    if max(steps_of(node)) <= MOST_STRIDE or set(node.attrs["dilations"]) != {1}:
        return False
    if node.op == "max_pool":
        return node.output.dtype is DType.I8
    channels = node.inputs[0].shape[-1]
    own = node.attrs["groups"] == channels == node.output.shape[-1]
    known = len(node.inputs) == 2 and node.inputs[1].is_constant and node.attrs["pad_value"] == 0
    return own and known and narrowed(node.inputs[0])[0].dtype is DType.I8


def _is_by_channel(chain: ConvChain) -> bool:
    """Whether the scale is one, or one for each channel: none for places in the image."""
    scale = chain.scaled.inputs[1]
    return scale.is_constant and scale.type.elements in (1, scale.shape[-1] if scale.shape else 1)


def _kernel(node: Node) -> tuple[int, int]:
    """Height and width of windows."""
    sizes = node.attrs["kernel"] if node.op == "max_pool" else node.inputs[1].shape[:2]
    return int(sizes[0]), int(sizes[1])


def _of_groups(builder: Builder, pool: Node, chain: ConvChain | None) -> Value | None:
    """Maxima along one axis and then along the other, of groups where windows are far apart; None
    where these overlap, and of sums."""
    if chain is not None:
        return None
    axes = list(zip(_kernel(pool), steps_of(pool), strict=True))
    if any(step > MOST_STRIDE and size > step for size, step in axes):
        return None
    made = pool.inputs[0]
    for axis, (size, step) in enumerate(axes):
        made = (_grouped if step > MOST_STRIDE else _along)(builder, pool, made, axis, size)
    return made


def _grouped(builder: Builder, pool: Node, source: Value, axis: int, size: int) -> Value:
    """Maxima along an axis, of windows in groups of so many rows or columns as they move by."""
    step, windows = pool.attrs["strides"][axis], int(pool.output.shape[1 + axis])
    shape = list(source.type.static_shape)
    wanted = windows * step
    before = pool.attrs["pads"][axis]
    kept, rest = min(shape[1 + axis], wanted - before), max(0, wanted - before - shape[1 + axis])
    if kept < shape[1 + axis]:
        shape[1 + axis] = kept
        cut = {"starts": (0,) * 4, "stops": tuple(shape), "steps": (1,) * 4}
        source = builder.emit("slice", [source], cut)
    if before or rest:
        pads = [0] * (2 * _IMAGE_RANK)
        pads[1 + axis], pads[1 + axis + _IMAGE_RANK] = before, rest
        least = constant(np.int8(_LEAST))
        source = builder.emit("pad", [source, least], {"pads": tuple(pads)})
    groups, inner = math.prod(shape[: 1 + axis]) * windows, math.prod(shape[2 + axis :])
    source = builder.emit("reshape", [source], {"shape": (1, groups, step, inner)})
    attrs = {"kernel": (1, size), "strides": (1, step), "pads": (0,) * 4, "ceil_mode": False}
    made = builder.emit("max_pool", [source], {**pool.attrs, **attrs})
    shape[1 + axis] = windows
    return builder.emit("reshape", [made], {"shape": tuple(shape)})


def _along(builder: Builder, pool: Node, source: Value, axis: int, size: int) -> Value:
    """Maxima along an axis of windows that are near, as they are."""
    if size == 1 and source.shape[1 + axis] == pool.output.shape[1 + axis]:
        return source

    def own(numbers: tuple[int, ...], other: int) -> tuple[int, ...]:
        return tuple(n if at % 2 == axis else other for at, n in enumerate(numbers))

    given = pool.attrs
    attrs = {name: own(given[name], 1) for name in ("kernel", "strides")}
    return builder.emit("max_pool", [source], {**given, **attrs, "pads": own(given["pads"], 0)})


def _picked(builder: Builder, node: Node, chain: ConvChain | None) -> Value | None:
    """Every nth row and column of what windows make that move by less; None: of too many."""
    moved = [_largest_part(step) for step in steps_of(node)]
    every = [step // part for step, part in zip(steps_of(node), moved, strict=True)]
    if every[0] * every[1] > MOST_MORE:
        return None
    made = builder.emit(node.op, node.inputs, _attributes(node, moved))
    if chain is not None and chain.bias is not None:
        made = builder.emit("add", [made, chain.bias.inputs[1]])
    if chain is not None:
        made = builder.emit("requantize", [made, *chain.scaled.inputs[1:]], chain.scaled.attrs)
    batch, height, width, channels = node.output.type.static_shape
    stops = (batch, (height - 1) * every[0] + 1, (width - 1) * every[1] + 1, channels)
    picked = {"starts": (0,) * _IMAGE_RANK, "stops": stops, "steps": (1, *every, 1)}
    return builder.emit("slice", [made], picked)


def _largest_part(step: int) -> int:
    """The largest divisor that windows can move by."""
    return max(part for part in range(1, MOST_STRIDE + 1) if step % part == 0)


def _attributes(node: Node, moved: list[int]) -> dict[str, Any]:
    """Those of the same windows and the ones between them; margins are as wide as they reach.
    Where there is one window it stays the only one."""
    attrs = dict(node.attrs)
    kernel, strides, after = _kernel(node), list[int](), list[int]()
    for axis, step in enumerate(steps_of(node)):
        windows, size = int(node.output.shape[1 + axis]), int(node.inputs[0].shape[1 + axis])
        reach = (windows - 1) * step + kernel[axis]
        after.append(max(0, reach - size - attrs["pads"][axis]))
        alone = max(attrs["strides"][axis], size + attrs["pads"][axis])
        strides.append(moved[axis] if windows > 1 else alone)
    changed = {"strides": tuple(strides), "pads": (*attrs["pads"][:2], *after)}
    return {**attrs, **changed, **({"ceil_mode": False} if "ceil_mode" in attrs else {})}
