"""Matrix products."""

from __future__ import annotations

from .....compiler.ir import DType, Value
from .....compiler.ir.dims import product
from ...broadcasting import common_shape, expanded_shape
from ...site import Site
from ...table import MICROSOFT, lowers
from .nn import centred


def matmul(s: Site, a: Value, b: Value) -> Value:
    """numpy's matmul; vectors become matrices and their axis goes away again."""
    if not a.type.rank or not b.type.rank:
        raise ValueError("scalars cannot be multiplied as matrices")
    left = s.reshape(a, (1, *a.shape)) if a.type.rank == 1 else a
    right = s.reshape(b, (*b.shape, 1)) if b.type.rank == 1 else b
    out = s.emit("matmul", [left, right])
    shape = list(out.shape)
    if a.type.rank == 1:
        del shape[-2]
    if b.type.rank == 1:
        del shape[-1]
    return s.reshape(out, shape)


def swap_last(s: Site, x: Value) -> Value:
    """The value with its last two axes exchanged."""
    rank = x.type.rank
    return s.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


@lowers("MatMul")
def lower_matmul(s: Site) -> Value:
    return matmul(s, s.input(0), s.input(1))


@lowers("Gemm")
def gemm(s: Site) -> Value:
    a, b, c = s.input(0), s.input(1), s.optional(2)
    if a.type.rank != 2 or b.type.rank != 2:
        raise ValueError(f"operands have ranks {a.type.rank} and {b.type.rank}, not 2")
    a = swap_last(s, a) if s.integer("transA", 0) else a
    b = swap_last(s, b) if s.integer("transB", 0) else b
    alpha, beta = s.real("alpha", 1.0), s.real("beta", 1.0)
    out = s.emit("matmul", [a, b])
    if c is not None and beta != 0.0:
        c = s.emit("expand", [c], shape=expanded_shape(c.shape, out.shape))
    if alpha == beta == 1.0:
        return out if c is None else s.op_("add", out, c)

    def scaled(total: Value) -> Value:
        total = s.op_("mul", total, alpha)
        if c is None or beta == 0.0:
            return total
        return s.op_("add", total, s.op_("mul", s.cast(c, total.dtype), beta))

    return s.in_f32(scaled, out)


@lowers("MatMulInteger")
def matmul_integer(s: Site) -> Value:
    a, b = s.input(0), s.input(1)
    left = centred(s, a, s.optional(2), DType.I32, a.type.rank - 2)
    right = centred(s, b, s.optional(3), DType.I32, b.type.rank - 1)
    return matmul(s, left, right)


def _batch_first(s: Site, x: Value) -> Value:
    """[rows, batch..., columns] as [batch..., rows, columns]."""
    rank = x.type.rank
    return s.transpose(x, [*range(1, rank - 1), 0, rank - 1]) if rank > 2 else x


@lowers("FusedMatMul", "TransposeMatMul", "SparseToDenseMatMul", domain=MICROSOFT)
def fused_matmul(s: Site) -> Value:
    a, b = s.input(0), s.input(1)
    a = _batch_first(s, a) if s.integer("transBatchA", 0) else a
    b = _batch_first(s, b) if s.integer("transBatchB", 0) else b
    a = swap_last(s, a) if s.integer("transA", 0) else a
    b = swap_last(s, b) if s.integer("transB", 0) else b
    out = matmul(s, a, b)
    alpha = s.real("alpha", 1.0)
    return out if alpha == 1.0 else s.op_("mul", out, alpha)


@lowers("Einsum")
def einsum(s: Site) -> Value:
    """Two operands at a time: sum what no one else needs, then one batched matmul."""
    terms, result = _equation(s.text("equation"), [s.input(i) for i in range(len(s.inputs))])
    operands = []
    for i, term in enumerate(terms):
        diagonal, letters = _diagonal(s, term, s.input(i))
        operands.append((letters, diagonal))
    (text, value), rest = operands[0], operands[1:]
    value, text = _summed(s, value, text, "".join(t for t, _ in rest) + result)
    for index, (other, right) in enumerate(rest):
        needed = "".join(t for t, _ in rest[index + 1 :]) + result
        right, other = _summed(s, right, other, text + needed)
        value, text = _summed(s, value, text, other + needed)
        value, text = _product(s, value, text, right, other, needed)
    value, text = _summed(s, value, text, result)
    return s.transpose(value, [text.index(letter) for letter in result])


def _equation(equation: str, values: list[Value]) -> tuple[list[str], str]:
    """Operand and result subscripts, with an ellipsis written out as capital letters."""
    text = equation.replace(" ", "")
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(values):
        raise ValueError(f"equation '{equation}' does not have {len(values)} operands")
    widest = 0
    for term, value in zip(terms, values, strict=True):
        letters = term.replace("...", "")
        extra = value.type.rank - len(letters)
        if (letters and not letters.isalpha()) or extra < 0 or (extra and "..." not in term):
            raise ValueError(f"subscripts '{term}' do not fit {value.type}")
        widest = max(widest, extra)
    spare = [chr(code) for code in range(ord("À"), ord("À") + widest)]

    def write(term: str, rank: int) -> str:
        count = rank - len(term.replace("...", ""))
        return term.replace("...", "".join(spare[widest - count :]))

    full = [write(t, v.type.rank) for t, v in zip(terms, values, strict=True)]
    if arrow:
        return full, result.replace("...", "".join(spare))
    joined = left.replace(",", "").replace(".", "")
    once = sorted(letter for letter in set(joined) if joined.count(letter) == 1)
    return full, "".join(spare) + "".join(once)


def _diagonal(s: Site, term: str, value: Value) -> tuple[Value, str]:
    """The operand with the diagonal taken of axes that have the same subscript."""
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            rest = [axis for axis in range(len(term)) if axis not in (first, second)]
            moved = s.transpose(value, [*rest, first, second])
            size = moved.shape[-1]
            flat = s.reshape(moved, (*moved.shape[:-2], size * size))
            step = s.reshape(s.emitter.virtual([size + 1]), ())
            places = s.op_("mul", s.iota((size,), 0, DType.I64), step)
            value = s.emit("gather", [flat, places], axis=len(rest))
            term = "".join(term[axis] for axis in rest) + letter
    return value, term


def _summed(s: Site, value: Value, text: str, needed: str) -> tuple[Value, str]:
    """The operand with the axes summed that nothing else needs."""
    axes = [axis for axis, letter in enumerate(text) if letter not in needed]
    if not axes:
        return value, text
    kept = "".join(letter for letter in text if letter in needed)
    return s.reduce("sum", value, axes, False), kept


def _product(s: Site, a: Value, left: str, b: Value, right: str, needed: str) -> tuple[Value, str]:
    batch = [letter for letter in left if letter in right and letter in needed]
    inner = [letter for letter in left if letter in right and letter not in needed]
    rows = [letter for letter in left if letter not in right]
    columns = [letter for letter in right if letter not in left]
    a = s.transpose(a, [left.index(letter) for letter in batch + rows + inner])
    b = s.transpose(b, [right.index(letter) for letter in batch + inner + columns])
    cut, cut_b = len(batch) + len(rows), len(batch) + len(inner)
    depth = common_shape(a.shape[cut:], b.shape[len(batch) : cut_b])
    a = s.emit("expand", [a], shape=(*a.shape[:cut], *depth))
    b = s.emit("expand", [b], shape=(*b.shape[: len(batch)], *depth, *b.shape[cut_b:]))
    a_rows, b_columns = a.shape[len(batch) : cut], b.shape[cut_b:]
    a = s.reshape(a, (*a.shape[: len(batch)], product(a_rows), product(depth)))
    b = s.reshape(b, (*b.shape[: len(batch)], product(depth), product(b_columns)))
    out = s.emit("matmul", [a, b])
    shape = (*out.shape[: len(batch)], *a_rows, *b_columns)
    return s.reshape(out, shape), "".join(batch + rows + columns)
