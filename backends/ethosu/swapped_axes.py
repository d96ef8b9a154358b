"""Images whose height and width change places.

An Ethos-U computes two columns of an image at a time, or two by two elements: what an odd width
leaves over costs as much as what it does not. An image of 25 rows and 5 columns takes more cycles
than one of 5 rows and 25 columns, which is the same one with its axes swapped, read by kernels with
their axes swapped. Nothing else of a network changes, as long as it is swapped from end to end.
"""

from __future__ import annotations

from typing import Any

from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.ops.registry import Trait, has_trait
from ...passes.layout.layout_rebuild import PermutedWindow, rebuild
from ...passes.layout.layout_region import Region, Surroundings

_SWAPPED = (0, 2, 1, 3)  # of images, channels last
_FILTERS = (1, 0, 2, 3)  # of weights, height and width first
_PAIRS = ("kernel", "strides", "dilations", "output_padding")  # attributes by axis


def swaps(graph: Graph) -> bool:
    """Whether there are images with another height than width that windows move over, and both are
    more than 1."""
    shapes = [node.output.shape for node in graph.nodes if _is_window(node)]
    return any(1 not in shape[1:3] and shape[1] != shape[2] for shape in shapes)


def swap_axes(graph: Graph) -> None:
    """Swap the axes of all images that windows of a graph, channels last, move over, and of what is
    between them, in place; transposes are where fewest elements are moved."""
    region = Region(Surroundings.of(graph), typical_dim=1)
    region.windows = {node for node in graph.nodes if _is_window(node)}
    for node in graph.nodes:
        if node in region.windows:
            region.grow((node.inputs[0], _SWAPPED), (node.output, _SWAPPED))
    rebuild(graph, region, region.cheapest(), _swapped)


def _is_window(node: Node) -> bool:
    """Whether a node moves constant weights, or none, over images with channels last."""
    if not has_trait(node, Trait.CONTRACTION | Trait.POOLING):
        return False
    is_image = node.attrs.get("layout") == "NHWC" and node.output.type.rank == len(_SWAPPED)
    return is_image and all(value.is_constant for value in node.inputs[1:])


def _swapped(node: Node) -> PermutedWindow:
    attrs: dict[str, Any] = dict(node.attrs)
    for name in _PAIRS:
        if name in attrs:
            attrs[name] = tuple(attrs[name])[::-1]
    top, left, bottom, right = attrs["pads"]
    return PermutedWindow(_SWAPPED, _FILTERS, {**attrs, "pads": (left, top, right, bottom)})
