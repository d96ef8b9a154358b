"""What lies between integers is quantised, too, so that nothing of a model is computed in floats.

A value is quantised where rules of `integer_arithmetic.py` begin or end: not inside a function of
one tensor (a table has the whole), not before a clip (the range has it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....compiler.ir.graph import Graph, Node, Value, constant
from ....compiler.ir.ops.registry import Trait, has_trait, make_node
from ....compiler.ir.rewrite import scalar
from ....compiler.ir.types import DType
from ..parameters import one_scale
from .known_scales import Scale, fitting_scale, whole_scale
from .whole_ratios import scale_in_ratio

Array = np.ndarray[Any, Any]
Range = tuple[float, float]
STEPS = 255
MOST = 127
LEAST_SCALE = 2.0**-60
IN_FLOATS = (math.nan, math.nan)  # a range: the value stays as it is, as infinite ones do
_MOVES = Trait.INDEX_MAP | Trait.VIEW | Trait.LOOKUP | Trait.BROADCAST
_SATURATED = {  # beyond which results are less than half a step from their limits
    "sigmoid": math.log(2.0**9 - 1),
    "tanh": math.atanh(1 - 2.0**-8),
}
_MATRIX_RANK = 2
_FILTER_AXES = {"conv": 0, "conv_transpose": 1, "matmul": -1}  # of output channels


@dataclass(frozen=True)
class QuantiseFloats:
    """The pass. ranges: between which numbers values lie, as far as that is known, or IN_FLOATS.

    Expects patterns recognised and batch normalisations folded. A value that is quantised for one
    reader is so for all.
    """

    ranges: Mapping[Value, Range] = field(default_factory=dict)
    name: str = "quantise_floats"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        changed = _shared(graph)
        scales = Scales(graph).of(self.ranges)
        for value, (scale, zero) in scales.items():
            _insert(graph, value, scale, zero)
        return changed or bool(scales)


@dataclass(frozen=True)
class QuantiseWeights:
    """The pass: constant floats that are multiplied with what is quantised become i8, with one
    scale for each output channel."""

    name: str = "quantise_weights"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        return _weights(graph)


def to_quantise(graph: Graph) -> list[Value]:
    """The values of a graph that have to be quantised for it to be computed in integers, in order
    of execution. Those inside control flow stay as they are."""
    return _Places(graph).found()


@dataclass
class Scales:
    """By which scales and zero points the values of a graph of floats are quantised."""

    graph: Graph

    def __post_init__(self) -> None:
        self.places = _Places(self.graph)
        self.found = self.places.found()

    def of(self, ranges: Mapping[Value, Range]) -> dict[Value, Scale]:
        """(scale, zero point), as i8, of every value that is quantised, in order of execution:
        none of those that nothing tells of, or that stay in floats."""
        scales: dict[Value, Scale] = {}
        for value in self.found:
            scale = self._of(value, ranges, scales)
            if scale is not None:
                scales[value] = scale
        for node in self.graph.nodes:
            if node.op in ("add", "sub"):
                scales |= self._in_ratio(node, ranges, scales)
        return scales

    def _in_ratio(
        self, node: Node, ranges: Mapping[Value, Range], scales: Mapping[Value, Scale]
    ) -> dict[Value, Scale]:
        """A new scale of an operand of a sum, which nothing else reads: see `whole_ratios.py`."""
        if any(v not in scales or v.shape != node.output.shape for v in node.inputs):
            return {}
        for value, other in (node.inputs, node.inputs[::-1]):
            if len(self.places.uses[value]) == 1 and (limits := self._limits(value, ranges)):
                scale = scale_in_ratio(scales[value][0], scales[other][0])
                return {value: (scale, _zero(limits[0], scale))}
        return {}

    def _limits(self, value: Value, ranges: Mapping[Value, Range]) -> Range | None:
        """The range that decides on the scale of a value; None where something else does."""
        made = value.producer
        if value not in ranges:
            return None
        if made is not None and (made.op == "avg_pool" or whole_scale(made.op)):
            return None
        return self._told_apart(value, ranges)

    def _told_apart(self, value: Value, ranges: Mapping[Value, Range]) -> Range:
        """The range of a value, without what no reader tells apart."""
        low, high = ranges[value]
        most = self.places.limit(value, ranges)
        return max(low, -most), min(high, most)

    def _of(
        self, value: Value, ranges: Mapping[Value, Range], before: Mapping[Value, Scale]
    ) -> Scale | None:
        made, range_ = value.producer, ranges.get(value)
        if range_ is not None and not all(map(math.isfinite, range_)):
            return None
        op = "" if made is None else made.op
        known = whole_scale(op) if range_ is None else fitting_scale(op, *range_)
        if known is None and made is not None:
            known = _of_mean(made, before)
        if known is not None or range_ is None:
            return known
        return _steps(*self._told_apart(value, ranges))


@dataclass
class _Places:
    graph: Graph

    def __post_init__(self) -> None:
        self.uses = self.graph.uses()
        self.roots: dict[Value, Value] = {}

    def found(self) -> list[Value]:
        values = [value for value in self.graph.inputs if self._needs(value)]
        for node in self.graph.nodes:
            for value in node.outputs:
                self.roots[value] = self._root(value)
        for node in self.graph.nodes:
            if len(node.outputs) == 1 and self._needs(node.output):
                values.append(node.output)
        return values

    def limit(self, value: Value, ranges: Mapping[Value, Range]) -> float:
        """The magnitude beyond which no reader tells elements apart: sigmoid and tanh, behind
        movement and sums, do not."""
        found = 0.0
        for user, _ in self.uses.get(value, []):
            if not isinstance(user, Node) or len(user.outputs) != 1:
                return math.inf
            if user.op in _SATURATED:
                found = max(found, _SATURATED[user.op])
            elif has_trait(user, Trait.INDEX_MAP | Trait.VIEW):
                found = max(found, self.limit(user.output, ranges))
            elif user.op == "add":
                others = [v for v in user.inputs if v is not value] or [value]
                beside = _largest(others[0], ranges)
                found = max(found, self.limit(user.output, ranges) + beside)
            else:
                return math.inf
        return found or math.inf

    def _needs(self, value: Value) -> bool:
        users = self.uses.get(value, [])
        if value.dtype is not DType.F32 or not users or not value.type.is_static:
            return False
        if any(isinstance(user, Node) and user.op == "quantize" for user, _ in users):
            return False
        made = value.producer
        if made is None:
            return not all(isinstance(user, Graph) for user, _ in users)
        if made.op == "dequantize" or has_trait(made, _MOVES) or made.op in ("max_pool", "pad"):
            return False
        return not (self._is_clipped(value) or self._is_biased(value) or self._is_inside(value))

    def _is_clipped(self, value: Value) -> bool:
        """Whether a clip is all that reads it, and may be the range of what is computed."""
        made = value.producer
        if made is None or made.op == "dequantize" or has_trait(made, _MOVES):
            return False
        return (user := self._sole(value)) is not None and _is_clip(user)

    def _is_biased(self, value: Value) -> bool:
        """Whether it is a product to which a bias is added."""
        user = self._sole(value)
        if value.producer is None or not has_trait(value.producer, Trait.CONTRACTION):
            return False
        return user is not None and user.op == "add" and any(map(_is_known, user.inputs))

    def _is_inside(self, value: Value) -> bool:
        """Whether everything that reads it is part of the same function of one tensor."""
        root = self.roots.get(value, value)
        if root is value:
            return False
        return all(
            isinstance(user, Node)
            and len(user.outputs) == 1
            and has_trait(user, Trait.POINTWISE)
            and self.roots.get(user.output) is root
            for user, _ in self.uses.get(value, [])
        )

    def _root(self, value: Value) -> Value:
        """The tensor that a value is a function of, element by element."""
        made = value.producer
        if made is None or not has_trait(made, Trait.POINTWISE) or made.op == "dequantize":
            return value
        roots = set()
        for operand in made.inputs:
            if scalar(operand) is None:
                roots.add(self.roots.get(operand, operand))
        if len(roots) != 1:
            return value
        (root,) = roots
        clipped = _is_clip(made) and self._is_clipped(made.inputs[0])
        return value if clipped or root.is_constant or root.shape != value.shape else root

    def _sole(self, value: Value) -> Node | None:
        users = self.uses.get(value, [])
        user = users[0][0] if len(users) == 1 else None
        return user if isinstance(user, Node) else None


def _largest(value: Value, ranges: Mapping[Value, Range]) -> float:
    """The largest magnitude of a value, as far as that is known."""
    if value.data is not None:
        return float(np.abs(value.data).max(initial=0.0))
    low, high = ranges.get(value, IN_FLOATS)
    return math.inf if math.isnan(low) else max(abs(low), abs(high))


def _is_known(value: Value) -> bool:
    """Whether a value is constant, or made of constants by a scale."""
    made = value.producer
    dequantised = made is not None and made.op == "dequantize"
    return value.is_constant or (
        dequantised and made is not None and all(v.is_constant for v in made.inputs)
    )


def _is_clip(node: Node) -> bool:
    return node.op in ("max", "min") and scalar(node.inputs[1]) is not None


def _steps(low: float, high: float) -> Scale:
    """(scale, zero point) of a range as i8."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / STEPS, LEAST_SCALE)))
    return scale, _zero(low, scale)


def _zero(low: float, scale: float) -> int:
    """The zero point of a range as i8 from its lower end on, by a scale."""
    return int(np.clip(np.rint(-128 - min(low, 0.0) / scale), -128, 127))


def quantised_and_back(array: Array, scale: float, zero: int) -> Array:
    """Floats, rounded to the 256 that bytes stand for."""
    steps = np.clip(np.rint(array / scale) + zero, -128, 127)
    return np.asarray((steps - zero) * scale, array.dtype)


def _of_mean(made: Node, scales: Mapping[Value, Scale]) -> Scale | None:
    """(scale, zero point) of what the means of a pooling are of: they lie in the same range, and
    stay in the same unit, which processors average in."""
    if made.op != "avg_pool":
        return None
    source = made.inputs[0].producer
    if source is None or source.op != "dequantize" or not one_scale(source):
        return scales.get(made.inputs[0])
    scale, zero = scalar(source.inputs[1]), scalar(source.inputs[2])
    bytes_ = source.inputs[2].dtype is DType.I8
    return (float(scale), int(zero)) if bytes_ and scale and zero is not None else None


def _insert(graph: Graph, value: Value, scale: float, zero: int) -> None:
    """Quantise a value, and have all that reads it read what is made of that again."""
    parameters = [constant(np.float32(scale)), constant(np.int8(zero))]
    made = value.producer
    name = value.name if made is None else made.name
    quantised = make_node("quantize", [value, *parameters], name=name)
    real = make_node("dequantize", [quantised.output, *parameters], name=name)
    graph.replace_uses({value: real.output})
    if made is not None and any(output is real.output for output in graph.outputs):
        real.output.name, value.name = value.name, ""
    place = 0 if made is None else graph.nodes.index(made) + 1
    graph.nodes[place:place] = [quantised, real]


def _shared(graph: Graph) -> bool:
    """Have readers of a value that another reads quantised read what that is made of again."""
    pairs: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op == "dequantize" and not node.inputs[0].is_constant:
            made = node.inputs[0].producer
            same = made is not None and made.op == "quantize" and made.inputs[1:] == node.inputs[1:]
            if same and made is not None and made.inputs[0].dtype is DType.F32:
                pairs.setdefault(made.inputs[0], node.output)
    changed = False
    place = {node: number for number, node in enumerate(graph.nodes)}
    for value, real in pairs.items():
        after = place[real.producer] if real.producer is not None else 0
        for node in graph.nodes[after + 1 :]:
            if node.op != "quantize" and value in node.inputs:
                node.inputs = [real if v is value else v for v in node.inputs]
                changed = True
    return changed


def _weights(graph: Graph) -> bool:
    changed = False
    for node in list(graph.nodes):
        axis = _FILTER_AXES.get(node.op)
        if axis is None or not node.inputs[1].is_constant or node.attrs.get("layout") == "NHWC":
            continue
        data, weights = node.inputs[0].producer, node.inputs[1]
        if data is None or data.op != "dequantize" or weights.dtype is not DType.F32:
            continue
        assert weights.data is not None
        if not np.isfinite(weights.data).all():
            continue
        batches = node.op == "matmul" and weights.type.rank > _MATRIX_RANK
        stored = _filters(weights.data, axis, weights.name, batches=batches)
        graph.nodes.insert(graph.nodes.index(node), stored)
        node.inputs[1] = stored.output
        changed = True
    return changed


def _filters(weights: Array, axis: int, name: str, *, batches: bool) -> Node:
    """What makes floats of weights as i8, one scale for each step of an axis, or for batches of
    matrices one for all."""
    own = axis % weights.ndim
    others = tuple(a for a in range(weights.ndim) if a != own or batches)
    peak = np.abs(weights).max(axis=others, keepdims=True, initial=0.0)
    scale = np.maximum(peak / MOST, LEAST_SCALE).astype(np.float32)
    steps = np.clip(np.rint(weights / scale), -MOST, MOST).astype(np.int8)
    zero = constant(np.zeros_like(scale, np.int8))
    return make_node("dequantize", [constant(steps, name), constant(scale), zero], name=name)
