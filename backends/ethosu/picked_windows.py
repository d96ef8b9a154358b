"""Poolings and convolutions of each channel whose windows are far apart, of which some are picked.

An Ethos-U moves windows by up to three elements. Where they are further apart, windows move by the
largest part of that it can move by, and every nth row and column of what they make is taken. What
is computed for nobody takes fewer cycles than the host needs for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType
from .conv_chain import ConvChain, chain_of, splice
from .legality import MOST_STRIDE
from .tosa.contractions import steps_of
from .tosa.lowering import narrowed

MOST_MORE = 64  # times as many windows
_IMAGE_RANK = 4


@dataclass(frozen=True)
class PickWindows:
    """The pass: maxima, and sums of each channel, of windows that are too far apart, unless that
    takes more than `MOST_MORE` times as many windows."""

    name: str = "pick_windows"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        uses = graph.uses()
        wide = [node for node in graph.nodes if _is_wide(node)]
        return any([_pick(graph, node, uses) for node in wide])


def _is_wide(node: Node) -> bool:
    """Whether windows of a pooling, or a convolution of each channel, are too far apart."""
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


def _pick(graph: Graph, node: Node, uses: Mapping[Value, list[tuple[Node | Graph, int]]]) -> bool:
    """Rewrite a node, with what makes bytes of its sums; whether that can be."""
    chain = chain_of(node, uses) if node.op == "conv" else None
    if node.op == "conv" and (chain is None or not _is_by_channel(chain)):
        return False
    moved = [_largest_part(step) for step in steps_of(node)]
    every = [step // part for step, part in zip(steps_of(node), moved, strict=True)]
    if every[0] * every[1] > MOST_MORE:
        return False
    nodes: list[Node] = []
    builder = Builder(nodes, node.name)
    made = builder.emit(node.op, node.inputs, _attributes(node, moved))
    if chain is not None and chain.bias is not None:
        made = builder.emit("add", [made, chain.bias.inputs[1]])
    if chain is not None:
        made = builder.emit("requantize", [made, *chain.scaled.inputs[1:]], chain.scaled.attrs)
    batch, height, width, channels = node.output.type.static_shape
    stops = (batch, (height - 1) * every[0] + 1, (width - 1) * every[1] + 1, channels)
    picked = {"starts": (0,) * _IMAGE_RANK, "stops": stops, "steps": (1, *every, 1)}
    splice(graph, chain.nodes if chain else [node], nodes, builder.emit("slice", [made], picked))
    return True


def _is_by_channel(chain: ConvChain) -> bool:
    """Whether the scale is one, or one for each channel: none for places in the image."""
    scale = chain.scaled.inputs[1]
    return scale.is_constant and scale.type.elements in (1, scale.shape[-1] if scale.shape else 1)


def _largest_part(step: int) -> int:
    """The largest divisor that windows can move by."""
    return max(part for part in range(1, MOST_STRIDE + 1) if step % part == 0)


def _attributes(node: Node, moved: list[int]) -> dict[str, Any]:
    """Those of the same windows and the ones between them; margins are as wide as they reach."""
    attrs = dict(node.attrs)
    kernel = attrs["kernel"] if node.op == "max_pool" else node.inputs[1].shape[:2]
    after = []
    for axis, step in enumerate(steps_of(node)):
        reach = (int(node.output.shape[1 + axis]) - 1) * step + int(kernel[axis])
        size = int(node.inputs[0].shape[1 + axis]) + attrs["pads"][axis]
        after.append(max(0, reach - size))
    changed = {"strides": tuple(moved), "pads": (*attrs["pads"][:2], *after)}
    return {**attrs, **changed, **({"ceil_mode": False} if "ceil_mode" in attrs else {})}
