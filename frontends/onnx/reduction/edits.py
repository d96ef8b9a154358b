"""The edits that a model allows, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import onnx
from onnx import numpy_helper

from .draft import Draft, Edit, Types, subgraphs

SMALL_DIMS = (1, 2, 3)  # what fixed dims may become
Address = tuple[int, ...]  # a node; after it subgraph and node within, as deep as that goes


def cuts(model: onnx.ModelProto) -> list[Edit]:
    """The model up to each of its nodes: the results of that node are the only outputs."""

    def up_to(draft: Draft, index: int) -> None:
        draft.outputs[:] = [name for name in draft.model.graph.node[index].output if name]

    return [partial(up_to, index=index) for index in range(len(model.graph.node))]


def outputs(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Drop an output."""

    def drop(draft: Draft, name: str) -> None:
        draft.outputs.remove(name)

    return (partial(drop, name=info.name) for info in model.graph.output)


def nodes(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Remove a node; what others read of it becomes an input."""

    def remove(draft: Draft, index: int) -> None:
        draft.remove(draft.model.graph.node[index])

    return (partial(remove, index=index) for index in range(len(model.graph.node)))


def branches(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Put the nodes of a branch in place of an If."""

    def inline(draft: Draft, index: int, branch: int) -> None:
        node = draft.model.graph.node[index]
        graph = list(subgraphs(node))[branch]
        made = [
            onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
            for tensor in graph.initializer
        ]
        draft.inserted[index] = [*made, *graph.node]
        results = [info.name for info in graph.output]
        draft.renamed.update(zip(node.output, results, strict=False))
        draft.remove(node)

    for index, node in enumerate(model.graph.node):
        if node.op_type == "If":
            yield from (partial(inline, index=index, branch=branch) for branch in (0, 1))


def bypasses(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Read an operand of a node in place of its result, where they are of one type as far as is
    known; in subgraphs, too."""

    def bypass(draft: Draft, address: Address, position: int) -> None:
        node = at(draft.model.graph, address)
        draft.renamed[node.output[0]] = node.input[position]
        draft.remove(node)

    for address, node in addresses(model.graph):
        for position, name in enumerate(node.input[:3]):
            if name and node.output and _alike(types, name, node.output[0]):
                yield partial(bypass, address=address, position=position)


def _alike(types: Types, one: str, other: str) -> bool:
    known = [types.get(name) for name in (one, other)]
    if known[0] is None or known[1] is None:
        return True
    return bool(known[0].type == known[1].type)


def operands(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Leave out an operand: as an absent one, or as one of many."""

    def clear(draft: Draft, address: Address, position: int) -> None:
        node = at(draft.model.graph, address)
        node.input[position] = ""
        while node.input and not node.input[-1]:
            del node.input[-1]

    def drop(draft: Draft, address: Address, position: int) -> None:
        node = at(draft.model.graph, address)
        if position < len(node.input):
            del node.input[position]

    for address, node in addresses(model.graph):
        for position in reversed(range(1, len(node.input))):
            if node.input[position]:
                yield partial(clear, address=address, position=position)
        if node.op_type in ("Concat", "Sum", "Mean", "Max", "Min"):
            for position in reversed(range(1, len(node.input))):
                yield partial(drop, address=address, position=position)


def results(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Leave out a result that nothing reads."""

    def clear(draft: Draft, index: int, position: int) -> None:
        node = draft.model.graph.node[index]
        node.output[position] = ""
        while len(node.output) > 1 and not node.output[-1]:
            del node.output[-1]

    read = {info.name for info in model.graph.output}
    for _, node in addresses(model.graph):
        read.update(node.input)
        for graph in subgraphs(node):
            read.update(info.name for info in graph.output)
    for index, node in enumerate(model.graph.node):
        for position in reversed(range(len(node.output))):
            if node.output[position] and node.output[position] not in read:
                yield partial(clear, index=index, position=position)


def attributes(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Leave an attribute at its default."""

    def drop(draft: Draft, address: Address, name: str) -> None:
        node = at(draft.model.graph, address)
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        copies = [onnx.AttributeProto.FromString(item.SerializeToString()) for item in kept]
        del node.attribute[:]
        node.attribute.extend(copies)

    for address, node in addresses(model.graph):
        for attribute in node.attribute:
            if attribute.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.TENSOR):
                yield partial(drop, address=address, name=attribute.name)


def symbols(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Fix a symbolic dim of the inputs."""

    def fix(draft: Draft, name: str) -> None:
        for info in draft.model.graph.input:
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_param == name:
                    dim.dim_value = 2

    found = {
        dim.dim_param: None for info in model.graph.input for dim in info.type.tensor_type.shape.dim
    }
    return (partial(fix, name=name) for name in found if name)


def sizes(model: onnx.ModelProto, types: Types) -> Iterator[Edit]:
    """Make a number smaller wherever it is a dim of inputs or weights, or an attribute."""
    found: set[int] = set()
    for info in model.graph.input:
        found.update(dim.dim_value for dim in info.type.tensor_type.shape.dim)
    for tensor in _tensors(model.graph):
        found.update(tensor.dims)
    for size in sorted(found, reverse=True):
        for smaller in SMALL_DIMS:
            if smaller < size and size > 1:
                yield partial(_resize, size=size, smaller=smaller)


def _resize(draft: Draft, size: int, smaller: int) -> None:
    graph = draft.model.graph
    for info in graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_value == size:
                dim.dim_value = smaller
    for tensor in _tensors(graph):
        if size in tensor.dims and tensor.data_location != onnx.TensorProto.EXTERNAL:
            array = numpy_helper.to_array(tensor)
            parts = tuple(slice(smaller if dim == size else dim) for dim in array.shape)
            part = np.ascontiguousarray(array[parts])
            tensor.CopyFrom(numpy_helper.from_array(part, tensor.name))
    for _, node in addresses(graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.INT and attribute.i == size:
                attribute.i = smaller
            attribute.ints[:] = [smaller if number == size else number for number in attribute.ints]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for _, node in addresses(graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
        for inner in subgraphs(node):
            yield from inner.initializer


def addresses(graph: onnx.GraphProto) -> Iterator[tuple[Address, onnx.NodeProto]]:
    """Every node, those of subgraphs included, with where it is."""
    for index, node in enumerate(graph.node):
        yield (index,), node
        for number, inner in enumerate(subgraphs(node)):
            for address, deeper in addresses(inner):
                yield (index, number, *address), deeper


def at(graph: onnx.GraphProto, address: Address) -> onnx.NodeProto:
    """The node at an address."""
    node = graph.node[address[0]]
    if len(address) == 1:
        return node
    return at(list(subgraphs(node))[address[1]], address[2:])


Stage = Callable[[onnx.ModelProto, Types], Iterable[Edit]]
STAGES: Sequence[tuple[str, Stage]] = (
    ("outputs", outputs),
    ("nodes", nodes),
    ("branches", branches),
    ("bypasses", bypasses),
    ("results", results),
    ("operands", operands),
    ("attributes", attributes),
    ("symbols", symbols),
    ("sizes", sizes),
)
