"""What is the same for every element of a batch is computed once.

Learned queries, tables of positions and what else is repeated along an axis (`broadcast_to`,
`expand`) stays one through all that acts on each place of that axis by itself, whole layers with
their products, norms and attention; it is repeated where something meets it that differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...compiler.decisions import Saving, Told
from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Builder
from .apart import Runs, first_run, operands_of_run
from .narrowing import Narrowed
from .work import elements, graph_work, operations


@dataclass(frozen=True)
class SameForAll:
    """f(repeat(x)) -> repeat(f(x)), for all f that act on each place of the axis by itself.

    told: hears of what is computed once.
    """

    told: Told | None = None
    name: str = "same_for_all"

    def run(self, graph: Graph) -> bool:
        """Compute once what repeats; whether there was anything that takes arithmetic."""
        return any([_Once(inner, self.told).run() for inner in list(graph.graphs())])


@dataclass(frozen=True)
class _One:
    """What a value is at every place of an axis that has more than one."""

    value: Value
    axis: int


@dataclass
class _Once:
    graph: Graph
    told: Told | None
    ones: dict[Value, _One] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    replaced: dict[Value, Value] = field(default_factory=dict)
    savings: list[Saving] = field(default_factory=list)

    def run(self) -> bool:
        """Rewrite the graph if that saves arithmetic, and what is repeated later costs less."""
        if not any(_repeats(node) is not None for node in self.graph.nodes):
            return False
        for node in self.graph.nodes:
            self._visit(node)
        if not self.savings:
            return False
        before, nodes = graph_work(self.graph), self.graph.nodes
        self.graph.nodes = self.nodes
        self.graph.replace_uses(self.replaced)
        if graph_work(self.graph) > before:
            self.graph.nodes = nodes
            self.graph.replace_uses({new: old for old, new in self.replaced.items()})
            return False
        for saving in self.savings if self.told else ():
            if self.told:
                self.told(saving)
        return True

    def _visit(self, node: Node) -> None:
        axis = _repeats(node)
        if axis is not None:
            b = Builder(self.nodes, node.name)
            shape = _with(node.output.shape, axis)
            source = node.inputs[0]
            one = source if source.shape == shape else b.emit(node.op, [source], {"shape": shape})
            self.ones[node.output] = _One(one, axis)
            self.nodes.append(node)
            return
        found = self._found(node) if any(v in self.ones for v in node.inputs) else None
        if found is None:
            self.nodes.append(node)
            return
        narrow, axis = found
        b = Builder(self.nodes, node.name)
        made = {value: one.value for value, one in self.ones.items()}
        one = narrow.make(b, operands_of_run(b, node, narrow, made, self._along(node)))
        self.ones[node.output] = _One(one, axis)
        full = b.emit("broadcast_to", [one], {"shape": node.output.shape})
        full.name = node.output.name
        self.replaced[node.output] = full
        if (before := operations(node)) > 0:
            share = 1 / elements((node.output.shape[axis],))
            why = f"it is the same at all {node.output.shape[axis]} places of axis {axis}"
            saving = Saving("same_for_all", node.name, node.op, before, before * share, why)
            self.savings.append(saving)

    def _found(self, node: Node) -> tuple[Narrowed, int] | None:
        """The node for the first place of an axis of its result, if that needs nothing but what is
        the same at all places."""
        if len(node.outputs) != 1 or node.regions or node.output in self.graph.outputs:
            return None
        along = self._along(node)
        sizes = {value.shape[runs.axis] for value, runs in along.items()}
        for axis, dim in enumerate(node.output.shape):
            if dim not in sizes:
                continue
            narrow = first_run(node, Runs(axis), along)
            if narrow is not None:
                return narrow, axis
        return None

    def _along(self, node: Node) -> dict[Value, Runs]:
        return {value: Runs(self.ones[value].axis) for value in node.inputs if value in self.ones}


def _repeats(node: Node) -> int | None:
    """The one axis along which a node repeats its operand; None for all other nodes."""
    if node.op not in ("broadcast_to", "expand"):
        return None
    x, shape = node.inputs[0], node.output.shape
    offset = len(shape) - x.type.rank
    axes = [
        axis
        for axis, dim in enumerate(shape)
        if dim != 1 and (axis < offset or x.shape[axis - offset] == 1)
    ]
    return axes[0] if len(axes) == 1 else None


def _with(shape: tuple[Dim, ...], axis: int) -> tuple[Dim, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])
