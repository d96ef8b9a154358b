"""Products of bytes as products of words of 16 bits, where the target takes less time for these.

Without an instruction for four bytes, these are made words again wherever they are multiplied. What
many rows or columns read is better made words once: the data by what makes them, the weights in the
file, of which they take twice as much. With such an instruction words pay where Winograd's
algorithm, whose transforms leave 8 bits, saves more products than it takes steps more. The sums
are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from ...compiler.ir.graph import Graph, Node, constant
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.ops.step_groups import GROUP_PRODUCTS
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from ...compiler.kernel.forms.winograd_choice import gain_of_words
from ...compiler.kernel.instruction import GENERIC, best_of
from ...compiler.target import CpuTarget, Target
from .half import FEW_ROWS, rows_of_product
from .requantising import BYTES

STEPS = GROUP_PRODUCTS["wdot2"].steps
FEWEST_COLUMNS = 8  # that data which is made words is multiplied with
WORTH = 1.25  # of the estimated times: words take twice the memory of bytes (a judgement)


@dataclass(frozen=True)
class WordProducts:
    """The pass. target: where it has nothing that takes words faster, nothing is changed."""

    target: Target | None
    name: str = "word_products"

    def run(self, graph: Graph) -> bool:
        """Widen; whether anything was."""
        target, rules = self.target, Rules()
        if not isinstance(target, CpuTarget):
            return False
        if _are_faster(target):
            rules.on("matmul", "conv")(_of_words)
        elif (cost := _cost_of_words(target)) is not None:
            rules.on("conv")(partial(_for_winograd, target=target, cost=cost))
        else:
            return False
        return rewrite(graph, rules)


def _are_faster(target: CpuTarget) -> bool:
    """Whether words are multiplied faster than bytes, which instructions for vectors take."""
    words, octets = (best_of(op, target.instructions) for op in ("wdot2", "dot4"))
    return words is not None and (octets is None or words.gain(target) > octets.gain(target))


def _cost_of_words(target: CpuTarget) -> float | None:
    """How long an instruction for words takes, in the time of one for bytes; None where vectors
    have none of either."""
    found = [best_of(op, target.instructions) for op in ("wdot2", "dot4")]
    costs = [item.steps / item.gain(target) for item in found if item and item.name not in GENERIC]
    return costs[0] / costs[1] if len(costs) == len(found) else None


def _for_winograd(node: Node, rw: Rewriter, target: CpuTarget, cost: float) -> Replacement:
    """As `_of_words`, of what Winograd's algorithm computes sooner than the products of bytes."""
    if node.attrs["accumulate"] is not DType.I32 or node.inputs[0].dtype not in BYTES:
        return None
    maker = rw.producer(node.inputs[0])
    if maker is None or not has_trait(
        maker, Trait.POINTWISE | Trait.POOLING
    ):  # write words as well
        return None
    return _of_words(node, rw) if gain_of_words(node, target) > WORTH * cost else None


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
