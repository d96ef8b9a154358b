"""A numpy interpreter of graphs, control flow and run-time dims included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...compiler.errors import InternalError, RunError, UsageError
from ...compiler.ir.dims import Dim, evaluate, symbols_of
from ...compiler.ir.graph import Graph, Node, Value, captures
from ...compiler.ir.ops.control import symbol_name
from ...compiler.ir.ops.registry import bind_attrs, lookup
from ...compiler.ir.types import DType

Array = np.ndarray[Any, Any]
Store = dict[Value, Array]
Env = dict[str, int]
Observer = Callable[[Node, Sequence[Array]], Sequence[Array] | None]


def run_graph(
    graph: Graph, inputs: Mapping[str, Array], observe: Observer | None = None
) -> dict[str, Array]:
    """The outputs of `graph`, by name, for inputs by name.

    Symbolic dims are bound from the inputs' shapes. Inputs that have a default may be left out.
    `observe` is told each node's results, and may give others in their place.
    Raises UsageError when the inputs do not fit the graph, RunError when a node fails (an index
    out of range, dims that turn out not to fit).
    """
    env: Env = {}
    store = _bind_inputs(graph, inputs, env)
    results = _Interpreter(observe).run(graph, store, env)
    named: dict[str, Array] = {}
    for value, array in zip(graph.outputs, results, strict=True):
        if value.name in named and named[value.name] is not array:
            raise InternalError(f"two outputs are called '{value.name}'")
        named[value.name] = array
    return named


def _bind_inputs(graph: Graph, inputs: Mapping[str, Array], env: Env) -> Store:
    names = [value.name for value in graph.inputs]
    inputs = {**graph.defaults, **inputs}
    missing, unknown = sorted(set(names) - set(inputs)), sorted(set(inputs) - set(names))
    if missing or unknown:
        raise UsageError(
            f"the inputs do not fit: {missing} missing, {unknown} unknown",
            remedy=f"the inputs are {names}",
        )
    store: Store = {}
    for value in graph.inputs:
        array = np.asarray(inputs[value.name])
        try:
            dtype = DType.of(array.dtype)
        except InternalError:
            raise UsageError(f"input '{value.name}' has the type {array.dtype}") from None
        if dtype is not value.dtype or array.ndim != value.type.rank:
            raise UsageError(
                f"input '{value.name}' is {array.dtype}{list(array.shape)}, not {value.type}"
            )
        _bind_shape(value, array, env)
        store[value] = array
    for value, array in store.items():
        if any(symbols_of(dim) - env.keys() for dim in value.shape):
            raise UsageError(f"no input gives the symbols of {value}")
        wanted = tuple(evaluate(dim, env) for dim in value.shape)
        if array.shape != wanted:
            raise UsageError(f"input '{value.name}' has the shape {array.shape}, not {wanted}")
    return store


def _bind_shape(value: Value, array: Array, env: Env) -> None:
    """Give a number to every symbol that has none and is a whole dim of `value`."""
    for dim, size in zip(value.shape, array.shape, strict=True):
        name = symbol_name(dim)
        if name is not None:
            env.setdefault(name, size)


class _Plan:
    """What running a graph needs to know beforehand: captures, and when values die."""

    def __init__(self, graph: Graph) -> None:
        self.captures = captures(graph)
        kept = set(graph.outputs)
        last: dict[Value, int] = {}
        for index, node in enumerate(graph.nodes):
            used = [*node.inputs, *node.outputs]
            for region in node.regions:
                used += captures(region)
            last.update((value, index) for value in used if value not in kept)
        self.dying: list[list[Value]] = [[] for _ in graph.nodes]
        for value, index in last.items():
            if not value.is_constant:
                self.dying[index].append(value)


class _Interpreter:
    def __init__(self, observe: Observer | None) -> None:
        self.observe = observe
        self.plans: dict[Graph, _Plan] = {}
        self.control: dict[str, Callable[[Node, list[Array], Store, Env], list[Array]]] = {
            "if": self.run_if,
            "scan": self.run_scan,
            "loop": self.run_loop,
            "fused": self.run_fused,
            "segment": self.run_fused,
            "read_dims": self.read_dims,
        }

    def plan(self, graph: Graph) -> _Plan:
        if graph not in self.plans:
            self.plans[graph] = _Plan(graph)
        return self.plans[graph]

    def run(self, graph: Graph, store: Store, env: Env) -> list[Array]:
        """Run all nodes; `store` has the inputs and captures and is used up."""
        for node, dying in zip(graph.nodes, self.plan(graph).dying, strict=True):
            results = self.run_node(node, store, env)
            given = self.observe(node, results) if self.observe is not None else None
            store.update(zip(node.outputs, given or results, strict=True))
            for value in dying:
                store.pop(value, None)
        return [_read(value, store) for value in graph.outputs]

    def run_node(self, node: Node, store: Store, env: Env) -> list[Array]:
        args = [_read(value, store) for value in node.inputs]
        definition = lookup(node.op)
        try:
            if node.op in self.control:
                results = self.control[node.op](node, args, store, env)
            elif definition.evaluate is not None:
                results = definition.evaluate(args, bind_attrs(node.attrs, env))
            else:
                raise InternalError(f"operator '{node.op}' has no evaluation")
        except (ValueError, IndexError) as error:
            raise RunError(f"node '{node.name}' ({node.op}) failed: {error}") from error
        _check_results(node, results, env)
        return results

    def run_region(
        self, region: Graph, args: Sequence[Array], store: Store, env: Env
    ) -> list[Array]:
        inner: Store = {value: store[value] for value in self.plan(region).captures}
        local = dict(env)
        for value, array in zip(region.inputs, args, strict=True):
            _bind_shape(value, array, local)
            inner[value] = array
        return self.run(region, inner, local)

    def run_if(self, node: Node, args: list[Array], store: Store, env: Env) -> list[Array]:
        return self.run_region(node.regions[0 if args[0] else 1], [], store, env)

    def run_fused(self, node: Node, args: list[Array], store: Store, env: Env) -> list[Array]:
        return self.run_region(node.regions[0], args, {}, env)

    def run_scan(self, node: Node, args: list[Array], store: Store, env: Env) -> list[Array]:
        body, attrs = node.regions[0], bind_attrs(node.attrs, env)
        states, trip = attrs["num_state"], attrs["trip"]
        state, scanned = args[:states], args[states:]
        if any(array.shape[0] != trip for array in scanned):
            raise RunError(f"the scanned inputs of '{node.name}' do not have {trip} steps")
        _check_memory(node, trip, body.outputs[states:])
        steps: list[list[Array]] = []
        for t in range(trip):
            slices = [
                array[trip - 1 - t if reverse else t]
                for array, reverse in zip(scanned, attrs["reverse_in"], strict=True)
            ]
            results = self.run_region(body, [*state, *slices], store, env)
            state = results[:states]
            steps.append(results[states:])
        stacked = _stack(body.outputs[states:], steps, env)
        ordered = [
            np.ascontiguousarray(array[::-1]) if reverse else array
            for array, reverse in zip(stacked, attrs["reverse_out"], strict=True)
        ]
        return [*state, *ordered]

    def run_loop(self, node: Node, args: list[Array], store: Store, env: Env) -> list[Array]:
        body, carried = node.regions[0], args[2:]
        trip, go, step = int(args[0]), bool(args[1]), 0
        steps: list[list[Array]] = []
        while go and step < trip:
            heads = [np.array(step, np.int64), np.array(go)]
            results = self.run_region(body, [*heads, *carried], store, env)
            go, step = bool(results[0]), step + 1
            steps.append(results[1 + len(carried) :])
            carried = results[1 : 1 + len(carried)]
        return [*carried, *_stack(body.outputs[1 + len(carried) :], steps, env)]

    def read_dims(self, node: Node, args: list[Array], store: Store, env: Env) -> list[Array]:
        for name, size in zip(node.attrs["symbols"], args[0].tolist(), strict=True):
            if size < 0:
                raise RunError(f"node '{node.name}' computes a negative dimension, {size}")
            env[name] = size
        return []


def _read(value: Value, store: Store) -> Array:
    return value.data if value.data is not None else store[value]


def _check_memory(node: Node, trip: int, values: Sequence[Value]) -> None:
    """Raise RunError before the first step where one element of every step alone fills memory."""
    for value in values:
        try:
            np.empty(trip, value.dtype.numpy)
        except (MemoryError, ValueError):
            raise RunError(f"the {trip} steps of '{node.name}' do not fit memory") from None


def _stack(values: Sequence[Value], steps: list[list[Array]], env: Env) -> list[Array]:
    """The step results, stacked. Dims that only a step could tell are 0 when there was none."""
    if steps:
        return [np.stack([step[i] for step in steps]) for i in range(len(values))]

    def known(dim: Dim) -> int:
        return 0 if symbols_of(dim) - env.keys() else evaluate(dim, env)

    return [np.zeros((0, *map(known, v.shape)), v.dtype.numpy) for v in values]


def _check_results(node: Node, results: list[Array], env: Env) -> None:
    """Bind what the node binds; then its results must have the types that it promises."""
    for name in node.attrs.get("bound", ()):
        env.pop(name, None)
    for value, array in zip(node.outputs, results, strict=True):
        if node.op in ("if", "loop"):
            _bind_shape(value, array, env)
        shape = tuple(evaluate(dim, env) for dim in value.shape)
        if array.shape != shape or DType.of(array.dtype) is not value.dtype:
            raise RunError(
                f"node '{node.name}' ({node.op}) gives {array.dtype}{list(array.shape)} "
                f"where the graph says {value.type} = {list(shape)}"
            )
