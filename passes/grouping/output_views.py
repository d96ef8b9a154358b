"""Results that are reshapes: the kernel that makes the tensor writes the result itself.

Fusion gives a reshape that is a result of its graph a kernel that copies. Where a kernel of the
graph makes what is reshaped, the reshape becomes a node outside of kernels, another shape of the
same memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.groups import control_graphs, is_fused
from ...compiler.ir.ops.registry import Trait, has_trait, make_node
from ...compiler.ir.types import DENSE
from ...compiler.kernel.plan.in_place import origin


@dataclass(frozen=True)
class OutputViews:
    """The pass; it runs after fusion."""

    name: str = "output_views"

    def run(self, graph: Graph) -> bool:
        """Rewrite the graph and the regions of its control flow."""
        return any([_rewrite(part) for part in control_graphs(graph)])


def _rewrite(graph: Graph) -> bool:
    made = {v for node in graph.nodes if is_fused(node) for v in node.outputs}
    claimed = {origin(value) for value in graph.outputs if not _is_reshape(value.producer)}
    changed = False
    for position, node in enumerate(graph.nodes):
        if not _is_reshape(node) or node.output not in graph.outputs:
            continue
        source = node.inputs[0]
        owner = origin(source)
        if owner not in made or owner in claimed or owner.type.layout != DENSE:
            continue
        claimed.add(owner)
        view = make_node("reshape", [source], {"shape": node.output.shape}, name=node.name)
        graph.nodes[position] = Node(
            "reshape", view.inputs, node.outputs, view.attrs, (), node.name
        )  # fmt: skip
        changed = True
    return changed


def _is_reshape(node: Node | None) -> bool:
    """Whether a node is a kernel that only reshapes its operand."""
    if node is None or not is_fused(node) or len(node.inputs) != 1 or len(node.outputs) != 1:
        return False
    return all(has_trait(inner, Trait.VIEW) for inner in node.regions[0].nodes)
