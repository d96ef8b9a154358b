"""bf16 and f16: products of such elements, added up in f32, and values stored as such.

Only operands of contractions are rounded: norms, softmax, other reductions and functions compute in
f32 as before. What a contraction reads is stored once, rounded; operators beside it that read the
same read that. See D. Kalamkar et al., "A study of BFLOAT16 for deep learning training",
https://arxiv.org/abs/1905.12322.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import ml_dtypes
import numpy as np

from ...compiler.decisions import Decision, Note
from ...compiler.ir.dims import product
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Trait, has_trait, make_node
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from ...compiler.kernel.forms.winograd_choice import winograd_gain
from ...compiler.kernel.instruction import MATRICES, instruction_for
from ...compiler.kernel.schedule.matrix_tiles import FEWEST_ROWS, LANES, deep_enough
from ...compiler.target import CpuTarget, GpuTarget, Target
from ..simplify.decompose import RULES as DECOMPOSED
from .data_products import product_of_groups, why_no_groups

STEPS = 2  # of a sum that an instruction takes at once
# measured on one Sapphire Rapids core: products of 3 rows by 1024 x 1024 weights take 0.7 times as
# long with weights in halves, of 8 rows 1.2 times with AVX2; 256 x 256 stay in cache, and as fast
TILES = "mma"  # the instruction of targets that multiply tiles of matrices
FEW_ROWS = 4  # that read weights
MIN_WEIGHTS = 1 << 17  # elements
MIN_TABLE = 1 << 16  # elements of a table whose rows are looked up
NO_FASTER = "the target multiplies {} no faster than fp32 there"
_CONTRACTIONS = ("conv", "matmul")
_ROUNDED_BESIDE = Trait.POINTWISE | Trait.VIEW | Trait.INDEX_MAP | Trait.POOLING
_MOVES = ("reshape", "transpose", "slice", "concat", "pad", "max_pool")

_UNPACKED = ("unpack", "dequantize", "reshape", "transpose", "slice", "pad")


@dataclass(frozen=True)
class ToHalf:
    """Contractions by constant weights get operands of half the size, and accumulate in f32.

    dtype: BF16 or F16. target: where it takes products of such elements no faster than those of
    f32, only weights that few rows read, and tables, are stored so, and their elements converted.
    Weights of constant integers stay packed: their products are left to other passes, which tell
    of them. Where the target multiplies tiles of matrices (GPUs), products of any shape take such
    elements, those of two operands that the run makes and grouped convolutions too.
    note: is told of every decision.
    """

    dtype: DType
    target: Target
    note: Note | None = None
    name: str = "to_half"

    def run(self, graph: Graph) -> bool:
        """Convert; whether anything was."""
        rules = Rules()
        rules.on(*_CONTRACTIONS)(partial(_contraction, options=self))
        if self.tiles:
            rules.on("conv_transpose")(partial(_transposed, options=self))
        rules.on("attention")(partial(_attention, options=self))
        rules.on("gather")(partial(_table, options=self))
        return rewrite(graph, rules)

    def decided(self, node: Node, precision: str, reason: str = "") -> None:
        """Tell of a decision."""
        if self.note:
            self.note(Decision(node.name, node.op, precision, reason))

    def gain(self, *, matrices: bool = True) -> float:
        """How many times as fast as those of f32 a CPU takes products of such elements; 0 where it
        has no instruction for them. matrices: whether there is enough for those."""
        names = [n for n in self.target.instructions if matrices or n not in MATRICES]
        found = instruction_for(self.dtype, self.dtype, DType.F32, names)
        if found is None or not isinstance(self.target, CpuTarget):
            return 0.0
        return found.gain(self.target)

    @property
    def tiles(self) -> bool:
        """Whether the target multiplies tiles of such elements, whatever their shape."""
        return isinstance(self.target, GpuTarget) and TILES in self.target.instructions

    @property
    def label(self) -> str:
        """What users call the elements."""
        return {DType.BF16: "bf16", DType.F16: "fp16"}[self.dtype]


@dataclass(frozen=True)
class StoreHalves:
    """What contractions read as halves is made so, and stored once. dtype: BF16 or F16.

    cast(move(x)) -> move(cast(x)). Operators beside the contractions read the same where they work
    element by element; sums along axes, norms and results of the model keep the f32.
    """

    dtype: DType
    name: str = "store_halves"

    def run(self, graph: Graph) -> bool:
        """Move; whether anything was."""
        rules = Rules()
        rules.on("cast")(partial(_before_movement, half=self.dtype))
        changed = rewrite(graph, rules)
        for inner in graph.graphs():
            changed |= _stored_once(inner, graph.uses(), self.dtype)
        return changed


def _contraction(node: Node, rw: Rewriter, options: ToHalf) -> Replacement:
    a, b = node.inputs[:2]
    if a.dtype is not DType.F32 or b.dtype is not DType.F32:
        return None
    if _of_integers(b):
        return None
    if not b.is_constant:
        return _product_of_data(node, rw, options)
    attrs = {**node.attrs, "accumulate": DType.F32}
    reason = _unfit(node, options)
    grouped = "" if reason else _not_grouped(node, options)
    if not reason and not grouped:
        options.decided(node, options.label)
        operands = [_cast(rw, a, options.dtype), _rounded(b, options.dtype), *node.inputs[2:]]
        return rw.emit(node.op, operands, attrs)
    if not reason and rows_of_product(node) <= FEW_ROWS and _is_large(b):
        options.decided(node, f"{options.label} weights", grouped)
        return rw.emit(node.op, [a, _rounded(b, options.dtype), *node.inputs[2:]], attrs)
    options.decided(node, "fp32", reason or grouped)
    return None


def _transposed(node: Node, rw: Rewriter, options: ToHalf) -> Replacement:
    """A transposed convolution, whose results are halves before they are moved to their places."""
    x, weights, *bias = node.inputs
    if x.dtype is not DType.F32 or not weights.is_constant or _of_integers(weights):
        return None
    if reason := _unfit(node, options):
        options.decided(node, "fp32", reason)
        return None
    options.decided(node, options.label)
    operands = [_cast(rw, x, options.dtype), _rounded(weights, options.dtype)]
    result = _cast(rw, rw.emit(node.op, operands, node.attrs), DType.F32)
    if not bias:
        return result
    channels = tuple(node.output.shape[axis] if axis == _channel_axis(node) else 1
                     for axis in range(node.output.type.rank))  # fmt: skip
    return rw.emit("add", [result, rw.emit("reshape", bias, {"shape": channels})])


def _channel_axis(node: Node) -> int:
    return node.output.type.rank - 1 if node.attrs["layout"] == "NHWC" else 1


def _of_integers(weights: Value) -> bool:
    """Whether weights are floats made of constant integers: products of such read the integers."""
    found = False
    while (node := weights.producer) is not None and node.op in _UNPACKED:
        found |= node.op == "dequantize"
        weights = node.inputs[0]
    return found and weights.is_constant


def _product_of_data(node: Node, rw: Rewriter, options: ToHalf) -> Replacement:
    """A product of two operands that the run makes: rounded, and in groups."""
    if options.tiles:
        options.decided(node, options.label)
        operands = [_cast(rw, value, options.dtype) for value in node.inputs]
        return rw.emit(node.op, operands, {**node.attrs, "accumulate": DType.F32})
    reason = why_no_groups(node)
    if not reason and options.gain(matrices=False) <= 1:
        reason = NO_FASTER.format(options.label)
    options.decided(node, "fp32" if reason else options.label, reason)
    if reason:
        return None
    left, right = (_cast(rw, value, options.dtype) for value in node.inputs)
    return product_of_groups(rw, "dot2", left, right)


def _attention(node: Node, rw: Rewriter, options: ToHalf) -> Replacement:
    """Scores and the sum of values are products like others."""
    if node.inputs[0].dtype is not DType.F32:
        return None
    if options.tiles:
        options.decided(node, options.label)
        mask = (_within(rw, value, options.dtype) for value in node.inputs[3:])
        operands = [_cast(rw, value, options.dtype) for value in (*node.inputs[:3], *mask)]
        return _cast(rw, rw.emit(node.op, operands, node.attrs), DType.F32)
    if options.gain(matrices=False) <= 1:
        options.decided(node, "fp32", NO_FASTER.format(options.label))
        return None
    return DECOMPOSED["attention"](rw, node)


def _within(rw: Rewriter, mask: Value, half: DType) -> Value:
    """A mask whose least numbers are not -inf as halves: a row of these would be none."""
    least = float(ml_dtypes.finfo(half.numpy).min)
    return rw.emit("at_least", [mask, constant(np.asarray(least, np.float32))])


def _is_large(weights: Value) -> bool:
    return weights.data is not None and weights.data.size >= MIN_WEIGHTS


def _unfit(node: Node, options: ToHalf) -> str:
    """Why a contraction stays as it is, whatever the hardware; "" where it need not."""
    weights = node.inputs[1]
    assert weights.data is not None
    if node.attrs.get("groups", 1) != 1 and not options.tiles:
        return "few products are added up for each element"
    if not np.isfinite(weights.data).all():
        return "the weights hold values that are no numbers"
    largest = float(np.finfo(np.float16).max)
    if np.abs(weights.data).max(initial=0) > largest and options.dtype is DType.F16:
        return "the weights exceed the range of fp16"
    return ""


def _not_grouped(node: Node, options: ToHalf) -> str:
    """Why products are no faster than those of f32; "" where they are."""
    if options.tiles:
        return ""
    target, gain = options.target, options.gain(matrices=_fills_matrices(node))
    if gain <= 1 or not isinstance(target, CpuTarget):
        return NO_FASTER.format(options.label)
    depth = node.inputs[1].shape[1 if node.op == "conv" else -2]
    if not isinstance(depth, int) or depth % STEPS:
        return f"sums of {depth} products make no whole groups of {STEPS}"
    if node.op == "conv" and (winograd := winograd_gain(node, target)) > gain:
        return f"fewer products of fp32 (Winograd) are faster: {winograd:.1f} times as few"
    return ""


def _fills_matrices(node: Node) -> bool:
    """Whether rows, columns and steps suffice for products of matrices. Rows of a convolution are
    those of a line, of known length: others have no border in memory."""
    shape, weights = node.output.shape, node.inputs[1].type.static_shape
    rows = rows_of_product(node)
    columns, groups = shape[-1], weights[-2] // STEPS
    depth = groups
    if node.op == "conv":
        last = node.attrs["layout"] == "NHWC"
        columns, line = (shape[-1], shape[-2]) if last else (shape[1], shape[-1])
        groups = weights[-2 if last else 1] // STEPS
        depth = math.prod(weights) // (STEPS * weights[-1 if last else 0])
        rows = line if isinstance(line, int) else 0
    wide = isinstance(columns, int) and columns >= LANES
    return wide and rows >= FEWEST_ROWS["amxbf16"] and deep_enough(groups, depth)


def rows_of_product(node: Node) -> float:
    """How often the weights are read: many where only a run knows."""
    shape = node.output.shape
    rows = product(shape[:-1] if node.op == "matmul" else (shape[0], *shape[2:]))
    if node.op == "conv" and node.attrs["layout"] == "NHWC":
        rows = product(shape[:-1])
    batched = node.op == "matmul" and any(dim != 1 for dim in node.inputs[1].shape[:-2])
    return rows if isinstance(rows, int) and not batched else float("inf")


def _table(node: Node, rw: Rewriter, options: ToHalf) -> Replacement:
    """gather(table) -> cast(gather(table of half the size))"""
    table = node.inputs[0]
    if table.data is None or table.dtype is not DType.F32 or table.data.size < MIN_TABLE:
        return None
    found = _rounded(table, options.dtype)
    if found.data is None or not np.isfinite(found.data.astype(np.float32)).all():
        options.decided(node, "fp32", f"the table exceeds the range of {options.label}")
        return None
    options.decided(node, f"{options.label} weights")
    return _cast(rw, rw.emit("gather", [found, node.inputs[1]], node.attrs), DType.F32)


def _cast(rw: Rewriter, value: Value, dtype: DType) -> Value:
    return rw.emit("cast", [value], {"dtype": dtype})


def _rounded(weights: Value, half: DType) -> Value:
    assert weights.data is not None
    with np.errstate(over="ignore"):
        return constant(weights.data.astype(half.numpy), weights.name)


Uses = Mapping[Value, Sequence[tuple[Node | Graph, int]]]


def _stored_once(graph: Graph, uses: Uses, half: DType) -> bool:
    """One rounding for all that read a value rounded, or may."""
    nodes: list[Node] = []
    changed = False
    for node in graph.nodes:
        nodes.append(node)
        for value in node.outputs:
            readers = [user for user, _ in uses.get(value, ()) if not _is_dead(user, uses)]
            casts = [user for user in readers if _is_cast(user, half, uses)]
            others = [user for user in readers if user not in casts]
            if not casts or len(readers) < 2 or not all(map(_reads_rounded, others)):
                continue
            first = make_node("cast", [value], {"dtype": half}, name=node.name)
            nodes.append(first)
            mapping = {result: first.output for cast in casts for result in cast.outputs}
            if others:
                wide = make_node("cast", [first.output], {"dtype": DType.F32}, name=node.name)
                nodes.append(wide)
                _replace(others, {value: wide.output})
            for cast in mapping:
                _replace([user for user, _ in uses[cast]], mapping)
            changed = True
    graph.nodes = nodes
    return changed


def _is_dead(user: Node | Graph, uses: Uses) -> bool:
    """Whether it is a cast that nothing reads any more."""
    return isinstance(user, Node) and user.op == "cast" and not uses.get(user.output)


def _is_cast(user: Node | Graph, half: DType, uses: Uses) -> bool:
    """Whether it is a cast to the half type that is no result of a graph."""
    if not isinstance(user, Node) or user.op != "cast" or user.attrs["dtype"] is not half:
        return False
    return all(isinstance(reader, Node) for reader, _ in uses.get(user.output, ()))


def _reads_rounded(user: Node | Graph) -> bool:
    return isinstance(user, Node) and has_trait(user, _ROUNDED_BESIDE)


def _replace(users: Sequence[Node | Graph], mapping: Mapping[Value, Value]) -> None:
    for user in users:
        if isinstance(user, Node):
            user.inputs = [mapping.get(value, value) for value in user.inputs]
        else:
            user.outputs = [mapping.get(value, value) for value in user.outputs]


def _before_movement(node: Node, rw: Rewriter, half: DType) -> Replacement:
    """cast(move(x)) -> move(cast(x)): what made x writes the rounded elements."""
    if node.attrs["dtype"] is not half or node.inputs[0].dtype is not DType.F32:
        return None
    move = rw.sole(node.inputs[0], *_MOVES)
    if move is None:
        return None
    return rw.emit(move.op, list(_casts(rw, move.inputs, half)), move.attrs)


def _casts(rw: Rewriter, values: Sequence[Value], half: DType) -> Iterator[Value]:
    for value in values:
        yield _cast(rw, value, half)


__all__ = ["Decision", "StoreHalves", "ToHalf"]
