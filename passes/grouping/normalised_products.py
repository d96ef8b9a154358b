"""Norms of few rows join the product that reads them, of one row several beside each other, too:
one launch less."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.dims import product
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import (
    RegionBuilder,
    Uses,
    fused_node,
    inner_operand,
    is_fused,
    replace_groups,
)
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.kernel.forms.form import NormalisedForm
from ...compiler.kernel.forms.region import goes_normalised
from .dependences import sort_nodes

FEW_ROWS = 256  # of which a GPU's multiprocessors have no more than a block or two each


@dataclass(frozen=True)
class NormalisedProducts:
    """A fused norm and the one product of its rows become one fused node, whose form has every
    program find anew what its rows are scaled by. What else reads the norm gets it from there."""

    name: str = "normalised_products"

    def run(self, graph: Graph) -> bool:
        """Merge; whether there was anything to merge."""
        uses = Uses(graph)
        return any([self._run(part, uses) for part in list(graph.graphs())])

    def _run(self, graph: Graph, uses: Uses) -> bool:
        changed = False
        for norm in [node for node in graph.nodes if _is_norm(node)]:
            readers = [reader for reader, _ in uses.readers(norm.output)]
            products = [n for n in readers if isinstance(n, Node) and _is_product(n, norm)]
            if len(products) != 1 or products[0] not in graph.nodes:
                continue
            keep = len(readers) > 1
            merged = None if keep and is_one_row(norm) else _merged(norm, products[0], keep)
            if merged:
                replace_groups(graph, [norm, products[0]], merged, uses)
                if keep:  # by readers ahead of the product
                    sort_nodes(graph)
                changed = True
        return changed


def _is_norm(node: Node) -> bool:
    """Whether it is a group of reductions over rows, few of them, that gives their elements."""
    if not is_fused(node) or len(node.outputs) != 1 or node.attrs["form"]:
        return False
    shape = node.output.shape
    rows = product(shape[:-1])
    reducers = [n for n in node.regions[0].nodes if has_trait(n, Trait.REDUCTION)]
    few = isinstance(rows, int) and 0 < rows <= FEW_ROWS and not node.output.type.layout.border
    return few and bool(reducers) and bool(shape) and isinstance(shape[-1], int)


def _is_product(node: Node, norm: Node) -> bool:
    """Whether it is a group around one product, of the norm as left matrix; or around several of
    one row."""
    if not is_fused(node) or len(node.outputs) != 1 or node.attrs["form"]:
        return False
    contractions = [n for n in node.regions[0].nodes if has_trait(n, Trait.CONTRACTION)]
    if not contractions or any(inner.op != "matmul" for inner in contractions):
        return False
    if len(contractions) > 1 and not is_one_row(norm):
        return False
    return all(_left(inner) == inner_operand(node, norm.output) for inner in contractions)


def is_one_row(norm: Node) -> bool:
    """Whether a norm has one row: each program finds anew what it is scaled by, and none stores
    its elements."""
    return product(norm.output.shape[:-1]) == 1


def _left(contraction: Node) -> list[Value]:
    """The left matrix of a product, whatever its shape."""
    left = contraction.inputs[0]
    while left.producer is not None and left.producer.op == "reshape":
        left = left.producer.inputs[0]
    return [left]


def _merged(norm: Node, last: Node, keep: bool) -> Node | None:
    """Both as one fused node, or None where they have another shape. keep: whether others read the
    norm."""
    builder = RegionBuilder()
    builder.nest(norm)
    builder.nest(last)
    results = [*([norm.output] if keep else []), last.output]
    operands, region = builder.close(results)
    if not goes_normalised(region):
        return None
    return fused_node(operands, results, region, form=str(NormalisedForm()), name=last.name)
