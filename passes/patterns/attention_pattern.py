"""Recognises scaled dot-product attention written out as products and a softmax."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, like, rewrite, scalar
from ..arithmetic.hidden_scores import MASKED
from .empty_rows import RowGuard

RULES = Rules()
_SCALES = frozenset({"mul", "div"})


@dataclass(frozen=True)
class AttentionPattern:
    """softmax(q k^T * scale + mask) v -> attention(q, k, v, mask).

    The scale may be a product with or a quotient by a constant, on the scores or on q or k; masks
    are added, or selected with a very low number. Heads of k and v that a broadcast repeats for
    groups of query heads are not repeated. Weights may be guarded against rows that see nothing.
    """

    name: str = "attention"

    def run(self, graph: Graph) -> bool:
        """Replace the pattern; whether it was found."""
        return rewrite(graph, RULES)


@dataclass
class _Scores:
    """What the softmax is over: scale * (a b) + masks."""

    product: Node
    scale: float = 1.0
    masks: list[Value] = field(default_factory=list)


@RULES.on("matmul")
def attention(node: Node, rw: Rewriter) -> Replacement:
    """The product with v, seen last, is where the pattern is found."""
    weights, v = node.inputs
    guard = RowGuard.of(weights, rw)
    softmax = rw.producer(guard.weights, "softmax") if guard else rw.sole(weights, "softmax")
    if softmax is None or softmax.attrs["axis"] != weights.type.rank - 1:
        return None
    if v.type.rank < 3 or not node.output.dtype.is_float:
        return None
    scores = _match_scores(softmax.inputs[0], rw)
    if scores is None:
        return None
    q, factor_q = _unscaled(scores.product.inputs[0], rw)
    k_transposed, factor_k = _unscaled(scores.product.inputs[1], rw)
    rank = k_transposed.type.rank
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    k = rw.emit("transpose", [k_transposed], {"perm": swapped})
    inputs = [q, k, v]
    if scores.masks:
        inputs.append(_sum(scores.masks, rw))
    scale = scores.scale * factor_q * factor_k
    result = rw.emit("attention", inputs, {"scale": scale})
    if guard is not None:
        result = guard.around(result, inputs[3] if scores.masks else None, rw)
    return result if result.shape == node.output.shape else None


def _match_scores(value: Value, rw: Rewriter) -> _Scores | None:
    """Read the scores outside in: first masks, then factors, then the product."""
    shape, masks, scale = value.shape, list[Value](), 1.0
    while (node := rw.sole(value, "add", "where", "mul", "div", "matmul")) is not None:
        if node.output.shape != shape or node.op == "matmul":
            break
        if node.op in _SCALES:
            number = _factor(node)
            if number is None:
                return None
            scale *= number
            value = node.inputs[0]
            continue
        split = _split_mask(node, rw) if scale == 1.0 else None
        if split is None:
            return None
        value, mask = split
        masks.append(mask)
    if node is None or node.op != "matmul" or node.output.shape != shape:
        return None
    return _Scores(node, scale, masks)


def _split_mask(node: Node, rw: Rewriter) -> tuple[Value, Value] | None:
    """(scores, mask to add) of an addition or selection."""
    if node.op == "where":
        condition, kept, low = node.inputs
        number = scalar(low)
        if number is not None and number <= MASKED:
            return kept, rw.emit("where", [condition, like(kept, 0), low])
        condition, low, kept = node.inputs
        number = scalar(low)
        if number is not None and number <= MASKED:
            return kept, rw.emit("where", [condition, low, like(kept, 0)])
        return None
    a, b = node.inputs
    for scores, mask in ((a, b), (b, a)):
        if scores.shape == node.output.shape and _leads_to_product(scores, rw):
            return scores, mask
    return None


def _leads_to_product(value: Value, rw: Rewriter) -> bool:
    while (node := rw.sole(value, "add", "where", "mul", "div", "matmul")) is not None:
        if node.op == "matmul":
            return True
        value = node.inputs[1] if node.op == "where" else node.inputs[0]
    return False


def _factor(node: Node) -> float | None:
    """What a product or quotient multiplies its first operand by, or None."""
    number = scalar(node.inputs[1])
    if number is None or not number:
        return None
    return float(number if node.op == "mul" else 1 / number)


def _unscaled(value: Value, rw: Rewriter) -> tuple[Value, float]:
    """An operand without constant factors, also those in front of a transpose or reshape."""
    views: list[Node] = []
    current, factor = value, 1.0
    while (node := rw.sole(current, "mul", "div", "transpose", "reshape")) is not None:
        if node.op not in _SCALES:
            views.append(node)
        else:
            number = _factor(node)
            if number is None or node.inputs[0].shape != current.shape:
                break
            factor *= number
        current = node.inputs[0]
    if factor == 1.0:
        return value, 1.0
    for view in reversed(views):
        current = rw.emit(view.op, [current], view.attrs)
    return current, factor


def _sum(masks: list[Value], rw: Rewriter) -> Value:
    total = masks[0]
    for mask in masks[1:]:
        total = rw.emit("add", [total, mask])
    return total


@RULES.on("attention")
def grouped_heads(node: Node, rw: Rewriter) -> Replacement:
    """Query heads that share a head of k and v become rows of one product.

    q [B, H*G, S, d] with k and v repeated G times from [B, H, T, d]: for S = 1 the group takes the
    place of the rows, else it becomes a batch axis that k and v broadcast along.
    """
    q, k, v, *mask = node.inputs
    shared_k, shared_v = _repeated(k, rw), _repeated(v, rw)
    if shared_k is None or shared_v is None or q.type.rank != 4:
        return None
    heads, rows = shared_k.shape[1], q.shape[2]
    if shared_v.shape[1] != heads or q.shape[1] != k.shape[1] or not isinstance(heads, int):
        return None
    if not isinstance(q.shape[1], int) or q.shape[0] != k.shape[0]:
        return None
    group = q.shape[1] // heads
    batch, depth = q.shape[0], q.shape[3]
    if any(value.type.rank == 4 and value.shape[1] != 1 for value in mask):
        return None
    if rows == 1 and all(value.shape[-2:-1] in ((), (1,)) for value in mask):
        parts: tuple[Dim, ...] = (batch, heads, group, depth)
        operands = [rw.emit("reshape", [q], {"shape": parts}), shared_k, shared_v, *mask]
    else:
        parts = (batch, heads, group, rows, depth)
        operands = [rw.emit("reshape", [q], {"shape": parts})]
        operands += [_with_axis(value, 2, rw) for value in (shared_k, shared_v)]
        operands += [_with_axis(value, 1, rw) if value.type.rank == 4 else value for value in mask]
    result = rw.emit("attention", operands, node.attrs)
    return rw.emit("reshape", [result], {"shape": node.output.shape})


def _with_axis(value: Value, axis: int, rw: Rewriter) -> Value:
    shape = (*value.shape[:axis], 1, *value.shape[axis:])
    return rw.emit("reshape", [value], {"shape": shape})


def _repeated(value: Value, rw: Rewriter) -> Value | None:
    """x [B, H, T, d] where the value is x with every head G times: [B, H*G, T, d]."""
    merged = rw.producer(value, "reshape")
    spread = rw.producer(merged.inputs[0], "broadcast_to") if merged is not None else None
    if spread is None or value.type.rank != 4:
        return None
    wide, narrow = spread.output.shape, spread.inputs[0].shape
    if len(wide) != 5 or len(narrow) != 5 or narrow[2] != 1:
        return None
    batch, heads, group, length, depth = wide
    if narrow != (batch, heads, 1, length, depth):
        return None
    if value.shape != (batch, heads * group, length, depth):
        return None
    return rw.emit("reshape", [spread.inputs[0]], {"shape": (batch, heads, length, depth)})
