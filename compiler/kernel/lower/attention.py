"""Attention as one kernel: for every query its scores, the largest, their sum, the result.

The scores of a query are local memory of its iteration; who emits the kernel may hold fewer of them
at a time, as online softmax does: M. Milakov and N. Gimelshein, https://arxiv.org/abs/1805.02867.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, symbol
from ...ir.graph import Node, Value
from ...ir.types import DType
from ..expr import EACH_POINT, Apply, Buffer, Const, Expr, Load
from ..kernel import Axis, Reduction, Stage, Store
from .following import following_stores
from .reductions import accumulated, accumulator_type, as_type, broadcast_index_of
from .scope import Index, Scope, as_expr, broadcast_index

ATTENTION = "attention"  # the operator


@dataclass(frozen=True)
class _Attention:
    """An attention at the indices `index` of a query.

    shared: the axes of these. scores: of one query. largest, total: of its scores, and of their
    weights.
    """

    scope: Scope
    node: Node
    shared: tuple[Axis, ...]
    index: Index
    scores: Buffer
    largest: Buffer
    total: Buffer

    @property
    def keys(self) -> Dim:
        """How many keys there are."""
        keys: Dim = self.node.inputs[1].shape[-2]
        return keys

    @property
    def dtype(self) -> DType:
        """The type that scores and results are added up in."""
        return self.scores.dtype

    def element(self, operand: int, row: Dim | Expr, column: Dim) -> Expr:
        """An element of q, k or v."""
        value = self.node.inputs[operand]
        batch = broadcast_index_of(value, list(self.index[:-1]))
        return as_type(self.scope.element(value, (*batch, row, column)), self.dtype)

    def weight(self, key: Dim) -> Expr:
        """exp(score - largest), which is not divided by the sum yet."""
        score = Load(self.scores, key)
        return Apply("exp", (Apply("sub", (score, Load(self.largest, 0)), self.dtype),), self.dtype)

    def score(self) -> Stage:
        """scale * q k + mask, for all keys."""
        key, depth = self.scope.axis(self.keys), self.scope.axis(self.node.inputs[0].shape[-1])
        at, step = symbol(key.name), symbol(depth.name)
        factors = self.element(0, self.index[-1], step), self.element(1, at, step)
        found = Reduction("sum", Apply("mul", factors, self.dtype))
        scale = Const(float(self.node.attrs["scale"]), self.dtype)
        value = Apply("mul", (accumulated(0, found), scale), self.dtype)
        for mask in self.node.inputs[3:]:
            element = self.scope.element(mask, broadcast_index(mask, (*self.index, at)))
            value = Apply("add", (value, as_type(element, self.dtype)), self.dtype)
        store = Store(self.scores, at, value)
        return Stage((*self.shared, key), (depth,), (found,), (store,))

    def reduced(self, kind: str, into: Buffer) -> Stage:
        """The largest score, or the sum of all weights."""
        over = self.scope.axis(self.keys)
        at = symbol(over.name)
        found = Reduction(kind, Load(self.scores, at) if kind == "max" else self.weight(at))
        store = Store(into, 0, accumulated(0, found))
        return Stage(self.shared, (over,), (found,), (store,))

    def result(self, outputs: dict[Value, Buffer]) -> Stage:
        """The values, weighed, and what follows them."""
        output = self.node.output
        over, column = self.scope.axis(self.keys), self.scope.axis(output.shape[-1])
        at, c = symbol(over.name), 0 if column.extent == 1 else symbol(column.name)
        found = Reduction(
            "sum", Apply("mul", (self.weight(at), self.element(2, at, c)), self.dtype)
        )
        value = Apply("div", (accumulated(0, found), self._divisor()), self.dtype)
        self.scope.results[output] = lambda _: as_type(value, output.dtype)
        stores = following_stores(self.scope, [output], (*self.index, c), outputs)
        return Stage((*self.shared, column), (over,), (found,), stores)

    def _divisor(self) -> Expr:
        """The sum of the weights; 1 where there are no keys, whose result is 0."""
        total = Load(self.total, 0)
        if isinstance(self.keys, int) and self.keys:
            return total
        none = Apply("eq", (as_expr(self.keys), Const(0, DType.I64)), DType.BOOL)
        return Apply("where", (none, Const(1.0, self.dtype), total), self.dtype)


def attention_stages(
    scope: Scope, node: Node, outputs: dict[Value, Buffer]
) -> tuple[list[Stage], int]:
    """The four stages of an attention and what follows it, and how many axes they share.

    Raises InternalError for an output that does not follow element by element.
    """
    shared, at = scope.axes(node.output.shape[:-1])
    index = tuple(0 if axis.extent == 1 else i for axis, i in zip(shared, at, strict=True))
    dtype = accumulator_type(node.output.dtype)
    local = [Buffer(f"l{next(scope.numbers)}", dtype, size) for size in (EACH_POINT, 1, 1)]
    found = _Attention(scope, node, shared, index, *local)
    stages = [
        found.score(),
        found.reduced("max", found.largest),
        found.reduced("sum", found.total),
        found.result(outputs),
    ]
    return stages, len(shared)
