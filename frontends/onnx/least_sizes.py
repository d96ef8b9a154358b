"""What the sizes of inputs are at least, where the model can run at all.

A symbol may be 0, and then an integer division by the rules of ONNX, (s - 1) / 16 rounded towards
zero, is not what a strided window counts, (s + 15) // 16 - 1. But a window of 3 elements that moves
over s + 2 of them needs s to be 1 or more. So a model is imported, its needs are read off the
nodes that every run takes, and where the form of some size depends on them the model is imported
again with symbols that say so; a check at the beginning of the run stands for each need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from ...compiler.errors import TensmithError
from ...compiler.ir import Dim, Graph, Node, Value
from ...compiler.ir.assumptions import AT_MOST, Assumption, recorded
from ...compiler.ir.dims import (
    Sym,
    all_calls,
    evaluate,
    is_nonnegative,
    substitute,
    symbol,
    symbols_of,
)
from ...compiler.ir.graph import captures
from ...compiler.ir.ops.control import symbol_name
from ...compiler.ir.ops.registry import Trait, has_trait, infer_types, make_node
from .container_inputs import ValueSpec
from .importer import Importer, ShapeSpec
from .reading.wire import Source

MAX_LEAST = 1024  # sizes that are tried: windows are not larger


@dataclass(frozen=True)
class Need:
    """What a node that every run takes needs of its dims."""

    assumption: Assumption
    node: Node


def imported(source: Source, shapes: ShapeSpec, values: ValueSpec, replaceable: Set[str]) -> Graph:
    """The graph of a model, with sizes that are as simple as their least values allow.

    Raises what `Importer.run` raises.
    """
    importer = Importer(source, shapes, values, replaceable)
    graph = importer.run()
    found = least_sizes(graph)
    least = {name: size for name, (size, _) in found.items()}
    if not _says_more(graph, least, importer.emitter.undecided):
        return graph
    try:
        simpler = Importer(source, shapes, values, replaceable, least).run()
    except TensmithError as error:
        graph.notes.append(f"sizes of inputs are taken to be 0 or more: {error.what}")
        return graph
    checks = [_check(need, simpler) for _, need in found.values() if need is not None]
    simpler.nodes = checks + simpler.nodes
    return simpler


def least_sizes(graph: Graph) -> dict[str, tuple[int, Need | None]]:
    """The symbols of inputs that are more than 0 in every run that does not end with an error.

    With each goes the least value, and what needs it; None: the caller limits it by `--shape`.
    """
    dims = (dim for value in graph.inputs for dim in value.shape)
    names = dict.fromkeys(name for dim in dims if (name := symbol_name(dim)) is not None)
    found: dict[str, tuple[int, Need | None]] = {}
    for name, (low, _) in graph.bounds.items():
        if low > 0 and name in names:
            found[name] = low, None
    for need in _needs(graph) if names else ():
        for name, size in _least(need.assumption).items():
            if name in names and size > found.get(name, (0, None))[0]:
                found[name] = size, need
    return found


def _needs(graph: Graph) -> Iterator[Need]:
    """What the nodes that results depend on need, outside of control flow."""
    for node in _live(graph):
        if node.op == "check_dims":
            relation, left, right = (node.attrs[key] for key in ("relation", "left", "right"))
            yield Need(Assumption(relation, left, right), node)
        elif not node.regions and any(not v.type.is_static for v in node.inputs):
            with recorded() as assumed:
                infer_types(node.op, node.inputs, node.attrs, node.regions)
            yield from (Need(assumption, node) for assumption in assumed)


def _live(graph: Graph) -> list[Node]:
    needed: set[Value] = set(graph.outputs)
    found: list[Node] = []
    for node in reversed(graph.nodes):
        if has_trait(node, Trait.EFFECT) or not needed.isdisjoint(node.outputs):
            found.append(node)
            needed.update(node.inputs)
            for region in node.regions:
                needed.update(captures(region))
    return found[::-1]


def _least(assumption: Assumption) -> dict[str, int]:
    """The least value that the one symbol of an assumption may have, {} where there is no one."""
    difference = assumption.right - assumption.left
    names = symbols_of(difference)
    if assumption.relation != AT_MOST or len(names) != 1:
        return {}
    divisors = (c.args[1] for c in all_calls([difference]) if c.fn in ("floordiv", "mod"))
    if any(isinstance(divisor, Sym) for divisor in divisors):
        return {}
    (name,) = names
    for size in range(MAX_LEAST):
        if evaluate(difference, {name: size}) >= 0:
            return {name: size}
    return {name: MAX_LEAST}


def _says_more(graph: Graph, least: Mapping[str, int], undecided: Mapping[Dim, None]) -> bool:
    """Whether a dim of the graph has a simpler form, or a question of its import an answer."""
    raised = {name: symbol(f"{name}+") + size for name, size in least.items()}
    lowered = {f"{name}+": symbol(name) - size for name, size in least.items()}

    def differs(dim: Dim) -> bool:
        return substitute(substitute(dim, raised), lowered) != dim

    concerned = [dim for dim in undecided if not symbols_of(dim).isdisjoint(least)]
    if any(is_nonnegative(substitute(dim, raised)) for dim in concerned):
        return True
    seen: dict[Dim, None] = {}
    for node in graph.walk():
        for value in node.outputs:
            seen.update(dict.fromkeys(dim for dim in value.shape if isinstance(dim, Sym)))
    return any(differs(dim) for dim in seen if not symbols_of(dim).isdisjoint(least))


def _check(need: Need, graph: Graph) -> Node:
    """The node that ends a run in which a need is not met."""
    node, assumption = need.node, need.assumption
    if node.op == "check_dims":
        return make_node("check_dims", [], dict(node.attrs), name=node.name)
    names = symbols_of(assumption.left) | symbols_of(assumption.right)
    places = {
        name: f"{name} is dimension {axis} of input '{value.name}'"
        for value in reversed(graph.inputs)
        for axis, dim in enumerate(value.shape)
        if (name := symbol_name(dim)) in names
    }
    where = ", ".join(places[str(name)] for name in sorted(names))
    attrs = {
        "relation": assumption.relation,
        "left": assumption.left,
        "right": assumption.right,
        "what": f"node '{node.name}' ({node.op}) needs {assumption}, where {where}",
    }
    return make_node("check_dims", [], attrs, name=node.name)
