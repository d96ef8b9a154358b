"""Scans of few steps, step behind step, for processors without control flow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

MOST_OPERATORS = 1 << 12  # of all steps together
_OF_STEPS = re.compile(r" \(scan (\d+), operator (\d+) of each step\)$")


@dataclass(frozen=True)
class UnrollScans:
    """The pass: every scan of a known number of steps, and of known sizes, becomes copies of its
    region, as long as these have no more than so many operators in all.

    unless: operators of which none is in the graph; where one is, scans stay.
    """

    most_operators: int = MOST_OPERATORS
    unless: frozenset[str] = frozenset()
    name: str = "unroll_scans"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        if self.unless and any(node.op in self.unless for node in graph.walk()):
            return False
        rules, number = Rules(), count()

        @rules.on("scan")
        def unrolled(node: Node, rw: Rewriter) -> Replacement:
            return _unrolled(node, next(number), rw) if self._is_short(node) else None

        return rewrite(graph, rules)

    def _is_short(self, node: Node) -> bool:
        trip, region = node.attrs["trip"], node.regions[0]
        if not isinstance(trip, int) or not 0 < trip * len(region.nodes) <= self.most_operators:
            return False
        plain = not any(inner.regions for inner in region.nodes)
        made = [value for inner in region.nodes for value in inner.outputs]
        return plain and all(value.type.is_static for value in [*region.inputs, *made])


def in_all_steps(values: Iterable[Value]) -> list[list[Value]]:
    """Of values of a graph, those that one operator of a scan makes in its steps, together.

    Scans are told apart by the numbers that the pass gives them: names of models may be alike, as
    those of both directions of a layer are.
    """
    found: dict[tuple[str, str, str], list[Value]] = {}
    for value in values:
        made = value.producer
        if made is not None and (place := _OF_STEPS.search(made.name)):
            found.setdefault((place[1], place[2], made.op), []).append(value)
    return list(found.values())


def _unrolled(node: Node, scan: int, rw: Rewriter) -> list[Value]:
    region, attrs = node.regions[0], node.attrs
    carried, trip = attrs["num_state"], attrs["trip"]
    states, scanned = list(node.inputs[:carried]), node.inputs[carried:]
    stacks: list[list[Value]] = [[] for _ in region.outputs[carried:]]
    for step in range(trip):
        parts = [
            _row(value, trip - 1 - step if backward else step, rw)
            for value, backward in zip(scanned, attrs["reverse_in"], strict=True)
        ]
        results = _copied(region, [*states, *parts], scan, rw)
        states = results[:carried]
        for stack, value in zip(stacks, results[carried:], strict=True):
            stack.append(rw.emit("reshape", [value], {"shape": (1, *value.shape)}))
    ordered = [
        stack[::-1] if backward else stack
        for stack, backward in zip(stacks, attrs["reverse_out"], strict=True)
    ]
    return [*states, *(rw.emit("concat", stack, {"axis": 0}) for stack in ordered)]


def _row(value: Value, place: int, rw: Rewriter) -> Value:
    """One step of what is scanned."""
    rank, shape = value.type.rank, value.shape
    cut = {
        "starts": (place, *(0,) * (rank - 1)),
        "stops": (place + 1, *shape[1:]),
        "steps": (1,) * rank,
    }
    return rw.emit("reshape", [rw.emit("slice", [value], cut)], {"shape": shape[1:]})


def _copied(region: Graph, arguments: list[Value], scan: int, rw: Rewriter) -> list[Value]:
    """The results of copies of a region's nodes, which read arguments in the place of its inputs;
    what they read from around it stays."""
    known = dict(zip(region.inputs, arguments, strict=True))
    for number, inner in enumerate(region.nodes):
        inputs = [known.get(value, value) for value in inner.inputs]
        name = f"{inner.name} (scan {scan}, operator {number} of each step)"
        made = rw.emit_all(inner.op, inputs, dict(inner.attrs), name=name)
        known.update(zip(inner.outputs, made, strict=True))
    return [known.get(value, value) for value in region.outputs]
