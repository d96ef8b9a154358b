"""Layout: channels-last convolutions, and transposes where they cost least."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.ops.windows import to_channels_last
from .axis_permutation import inverse
from .few_channels import along_width
from .layout_rebuild import rebuild
from .layout_region import Region, Surroundings


@dataclass(frozen=True)
class ChooseLayouts:
    """Make convolutions and poolings channels-last and move transposes to where they cost least.

    Convolutions that make few channels may stay as they are (see few_channels.py).
    Filters are re-laid from OIHW to HWIO (transposed convolutions: from IOHW). A graph never moves
    more elements afterwards than with a transpose around every convolution.
    typical_dim: what a symbolic dim counts for when costs are compared. channels_first: whether
    there are such convolutions. everywhere: all that can follow windowed operators is channels-last
    as well, whatever it costs at the borders.
    """

    typical_dim: int = 64
    channels_first: bool = True
    everywhere: bool = False
    name: str = "layout"

    def run(self, graph: Graph) -> bool:
        """Change layouts in the graph and its regions; whether any changed."""
        changed = False
        steps = [self._windows, self._transposes]
        for inner in list(graph.graphs()):
            for step in reversed(steps) if self.everywhere else steps:
                changed |= step(inner)
        return changed

    def _windows(self, graph: Graph) -> bool:
        """Make windowed operators channels-last, with what is between them."""
        region = Region(Surroundings.of(graph), self.typical_dim)
        region.windows = {node for node in graph.nodes if _channels_first(node)}
        if self.channels_first:
            region.windows -= along_width(graph, region.windows)
        if not region.windows:
            return False
        for node in graph.nodes:
            if node in region.windows:
                perm = to_channels_last(node.output.type.rank)
                region.grow((node.inputs[0], perm), (node.output, perm))
        rebuild(graph, region, region.all() if self.everywhere else region.cheapest())
        return True

    def _transposes(self, graph: Graph) -> bool:
        """Cancel transposes with others, or move them to where fewer elements are."""
        tried: set[tuple[Node, bool]] = set()
        changed, moved = False, -1
        while (now := _moved(graph, self.typical_dim)) != moved and (now < moved or moved < 0):
            moved, around = now, Surroundings.of(graph)
            transposes = [node for node in graph.nodes if node.op == "transpose"]
            changed |= any(self._improve(graph, around, node, tried) for node in transposes)
        return changed

    def _improve(
        self, graph: Graph, around: Surroundings, node: Node, tried: set[tuple[Node, bool]]
    ) -> bool:
        """Try the region below a transpose and the one above it."""
        perm = node.attrs["perm"]
        for below, seed in ((True, (node.output, inverse(perm))), (False, (node.inputs[0], perm))):
            if (node, below) in tried:
                continue
            region = Region(around, self.typical_dim)
            region.grow(seed)
            tried |= {(other, other.output in region.perms) for other in region.transposes()}
            tried.add((node, below))
            if not region.carried:
                continue
            permuted = region.cheapest()
            if region.cost(permuted) < region.cost(frozenset()):
                rebuild(graph, region, permuted)
                return True
        return False


def _moved(graph: Graph, typical_dim: int) -> int:
    """What the transposes of a graph cost."""
    region = Region(Surroundings({}, set(), set()), typical_dim)
    return sum(region.node_cost(node, False) for node in graph.nodes if node.op == "transpose")


def _channels_first(node: Node) -> bool:
    windowed = has_trait(node, Trait.CONTRACTION | Trait.POOLING)
    return windowed and node.attrs.get("layout") == "NCHW"
