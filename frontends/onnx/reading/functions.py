"""Local functions: they must not be recursive, nor grow without measure when inlined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from ....compiler.errors import InvalidModelError
from .schemas import domain_of

Key = tuple[str, str, str]  # domain, name, overload


def key_of(node: onnx.NodeProto) -> Key:
    """What a node calls, if a local function; overloads (IR version 10) are told apart."""
    return domain_of(node.domain), node.op_type, node.overload


def local_functions(functions: Sequence[onnx.FunctionProto]) -> dict[Key, onnx.FunctionProto]:
    """The functions by their keys. Raises InvalidModelError where two have one."""
    table: dict[Key, onnx.FunctionProto] = {}
    for function in functions:
        key = (domain_of(function.domain), function.name, function.overload)
        if key in table:
            raise InvalidModelError(f"function '{function.name}' is defined twice")
        table[key] = function
    return table


def check_functions(
    functions: Sequence[onnx.FunctionProto], graph: onnx.GraphProto, limit: int
) -> dict[Key, onnx.FunctionProto]:
    """The functions by what `key_of` gives for a node that calls them.

    Raises InvalidModelError when one calls itself, is defined twice, or when the model has more
    than `limit` nodes once the functions are inlined.
    """
    table = local_functions(functions)
    calls = {key: list(_called(function.node)) for key, function in table.items()}
    sizes: dict[Key, int] = {}
    for key in table:
        _measure(key, calls, sizes)
    total = sum(sizes.get(key, 1) for key in _called(graph.node))
    if total > limit:
        raise InvalidModelError(
            f"the model has {total:.3g} nodes once its functions are inlined",
            why=f"more than {limit:.3g}",
        )
    return table


def _called(nodes: Sequence[onnx.NodeProto]) -> Iterator[Key]:
    """The keys of all nodes, subgraphs included."""
    stack = [nodes]
    while stack:
        for node in stack.pop():
            yield key_of(node)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    stack.append(attribute.g.node)
                stack.extend(graph.node for graph in attribute.graphs)


def _measure(start: Key, calls: dict[Key, list[Key]], sizes: dict[Key, int]) -> None:
    """Fill `sizes` with the inlined node count of `start` and all that it calls."""
    path: list[Key] = [start]
    active = {start}
    while path:
        key = path[-1]
        if key in sizes:
            active.discard(path.pop())
            continue
        waiting = next((k for k in calls[key] if k in calls and k not in sizes), None)
        if waiting is None:
            sizes[key] = sum(sizes.get(callee, 1) for callee in calls[key])
            active.discard(path.pop())
        elif waiting in active:
            raise InvalidModelError(
                f"function '{key[1]}' is recursive", why=f"it calls '{waiting[1]}'"
            )
        else:
            path.append(waiting)
            active.add(waiting)
