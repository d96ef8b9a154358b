"""Images that a processor copies into its own memory before a convolution reads them.

Where what the host gives lies in DRAM, blocks of few channels are read in short bursts, of which
each takes as long as a long one. The same bytes as rows of many elements are read in long ones: a
copy of the image, made by a pooling of single elements, and a convolution that reads the copy take
fewer cycles than a convolution that reads the image where it lies. Vela tells.
"""

from __future__ import annotations

import math

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType
from ...compiler.target import NpuTarget
from .folded_width import is_given
from .legality import carries, legality
from .tosa.lowering import narrowed

DIRECT, COPIED = "direct", "copied"
MOST_CHANNELS = 64  # of images that are worth a copy
_CHANNELS, _WIDTHS = range(128, 15, -1), range(32, 0, -1)  # of the shape of copies
_ONE = {"kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1),
        "layout": "NHWC"}  # fmt: skip


def given_images(graph: Graph, target: NpuTarget) -> list[Node]:
    """Convolutions of few channels that the processor takes, of images that the host gives; of
    several that read one image the first."""
    found: dict[Value, Node] = {}
    for node in graph.nodes:
        if node.op != "conv" or legality(node, target):
            continue
        source, _ = narrowed(node.inputs[0])
        if source.dtype is DType.I8 and source.shape[-1] <= MOST_CHANNELS and is_given(source):
            found.setdefault(source, node)
    return list(found.values())


def can_be_copied(conv: Node) -> bool:
    """Whether the image of a convolution, one of `given_images`, has a shape of many channels."""
    return _shape(narrowed(conv.inputs[0])[0]) is not None


def copy_image(graph: Graph, conv: Node, target: NpuTarget) -> None:
    """Have all that the processor computes of an image read a copy of it, in place.

    What only moves its bytes, as for a convolution that reads them in another form, still reads
    the image itself: all others of `given_images` stay such ones.
    """
    source, _ = narrowed(conv.inputs[0])
    copied = _shape(source)
    assert copied is not None
    readers = [
        node
        for node in graph.nodes
        if source in node.inputs and not carries(node) and legality(node, target) is None
    ]
    nodes: list[Node] = []
    builder = Builder(nodes, conv.name)
    copy = builder.emit("reshape", [source], {"shape": copied})
    copy = builder.emit("max_pool", [copy], _ONE)
    image = builder.emit("reshape", [copy], {"shape": source.shape})
    for node in readers:
        node.inputs = [image if value is source else value for value in node.inputs]
    place = graph.nodes.index(readers[0])
    graph.nodes[place:place] = nodes


def _shape(source: Value) -> tuple[int, ...] | None:
    """In which an image is copied; None where it has no such shape."""
    elements = math.prod(source.type.static_shape)
    channels = next((size for size in _CHANNELS if elements % size == 0), None)
    if channels is None:
        return None
    width = next(size for size in _WIDTHS if elements // channels % size == 0)
    return (1, elements // channels // width, width, channels)
