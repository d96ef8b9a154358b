"""Rewriting graphs: one sweep in execution order applies rules and builds the new node list.

A rule looks at one node, whose inputs are up to date already, and returns the values that stand for
its outputs, or None to leave it. What it emits goes through the rules too. A sweep is linear in the
size of the graph; a producer that a rule leaves without users stays for dead code elimination.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InternalError
from .dims import Dim, Sym, substitute, symbols_of
from .exactness import exact_values
from .graph import Graph, Node, Value, constant
from .ops.control import symbol_name
from .ops.registry import Trait, infer_types, lookup, make_node
from .types import TensorType

Replacement = Value | Sequence[Value] | None
Rule = Callable[[Node, "Rewriter"], Replacement]

_NESTING = 50  # rules may emit nodes that trigger rules; deeper ones wait for a later sweep
_TRIAL = "bound#"


@dataclass
class Rules:
    """Rules by operator name or trait; the first that answers wins, in order of registration."""

    entries: list[tuple[frozenset[str] | Trait | None, Rule]] = field(default_factory=list)
    _by_op: dict[str, tuple[Rule, ...]] = field(default_factory=dict)

    def on(self, *selectors: str | Trait) -> Callable[[Rule], Rule]:
        """Decorator: register a rule for operators by name, by trait, or (no selector) for all."""
        names = frozenset(item for item in selectors if isinstance(item, str))
        traits = [item for item in selectors if isinstance(item, Trait)]

        def add(rule: Rule) -> Rule:
            if names:
                self.entries.append((names, rule))
            self.entries.extend((trait, rule) for trait in traits)
            if not selectors:
                self.entries.append((None, rule))
            self._by_op.clear()
            return rule

        return add

    def extend(self, other: Rules) -> None:
        """Append the rules of another set."""
        self.entries.extend(other.entries)
        self._by_op.clear()

    def of(self, op: str) -> tuple[Rule, ...]:
        """The rules that apply to an operator."""
        found = self._by_op.get(op)
        if found is None:
            traits = lookup(op).traits
            found = tuple(
                rule
                for key, rule in self.entries
                if key is None or (op in key if isinstance(key, frozenset) else traits & key)
            )
            self._by_op[op] = found
        return found


class Rewriter:
    """The state of one sweep; rules use it to look around and to emit nodes."""

    def __init__(self, graph: Graph, rules: Rules) -> None:
        self.graph = graph
        self.rules = rules
        self.changed = False
        self._replaced: dict[Value, Value] = {}
        self._bound: dict[str, Dim] = {}
        self._uses = use_counts(graph)
        self._results = set(graph.outputs)
        self._named = set(graph.inputs) | self._results
        self._scope: list[Node] = []
        self._local: set[Node] = set()
        self._name = ""
        self._depth = 0
        self._rounded: set[Value] = set()
        self._seen: set[Value] | None = None

    def run(self) -> bool:
        """Sweep over the graph and its regions; whether anything changed."""
        self._sweep(self.graph)
        if self._bound:
            bind_symbols(self.graph, self._bound)
        return self.changed

    def may_round(self, value: Value) -> bool:
        """Whether a float may be rounded otherwise than the model says (see `exactness.py`).

        What this sweep has emitted waits for the next.
        """
        if self._seen is None:
            self._seen = {result for node in self.graph.walk() for result in node.outputs}
            self._rounded = exact_values(self.graph)
        return value in self._seen and value not in self._rounded

    def uses(self, value: Value) -> int:
        """How many operands and graph outputs are the value (never too few)."""
        return self._uses[value]

    def producer(self, value: Value, *ops: str) -> Node | None:
        """The node that makes the value, if its operator is one of `ops` (or any, when none is
        given) and it is in the graph being swept, not around it."""
        node = value.producer
        if node is None or node not in self._local or (ops and node.op not in ops):
            return None
        return node

    def sole(self, value: Value, *ops: str) -> Node | None:
        """As `producer`, but only when the value is used once."""
        return self.producer(value, *ops) if self._uses[value] == 1 else None

    def emit(
        self, op: str, inputs: Sequence[Value], attrs: dict[str, Any] | None = None, **more: Any
    ) -> Value:
        """Append a node with one output, simplified by the rules; the value that stands for it."""
        return self.emit_all(op, inputs, attrs, **more)[0]

    def emit_all(
        self, op: str, inputs: Sequence[Value], attrs: dict[str, Any] | None = None, **more: Any
    ) -> list[Value]:
        """As `emit` for an operator with any number of outputs."""
        node = make_node(op, inputs, attrs, name=more.pop("name", self._name), **more)
        for value in node.inputs:
            self._uses[value] += 1
        for region in node.regions:
            self._uses.update(use_counts(region))
        self._visit(node)
        return [self.resolve(value) for value in node.outputs]

    def inline(self, region: Graph, arguments: Sequence[Value]) -> list[Value]:
        """Append the nodes of a region with its inputs bound to arguments; its results.

        The region's own nodes are moved, so the node that owned it must be replaced.
        """
        for parameter, argument in zip(region.inputs, arguments, strict=True):
            self._alias(parameter, argument)
        for node in region.nodes:
            self._visit(node)
        return [self.resolve(value) for value in region.outputs]

    def bind(self, symbols: Mapping[str, Dim]) -> None:
        """Replace symbols by dims everywhere, once the sweep is over."""
        self._bound.update(symbols)
        self.changed = True

    def resolve(self, value: Value) -> Value:
        """What stands for the value now."""
        while value in self._replaced:
            value = self._replaced[value]
        return value

    def _sweep(self, graph: Graph) -> None:
        outer = self._scope, self._local
        self._scope, self._local = [], set()
        for node in graph.nodes:
            self._visit(node)
        graph.outputs = [self.resolve(value) for value in graph.outputs]
        graph.nodes = self._scope
        self._scope, self._local = outer

    def _visit(self, node: Node) -> None:
        if not self._replaced.keys().isdisjoint(node.inputs):
            node.inputs = [self.resolve(value) for value in node.inputs]
        rules = self.rules.of(node.op)
        if rules and self._depth < _NESTING:
            name, self._name = self._name, node.name
            self._depth += 1
            replaced = self._apply(node, rules)
            self._depth -= 1
            self._name = name
            if replaced:
                self.changed = True
                return
        for region in node.regions:
            self._sweep(region)
        self._scope.append(node)
        self._local.add(node)

    def _apply(self, node: Node, rules: Sequence[Rule]) -> bool:
        """Replace a node by what the first rule that answers gives; whether one does."""
        for rule in rules:
            result = rule(node, self)
            if result is not None and self._replace(node, result):
                return True
        return False

    def _replace(self, node: Node, result: Value | Sequence[Value]) -> bool:
        values = [result] if isinstance(result, Value) else list(result)
        if len(values) != len(node.outputs):
            raise InternalError(f"a rule replaced {node.op} by {len(values)} values")
        if node.op == "reshape" and self._keeps_name(node.outputs[0], values[0]):
            return False
        for old, new in zip(node.outputs, values, strict=True):
            if old.type.rank != new.type.rank or old.dtype != new.dtype:
                raise InternalError(f"a rule replaced {old} of {node.op} by {new}")
            self._alias(old, new)
        for value in node.inputs:
            self._uses[value] -= 1
        return True

    def _alias(self, old: Value, new: Value) -> None:
        new = self._same_shape(old, self.resolve(new))
        if self._keeps_name(old, new):
            new = self._reshape(new, new.shape)
        self._replaced[old] = new
        self._uses[new] += self._uses[old]
        if _is_named(old) and new.producer is not None and not _is_named(new):
            new.name = old.name
        if old in self._results:
            new.name = old.name
            self._results.add(new)
            self._named.add(new)

    def _keeps_name(self, old: Value, new: Value) -> bool:
        """Whether `old` is an output of the whole graph and `new` has another name already: then
        a reshape to the same shape tells the two apart."""
        return old in self._results and self.resolve(new) in self._named

    def _same_shape(self, old: Value, new: Value) -> Value:
        """`new`, reshaped where it says the same dims in other words than `old`, because the
        types of users follow from them."""
        if old.shape == new.shape:
            return new
        shape = tuple(substitute(dim, self._bound) for dim in old.shape)
        return new if shape == new.shape else self._reshape(new, shape)

    def _reshape(self, value: Value, shape: tuple[Dim, ...]) -> Value:
        node = make_node("reshape", [value], {"shape": shape}, name=self._name)
        self._uses[value] += 1
        self._scope.append(node)
        self._local.add(node)
        return node.output


def _is_named(value: Value) -> bool:
    """Whether a value has a name that is not the one of the node that makes it."""
    return value.name not in ("", value.producer.name if value.producer is not None else "")


def rewrite(graph: Graph, rules: Rules) -> bool:
    """Apply rules in one sweep over the graph and its regions; whether anything changed."""
    return Rewriter(graph, rules).run()


def use_counts(graph: Graph) -> Counter[Value]:
    """How often each value is an operand or a graph output, regions included."""
    return Counter(_operands(graph))


def _operands(graph: Graph) -> Iterator[Value]:
    for inner in graph.graphs():
        for node in inner.nodes:
            yield from node.inputs
        yield from inner.outputs


def scalar(value: Value) -> Any | None:
    """The number that every element of a constant is, as a Python number; None if there is none.

    Constants of more than 256 elements count as not uniform.
    """
    data = value.data
    if data is None or not 0 < data.size <= 256:
        return None
    first = data.flat[0]
    if data.size > 1 and (data.flat[-1] != first or not bool(np.all(data == first))):
        return None
    return first.astype(np.float64).item() if value.dtype.is_float else first.item()


def like(value: Value, number: float | bool) -> Value:
    """A rank-0 constant with the element type of `value`."""
    return constant(np.asarray(number, dtype=value.dtype.numpy))


def map_dims(attribute: Any, change: Callable[[Dim], Dim]) -> Any:
    """The attribute with `change` applied to every symbolic dim in it."""
    if isinstance(attribute, Sym):
        return change(attribute)
    if isinstance(attribute, tuple | list):
        return type(attribute)(map_dims(item, change) for item in attribute)
    return attribute


def attribute_symbols(attribute: Any) -> frozenset[str]:
    """Names of the symbols in an attribute's dims."""
    if isinstance(attribute, tuple | list):
        parts = [attribute_symbols(item) for item in attribute if type(item) is not int]
        return frozenset().union(*parts)
    return symbols_of(attribute) if isinstance(attribute, Sym) else frozenset()


def bind_symbols(graph: Graph, values: Mapping[str, Dim], *, infer: bool = True) -> None:
    """Replace symbols by dims in all types and attributes of the graph and its regions.

    Where that makes the dims of branches equal, the symbols that stood for them go as well.
    infer: whether types follow from their operands again, instead of keeping what they were with
    the symbols replaced.
    """
    while values:
        _substitute(graph, _closed(values))
        values = _refresh_types(graph, infer)


def _substitute(graph: Graph, values: Mapping[str, Dim]) -> None:
    for inner in graph.graphs():
        for value in inner.inputs:
            _substitute_type(value, values)
        for node in inner.nodes:
            node.attrs = {
                key: map_dims(item, lambda dim: substitute(dim, values))
                for key, item in node.attrs.items()
            }
            for value in node.outputs:
                _substitute_type(value, values)


def _substitute_type(value: Value, values: Mapping[str, Dim]) -> None:
    if not value.type.is_static:
        shape = tuple(substitute(dim, values) for dim in value.type.shape)
        value.type = TensorType(value.type.dtype, shape, value.type.layout)


def _closed(values: Mapping[str, Dim]) -> dict[str, Dim]:
    """The same substitution with its own symbols replaced in its results."""
    closed = dict(values)
    for _ in range(len(closed) + 1):
        following = {name: substitute(dim, closed) for name, dim in closed.items()}
        if following == closed:
            return closed
        closed = following
    raise InternalError(f"symbols are bound to each other: {sorted(values)}")


def _refresh_types(graph: Graph, infer: bool) -> dict[str, Dim]:
    """Infer all output types anew, or those of control flow only; symbols that this need not bind
    any more, with the dims that take their places."""
    unbound: dict[str, Dim] = {}
    for node in graph.nodes:
        for region in node.regions:
            unbound.update(_refresh_types(region, infer))
        names = node.attrs.get("bound", ())
        if names:
            unbound.update(_rebind(node, names))
        elif infer:
            types = infer_types(node.op, node.inputs, node.attrs, node.regions)
            for value, type_ in zip(node.outputs, types, strict=True):
                value.type = type_.with_layout(value.type.layout)
    return unbound


def _rebind(node: Node, names: Sequence[str]) -> dict[str, Dim]:
    """Keep only the names that the outputs still need; what the others stand for."""
    for count in range(len(names) + 1):
        trial = {**node.attrs, "bound": tuple(f"{_TRIAL}{index}" for index in range(count))}
        try:
            types = infer_types(node.op, node.inputs, trial, node.regions)
        except ValueError:
            if count == len(names):
                raise
            continue
        break
    kept: list[str] = []
    unbound: dict[str, Dim] = {}
    for value, type_ in zip(node.outputs, types, strict=True):
        for old, new in zip(value.shape, type_.shape, strict=True):
            name = symbol_name(old)
            if symbol_name(new) in trial["bound"]:
                kept.append(str(name))
            elif name in names:
                unbound[str(name)] = new
    node.attrs["bound"] = tuple(kept)
    return unbound
