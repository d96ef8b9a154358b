"""The textual form of graphs, and structural equality.

    const %w: f32[3, 3] = dense<8f0c5d4a1b2e3f60>
    const %one: f32[] = [1.0]
    graph "model"(%x: f32[n, 3]) {
      %y: f32[n, 3] = matmul(%x, %w) "layer1"
      %z: f32[n] = reduce_sum(%y) {axes = (1,)}
      %r: f32[n] = add(%z, %one)
      return %r
    }

A value is `%name`, with `#k` behind it where the name is empty or taken; names beyond letters,
digits and `_./-` are quoted. Attributes are left out where they have their default. A region is
a graph in brackets behind its node. Larger constants are a hash (SHA-256, 16 hex digits, of the
data in little-endian row-major order) unless the full text is asked for; NaNs and narrow types
are printed by their bits.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np

from ..errors import InternalError
from .dims import Atom, Dim, Sym, Symbol
from .graph import Graph, Node, Value
from .ops.registry import Array, lookup
from .text_parser import RESERVED, parse_graph
from .types import DType, TensorType

__all__ = ["parse_graph", "print_graph", "structurally_equal"]

INLINE_ELEMENTS = 16
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_./-]+")
_PLAIN_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def print_graph(graph: Graph, *, full: bool = False) -> str:
    """The graph as text; the same graph always gives the same text.

    full: print the data of large constants too, which `parse_graph` needs.
    """
    return _Printer(full).print(graph)


def print_dim(dim: Dim) -> str:
    """A dim as text: a polynomial, symbols with unusual names quoted behind `@`."""
    if isinstance(dim, int):
        return str(dim)
    text = ""
    for mono, coef in dim.terms:
        factors = [_print_atom(atom) for atom in mono]
        if abs(coef) != 1 or not factors:
            factors.insert(0, str(abs(coef)))
        sign = ("-" if coef < 0 else "") if not text else (" - " if coef < 0 else " + ")
        text += sign + "*".join(factors)
    return text


def _print_atom(atom: Atom) -> str:
    if isinstance(atom, Symbol):
        if _PLAIN_SYMBOL.fullmatch(atom.name) and atom.name not in RESERVED:
            return atom.name
        return "@" + json.dumps(atom.name)
    return f"{atom.fn}({print_dim(atom.args[0])}, {print_dim(atom.args[1])})"


def print_type(type_: TensorType) -> str:
    """A tensor type as text: `f32[n, 4]`.

    ` border 1:1+0:0` follows when it is stored inside a border of zeros (` of 7`: of sevens),
    ` within [n, 8]` when it is part of a larger tensor's storage.
    """
    dims = ", ".join(map(print_dim, type_.shape))
    layout = str(type_.layout)
    if type_.layout.parent:
        layout = f" within [{', '.join(map(print_dim, type_.layout.parent))}]"
    return f"{type_.dtype}[{dims}]{layout}"


def print_attribute(value: Any) -> str:
    """An attribute's value as text. Raises InternalError for a kind that attributes cannot have."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Sym)):
        return print_dim(value)
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return f"!{value}"
    if isinstance(value, tuple):
        items = ", ".join(map(print_attribute, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    raise InternalError(f"{value!r} cannot be an attribute")


def _little_endian(data: Array) -> bytes:
    order = data.dtype.newbyteorder("<") if data.dtype.byteorder == ">" else data.dtype
    return np.ascontiguousarray(data.astype(order, copy=False)).tobytes()


def _element(x: Any, dtype: DType) -> str:
    if dtype is DType.BOOL:
        return "true" if x else "false"
    if not dtype.is_float:
        return str(int(x))
    short = repr(float(str(x)))
    # the shortest text of a narrow float may round twice on its way back
    return short if dtype.numpy.type(float(short)) == x else repr(float(x))


def print_data(data: Array, *, full: bool) -> str:
    """The data of a constant: a list, `hex<...>` or `dense<hash>`."""
    dtype = DType.of(data.dtype)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        has_nan = dtype.is_float and bool(np.isnan(data).any())
    if data.size <= INLINE_ELEMENTS and not has_nan and not dtype.is_narrow:
        return "[" + ", ".join(_element(x, dtype) for x in data.reshape(-1)) + "]"
    raw = _little_endian(data)
    if full or data.size <= INLINE_ELEMENTS:
        return f"hex<{raw.hex()}>"
    return f"dense<{hashlib.sha256(raw).hexdigest()[:16]}>"


class _Printer:
    def __init__(self, full: bool) -> None:
        self.full = full
        self.names: dict[Value, str] = {}
        self.taken: set[str] = set()
        self.count = 0

    def print(self, graph: Graph) -> str:
        lines = []
        for value in graph.inputs:
            self.name(value)  # inputs come first, so that they keep their names
        for value in graph.constants():
            assert value.data is not None
            data = print_data(value.data, full=self.full)
            lines.append(f"const {self.define(value)} = {data}")
        lines += self.graph(graph, "")
        return "\n".join(lines) + "\n"

    def name(self, value: Value) -> str:
        if value not in self.names:
            plain = _PLAIN_VALUE.fullmatch(value.name)
            text = "%" + (value.name if plain or not value.name else json.dumps(value.name))
            if not value.name or text in self.taken:
                text += f"#{self.count}"
                self.count += 1
            self.taken.add(text)
            self.names[value] = text
        return self.names[value]

    def define(self, value: Value) -> str:
        return f"{self.name(value)}: {print_type(value.type)}"

    def graph(self, graph: Graph, indent: str) -> list[str]:
        inputs = ", ".join(map(self.define, graph.inputs))
        lines = [f"{indent}graph {json.dumps(graph.name)}({inputs}) {{"]
        for node in graph.nodes:
            lines += self.node(node, indent + "  ")
        outputs = ", ".join(map(self.name, graph.outputs))
        lines.append(f"{indent}  return {outputs}".rstrip())
        lines.append(f"{indent}}}")
        return lines

    def node(self, node: Node, indent: str) -> list[str]:
        inner: list[str] = []
        for region in node.regions:
            inner += self.graph(region, indent + "  ")
        outputs = ", ".join(map(self.define, node.outputs))
        text = f"{outputs} = " if outputs else ""
        text += f"{node.op}({', '.join(map(self.name, node.inputs))})"
        defaults = lookup(node.op).attrs
        attrs = [
            f"{key} = {print_attribute(value)}"
            for key, value in sorted(node.attrs.items())
            if key not in defaults or not same_attribute(value, defaults[key])
        ]
        text += f" {{{', '.join(attrs)}}}" if attrs else ""
        text += f" {json.dumps(node.name)}" if node.name else ""
        if not inner:
            return [indent + text]
        return [f"{indent}{text} [", *inner, f"{indent}]"]


def same_attribute(a: Any, b: Any) -> bool:
    """Whether two attribute values are the same, of the same kind (1, 1.0 and true differ)."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same_attribute, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return repr(a) == repr(b)
    return type(a) is type(b) and bool(a == b)


def structurally_equal(a: Graph, b: Graph) -> bool:
    """Whether two graphs do the same node by node, whatever values, nodes and graphs are called.

    Types (storage layout included), attributes, symbols and constant data must be the same.
    """
    return _Comparison().graphs(a, b)


class _Comparison:
    def __init__(self) -> None:
        self.paired: dict[Value, Value] = {}

    def define(self, a: list[Value], b: list[Value]) -> bool:
        if len(a) != len(b) or any(x.type != y.type for x, y in zip(a, b, strict=True)):
            return False
        self.paired.update(zip(a, b, strict=True))
        return True

    def used(self, a: list[Value], b: list[Value]) -> bool:
        return len(a) == len(b) and all(map(self.value, a, b))

    def value(self, a: Value, b: Value) -> bool:
        if a.data is None or b.data is None:
            return self.paired.get(a) is b
        return a.type == b.type and _little_endian(a.data) == _little_endian(b.data)

    def nodes(self, a: Node, b: Node) -> bool:
        return (
            a.op == b.op
            and a.attrs.keys() == b.attrs.keys()
            and all(same_attribute(a.attrs[key], b.attrs[key]) for key in a.attrs)
            and self.used(a.inputs, b.inputs)
            and len(a.regions) == len(b.regions)
            and all(map(self.graphs, a.regions, b.regions))
            and self.define(a.outputs, b.outputs)
        )

    def graphs(self, a: Graph, b: Graph) -> bool:
        return (
            self.define(a.inputs, b.inputs)
            and len(a.nodes) == len(b.nodes)
            and all(map(self.nodes, a.nodes, b.nodes))
            and self.used(a.outputs, b.outputs)
        )
