"""PReLU without a choice between elements, for processors of integers that have none.

K. He et al., "Delving deep into rectifiers", 2015, equation 1: max(x, 0) + a min(x, 0), with a
slope for each channel.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....compiler.ir.graph import Graph, Node, Value
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, like, rewrite, scalar

RULES = Rules()


@dataclass(frozen=True)
class ChannelSlopes:
    """The pass: where(x < 0, a x, x) with constants a becomes max(x, a x) where no slope is above
    one, and max(x, 0) + a min(x, 0) elsewhere."""

    name: str = "channel_slopes"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was any."""
        return rewrite(graph, RULES)


@RULES.on("where")
def without_choice(node: Node, rw: Rewriter) -> Replacement:
    """where(x < 0, a x, x) -> max(x, a x), or max(x, 0) + a min(x, 0)"""
    condition, below, x = node.inputs
    test, product = rw.producer(condition, "lt"), rw.producer(below, "mul")
    if test is None or product is None or test.inputs[0] is not x or scalar(test.inputs[1]) != 0:
        return None
    slope = _slope(product, x)
    if slope is None or slope.data is None or x.shape != node.output.shape:
        return None
    if slope.data.max(initial=0) <= 1:
        return rw.emit("max", [x, below])
    zero = like(x, 0)
    return rw.emit(
        "add", [rw.emit("max", [x, zero]), rw.emit("mul", [rw.emit("min", [x, zero]), slope])]
    )


def _slope(product: Node, x: Value) -> Value | None:
    """What a tensor is multiplied with."""
    left, right = product.inputs
    return right if left is x else left if right is x else None
