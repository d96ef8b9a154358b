"""Checks that only a run can make, put in front of the operators that rely on them."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.assumptions import (
    AT_MOST,
    FITS,
    MOST,
    Assumption,
    assume_at_most,
    assume_equal,
    may_wrap,
    recorded,
)
from ...compiler.ir.dims import Dim, all_calls, dmin, symbols_of
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.control import symbol_name
from ...compiler.ir.ops.registry import Trait, has_trait, infer_types, make_node
from ..simplify.symbol_use import bound_by, dims_in
from .ranges import Ranges


@dataclass(frozen=True)
class RunTimeChecks:
    """Add `check_index` where an index may be out of range and `check_dims` where dims may not fit.

    Indices that are constant, or whose range follows from how they are made, need no check, nor do
    dims that are equal by their form. Expects a graph before fusion.
    """

    name: str = "run_time_checks"

    def run(self, graph: Graph) -> bool:
        """Add the checks; whether there were any."""
        places: dict[str, str] = {}
        for value in graph.inputs:
            for axis, dim in enumerate(value.shape):
                name = symbol_name(dim)
                if name is not None:
                    where = f"{name} is dimension {axis} of input '{value.name}'"
                    places.setdefault(name, where)
        adder = _Adder(Ranges(graph), places)
        adder.graph(graph, _Facts(set(places)))
        return adder.changed


@dataclass
class _Facts:
    """What holds at a point of a graph: symbols that have a value, and what was checked before."""

    known: set[str]
    indices: frozenset[tuple[Value, tuple[Dim, ...]]] = frozenset()
    dims: frozenset[Assumption] = frozenset()


@dataclass
class _Adder:
    ranges: Ranges
    places: dict[str, str]
    changed: bool = False

    def graph(self, graph: Graph, outer: _Facts) -> _Facts:
        """Add the checks of a graph; what holds at its end."""
        scope = _Facts(set(outer.known), outer.indices, outer.dims)
        nodes: list[Node] = []
        for node in graph.nodes:
            assumed = [*self._sizes(node), *_assumptions(node)]
            nodes += self._check_dims(node, assumed, scope)
            nodes += self._check_indices(node, scope)
            for region in node.regions:
                self._region(node, region, assumed, scope)
            nodes.append(node)
            scope.known.update(bound_by(node))
            nodes += self._check_dims(node, assumed, scope)
        self.changed |= len(nodes) > len(graph.nodes)
        graph.nodes = nodes
        return scope

    def _sizes(self, node: Node) -> list[Assumption]:
        """Numbers of elements that may wrap, where the run decides dims; inputs are in memory."""
        sizes = [size for v in node.outputs for size in (v.type.elements, *v.shape)]
        return [
            Assumption(FITS, size, MOST)
            for size in sizes
            if may_wrap(size) and not symbols_of(size) <= set(self.places)
        ]

    def _region(self, node: Node, region: Graph, assumed: list[Assumption], scope: _Facts) -> None:
        """Also what the node assumes of dims that only the region knows, at the region's end."""
        own: set[str] = set()
        if node.op == "loop":
            own = {name for v in region.inputs for dim in v.shape if (name := symbol_name(dim))}
        inside = self.graph(region, _Facts(scope.known | own, scope.indices, scope.dims))
        late = self._check_dims(node, assumed, inside)
        self.changed |= bool(late)
        region.nodes += late

    def _check_dims(self, node: Node, assumed: list[Assumption], scope: _Facts) -> list[Node]:
        made = []
        for assumption in assumed:
            names = symbols_of(assumption.left) | symbols_of(assumption.right)
            if assumption in scope.dims or not names <= scope.known:
                continue
            scope.dims |= {assumption}
            where = ", ".join(self.places[name] for name in sorted(names) if name in self.places)
            what = f"{_title(node)} needs {assumption}" + (f", where {where}" if where else "")
            attrs = {
                "relation": assumption.relation,
                "left": assumption.left,
                "right": assumption.right,
                "what": what,
            }
            made.append(make_node("check_dims", [], attrs, name=node.name))
        return made

    def _check_indices(self, node: Node, scope: _Facts) -> list[Node]:
        sizes = _indexed_sizes(node)
        if not sizes:
            return []
        indices = node.inputs[1]
        key = (indices, sizes)
        known = self.ranges.of(indices)
        if key in scope.indices or all(known.within(size) for size in sizes):
            return []
        if all(known.within(size, nonempty=True) for size in sizes):
            least = dmin(1, indices.type.elements)
            rest = [Assumption(AT_MOST, least, size) for size in sizes if not known.within(size)]
            return self._check_dims(node, rest, scope)
        scope.indices |= {key}
        attrs = {"sizes": sizes, "what": _title(node)}
        return [make_node("check_index", [indices], attrs, name=node.name)]


def _title(node: Node) -> str:
    return f"node '{node.name}' ({node.op})"


def _assumptions(node: Node) -> list[Assumption]:
    """What the node takes for granted of its dims."""
    with recorded() as found:
        kinds = infer_types(node.op, node.inputs, node.attrs, node.regions)
        for value, kind in zip(node.outputs, kinds, strict=True):
            if not bound_by(node):
                for dim, inferred in zip(value.shape, kind.shape, strict=True):
                    assume_equal(dim, inferred)
            for dim in value.shape:
                assume_at_most(0, dim)
        dims = (*dims_in(node), *(dim for value in node.outputs for dim in value.shape))
        for call in reversed(all_calls(dims)):
            if call.fn in ("floordiv", "mod"):  # nothing is divided by a dim of zero
                assume_at_most(1, call.args[1])
    return list(found)


def _indexed_sizes(node: Node) -> tuple[Dim, ...]:
    """The sizes that the node's indices (operand 1) must stay below; () for other operators."""
    if not has_trait(node, Trait.INDEXED):
        return ()
    if "axis" in node.attrs:
        return (node.inputs[0].shape[node.attrs["axis"]],)
    first = node.attrs.get("batch_dims", 0)
    depth = int(node.inputs[1].shape[-1])
    return node.inputs[0].shape[first : first + depth]
