"""Element types as Triton names them."""

from __future__ import annotations

from ....compiler.ir.graph import Node
from ....compiler.ir.types import DType

REGISTER = {
    DType.F64: "tl.float64", DType.F32: "tl.float32", DType.F16: "tl.float16",
    DType.BF16: "tl.bfloat16", DType.I64: "tl.int64", DType.I32: "tl.int32", DType.I16: "tl.int16",
    DType.I8: "tl.int8", DType.U64: "tl.uint64", DType.U32: "tl.uint32", DType.U16: "tl.uint16",
    DType.U8: "tl.uint8", DType.BOOL: "tl.int1", DType.F8E4M3FN: "tl.uint8",
    DType.F8E5M2: "tl.uint8",
}  # fmt: skip
# Of pointers in signatures; a bool is a byte in memory.
POINTER = {
    DType.F64: "*fp64", DType.F32: "*fp32", DType.F16: "*fp16", DType.BF16: "*bf16",
    DType.I64: "*i64", DType.I32: "*i32", DType.I16: "*i16", DType.I8: "*i8", DType.U64: "*u64",
    DType.U32: "*u32", DType.U16: "*u16", DType.U8: "*u8", DType.BOOL: "*i8",
    DType.F8E4M3FN: "*u8", DType.F8E5M2: "*u8",
}  # fmt: skip
# How a reduction takes one more element or part, by its kind.
TAKES = {"sum": "{a} + {x}", "prod": "{a} * {x}", "max": "ts_max({x}, {a})",
         "min": "ts_min({x}, {a})"}  # fmt: skip
HALVES = (DType.F16, DType.BF16)
# 8-bit floats are bytes in registers, too, but as factors of products: these types
FLOAT_BYTES = {DType.F8E4M3FN: "tl.float8e4nv", DType.F8E5M2: "tl.float8e5"}


class NoDeviceCode(Exception):
    """A kernel that no code can be generated for; the text says why. It runs on the host."""


def register_type(dtype: DType) -> str:
    """The type of an element in a register. Raises NoDeviceCode for one that has none."""
    found = REGISTER.get(dtype)
    if found is None:
        raise NoDeviceCode(f"elements of type {dtype} have no device code")
    return found


def has_types(group: Node) -> bool:
    """Whether registers hold the elements of all that a group reads and computes."""
    region = group.regions[0]
    made = (value for node in region.nodes for value in node.outputs)
    return all(value.dtype in REGISTER for value in (*region.inputs, *made))


def memory_type(dtype: DType) -> str:
    """The type of an element in memory. Raises NoDeviceCode for one that has none."""
    return "tl.int8" if dtype is DType.BOOL else register_type(dtype)


def pointer_type(dtype: DType) -> str:
    """The type of a pointer in a signature. Raises NoDeviceCode for one that has none."""
    register_type(dtype)
    return POINTER[dtype]


def identity(kind: str, dtype: DType) -> float | int:
    """The neutral element of a reduction that adds up, multiplies or compares."""
    if kind in ("sum", "prod"):
        return int(kind == "prod")
    low = kind in ("max", "argmax")
    if dtype.is_float:
        return float("-inf") if low else float("inf")
    if dtype is DType.BOOL:
        return int(not low)
    if dtype.is_signed:
        return -(1 << (dtype.bits - 1)) if low else (1 << (dtype.bits - 1)) - 1
    return 0 if low else (1 << dtype.bits) - 1


def literal(value: float | int | bool, dtype: DType) -> str:
    """A constant as an expression of the register type."""
    if dtype.is_float:
        number = float(value)
        text = repr(number) if number - number == 0 else f'float("{number}")'
    else:
        text = str(int(value))
    return f"tl.full([], {text}, {register_type(dtype)})"
