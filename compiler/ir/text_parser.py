"""The parser of the textual form of graphs (see `text.py` for the form)."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import numpy as np

from ..errors import UsageError
from .dims import FUNCTIONS, Dim, symbol
from .graph import Graph, Node, Value
from .ops.registry import Array, all_ops, make_node
from .types import DENSE, DType, Layout, TensorType

RESERVED = frozenset({"true", "false", "inf", "nan", *FUNCTIONS})

_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<data>(?:hex|dense)<[0-9a-f]*>)
    |(?P<value>%(?:{_STRING}|[A-Za-z0-9_./-]*)(?:\#\d+)?)
    |(?P<symbol>@{_STRING})
    |(?P<string>{_STRING})
    |(?P<float>\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+)
    |(?P<int>\d+)
    |(?P<dtype>![a-z0-9]+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>[-+*=:,(){{}}\[\]])""",
    re.VERBOSE,
)


def parse_graph(text: str) -> Graph:
    """The graph that a text describes.

    Raises UsageError, with the line, for text that is malformed, and for constants whose data was
    left out. The types of results are taken from the text: `verify` checks them.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        self.position = 0
        self.values: dict[str, Value] = {}
        at, line = 0, 1
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise UsageError(f"line {line}: unexpected character '{text[at]}'")
            if match.lastgroup != "space":
                self.tokens.append((match.lastgroup or "", match.group(), line))
            else:
                line += match.group().count("\n")
            at = match.end()
        self.tokens.append(("end", "", line))

    def fail(self, wanted: str) -> NoReturn:
        _, found, line = self.tokens[self.position]
        raise UsageError(f"line {line}: {wanted} expected, '{found}' found")

    @property
    def kind(self) -> str:
        return self.tokens[self.position][0]

    @property
    def text(self) -> str:
        return self.tokens[self.position][1]

    def take(self, kind: str) -> str:
        if self.kind != kind:
            self.fail(f"a {kind}")
        self.position += 1
        return self.tokens[self.position - 1][1]

    def accept(self, text: str) -> bool:
        if self.text != text or self.kind not in ("mark", "name"):
            return False
        self.position += 1
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"'{text}'")

    def parse(self) -> Graph:
        while self.accept("const"):
            value = self.definition()
            self.expect("=")
            value.data = self.data(value.type)
        graph = self.graph()
        if self.kind != "end":
            self.fail("the end")
        return graph

    def graph(self) -> Graph:
        self.expect("graph")
        name = json.loads(self.take("string"))
        self.expect("(")
        inputs = [] if self.text == ")" else self.definitions()
        self.expect(")")
        self.expect("{")
        nodes = []
        while not self.accept("return"):
            nodes.append(self.node())
        outputs = self.uses() if self.kind == "value" else []
        self.expect("}")
        return Graph(inputs, outputs, nodes, name)

    def node(self) -> Node:
        outputs: list[Value] = []
        if self.kind == "value":
            outputs = self.definitions()
            self.expect("=")
        if self.text not in all_ops():
            self.fail("an operator")
        op = self.take("name")
        self.expect("(")
        inputs = self.uses() if self.kind == "value" else []
        self.expect(")")
        attrs = self.attributes() if self.accept("{") else {}
        name = json.loads(self.take("string")) if self.kind == "string" else ""
        regions = []
        if self.accept("["):
            while not self.accept("]"):
                regions.append(self.graph())
        types = [value.type for value in outputs]
        node = make_node(op, inputs, attrs, regions=regions, types=types, name=name)
        for value in outputs:
            value.producer = node
        node.outputs = outputs
        return node

    def definitions(self) -> list[Value]:
        found = [self.definition()]
        while self.accept(","):
            found.append(self.definition())
        return found

    def definition(self) -> Value:
        text = self.text
        if text in self.values:
            self.fail("a value that is not defined yet")
        name = self.take("value")[1:].partition("#")[0]
        if name.startswith('"'):
            name = json.loads(re.match(_STRING, text[1:]).group())  # type: ignore[union-attr]
        self.expect(":")
        self.values[text] = value = Value(self.type(), name)
        return value

    def uses(self) -> list[Value]:
        found = [self.use()]
        while self.accept(","):
            found.append(self.use())
        return found

    def use(self) -> Value:
        if self.text not in self.values:
            self.fail("a value that is defined above")
        return self.values[self.take("value")]

    def type(self) -> TensorType:
        dtype = self.dtype(self.take("name"))
        shape = self.shape()
        if self.accept("within"):
            return TensorType(dtype, shape, Layout(parent=self.shape()))
        return TensorType(dtype, shape, self.border() if self.accept("border") else DENSE)

    def shape(self) -> tuple[Dim, ...]:
        self.expect("[")
        shape: list[Dim] = []
        while not self.accept("]"):
            shape.append(self.dim())
            if self.text != "]":
                self.expect(",")
        return tuple(shape)

    def border(self) -> Layout:
        sides = []
        while True:
            low = int(self.take("int"))
            self.expect(":")
            sides.append((low, int(self.take("int"))))
            if not self.accept("+"):
                fill = self.number() if self.accept("of") else 0
                return Layout(tuple(sides), fill=fill)

    def number(self) -> int:
        sign = -1 if self.accept("-") else 1
        return sign * int(self.take("int"))

    def dtype(self, text: str) -> DType:
        try:
            return DType(text)
        except ValueError:
            self.position -= 1
            self.fail("an element type")

    def attributes(self) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        while True:
            key = self.take("name")
            self.expect("=")
            attrs[key] = self.attribute()
            if self.accept("}"):
                return attrs
            self.expect(",")

    def attribute(self) -> Any:
        if self.kind == "string":
            return json.loads(self.take("string"))
        if self.kind == "dtype":
            return self.dtype(self.take("dtype")[1:])
        if self.text in ("true", "false"):
            return self.take("name") == "true"
        if self.accept("("):
            items = []
            while not self.accept(")"):
                items.append(self.attribute())
                if self.text != ")":
                    self.expect(",")
            return tuple(items)
        following = self.tokens[self.position + (self.text == "-")]
        if following[0] == "float" or following[1] in ("inf", "nan"):
            return self.real()
        return self.dim()

    def real(self) -> float:
        sign = -1.0 if self.accept("-") else 1.0
        return sign * float(self.take("name" if self.text in ("inf", "nan") else "float"))

    def dim(self) -> Dim:
        total = self.term(-1 if self.accept("-") else 1)
        while self.text in ("+", "-"):
            total = total + self.term(1 if self.take("mark") == "+" else -1)
        return total

    def term(self, sign: int) -> Dim:
        result = sign * self.factor()
        while self.accept("*"):
            result = result * self.factor()
        return result

    def factor(self) -> Dim:
        if self.kind == "int":
            return int(self.take("int"))
        if self.kind == "symbol":
            return symbol(json.loads(self.take("symbol")[1:]))
        if self.text in FUNCTIONS:
            function = FUNCTIONS[self.take("name")]
            self.expect("(")
            first = self.dim()
            self.expect(",")
            second = self.dim()
            self.expect(")")
            return function(first, second)
        return symbol(self.take("name"))

    def data(self, type_: TensorType) -> Array:
        if self.kind == "data":
            kind, _, digits = self.take("data")[:-1].partition("<")
            if kind == "dense":
                self.position -= 1
                self.fail("data (print the graph with full=True)")
            raw = np.frombuffer(bytes.fromhex(digits), type_.dtype.numpy)
        else:
            self.expect("[")
            items: list[Any] = []
            while not self.accept("]"):
                items.append(self.element(type_.dtype))
                if self.text != "]":
                    self.expect(",")
            raw = np.array(items, type_.dtype.numpy)
        if raw.size != type_.elements:
            self.position -= 1
            self.fail(f"data of {type_.elements} elements")
        return raw.reshape(type_.static_shape)

    def element(self, dtype: DType) -> Any:
        if dtype is DType.BOOL:
            return self.attribute()
        if dtype.is_float:
            return self.real()
        return self.number()
