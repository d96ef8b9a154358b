"""Rows of weights that meet large data get finer steps.

A product does not change if a channel of its data is divided by a number, and the row of weights
that meets it multiplied by the same. Rounding takes less off rows that are large beside their
neighbours with the same scale. See J. Lin et al., "AWQ: activation-aware weight quantization for
LLM compression and acceleration", https://arxiv.org/abs/2306.00978, section 3.2: the number is a
power of the channel's usual size, by an exponent that is searched.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx

from ..reading.topology import names_used
from .additions import Additions
from .constants import Array, Constants

EXPONENTS = (0.25, 0.5, 0.75, 1.0)
_LEAST = 1e-3  # of the root of the greatest power: what channels count at least
_NORMS = ("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization")


def scales_of(power: Array, exponent: float) -> Array:
    """What each channel is divided by, f32; power: the mean of its squares. 1 lies in the middle
    between the least and the greatest, as the ratio goes."""
    root = np.sqrt(power.astype(np.float64))
    scales = np.maximum(root, max(_LEAST * root.max(initial=0.0), np.finfo(np.float32).tiny))
    scales **= exponent
    return np.asarray(scales / np.sqrt(scales.max() * scales.min()), np.float32)


class Divider:
    """Divides tensors of a model along their last axis.

    divided: what by, for each tensor. readers: the nodes whose first operands they are then.
    """

    def __init__(self, new: Additions, constants: Constants, divided: dict[str, Array]) -> None:
        self.new, self.constants, self.divided = new, constants, divided
        self._made: dict[str, str] = {}
        nodes = new.graph.node
        self._makers = {name: node for node in nodes for name in node.output}
        self._uses = Counter(name for node in nodes for name in names_used(node))
        self._uses.update(info.name for info in new.graph.output)
        self._read = Counter[str]()

    def plan(self, readers: list[onnx.NodeProto]) -> None:
        """All nodes that are going to read what is divided."""
        self._read.update(node.input[0] for node in readers)

    def of(self, name: str) -> str:
        """What is read instead of a tensor."""
        if name not in self.divided:
            return name
        if name not in self._made:
            factor = 1 / self.divided[name].astype(np.float64)
            folded = self._read[name] == self._uses[name] and self._fold(name, factor)
            self._made[name] = name if folded else self._multiplied(name, factor)
        return self._made[name]

    def _multiplied(self, name: str, factor: Array) -> str:
        own = self.new.initial(f"{name}_factor", factor.astype(np.float32))
        return self.new.node("Mul", [name, own], f"{name}_divided")

    def _fold(self, name: str, factor: Array) -> bool:
        """Whether the constants of what makes a tensor have taken the factor."""
        maker = self._makers.get(name)
        if maker is None:
            return False
        known = [
            place
            for place, own in enumerate(maker.input)
            if own in self.constants and self.constants.shape_of(own)[-1:] == factor.shape
        ]
        if maker.op_type == "Mul" and known:
            places = known[:1]
        elif maker.op_type in _NORMS and known == list(range(1, len(maker.input))):
            places = known
        else:
            return False
        if maker.op_type in _NORMS and any(self.constants.array(maker.input[p]).ndim != 1
                                           for p in places):  # fmt: skip
            return False
        for place in places:
            array = self.constants.array(maker.input[place])
            own = (array * factor).astype(array.dtype)
            maker.input[place] = self.new.initial(f"{maker.input[place]}_divided", own)
        return True
