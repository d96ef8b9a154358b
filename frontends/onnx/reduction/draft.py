"""Applying edits: they mark what is to change in a copy of the model, which is then cleaned up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

GONE = "$gone"  # operator of a node that an edit has removed


@dataclass
class Draft:
    """A copy of a model, and what edits want of it. renamed: value -> what is read instead."""

    model: onnx.ModelProto
    outputs: list[str]
    inserted: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def remove(self, node: onnx.NodeProto) -> None:
        """Mark a node of the copy, in the graph or in a subgraph."""
        node.op_type = GONE

    def stand_in(self, name: str) -> str:
        """What is read instead of a value, in the end."""
        seen = {name}
        while self.renamed.get(name, name) not in seen:
            name = self.renamed[name]
            seen.add(name)
        return name


Edit = Callable[[Draft], None]
Types = Mapping[str, onnx.ValueInfoProto]


def edited(model: onnx.ModelProto, edits: Sequence[Edit], types: Types) -> onnx.ModelProto | None:
    """A copy with the edits applied, without what no output needs any more.

    Edits refer to the nodes of `model` by position. What removed nodes made becomes an input of its
    type in `types`. None where nothing is left, or where such a type is not known.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    draft = Draft(copy, [info.name for info in copy.graph.output])
    for edit in edits:
        edit(draft)
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(copy.graph.node):
        nodes += draft.inserted.get(index, [])
        if node.op_type != GONE:
            nodes.append(node)
    _rename(nodes, draft)
    outputs = [draft.stand_in(name) for name in draft.outputs]
    return _pruned(copy, nodes, list(dict.fromkeys(outputs)), types)


def _rename(nodes: Sequence[onnx.NodeProto], draft: Draft) -> None:
    """Read the stand-ins of values, and drop what is marked in subgraphs."""
    for node in nodes:
        node.input[:] = [draft.stand_in(name) for name in node.input]
        for graph in subgraphs(node):
            for info in graph.output:
                info.name = draft.stand_in(info.name)
            _rename(graph.node, draft)
            needed = {info.name for info in graph.output}
            kept = []
            for inner in reversed(graph.node):
                if inner.op_type != GONE and needed.intersection(inner.output):
                    kept.append(inner)
                    needed.update(names_read(inner))
            _assign(graph.node, kept[::-1])


def _pruned(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], types: Types
) -> onnx.ModelProto | None:
    made = {name for node in nodes for name in node.output if name}
    outputs = [name for name in outputs if name in made]
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(names_read(node))
    graph = model.graph
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    inputs = [info for info in graph.input if info.name in needed]
    present = made | {item.name for item in (*inputs, *constants)} | _local(kept)
    missing = sorted(needed - present)
    if not kept or not outputs or any(name not in types for name in missing):
        return None
    inputs += [types[name] for name in missing]
    results = [onnx.ValueInfoProto(name=name, type=_element_type(types, name)) for name in outputs]
    _assign(graph.node, kept[::-1])
    _assign(graph.input, inputs)
    _assign(graph.output, results)
    _assign(graph.initializer, constants)
    del graph.value_info[:]
    return model


def _element_type(types: Types, name: str) -> onnx.TypeProto | None:
    """The declared type of an output, its shape left open."""
    if name not in types:
        return None
    found = onnx.TypeProto()
    found.tensor_type.elem_type = types[name].type.tensor_type.elem_type
    return found


def _local(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names that subgraphs define for themselves."""
    found: set[str] = set()
    for node in nodes:
        for graph in subgraphs(node):
            found.update(info.name for info in graph.input)
            found.update(tensor.name for tensor in graph.initializer)
            found.update(name for inner in graph.node for name in inner.output)
            found |= _local(graph.node)
    return found


def _assign(target: Any, items: Sequence[Any]) -> None:
    """Let a repeated field hold copies of the messages, some of which may be in it."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del target[:]
    target.extend(copies)


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node and its subgraphs read, those that they define among them."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from (info.name for info in graph.output)
        for inner in graph.node:
            yield from names_read(inner)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
