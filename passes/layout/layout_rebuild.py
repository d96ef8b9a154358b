"""Rebuilds a graph with some of its nodes computed on permuted tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, captures, constant
from ...compiler.ir.ops.registry import make_node
from ...compiler.ir.ops.windows import to_channels_last
from .axis_permutation import Perm, compose, inverse, is_identity
from .layout_region import Region


@dataclass(frozen=True)
class PermutedWindow:
    """A windowed operator on permuted tensors.

    data: the permutation of what it reads and makes; filters: of its weights. attrs: of the
    operator there.
    """

    data: Perm
    filters: Perm
    attrs: dict[str, Any]


def channels_last(node: Node) -> PermutedWindow:
    """A channels-first windowed operator with channels last."""
    perm = to_channels_last(node.output.type.rank)
    filters = _filter_perm(node) if len(node.inputs) > 1 else ()
    return PermutedWindow(perm, filters, {**node.attrs, "layout": "NHWC"})


def rebuild(
    graph: Graph,
    region: Region,
    permuted: frozenset[Node],
    window: Callable[[Node], PermutedWindow] = channels_last,
) -> None:
    """Compute `permuted` and the windows of the region on permuted tensors, with transposes where
    the two sides meet.

    window: what becomes of the windows.
    """
    state = _Rebuild(region, window)
    nodes, graph.nodes = graph.nodes, state.nodes
    for node in nodes:
        state.place(node, node in permuted or node in region.windows)
    taken = {*graph.inputs, *graph.outputs}
    for place, old in enumerate(graph.outputs):
        new = state.plain(old)
        if new in taken and new is not old:  # what is equal to it has a name already
            new = state.copy(new)
        new.name = old.name
        taken.add(new)
        graph.outputs[place] = new


@dataclass
class _Rebuild:
    """forms: value -> (permutation, value) of the tensor that was made in its place; a value that
    is not in it was left alone."""

    region: Region
    window: Callable[[Node], PermutedWindow]
    nodes: list[Node] = field(default_factory=list)
    forms: dict[Value, tuple[Perm, Value]] = field(default_factory=dict)
    made: dict[tuple[Value, Perm], Value] = field(default_factory=dict)

    def place(self, node: Node, permuted: bool) -> None:
        """Append the node in its new form."""
        if not permuted:
            self._capture(node)
            node.inputs = [self.plain(value) for value in node.inputs]
            self.nodes.append(node)
        elif node in self.region.windows:
            self._place_window(node)
        elif node.op == "transpose":
            self._place_transpose(node)
        else:
            carried = self.region.carried[node]
            pairs = zip(node.inputs, carried.inputs, strict=True)
            inputs = [
                self.plain(value) if perm is None else self.under(value, perm)
                for value, perm in pairs
            ]
            self._make(node, inputs, carried.attrs, carried.output)

    def _make(self, node: Node, inputs: list[Value], attrs: dict, perm: Perm) -> None:  # type: ignore[type-arg]
        new = make_node(node.op, inputs, attrs, name=node.name)
        new.output.name = node.output.name
        self.nodes.append(new)
        self.forms[node.output] = (perm, new.output)

    def _place_window(self, node: Node) -> None:
        own = self.window(node)
        inputs = [self.under(node.inputs[0], own.data), *map(self.plain, node.inputs[1:])]
        if len(inputs) > 1:
            inputs[1] = self.under(inputs[1], own.filters)
        self._make(node, inputs, own.attrs, own.data)

    def _place_transpose(self, node: Node) -> None:
        """A transpose at the border of the region: it gives, or takes, the permuted form."""
        own, perm = node.attrs["perm"], self.region.perms.get(node.output)
        if perm is not None:
            self.forms[node.output] = (perm, self.under(node.inputs[0], compose(own, perm)))
        else:
            result = self.under(node.inputs[0], own)
            self.forms[node.output] = (tuple(range(len(own))), result)

    def _capture(self, node: Node) -> None:
        for region in node.regions:
            changed = {value: self.plain(value) for value in captures(region)}
            region.replace_uses({old: new for old, new in changed.items() if old is not new})

    def copy(self, value: Value) -> Value:
        """The same elements as a value of its own."""
        return self._emit("reshape", value, {"shape": value.shape})

    def plain(self, value: Value) -> Value:
        """The value as it was."""
        return self.under(value, tuple(range(value.type.rank)))

    def under(self, value: Value, perm: Perm) -> Value:
        """transpose(value, perm); leading axes of size 1 are added when perm has more axes."""
        extra = len(perm) - value.type.rank
        if extra:
            return self._transpose(self._widen(value, extra), perm)
        stored, tensor = self.forms.get(value, (None, value))
        return self._transpose(tensor, perm if stored is None else compose(inverse(stored), perm))

    def _widen(self, value: Value, extra: int) -> Value:
        value = self.plain(value)
        shape = (1,) * extra + tuple(value.shape)
        if value.data is not None:
            return constant(value.data.reshape(shape), value.name)
        return self._emit("reshape", value, {"shape": shape})

    def _transpose(self, value: Value, perm: Perm) -> Value:
        if is_identity(perm):
            return value
        found = self.made.get((value, perm))
        if found is None:
            if value.data is not None:
                found = constant(np.transpose(value.data, perm), value.name)
            else:
                found = self._emit("transpose", value, {"perm": perm})
            self.made[value, perm] = found
        return found

    def _emit(self, op: str, value: Value, attrs: dict) -> Value:  # type: ignore[type-arg]
        self.nodes.append(make_node(op, [value], attrs, name=value.name))
        return self.nodes[-1].output


def _filter_perm(node: Node) -> Perm:
    """From OIHW to HWIO; for transposed convolutions from IOHW."""
    rank = node.inputs[1].type.rank
    channels = (0, 1) if node.op == "conv_transpose" else (1, 0)
    return (*range(2, rank), *channels)
