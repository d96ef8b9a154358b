"""How much arithmetic a graph does, and how many parameters it has.

As usual for networks, only multiply-adds of contractions count, two operations each: what matmul,
conv, conv_transpose and attention do. Everything else is small beside them or bound by memory.
"""

from __future__ import annotations

from collections.abc import Callable

from .dims import Dim, dmax, product
from .graph import Graph, Node
from .ops.step_groups import GROUP_PRODUCTS

_UNBOUNDED = (1 << 63) - 1  # the trip count of a loop that only its condition ends


def node_flops(node: Node) -> Dim:
    """Floating-point operations of one run of the node, twice the multiply-adds.

    A scan counts all its steps; a loop counts those of a constant trip count, else one; an `if`
    counts its dearer branch.
    """
    count = _COUNTS.get(node.op)
    return count(node) if count is not None else 0


def graph_flops(graph: Graph) -> Dim:
    """Floating-point operations of one run of the graph."""
    total: Dim = 0
    for node in graph.nodes:
        total = total + node_flops(node)
    return total


def parameters(graph: Graph) -> int:
    """Number of elements of all floating-point constants."""
    return sum(v.data.size for v in graph.constants() if v.data is not None and v.dtype.is_float)


def parameter_bytes(graph: Graph) -> int:
    """Bytes of all constants."""
    return sum(v.data.nbytes for v in graph.constants() if v.data is not None)


def _matmul(node: Node) -> Dim:
    depth: Dim = node.inputs[0].shape[-1]
    if node.attrs.get("product"):
        depth = depth * GROUP_PRODUCTS[node.attrs["product"]].steps
    return 2 * node.output.type.elements * depth


def _without(shape: tuple[Dim, ...], axis: int) -> Dim:
    return product(dim for i, dim in enumerate(shape) if i != axis % len(shape))


def _conv(node: Node) -> Dim:
    out_channels = 0 if node.attrs["layout"] == "NCHW" else -1
    return 2 * node.output.type.elements * _without(node.inputs[1].shape, out_channels)


def _conv_transpose(node: Node) -> Dim:
    in_channels = 0 if node.attrs["layout"] == "NCHW" else -2
    return 2 * node.inputs[0].type.elements * _without(node.inputs[1].shape, in_channels)


def _attention(node: Node) -> Dim:
    q, k, out = node.inputs[0].shape, node.inputs[1].shape, node.output.shape
    per_row: Dim = k[-2] * (q[-1] + out[-1])
    return 2 * product(out[:-1]) * per_row


def _if(node: Node) -> Dim:
    return dmax(graph_flops(node.regions[0]), graph_flops(node.regions[1]))


def _scan(node: Node) -> Dim:
    trip: Dim = node.attrs["trip"]
    return trip * graph_flops(node.regions[0])


def _loop(node: Node) -> Dim:
    trip = node.inputs[0].data
    steps = 1 if trip is None or int(trip) == _UNBOUNDED else int(trip)
    return steps * graph_flops(node.regions[0])


def _fused(node: Node) -> Dim:
    return graph_flops(node.regions[0])


_COUNTS: dict[str, Callable[[Node], Dim]] = {
    "matmul": _matmul,
    "quantised_matmul": _matmul,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "attention": _attention,
    "if": _if,
    "scan": _scan,
    "loop": _loop,
    "fused": _fused,
    "segment": _fused,
}
