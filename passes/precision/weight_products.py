"""Products of floats with dequantised constants read the integers, which stay packed.

What a file has as DequantizeLinear of constant weights, by column or in blocks along the sum, in
front of MatMul or Gemm becomes one product (`ir/ops/quantised_product.py`). Activations stay
floats: nothing is rounded that the model does not round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.decisions import Decision, Note, tell
from ...compiler.ir.dims import product
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.packed import FEWEST_PACKED, PACKED_BITS, WORD_BITS, digits, pack_digits
from ...compiler.ir.ops.quantised_product import QUANTISED_MATMUL
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from .integer_products import data_of
from .parameters import known_numbers, uniform

Array = np.ndarray[Any, Any]
_BYTES = {DType.U8: 8, DType.I8: 8}
_MOVES = Trait.VIEW | Trait.INDEX_MAP | Trait.LOOKUP | Trait.POOLING


@dataclass(frozen=True)
class WeightProducts:
    """The pass. note: is told of every product whose weights stay packed.

    Products of quantised data with 8-bit weights are left to those of integers.
    """

    note: Note | None = None
    name: str = "weight_products"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        found: dict[Value, _Weights | None] = {}
        rules = Rules()

        @rules.on("matmul")
        def weight_product(node: Node, rw: Rewriter) -> Replacement:
            return _packed(node, rw, found)

        changed = rewrite(graph, rules)
        tell(self.note, _decisions(graph))
        return changed


def _decisions(graph: Graph) -> Iterator[Decision]:
    for node in graph.walk():
        if node.op == QUANTISED_MATMUL:
            yield Decision(node.name, "matmul", f"int{node.attrs['bits']} weights")


@dataclass(frozen=True)
class _Weights:
    """Operands of a product and its attributes; depth: steps of the sum in the model."""

    operands: tuple[Value, ...]
    attrs: dict[str, Any]
    depth: int

    @property
    def of_bytes(self) -> bool:
        """Whether products of integers take them: bytes, with one scale for a column's sum."""
        return bool(self.attrs["bits"] == 8 and self.attrs["block"] == self.attrs["depth"])


def _packed(node: Node, rw: Rewriter, found: dict[Value, _Weights | None]) -> Replacement:
    """matmul(x, dequantize(w)) -> quantised_matmul(x, w)"""
    x, right = node.inputs
    if node.attrs["accumulate"] is not None or not x.dtype.is_float or x.dtype is DType.F64:
        return None
    if right not in found:
        found[right] = _weights(right)
    weights = found[right]
    if weights is None or (weights.of_bytes and _is_quantised(x)):
        return None
    wide = x if x.dtype is DType.F32 else rw.emit("cast", [x], {"dtype": DType.F32})
    flat = rw.emit("reshape", [wide], {"shape": (product(x.shape[:-1]), weights.depth)})
    missing = weights.attrs["depth"] - weights.depth
    if missing:
        flat = rw.emit("pad", [flat], {"pads": (0, 0, 0, missing), "mode": "constant"})
    result = rw.emit(QUANTISED_MATMUL, [flat, *weights.operands], weights.attrs)
    result = rw.emit("reshape", [result], {"shape": node.output.shape})
    dtype = node.output.dtype
    return result if dtype is DType.F32 else rw.emit("cast", [result], {"dtype": dtype})


def _is_quantised(x: Value) -> bool:
    """Whether bytes lie behind data, which products of integers take."""
    node = x.producer
    while node is not None and has_trait(node, _MOVES):
        node = node.inputs[0].producer
    if node is None or not data_of(node):
        return False
    scale = node.inputs[1]
    return uniform(scale) or (node is x.producer and scale.shape[-1] == 1)


@dataclass(frozen=True)
class _Stored:
    """Integers as they are stored, one behind the other, and what makes floats of them.

    scale, zero: of as many axes as `shape`, which may split an axis into blocks.
    """

    packed: Array
    bits: int
    signed: bool
    shape: tuple[int, ...]
    scale: Array
    zero: Array


def _weights(value: Value) -> _Weights | None:
    """The operands that weights [K, N] are made of; None where they are no dequantised integers."""
    if value.type.rank != 2 or not value.type.is_static:
        return None
    depth, columns = value.type.static_shape
    if depth * columns < FEWEST_PACKED:
        return None
    by_column, current = False, value
    while (node := current.producer) is not None and node.op in ("transpose", "slice"):
        if node.op == "transpose":
            if tuple(node.attrs["perm"]) != (1, 0):
                return None
            by_column = not by_column
        elif not _drops_last(node, 1 if by_column else 0):
            return None
        current = node.inputs[0]
    while node is not None and node.op == "reshape":  # of blocks, before anything else is moved
        node = node.inputs[0].producer
    stored = _stored(node) if node is not None and node.op == "dequantize" else None
    if stored is None:
        return None
    return _operands(stored, depth, columns, by_column)


def _drops_last(node: Node, axis: int) -> bool:
    """Whether a slice takes away last steps of one axis of a matrix, the others being whole."""
    attrs, shape = node.attrs, node.inputs[0].shape
    steps, starts = set(attrs["steps"]), set(attrs["starts"])
    others = (stop == dim for n, (stop, dim) in enumerate(zip(attrs["stops"], shape, strict=True))
              if n != axis)  # fmt: skip
    return node.output.type.rank == 2 and steps == {1} and starts == {0} and all(others)


def _stored(node: Node) -> _Stored | None:
    q, scale, zero = node.inputs
    scales, zeros = known_numbers(scale), known_numbers(zero)
    source, after = _source(q)
    if scales is None or zeros is None or scale.dtype is DType.F64 or source is None:
        return None
    if not (q.type.is_static and source.type.is_static):
        return None
    made = source.producer
    if source.dtype in _BYTES and source.data is not None:
        packed, bits = np.ascontiguousarray(source.data).view(np.uint8), 8
    elif made is not None and made.op == "unpack" and made.inputs[0].data is not None:
        packed, bits = made.inputs[0].data, PACKED_BITS[source.dtype]
    else:
        return None
    packed = _padded(packed.reshape(-1), bits, source.type.static_shape, after)
    shape, signed = q.type.static_shape, source.dtype in (DType.I8, DType.I4, DType.I2)
    rank = len(shape)
    return _Stored(packed, bits, signed, shape, _ranked(scales, rank), _ranked(zeros, rank))


def _source(q: Value) -> tuple[Value | None, tuple[int, ...]]:
    """What integers are views of, and how many zeros lie behind each of its axes in them; None
    where they are anything else."""
    while (node := q.producer) is not None and node.op == "reshape":
        q = node.inputs[0]
    if node is None or node.op != "pad":
        return q, ()
    source, *fill = node.inputs
    pads, rank = node.attrs["pads"], source.type.rank
    zero = all(value.data is not None and not np.any(value.data) for value in fill)
    numbers = [pad for pad in pads if isinstance(pad, int) and pad >= 0]
    if node.attrs["mode"] != "constant" or not zero or len(numbers) < len(pads):
        return None, ()
    return (None, ()) if any(numbers[:rank]) else (source, tuple(numbers[rank:]))


def _ranked(array: Array, rank: int) -> Array:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _operands(stored: _Stored, depth: int, columns: int, by_column: bool) -> _Weights | None:
    """The product's operands, where scales change by column and along the sum in blocks alone."""
    whole, rest = divmod(int(np.prod(stored.shape)), columns)
    if rest or whole < depth:
        return None
    rows = (columns, whole) if by_column else (whole, columns)
    blocks, block, axis = 1, whole, 1 if by_column else 0
    if stored.shape != rows:
        split = (*rows[:axis], -1, *rows[axis + 1 :])
        if len(stored.shape) != 3:
            return None
        blocks, block = stored.shape[axis : axis + 2]
        if stored.shape != (*split[:axis], blocks, block, *split[axis + 1 :]):
            return None
    parts = []
    for parameter in (stored.scale, stored.zero):
        flat = _by_block(parameter, axis, blocked=stored.shape != rows)
        if flat is None:
            return None
        wanted = (columns, blocks) if by_column else (blocks, columns)
        parts.append(np.broadcast_to(flat, wanted))
    scale, zero = parts
    packed = _rows(stored.packed, stored.bits, rows)
    form = {"bits": stored.bits, "block": block, "depth": whole, "columns": columns}
    attrs = {**form, "signed": stored.signed, "by_column": by_column, "zero": 0}
    if block * stored.bits % WORD_BITS:
        if blocks > 1:
            return None
        packed, attrs = _filled(packed, attrs)
    operands = [packed, np.ascontiguousarray(scale)]
    if uniform(constant(stored.zero)):
        attrs["zero"] = int(stored.zero.reshape(-1)[0])
    else:
        numbers = zero & ((1 << stored.bits) - 1)
        operands.append(pack_digits(numbers.astype(np.uint8), stored.bits))
    return _Weights(tuple(map(constant, operands)), attrs, depth)


def _by_block(parameter: Array, axis: int, *, blocked: bool) -> Array | None:
    """A parameter as [rows, columns] of blocks; None where it changes inside of one."""
    if blocked:
        if parameter.shape[axis + 1] != 1:
            return None
        return parameter.reshape(*parameter.shape[: axis + 1], *parameter.shape[axis + 2 :])
    return parameter if parameter.shape[axis] == 1 else None


def _padded(packed: Array, bits: int, shape: tuple[int, ...], after: tuple[int, ...]) -> Array:
    """Numbers of a shape, one behind the other, with zeros behind each axis, packed again."""
    if not any(after):
        return packed
    if shape[-1] * bits % 8 == 0 and after[-1] * bits % 8 == 0:
        shape = (*shape[:-1], shape[-1] * bits // 8)
        after = (*after[:-1], after[-1] * bits // 8)
        return np.pad(packed.reshape(shape), [(0, more) for more in after]).reshape(-1)
    numbers = digits(packed, bits)[: int(np.prod(shape))].reshape(shape)
    return pack_digits(np.pad(numbers, [(0, more) for more in after]).reshape(-1), bits)


def _rows(packed: Array, bits: int, rows: tuple[int, int]) -> Array:
    """Packed numbers one behind the other as a matrix whose rows begin with a byte each."""
    if rows[1] * bits % 8 == 0:
        return packed.reshape(rows[0], -1)
    return pack_digits(digits(packed, bits)[: rows[0] * rows[1]].reshape(rows), bits)


def _filled(packed: Array, attrs: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
    """Weights of one block whose sums are filled up to whole words; what is added meets zeros."""
    depth = attrs["depth"]
    whole = -(-depth * attrs["bits"] // WORD_BITS) * WORD_BITS // attrs["bits"]
    if attrs["by_column"]:
        more = (0, whole * attrs["bits"] // 8 - packed.shape[1])
        filled = np.pad(packed, ((0, 0), more))
    else:
        filled = np.pad(packed, ((0, whole - depth), (0, 0)))
    return filled, {**attrs, "depth": whole, "block": whole}
