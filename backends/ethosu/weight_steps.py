"""Weights of fewer steps, which take fewer bytes.

Vela compresses weights: each by a code that is the shorter the fewer values there are and the more
often one is zero. Where weights come from flash slower than they are multiplied, as those of dense
layers do, bytes are time. A product whose weights are whole numbers up to 127 by a scale becomes
one of numbers up to fewer, by a scale that is larger in the same ratio: nothing else of it changes.
Uniform steps with codes of variable length are within 0.25 bits of the least that the same error
takes, once steps are small (H. Gish and J. Pierce, "Asymptotically efficient quantizing", IEEE
Transactions on Information Theory 14, 1968).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ...compiler.backend import WeightDecision
from ...compiler.errors import ScheduleError
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.groups import group_key
from .conv_chain import ConvChain, chain_of

Array = np.ndarray[Any, Any]
STEPS = (90, 63, 45, 31, 22, 15, 11, 7, 5, 3, 2, 1)
_PRODUCTS = ("conv", "conv_transpose", "matmul")


def steps_key(graph: Graph) -> str:
    """Under which a compilation looks up how many steps the weights of a graph of integers have."""
    return f"weight steps {group_key(graph.inputs, graph)}"


def weight_decisions(graph: Graph) -> list[WeightDecision]:
    """What can be decided of the weights of a graph of integers: of products of one name
    together."""
    found = []
    for name, chains in _by_name(graph).items():
        peak = max(int(np.abs(_weights(chain.conv)).max(initial=0)) for chain in chains)
        values = tuple(steps for steps in STEPS if steps < peak)
        nodes = frozenset(node.name for chain in chains for node in chain.nodes)
        if values:
            found.append(WeightDecision(name, nodes, values))
    return found


def decide_weights(graph: Graph, choice: Mapping[str, Any]) -> None:
    """Give weights of a graph of integers as many steps to either side of zero as a choice says, by
    the names of `weight_decisions`, in place.

    Raises ScheduleError for decisions that there are not.
    """
    chains = _by_name(graph)
    for name, steps in choice.items():
        if name not in chains or steps not in STEPS:
            raise ScheduleError(f"'{name}' cannot be decided as {steps!r}")
        for chain in chains[name]:
            _coarsen(chain, steps)


def _by_name(graph: Graph) -> dict[str, list[ConvChain]]:
    """Products of constant weights by the names of decisions about them."""
    uses, found = graph.uses(), dict[str, list[ConvChain]]()
    for node in graph.nodes:
        if node.op not in _PRODUCTS or not _is_plain(node):
            continue
        chain = chain_of(node, uses)
        if chain is not None and _fits(chain):
            found.setdefault(f"steps of {node.name}", []).append(chain)
    return found


def _is_plain(node: Node) -> bool:
    """Whether the last axis of constant weights is that of output channels."""
    weights, layout = node.inputs[1], node.attrs.get("layout", "NHWC")
    rank = 2 if node.op == "matmul" else 4
    return weights.is_constant and weights.type.rank == rank and layout == "NHWC"


def _fits(chain: ConvChain) -> bool:
    """Whether the scale is constant, one for all or one for each output channel."""
    scale, channels = chain.scaled.inputs[1].data, _weights(chain.conv).shape[-1]
    return scale is not None and (scale.size == 1 or scale.size == scale.shape[-1] == channels)


def _weights(node: Node) -> Array:
    data = node.inputs[1].data
    assert data is not None
    return data


def _coarsen(chain: ConvChain, steps: int) -> None:
    weights, scale = _weights(chain.conv), chain.scaled.inputs[1]
    assert scale.data is not None
    axes = None if scale.data.size == 1 else tuple(range(weights.ndim - 1))
    peak = np.abs(weights).max(axis=axes, initial=0).astype(np.float64)
    factor = np.where(peak > steps, steps / np.maximum(peak, 1.0), 1.0)
    chain.conv.inputs[1] = _like(chain.conv.inputs[1], np.rint(weights * factor))
    if chain.bias is not None:
        bias = chain.bias.inputs[1]
        assert bias.data is not None
        moved = bias.data * (factor if bias.data.size == 1 else factor.reshape(-1))
        chain.bias.inputs[1] = _like(bias, np.rint(moved))
    by_channel = factor if factor.ndim == 0 else factor.reshape(-1)
    chain.scaled.inputs[1] = _like(scale, scale.data / by_channel)


def _like(value: Value, data: Iterable[Any]) -> Value:
    """A constant of the type and name of another."""
    return constant(np.asarray(data).astype(value.dtype.numpy), value.name)
