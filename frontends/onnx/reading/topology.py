"""The order of nodes: producers before users. The innermost graph says what a name means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from ....compiler.errors import InvalidModelError


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def is_constant(node: onnx.NodeProto) -> bool:
    """Whether the node is a Constant of the standard."""
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx")


def names_used(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those that its subgraphs take from outside included."""
    used = {name for name in node.input if name}
    for graph in subgraphs(node):
        used |= _names_from_outside(graph)
    return used


def _names_from_outside(graph: onnx.GraphProto) -> set[str]:
    used = {info.name for info in graph.output}
    own = {info.name for info in graph.input}
    own.update(tensor.name for tensor in graph.initializer)
    own.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        used |= names_used(node)
        own.update(node.output)
    return used - own


def ordered(nodes: Sequence[onnx.NodeProto]) -> Sequence[onnx.NodeProto]:
    """The nodes, producers before users; the given order is kept where it is one.

    Of Constants of one name the last counts, as in ONNX Runtime. Raises InvalidModelError when
    nodes use each other in a circle.
    """
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{producer[name] for name in names_used(node) if name in producer} for node in nodes]
    replaced = {i for i, node in enumerate(nodes) if is_constant(node) and _lost(node, i, producer)}
    if not replaced and all(max(used, default=-1) < i for i, used in enumerate(needs)):
        return nodes
    users: list[list[int]] = [[] for _ in nodes]
    for i, used in enumerate(needs):
        for producing in used:
            users[producing].append(i)
    missing = [len(used) for used in needs]
    ready = [i for i, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        current = ready.pop()
        order.append(current)
        for user in users[current]:
            missing[user] -= 1
            if not missing[user]:
                ready.append(user)
    if len(order) < len(nodes):
        stuck = [nodes[i] for i, count in enumerate(missing) if count]
        names = ", ".join(f"'{(node.name or node.output[0])[:60]}'" for node in stuck[:4])
        raise InvalidModelError(
            "nodes of the model depend on each other in a circle",
            where=f"{names}{' ...' if len(stuck) > 4 else ''}",
            remedy="export the model again",
        )
    return [nodes[i] for i in order if i not in replaced]


def _lost(node: onnx.NodeProto, place: int, producer: dict[str, int]) -> bool:
    return any(producer.get(name, place) != place for name in node.output)
