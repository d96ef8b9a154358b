"""Where results may lose digits, or depend on the machine, read off an imported graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ..compiler.ir import DType, Graph, Node, Value
from ..compiler.ir.dims import Dim, product
from ..compiler.ir.ops.registry import Trait, has_trait
from ..passes.checks.ranges import Ranges

LONG_SUM = 1 << 20  # terms: with random signs some 1e3 roundings add up, 1e-4 relative in f32
_HALVES = (DType.F16, DType.BF16)
_SUMS = ("reduce_sum", "reduce_mean", "cumsum")
_EXAMPLES = 5


@dataclass
class Risk:
    """One kind of risk. count: how many nodes or constants have it. nodes: the first of them."""

    kind: str
    text: str
    count: int = 0
    nodes: list[str] = field(default_factory=list)

    def note(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.nodes) < _EXAMPLES and name not in self.nodes:
            self.nodes.append(name)

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.nodes) else ""
        return f"{self.text}: {', '.join(map(repr, self.nodes))}{more} ({self.count})"


def precision_risks(graph: Graph) -> list[Risk]:
    """Every kind of risk that the graph has, regions included."""
    found = {kind: Risk(kind, text) for kind, (text, _) in _KINDS.items()}
    ranges = Ranges(graph)
    for node in graph.walk():
        for kind, (_, applies) in _KINDS.items():
            if applies(node, ranges):
                found[kind].note(node.name or node.op)
    for value in graph.constants():
        for kind in _constant_risks(value):
            found.setdefault(kind, Risk(kind, _CONSTANTS[kind])).note(value.name or "a constant")
    return [risk for risk in found.values() if risk.count]


def _is_half(node: Node, ranges: Ranges) -> bool:
    if has_trait(node, Trait.INDEX_MAP) or node.op in ("cast", "gather", "concat"):
        return False
    return any(value.dtype in _HALVES for value in node.outputs)


def _narrows(node: Node, ranges: Ranges) -> bool:
    if node.op != "cast":
        return False
    source, wanted = node.inputs[0].dtype, node.output.dtype
    return source.is_float and wanted.is_float and wanted.bits < source.bits


def _may_not_fit(node: Node, ranges: Ranges) -> bool:
    """A cast of a float to an integer, unless bounds are known that the type holds."""
    if node.op != "cast" or not node.inputs[0].dtype.is_float or not node.output.dtype.is_integer:
        return False
    info, known = np.iinfo(node.output.dtype.numpy), ranges.of(node.inputs[0])
    low = any(not isinstance(bound, int) or bound >= info.min for bound in known.low)
    return not (low and any(not isinstance(b, int) or b <= info.max for b in known.high))


def _rounds(node: Node, ranges: Ranges) -> bool:
    return node.op == "round"


def _is_long_sum(node: Node, ranges: Ranges) -> bool:
    terms = _terms(node)
    small = any(v.dtype.is_float and v.dtype is not DType.F64 for v in node.outputs)
    return small and isinstance(terms, int) and terms >= LONG_SUM


def _terms(node: Node) -> Dim:
    """How many products or elements one element of the result adds up; 0 for other operators."""
    if node.op in _SUMS:
        shape = node.inputs[0].shape
        axes = node.attrs["axes"] if "axes" in node.attrs else (node.attrs["axis"],)
        return product(shape[axis] for axis in axes)
    if node.op == "matmul":
        return product(node.inputs[0].shape[-1:])
    if node.op == "conv":
        w, layout = node.inputs[1], node.attrs["layout"]
        return product(w.shape[1:] if layout == "NCHW" else w.shape[:-1])
    return 0


_KINDS: dict[str, tuple[str, Callable[[Node, Ranges], bool]]] = {
    "half": ("computed in f32 and rounded to 16 bits where they are stored", _is_half),
    "narrowing": ("casts to a narrower float, which may overflow to infinity", _narrows),
    "integer_cast": ("casts of floats that the integer type may not hold: undefined", _may_not_fit),
    "rounding": ("rounds to integers: the last bit of a sum decides single steps", _rounds),
    "long_sum": (f"sums of {LONG_SUM} terms or more in f32", _is_long_sum),
}
_CONSTANTS = {
    "subnormal": "constants with subnormal numbers, which count as zero",
    "infinite": "constants with infinities or NaN, which differences and products spread",
}


def _constant_risks(value: Value) -> Iterator[str]:
    data = value.data
    if data is None or value.dtype not in (DType.F32, DType.F64) or not data.size:
        return
    if not np.isfinite(data).all():
        yield "infinite"
    size = np.abs(data)
    if ((size > 0) & (size < np.finfo(data.dtype).tiny)).any():
        yield "subnormal"
