"""Which floats must be rounded as the model says: those that a discrete result hangs on.

Rewrites that change rounding (a product for a quotient, sums in another order, one rounding for
two) move a result by a unit in the last place. Where it is rounded to an integer, quantised,
compared, sorted or searched afterwards, that becomes a whole step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from .graph import Graph, Node, Value
from .groups import inner_result, is_fused
from .ops.registry import Trait, has_trait, lookup

Uses = Callable[[], Mapping[Value, Sequence[tuple[Node | Graph, int]]]]
_PROBES = (0.37, -1.61, 2.23)  # for what is not known where two branches of a choice meet
_CLOSE = 1e-6
_FEW_BITS = 12  # of a weight, which leaves as many for what it is multiplied with
_MOST_PROBED = 24  # nodes in the branches of a choice


def exact_values(graph: Graph) -> set[Value]:
    """Floats whose rounding decides a discrete result, in the graph and its regions.

    From every discrete operator back through what passes roundings on: pointwise operators,
    movement, reductions, regions. Contractions and composite operators end the way: the order of
    their sums is nobody's. A comparison that chooses between branches which meet where it changes
    (LeakyRelu) does not count.
    """
    owners = _owners(graph)
    uses = cache(graph.uses)
    found: set[Value] = set()
    waiting = [value for node in graph.walk() if _is_discrete(node, uses) for value in node.inputs]
    while waiting:
        value = waiting.pop()
        if value in found or not value.dtype.is_float or value.is_constant:
            continue
        found.add(value)
        waiting += _sources(value, owners)
    return found


def adds_exactly(weights: np.ndarray[Any, Any]) -> bool:
    """Whether products with the weights may add up without rounding: whole numbers of few bits, or
    such times a power of two. Otherwise a sum depends on its order, which is nobody's."""
    if not weights.size:
        return True
    largest = np.frexp(np.abs(weights.astype(np.float64)).max())[1]
    units = np.ldexp(weights.astype(np.float64), _FEW_BITS - int(largest))
    return bool(np.all(units == np.rint(units)))


def _owners(graph: Graph) -> dict[Value, tuple[Node, Graph]]:
    """The node with regions, and the region, that every region input belongs to."""
    return {
        value: (node, region)
        for node in graph.walk()
        for region in node.regions
        for value in region.inputs
    }


def _sources(value: Value, owners: Mapping[Value, tuple[Node, Graph]]) -> list[Value]:
    """What the value is rounded from."""
    node = value.producer
    if node is None:
        if value not in owners:
            return []
        owner, region = owners[value]
        if is_fused(owner):
            return [owner.inputs[region.inputs.index(value)]]
        return [*owner.inputs, *region.outputs]  # of a loop: the last round's results, too
    if is_fused(node):
        return [inner_result(value)]
    if node.regions:
        return [*node.inputs, *(result for region in node.regions for result in region.outputs)]
    if has_trait(node, Trait.CONTRACTION | Trait.COMPOSITE):
        return []
    return list(node.inputs)


def _is_discrete(node: Node, uses: Uses) -> bool:
    if node.op == "cast":
        dtype = node.output.dtype
        return not dtype.is_float or dtype.is_narrow
    return has_trait(node, Trait.DISCRETE) and not _chooses_smoothly(node, uses)


def _chooses_smoothly(comparison: Node, uses: Uses) -> bool:
    """Whether every use of a comparison chooses between branches that meet where it changes."""
    if len(comparison.outputs) != 1 or len(comparison.inputs) != 2:
        return False
    users = uses().get(comparison.output, ())
    return bool(users) and all(
        isinstance(user, Node) and user.op == "where" and place == 0 and _meet(comparison, user)
        for user, place in users
    )


def _meet(comparison: Node, choice: Node) -> bool:
    """Whether both branches are the same number where the two sides compared are."""
    left, right = comparison.inputs
    for probe in _PROBES:
        side = right if right.is_constant else left
        number = _number(side) if side.is_constant else np.float64(probe)
        if number is None:
            return False
        known: dict[Value, Any] = {left: number, right: number}
        one, other = (_probed(branch, known, probe) for branch in choice.inputs[1:])
        if one is None or other is None or not np.allclose(one, other, _CLOSE, _CLOSE):
            return False
    return True


def _number(value: Value) -> Any:
    """The one number of a constant, or None."""
    data = value.data
    if data is None or data.size == 0 or not bool(np.all(data == data.flat[0])):
        return None
    return np.float64(data.flat[0])


def _probed(value: Value, known: dict[Value, Any], probe: float) -> Any:
    """The value where `known` are as they are and whatever else it is made of is `probe`."""
    if value in known:
        return known[value]
    node = value.producer
    if value.data is not None and _number(value) is not None:
        result = _number(value)
    elif node is None or not has_trait(node, Trait.POINTWISE) or len(known) > _MOST_PROBED:
        result = np.float64(probe)
    elif not value.dtype.is_float or node.op == "cast":
        result = None
    else:
        parts = [_probed(part, known, probe) for part in node.inputs]
        evaluate = lookup(node.op).evaluate
        if evaluate is None or any(part is None for part in parts):
            result = None
        else:
            with np.errstate(all="ignore"):
                result = evaluate([np.asarray(part) for part in parts], node.attrs)[0]
    known[value] = result
    return result
