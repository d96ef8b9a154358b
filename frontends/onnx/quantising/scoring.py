"""Which tensors tell how good a quantised model is.

What only compares numbers with each other turns small errors to none or to whole ones: a class that
is another, a box that is not there, two that have changed places. So errors are measured in front
of that, on what is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

import onnx

from ..reading.topology import names_used, ordered
from .constants import Constants
from .products import OTHER_PRODUCTS, QUANTISABLE

_THROUGH = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
_SCORING = ("Softmax", "LogSoftmax", "ArgMax", "Gemm", "MatMul", "GlobalAveragePool")
_MONOTONE = ("Softmax", "LogSoftmax", "ArgMax")
# operators that choose, or put in order, by numbers
_CHOOSING = ("NonMaxSuppression", "TopK", "NonZero", "Compress", "Unique")
# whose results are no numbers that could be a little wrong: their operands are
_DECIDING = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "Cast",
             "ArgMax", "ArgMin")  # fmt: skip
_SIZES = ("Shape", "Size")

Makers = Mapping[str, onnx.NodeProto]


def scored_tensors(model: onnx.ModelProto) -> list[str]:
    """A model's outputs, or what a last softmax or arg max reads; of outputs that a detector
    chooses behind its last product, what it chooses by and from."""
    makers = {name: node for node in model.graph.node for name in node.output}
    chosen, read = _chosen(model, makers)
    found: list[str] = []
    for info in model.graph.output:
        if info.name in chosen:
            found += read
            continue
        name = info.name
        while (node := makers.get(name)) is not None and node.op_type in _THROUGH:
            name = node.input[0]
        monotone = node is not None and node.op_type in _MONOTONE
        found.append(node.input[0] if node is not None and monotone else info.name)
    return list(dict.fromkeys(found))


def classifies(model: onnx.ModelProto, constants: Constants) -> bool:
    """Whether the first output is, as far as the operator before it tells, scores of classes: rows
    that a softmax, an arg max, a product or a global pooling makes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and (node.op_type in _THROUGH or _adds(node, constants)):
        node = makers.get(next((n for n in node.input if n not in constants), ""))
    return node is not None and node.op_type in _SCORING


def _adds(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether it adds a constant: a bias."""
    return node.op_type == "Add" and any(name in constants for name in node.input)


def _chosen(model: onnx.ModelProto, makers: Makers) -> tuple[set[str], list[str]]:
    """Tensors behind the last products that hang on a choice by numbers that products make, and
    the tensors of products that such nodes read and that hang on none; none and none where there
    are none of the latter."""
    tail, behind = _tail(model, makers), _behind_products(model)
    chosen: set[str] = set()
    read: dict[str, None] = {}
    for node in ordered(model.graph.node):
        if tail.isdisjoint(node.output):
            continue
        names = [*node.input, *sorted(names_used(node).difference(node.input))]
        chooses = node.op_type in _CHOOSING and any(n in behind for n in names)
        if chooses or chosen.intersection(names):
            chosen.update(filter(None, node.output))
            own = [n for n in names if n in behind and n not in chosen]
            read |= dict.fromkeys(_numbers(own, makers, behind))
    return (chosen, [*read]) if read else (set(), [])


def _numbers(names: Iterable[str], makers: Makers, behind: Set[str]) -> Iterator[str]:
    """Tensors of products that decide what given ones are; themselves, where those are numbers."""
    for name in names:
        node = makers[name]
        if node.op_type in _DECIDING:
            yield from _numbers((n for n in node.input if n in behind), makers, behind)
        elif node.op_type not in _SIZES:
            yield name


def _tail(model: onnx.ModelProto, makers: Makers) -> Set[str]:
    """Tensors between which and an output no product lies."""
    found: set[str] = set()
    waiting = [info.name for info in model.graph.output]
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or name in found or _is_product(node):
            continue
        found.update(filter(None, node.output))
        waiting += names_used(node)
    return found


def _behind_products(model: onnx.ModelProto) -> Set[str]:
    """Tensors that hang on what a product makes."""
    found: set[str] = set()
    for node in ordered(model.graph.node):
        if _is_product(node) or found.intersection(names_used(node)):
            found.update(filter(None, node.output))
    return found


def _is_product(node: onnx.NodeProto) -> bool:
    return node.op_type in QUANTISABLE or node.op_type in OTHER_PRODUCTS
