"""The graph's invariants, checked after every pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn
from weakref import ref

from ..errors import InternalError
from .dims import Dim, Sym, symbols_of
from .graph import Graph, Node, Value
from .ops.common import differ
from .ops.control import loop_varying, symbol_name
from .ops.registry import REQUIRED, Trait, infer_types, lookup
from .types import DType, TensorType

_ATTRIBUTE_KINDS = (bool, int, float, str, DType, Sym)


# types of inputs and outputs, attributes, whether any dim of outputs or attributes is symbolic
Signature = tuple[tuple[TensorType, ...], tuple[TensorType, ...], dict[str, Any], bool]


@dataclass
class Checked:
    """What an earlier check found to fit, and is not looked at again where it is the same.

    nodes: with types and attributes. constants: elements by their identity, with the type that
    they have; they are not kept.
    """

    nodes: dict[Node, Signature] = field(default_factory=dict)
    constants: dict[int, tuple[ref[Any], TensorType]] = field(default_factory=dict)


def verify(graph: Graph, known: Checked | None = None) -> None:
    """Check single assignment, scopes, producers, arity, types, attributes, regions and symbols.

    known: from earlier checks; what this one finds is added. Raises InternalError that names the
    node and the reason.
    """
    checker = _Checker(graph, Checked() if known is None else known)
    checker.check(graph, set(), _plain_symbols(graph.inputs))


def _plain_symbols(values: Iterable[Value]) -> set[str]:
    """Symbols that stand alone as some dim of the values: their shapes give them."""
    names = (symbol_name(dim) for value in values for dim in value.shape)
    return {name for name in names if name is not None}


def _attr_dims(value: Any) -> Iterator[Dim]:
    if isinstance(value, Sym):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _attr_dims(item)


class _Checker:
    """One walk over one graph. `made`: every value that was defined so far, in any scope.

    `where`: what is being checked, for the message: a text, or a graph and the index of its node.
    """

    def __init__(self, root: Graph, known: Checked) -> None:
        self.root = root
        self.known = known
        self.made: set[Value] = set()
        self.where: str | tuple[Graph, int] = ""

    def fail(self, reason: str) -> NoReturn:
        where = self.where
        if not isinstance(where, str):
            graph, index = where
            node = graph.nodes[index]
            where = f"node {index} of '{graph.name}', {node.op} '{node.name}'"
        raise InternalError(
            f"the graph '{self.root.name}' is not well formed", where=where, why=reason
        )

    def check(self, graph: Graph, visible: set[Value], symbols: set[str]) -> None:
        """visible: values of the graphs around that this one may use; both sets are copied."""
        visible, symbols = set(visible), set(symbols)
        self.where = f"inputs of '{graph.name}'"
        for value in graph.inputs:
            if value.producer is not None or value.is_constant:
                self.fail(f"input {value} is a constant or some node's result")
            self.define(value, visible)
            self.need_symbols(value.shape, symbols, value)
        for index, node in enumerate(graph.nodes):
            self.where = graph, index
            self.check_node(node, visible, symbols)
        self.where = f"outputs of '{graph.name}'"
        for value in graph.outputs:
            self.need_visible(value, visible)

    def define(self, value: Value, visible: set[Value]) -> None:
        if value in self.made:
            self.fail(f"{value} is defined twice")
        self.made.add(value)
        visible.add(value)

    def need_visible(self, value: Value, visible: set[Value]) -> None:
        if value.data is not None:
            if self.is_known(value):
                return
            dtype, shape = DType.of(value.data.dtype), tuple(value.data.shape)
            if (dtype, shape) != (value.dtype, value.shape):
                self.fail(f"the constant {value} holds {TensorType(dtype, shape)}")
            if value.producer is not None:
                self.fail(f"the constant {value} has a producer")
            self.known.constants[id(value.data)] = ref(value.data), value.type
        elif value not in visible:
            place = "out of scope" if value in self.made else "used before it is defined"
            self.fail(f"{value} is {place}")

    def is_known(self, value: Value) -> bool:
        """Whether a constant was found to fit before."""
        elements, type_ = self.known.constants.get(id(value.data), (None, None))
        there = elements is not None and elements() is value.data
        return there and type_ == value.type and value.producer is None

    def need_symbols(self, dims: Iterable[Dim], symbols: set[str], what: Value | str) -> None:
        """what: the value whose shape has the dims, or the name of what has them."""
        missing = sorted(set().union(*(symbols_of(dim) for dim in dims)) - symbols)
        if missing:
            whose = f"the shape of {what}" if isinstance(what, Value) else what
            self.fail(f"{whose} uses the undefined symbol(s) {' '.join(missing)}")

    def check_node(self, node: Node, visible: set[Value], symbols: set[str]) -> None:
        for value in node.inputs:
            if value not in visible:
                self.need_visible(value, visible)
        symbolic = self.check_signature(node)
        for key, value in node.attrs.items() if symbolic else ():
            self.need_symbols(_attr_dims(value), symbols, f"attribute '{key}'")
        if node.regions:
            self.check_regions(node, visible, symbols)
        self.bind(node, symbols)
        for value in node.outputs:
            if value.producer is not node:
                self.fail(f"the producer of {value} is another node")
            if value.is_constant:
                self.fail(f"the result {value} holds constant data")
            self.define(value, visible)
            if symbolic:
                self.need_symbols(value.shape, symbols, value)

    def check_signature(self, node: Node) -> bool:
        """What depends on the node's own types and attributes alone, unless it has regions; whether
        any dim of its results or attributes is symbolic."""
        inputs = tuple([value.type for value in node.inputs])
        outputs = tuple([value.type for value in node.outputs])
        known = self.known.nodes.get(node)
        if (
            known
            and not node.regions
            and known[0] == inputs
            and known[1] == outputs
            and known[2] == node.attrs
        ):
            return known[3]
        self.check_attributes(node)
        self.check_types(node)
        symbolic = any(isinstance(dim, Sym) for type_ in outputs for dim in type_.shape)
        symbolic |= any(True for value in node.attrs.values() for _ in _attr_dims(value))
        self.known.nodes[node] = inputs, outputs, dict(node.attrs), symbolic
        return symbolic

    def check_attributes(self, node: Node) -> None:
        definition = lookup(node.op)
        unknown = sorted(set(node.attrs) - set(definition.attrs))
        missing = sorted(set(definition.attrs) - set(node.attrs))
        if unknown or missing:
            self.fail(f"attributes {unknown} are unknown, {missing} are missing")
        for key, value in node.attrs.items():
            unset = value is None and definition.attrs[key] is None
            if value is REQUIRED or not (unset or _is_attribute(value)):
                self.fail(f"attribute '{key}' has a value of no known kind: {value!r}")

    def check_types(self, node: Node) -> None:
        try:
            inferred = infer_types(node.op, node.inputs, node.attrs, node.regions)
        except ValueError as error:
            self.fail(str(error))
        if len(inferred) != len(node.outputs):
            self.fail(f"{len(node.outputs)} outputs, not {len(inferred)}")
        for value, wanted in zip(node.outputs, inferred, strict=True):
            if value.dtype is not wanted.dtype or value.type.rank != wanted.rank:
                self.fail(f"{value} should have the type {wanted}")
            if any(map(differ, value.shape, wanted.shape)):
                self.fail(f"{value} should have the shape of {wanted}")
            border = value.type.layout.border
            if border and len(border) != value.type.rank:
                self.fail(f"{value} has {len(border)} borders")
            parent = value.type.layout.parent
            if parent and (border or len(parent) != value.type.rank):
                self.fail(f"{value} cannot lie within {parent}")

    def check_regions(self, node: Node, visible: set[Value], symbols: set[str]) -> None:
        where = self.where
        for region in node.regions:
            inner = set(symbols)
            if node.op == "loop":
                inner |= self.loop_symbols(node, symbols)
            closed = not lookup(node.op).traits & Trait.CONTROL
            self.check(region, set() if closed else visible, inner)
            self.where = where
            if node.op == "fused":
                self.check_closed(region)

    def loop_symbols(self, node: Node, symbols: set[str]) -> set[str]:
        body = node.regions[0]
        names: set[str] = set()
        for value, axes in zip(body.inputs[2:], loop_varying(node.inputs, body), strict=True):
            for axis in axes:
                name = symbol_name(value.shape[axis])
                if name in symbols:
                    self.fail(f"the varying axis {axis} of {value} is a symbol from outside")
                names.add(name or "")
        return names

    def check_closed(self, region: Graph) -> None:
        """A fused region is one kernel: larger constants are operands of it."""
        for value in region.constants():
            if value.type.elements != 1:
                self.fail(f"the constant {value} of a fused region is not a scalar")

    def bind(self, node: Node, symbols: set[str]) -> None:
        key = "symbols" if node.op == "read_dims" else "bound"
        for name in node.attrs.get(key, ()):
            if name in symbols:
                self.fail(f"the symbol {name} is bound twice")
            symbols.add(name)


def _is_attribute(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_attribute, value))
    return isinstance(value, _ATTRIBUTE_KINDS)
