"""Products whose result is cut into equal parts that meet again: a product for each part.

So are the gates of recurrent cells, and gated layers whose two matrices are one. Fusion makes one
kernel of the parts, which keeps them in registers: the result never lies in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Trait, has_trait, make_node
from .siblings import MOST_SIBLINGS, meet

Uses = Mapping[Value, Sequence[tuple[Node | Graph, int]]]


@dataclass(frozen=True)
class SplitProducts:
    """slice(matmul(x, w) ...) for all slices along the columns -> matmul(x, slice(w)) ..."""

    name: str = "split_products"

    def run(self, graph: Graph) -> bool:
        """Split; whether any product was."""
        changed = False
        uses = graph.uses()
        for inner in graph.graphs():
            own = set(inner.nodes)
            for node in list(inner.nodes):
                if node.op == "matmul" and node.inputs[1].is_constant:
                    replaced = _split(inner, own, node, uses)
                    if replaced:
                        graph.replace_uses(replaced)
                        own, uses = set(inner.nodes), graph.uses()
                        changed = True
        return changed


def _split(inner: Graph, own: set[Node], product: Node, uses: Uses) -> dict[Value, Value]:
    """Split a product of a graph, where that is of use; what stands for the slices then.

    own: the graph's nodes. uses: of all values.
    """
    if product.output.type.rank != 2:
        return {}
    chain = [product]
    while True:
        users = [user for user, _ in uses.get(chain[-1].output, ())]
        if len(users) != 1 or not isinstance(users[0], Node) or users[0] not in own:
            break
        if not has_trait(users[0], Trait.POINTWISE) or (
            users[0].output.shape != product.output.shape
        ):
            break
        chain.append(users[0])
    nodes = [user for user in users if isinstance(user, Node) and user in own]
    slices = list(dict.fromkeys(nodes))
    if len(nodes) != len(users) or not _equal_parts(product.output, slices):
        return {}
    by_value = {
        value: [user for user, _ in found if isinstance(user, Node) and user in own]
        for value, found in uses.items()
    }
    if not meet([node.output for node in slices], by_value):
        return {}
    replaced: dict[Value, Value] = {}
    for node in slices:
        made: list[Node] = []
        replaced[node.output] = _part(chain, node, made)
        at = inner.nodes.index(node)
        inner.nodes[at : at + 1] = made
    return replaced


def _equal_parts(whole: Value, slices: list[Node]) -> bool:
    """Whether the nodes cut a matrix's columns into so many equal parts, a few."""
    columns, count = whole.shape[-1], len(slices)
    if not 2 <= count <= MOST_SIBLINGS or not isinstance(columns, int) or columns % count:
        return False
    starts = set()
    for node in slices:
        if node.op != "slice":
            return False
        start, stop = node.attrs["starts"][-1], node.attrs["stops"][-1]
        if tuple(node.attrs["steps"]) != (1, 1) or node.output.shape[0] != whole.shape[0]:
            return False
        if stop - start != columns // count or start % (columns // count):
            return False
        starts.add(start)
    return len(starts) == count


def _part(chain: list[Node], cut: Node, made: list[Node]) -> Value:
    """The product and what follows it for the columns of one slice; the nodes go to `made`."""
    columns = chain[0].output.shape[-1]
    start, stop = cut.attrs["starts"][-1], cut.attrs["stops"][-1]

    def columns_of(value: Value) -> Value:
        if value.type.rank == 0 or value.shape[-1] != columns:
            return value
        if value.data is not None:
            return constant(value.data[..., start:stop].copy(), value.name)
        rank = value.type.rank
        attrs = {
            "starts": (*(0,) * (rank - 1), start),
            "stops": (*value.shape[:-1], stop),
            "steps": (1,) * rank,
        }
        made.append(make_node("slice", [value], attrs, name=cut.name))
        return made[-1].output

    parts: dict[Value, Value] = {}
    for node in chain:
        inputs = [
            parts[value] if value in parts else value if node is chain[0] and not position
            else columns_of(value)
            for position, value in enumerate(node.inputs)
        ]  # fmt: skip
        made.append(make_node(node.op, inputs, node.attrs, name=node.name))
        parts[node.output] = made[-1].output
    return parts[chain[-1].output]
