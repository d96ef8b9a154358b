"""Products of bytes as products of words of 16 bits, where the target takes more of these at once.

Without an instruction for four bytes, these are made words again wherever they are multiplied. What
many rows or columns read is better made words once: the data by what makes them, the weights in the
file, of which they take twice as much. The sums are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, constant
from ...compiler.ir.ops.step_groups import GROUP_PRODUCTS
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from ...compiler.kernel.instruction import best_of
from ...compiler.target import CpuTarget, Target
from .half import FEW_ROWS, rows_of_product
from .requantising import BYTES

STEPS = GROUP_PRODUCTS["wdot2"].steps
FEWEST_COLUMNS = 8  # that data which is made words is multiplied with


@dataclass(frozen=True)
class WordProducts:
    """The pass. target: where it has nothing that takes words faster, nothing is changed."""

    target: Target | None
    name: str = "word_products"

    def run(self, graph: Graph) -> bool:
        """Widen; whether anything was."""
        if not _are_faster(self.target):
            return False
        rules = Rules()
        rules.on("matmul", "conv")(_of_words)
        return rewrite(graph, rules)


def _are_faster(target: Target | None) -> bool:
    """Whether words are multiplied faster than bytes, which instructions for vectors take."""
    if not isinstance(target, CpuTarget):
        return False
    words, octets = (best_of(op, target.instructions) for op in ("wdot2", "dot4"))
    return words is not None and (octets is None or words.gain(target) > octets.gain(target))


def _of_words(node: Node, rw: Rewriter) -> Replacement:
    """product(bytes, constant bytes) -> product(i16(bytes), the constant in i16), in i32"""
    data, weights, *bias = node.inputs
    if node.attrs["accumulate"] is not DType.I32 or data.dtype not in BYTES:
        return None
    if weights.data is None or weights.dtype is not DType.I8:
        return None
    last = node.op == "matmul" or node.attrs["layout"] == "NHWC"
    depth, columns = weights.data.shape[-2:] if last else weights.data.shape[1::-1]
    groups = node.attrs.get("groups", 1)
    if depth % STEPS or columns // groups < FEWEST_COLUMNS or rows_of_product(node) <= FEW_ROWS:
        return None
    wide = rw.emit("cast", [data], {"dtype": DType.I16})
    words = constant(weights.data.astype(np.int16), weights.name)
    return rw.emit(node.op, [wide, words, *bias], node.attrs)
