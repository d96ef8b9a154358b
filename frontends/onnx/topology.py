"""The order of nodes: producers before users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from ...compiler.errors import InvalidModelError


def names_used(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs take from outside included.

    Names that a subgraph defines itself may be among them, which is harmless: they are unique.
    """
    stack = [node]
    while stack:
        current = stack.pop()
        yield from (name for name in current.input if name)
        for attribute in current.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for graph in graphs:
                stack.extend(graph.node)
                yield from (info.name for info in graph.output)


def ordered(nodes: Sequence[onnx.NodeProto]) -> Sequence[onnx.NodeProto]:
    """The nodes, producers before users; the given order is kept where it is one.

    Raises InvalidModelError when nodes use each other in a circle.
    """
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{producer[name] for name in names_used(node) if name in producer} for node in nodes]
    if all(max(used, default=-1) < i for i, used in enumerate(needs)):
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
    return [nodes[i] for i in order]
