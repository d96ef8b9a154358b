"""What lies between the kernels of a compiled model, and which tensors of the model that is.

Nothing of how a model is compiled changes: when all is decided but the plan, a copy of what a
kernel has made becomes one more output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np

from ..compiler.ir import DType, Graph, Node, TensorType, Value, symbol
from ..compiler.ir.dims import evaluate, symbols_of
from ..compiler.ir.graph import captures
from ..compiler.ir.groups import fused_node, is_fused
from ..compiler.ir.ops.control import symbol_name
from ..compiler.ir.ops.registry import bind_attrs, lookup, make_node
from ..passes.precision.kept_bytes import BIT, UNSIGNED

Array = np.ndarray[Any, Any]
BATCH_BYTES = 256 << 20  # of what one run hands out
NEAR = 1e-3  # of the sum of sizes: what differs by less has its axes in the same order
_MARK = "<tensor>"  # and a number behind it
_ALIASES = ("reshape", "concat", "expand", "read_dims", "check_dims")
_VIEWS = ("reshape", "transpose")


def mark_tensors(graph: Graph) -> list[str]:
    """Rename what an imported graph makes of the model's tensors, so that a pass that makes the
    same anew keeps the mark; the model's names by number. Outputs keep their names.

    """
    outputs = set(graph.outputs)
    last = tensors_by_name(graph)
    names = list(last)
    for number, value in enumerate(last.values()):
        if value not in outputs:
            value.name = f"{_MARK}{number}"
    return names


def tensors_by_name(graph: Graph) -> dict[str, Value]:
    """What an imported graph makes of the model's tensors.

    What the importer makes on the way is called as its operator. Where that is the name of a result
    as well, the last value of it is the tensor.
    """
    last = {value.name: value for node in graph.nodes for value in node.outputs if value.name}
    own = {n.name for n in graph.nodes for v in n.outputs if v.name and v.name != n.name}
    return {name: value for name, value in last.items() if name not in own}


def marked(value: Value) -> int | None:
    """The number of the model's tensor that a value is, as it is or as unsigned bytes; None for
    others."""
    if not value.name.startswith(_MARK):
        return None
    return int(value.name.removeprefix(_MARK).removesuffix(UNSIGNED))


def is_of_model(node: Node) -> bool:
    """Whether a node is called as an operator of the model; others may have got a tensor's name."""
    return bool(node.name) and not node.name.startswith(_MARK)


@dataclass(frozen=True)
class Seen:
    """How a tensor of the model is made of a value: by operators that only move elements, or of
    unsigned bytes that stand for signed ones."""

    tensor: str
    steps: tuple[Node, ...] = ()
    unsigned: bool = False

    def of(self, array: Array, sizes: Mapping[str, int]) -> Array:
        """The tensor (its axes perhaps in another order)."""
        if self.unsigned:
            array = (array.astype(np.int16) - BIT).astype(np.int8)
        for node in self.steps:
            evaluate_node = lookup(node.op).evaluate
            assert evaluate_node is not None
            array = evaluate_node([array], bind_attrs(node.attrs, dict(sizes)))[0]
        return array


@dataclass
class Probe:
    """Looks into one compilation (`CompileRequest.probe`).

    sizes: of the symbols of the inputs. first: the number of the first value handed out. names: of
    the model's tensors, by number. graph: that was compiled. values: numbers of those that are
    handed out, by the names of their outputs. following: the number of the first value of the next
    run, None when this one reaches the end. constants: as they were.
    """

    sizes: Mapping[str, int]
    first: int = 0
    names: list[str] = field(default_factory=list)
    graph: Graph = field(default_factory=Graph)
    values: dict[str, int] = field(default_factory=dict)
    following: int | None = None
    constants: dict[Value, Array] = field(default_factory=dict)

    def imported(self, graph: Graph) -> None:
        """Mark the tensors of the model."""
        self.names = mark_tensors(graph)

    def __call__(self, graph: Graph) -> None:
        """Add outputs, as many as fit into `BATCH_BYTES` (one at least)."""
        self.graph = Graph(graph.inputs, graph.outputs, graph.nodes)
        self.graph.defaults = dict(graph.defaults)
        self.constants = {v: v.data for v in graph.constants() if v.data is not None}
        taken = {value.name for value in (*graph.inputs, *graph.outputs)}
        nodes: list[Node] = []
        room, number = BATCH_BYTES, -1
        for node in graph.nodes:
            nodes.append(node)
            for value in node.outputs if makes(node) else ():
                number += 1
                if number < self.first or self.following is not None:
                    continue
                room -= _bytes(value.type, self.sizes)
                if room < 0 and self.values:
                    self.following = number
                    continue
                name = f"probe_{number}"
                while name in taken:
                    name = f"_{name}"
                copy = _copied(value, name)
                nodes.append(copy)
                graph.outputs.append(copy.outputs[0])
                self.values[name] = number
        graph.nodes = nodes

    def restore(self) -> None:
        """Give the compiled graph its constants back."""
        for value, data in self.constants.items():
            value.data = data


def makes(node: Node) -> bool:
    """Whether a node of a graph of kernels computes something that lies in memory."""
    return bool(node.outputs) and node.op not in _ALIASES


def _copied(value: Value, name: str) -> Node:
    inner = Value(value.type)
    same = make_node("reshape", [inner], {"shape": value.shape})
    plain = TensorType(value.dtype, tuple(value.shape))
    return fused_node([value], [Value(plain, name)], Graph([inner], [same.output], [same], "fused"))


def _bytes(type_: TensorType, sizes: Mapping[str, int]) -> int:
    """Of a tensor; 0 where only a run knows."""
    if any(symbols_of(dim) - sizes.keys() for dim in type_.shape):
        return 0
    return int(np.prod([evaluate(dim, sizes) for dim in type_.shape])) * type_.dtype.bytes


def tensors_of(graph: Graph, names: list[str]) -> dict[Value, Seen]:
    """Which of the model's tensors the values between kernels are.

    names: of `mark_tensors`. A reader may see a tensor of the model where the value itself is that
    in another shape.
    """
    found: dict[Value, Seen] = {}
    for value in graph.outputs:
        found.setdefault(value, Seen(value.name))
    for node in graph.nodes:
        for value in node.outputs:
            number = marked(value)
            if number is not None:
                unsigned = value.name.endswith(UNSIGNED)
                found.setdefault(value, Seen(names[number], unsigned=unsigned))
    for node in graph.nodes:
        for outer, inner in _operands(node):
            for value, steps in _moved(inner, node.regions[0] if is_fused(node) else graph):
                number = marked(value)
                if number is not None and outer not in found:
                    found[outer] = Seen(names[number], steps, value.name.endswith(UNSIGNED))
    return found


def _operands(node: Node) -> Iterator[tuple[Value, Value]]:
    """What a node reads, and what that is called where it is read."""
    if is_fused(node):
        yield from zip(node.inputs, node.regions[0].inputs, strict=True)
    else:
        yield from ((value, value) for value in node.inputs)


def _moved(value: Value, graph: Graph) -> Iterator[tuple[Value, tuple[Node, ...]]]:
    """What operators that only move elements make of a value in a graph, one behind the other."""
    waiting: list[tuple[Value, tuple[Node, ...]]] = [(value, ())]
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        if node.op in _VIEWS:
            readers.setdefault(node.inputs[0], []).append(node)
    while waiting:
        source, steps = waiting.pop()
        for node in readers.get(source, ()):
            behind = (node.output, (*steps, node))
            yield behind
            waiting.append(behind)


def in_order_of(array: Array, wanted: Array) -> Array | None:
    """The array with its axes in the order of another, of which it may have more of size 1; None
    where no order fits. Of several orders it is the one in which both are nearest."""
    short = tuple(size for size in wanted.shape if size != 1)
    dense = array.reshape([size for size in array.shape if size != 1])
    if sorted(dense.shape) != sorted(short):
        return None
    exact = wanted.astype(np.float64)
    near = NEAR * float(np.nansum(np.abs(exact)))
    best: tuple[float, Array] | None = None
    for order in permutations(range(dense.ndim)):
        if tuple(dense.shape[axis] for axis in order) != short:
            continue
        fit = dense.transpose(order).reshape(wanted.shape)
        with np.errstate(all="ignore"):
            gap = float(np.nansum(np.abs(fit.astype(np.float64) - exact)))
        if best is None or gap < best[0]:
            best = (gap, fit)
        if gap <= near:
            break
    return best[1] if best else None


def alone(node: Node, made: Iterable[Value], symbols: Iterable[str]) -> tuple[Graph, list[Value]]:
    """The graph of one node, and of what lies between it and values that are in memory; and which
    of those are its inputs.

    made: those values; they are renamed. Behind them it has an input for every symbol, whose length
    tells the number.
    """
    known, nodes = set(made), [node]
    inputs: dict[Value, None] = {}
    waiting = _needs(node)
    while waiting:
        value = waiting.pop()
        if value in known or value.producer is None:
            inputs.setdefault(value)
        elif value.producer not in nodes:
            nodes.append(value.producer)
            waiting += _needs(value.producer)
    for number, value in enumerate(inputs):
        value.name = f"operand_{number}"
    for number, value in enumerate(node.outputs):
        value.name = f"result_{number}"
    told = [Value(TensorType(DType.U8, (symbol(name),)), f"size_{name}") for name in symbols]
    return Graph([*inputs, *told], node.outputs, _sorted(nodes), "layer"), list(inputs)


def _needs(node: Node) -> list[Value]:
    inner = [] if is_fused(node) else [v for region in node.regions for v in captures(region)]
    return [value for value in (*node.inputs, *inner) if not value.is_constant]


def _sorted(nodes: list[Node]) -> list[Node]:
    """Nodes in an order in which each comes behind what it reads."""
    placed: dict[Node, None] = {}

    def place(node: Node) -> None:
        for value in _needs(node):
            if value.producer in nodes and value.producer not in placed:
                place(value.producer)
        placed.setdefault(node)

    for node in nodes:
        place(node)
    return list(placed)


def sizes_told(
    type_: TensorType, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> dict[str, int]:
    """The sizes, and those of symbols that are a whole dim of a tensor whose shape is known."""
    found = dict(sizes)
    for dim, size in zip(type_.shape, shape, strict=True):
        name = symbol_name(dim)
        if name is not None:
            found.setdefault(name, size)
    return found
