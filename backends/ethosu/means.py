"""Means of windows, by pooling or by a convolution.

A depthwise convolution with ones adds up a window, and its scale divides: the same bits as those of
a pooling. Which takes fewer cycles hangs on the processor and on the window; Vela tells.
"""

from __future__ import annotations

import numpy as np

from ...compiler.ir.graph import Graph, constant
from ...compiler.target import NpuTarget
from .conv_chain import ConvChain, chain_of
from .legality import legality
from .tosa.contractions import averaged

POOLING, CONVOLUTION = "pooling", "convolution"
_WEIGHT = 2  # of each element, by half the scale: the same numbers, which no pooling makes


def pooled_means(graph: Graph, target: NpuTarget) -> list[ConvChain]:
    """Convolutions with ones, with what makes means of their sums, that a processor would pool."""
    uses, found = graph.uses(), []
    for node in graph.nodes:
        made = averaged(node) if node.op == "requantize" else None
        if made is None or legality(made, target) or legality(node, target):
            continue
        chain = chain_of(made, uses)
        if chain is not None:
            found.append(chain)
    return found


def convolve(chain: ConvChain) -> None:
    """Have means be made by a convolution, in place."""
    ones, scale = chain.conv.inputs[1], chain.scaled.inputs[1]
    assert ones.data is not None
    assert scale.data is not None
    weights = ones.data * ones.dtype.numpy.type(_WEIGHT)
    chain.conv.inputs[1] = constant(weights, ones.name)
    chain.scaled.inputs[1] = constant(scale.data / np.float32(_WEIGHT), scale.name)
