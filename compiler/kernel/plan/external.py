"""Operators that are no loop nests: functions of the runtime, called by the plan.

A function `int32_t f(ts_frame *, void *const *places, const int64_t *arguments)` of
runtime/plan_abi.h gets the operands' and results' memory and the numbers that `EXTERNAL` says.
"""

from __future__ import annotations

from collections.abc import Callable

from ...ir.dims import Dim, product
from ...ir.graph import Node
from ...ir.ops.forest import REDUCTIONS, TESTS
from ...ir.types import DType

Arguments = Callable[[Node], tuple[Dim, ...]]
# enum ts_element of runtime/plan_abi.h
ELEMENTS = {
    DType.F64: 0,
    DType.F32: 1,
    DType.F16: 2,
    DType.BF16: 3,
    DType.I64: 4,
    DType.I32: 5,
    DType.I16: 6,
    DType.I8: 7,
    DType.U64: 8,
    DType.U32: 9,
    DType.U16: 10,
    DType.U8: 11,
    DType.BOOL: 11,
}


def _argsort(node: Node) -> tuple[Dim, ...]:
    x = node.inputs[0]
    rows = product(x.shape[:-1])
    descending = int(node.attrs["descending"])
    return (ELEMENTS[x.dtype], rows, x.shape[-1], node.attrs["count"], descending)


def _unique(node: Node) -> tuple[Dim, ...]:
    x = node.inputs[0]
    return (ELEMENTS[x.dtype], *x.shape, int(node.attrs["sorted"]))


def _matrices(node: Node) -> tuple[Dim, ...]:
    x = node.inputs[0]
    return (ELEMENTS[x.dtype], product(x.shape[:-2]), x.shape[-1])


def _check_index(node: Node) -> tuple[Dim, ...]:
    x, sizes = node.inputs[0], node.attrs["sizes"]
    return (ELEMENTS[x.dtype], x.type.elements, len(sizes), *sizes)


def _check_nonzero(node: Node) -> tuple[Dim, ...]:
    x = node.inputs[0]
    return (x.dtype.bytes, x.type.elements)


def _write_floats(node: Node) -> tuple[Dim, ...]:
    x = node.inputs[0]
    return (ELEMENTS[x.dtype], x.type.elements, node.attrs["digits"])


def _read_numbers(node: Node) -> tuple[Dim, ...]:
    x, found = node.inputs[0], node.output
    return (ELEMENTS[found.dtype], found.type.elements, x.shape[-1])


def _forest(node: Node) -> tuple[Dim, ...]:
    x, _, roots, *rest = node.inputs
    kind = REDUCTIONS.index(node.attrs["reduction"])
    tests, targeted = TESTS.index(node.attrs["tests"]), int(len(rest) > 1)
    columns = node.attrs["columns"]
    return (ELEMENTS[x.dtype], *x.shape, roots.shape[0], columns, kind, tests, targeted)


def _cumulative(node: Node) -> tuple[Dim, ...]:
    x, axis = node.inputs[0], node.attrs["axis"]
    lines = (product(x.shape[:axis]), x.shape[axis], product(x.shape[axis + 1 :]))
    multiplied = int(node.op == "cumprod_long")
    flags = (int(node.attrs["exclusive"]), int(node.attrs["reverse"]), multiplied)
    return (ELEMENTS[x.dtype], *lines, *flags)


EXTERNAL: dict[str, tuple[str, Arguments]] = {  # an empty name: the attribute `function` has it
    "argsort": ("ts_op_argsort", _argsort),
    "nonzero": ("ts_op_nonzero", lambda node: (node.inputs[0].shape[0],)),
    "unique": ("ts_op_unique", _unique),
    "nms": ("ts_op_nms", lambda node: (*node.inputs[1].shape, int(node.attrs["center"]))),
    "det": ("ts_op_det", _matrices),
    "inverse": ("ts_op_inverse", _matrices),
    "forest": ("ts_op_forest", _forest),
    "cumsum_long": ("ts_op_cumulative", _cumulative),
    "cumprod_long": ("ts_op_cumulative", _cumulative),
    "check_index": ("ts_op_check_index", _check_index),
    "check_nonzero": ("ts_op_check_nonzero", _check_nonzero),
    "write_floats": ("ts_op_write_floats", _write_floats),
    "read_numbers": ("ts_op_read_numbers", _read_numbers),
    "invoke": ("", lambda node: ()),
}


def reads_memory(node: Node) -> bool:
    """Whether a node that belongs to no kernel reads its operands where they lie."""
    return node.op in ("read_dims", "expand") or node.op in EXTERNAL


# those that take memory of the run beside their operands
TAKES_MEMORY = frozenset(
    {"ts_op_argsort", "ts_op_unique", "ts_op_nms", "ts_op_det", "ts_op_inverse"}
)
